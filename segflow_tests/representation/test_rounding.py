"""Linear layers in bfloat16: laid out or not, they give the product of the rounded weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from segflow.representation import rounding
from segflow.representation.devices import CPU, use_bfloat16
from segflow.representation.rounding import LaidOutLinear, can_lay_out, in_bfloat16

native = pytest.mark.skipif(not use_bfloat16(CPU), reason="this processor multiplies no bfloat16")


@pytest.fixture(autouse=True)
def tried_anew() -> Iterator[None]:
    can_lay_out.cache_clear()
    yield
    can_lay_out.cache_clear()


def made(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    torch.manual_seed(inputs + outputs)
    return nn.Linear(inputs, outputs, bias)


@native
@pytest.mark.parametrize(("inputs", "outputs"), [(384, 1536), (1536, 384), (33, 7), (1, 1)])
@pytest.mark.parametrize("shape", [(1,), (5,), (2, 67), (0,)])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_a_laid_out_layer_gives_the_public_product(
    inputs: int, outputs: int, shape: tuple[int, ...], bias: bool
) -> None:
    layer = made(inputs, outputs, bias)
    given = torch.randn(*shape, inputs)
    found = LaidOutLinear(layer)(given)
    assert found.dtype == torch.bfloat16
    expected = nn.functional.linear(
        given.bfloat16().float(), layer.weight.bfloat16().float(), layer.bias.bfloat16().float() if bias else None
    )
    torch.testing.assert_close(found.float(), expected, rtol=0.01, atol=0.01)


@native
def test_weights_are_laid_out_where_bfloat16_is_native() -> None:
    model = nn.Sequential(made(8, 4), nn.ReLU(), nn.Sequential(made(4, 2)))
    rounded = in_bfloat16(model)
    assert [type(part) for part in rounded.modules()].count(LaidOutLinear) == 2
    assert [type(part) for part in model.modules()].count(nn.Linear) == 2
    assert model[0].weight.dtype == torch.float32
    torch.testing.assert_close(rounded[0].weight, model[0].weight.detach().bfloat16())


def missing(*_: object) -> Tensor:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


def refused(*_: object) -> Tensor:
    raise RuntimeError("mkldnn_linear_pointwise: unsupported\nmore")


def wrong(inputs: Tensor, laid_out: Tensor, bias: Tensor | None) -> Tensor:
    return inputs.new_zeros(len(inputs), 16)


@pytest.mark.parametrize("product", [missing, refused, wrong])
@torch.inference_mode()
def test_weights_are_only_rounded_without_that_product(monkeypatch: pytest.MonkeyPatch, product: object) -> None:
    monkeypatch.setattr(rounding, "_product", product)
    model = nn.Sequential(made(8, 4))
    rounded = in_bfloat16(model)
    assert not can_lay_out()
    assert type(rounded[0]) is nn.Linear
    assert rounded[0].weight.dtype == torch.bfloat16
    given = torch.randn(3, 8)
    torch.testing.assert_close(rounded(given.bfloat16()).float(), model(given), rtol=0.05, atol=0.05)
