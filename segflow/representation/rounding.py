"""Linear layers in bfloat16: weights rounded once, and laid out as the processor's product reads them.

Lives here: the layer, and whether this torch has the product for that layout. Does not live here: whether bfloat16 is used.

Source: oneDNN's product of reordered weights, by the operator that torch.compile writes for a frozen linear layer. It is
private to torch, so it is tried before it is relied on; without it, weights are only rounded.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from segflow.representation.integers import with_linear

_log = logging.getLogger(__name__)


class LaidOutLinear(nn.Module):
    """A linear layer whose product is one of laid-out bfloat16 weights. For inference on a CPU only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # A model may look at a layer's weight and bias beside calling it, so they stay what they are called.
        self.weight = linear.weight.detach().bfloat16()
        self.bias = None if linear.bias is None else linear.bias.detach().bfloat16()
        self._laid_out = _lay_out(self.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs) bfloat16."""
        return _product(inputs.bfloat16(), self._laid_out, self.bias)


def in_bfloat16(model: nn.Module) -> nn.Module:
    """A copy of the model with every linear layer in bfloat16: autocast would round their weights again for each batch."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return with_linear(model, LaidOutLinear if on_cpu and can_lay_out() else nn.Linear.bfloat16)


@cache
def can_lay_out() -> bool:
    """Whether torch's product of laid-out weights is there and gives what its public product gives."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((8, 32), (16, 32), (16,))
    inputs, weight, bias = (torch.randn(shape, generator=generator).bfloat16() for shape in shapes)
    try:
        found = _product(inputs, _lay_out(weight), bias)
    except (AttributeError, TypeError, RuntimeError) as error:
        _log.info("weights are not laid out for this processor: %s", str(error).splitlines()[0])
        return False
    return torch.allclose(found.float(), functional.linear(inputs, weight, bias).float(), rtol=0.02, atol=0.02)


def _lay_out(weight: Tensor) -> Tensor:
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return laid_out


def _product(inputs: Tensor, laid_out: Tensor, bias: Tensor | None) -> Tensor:
    outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, laid_out, bias, "none", [], "")
    return outputs
