"""Smaller variants of the behaviour model: really smaller, measured, and the same again after storage."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segflow.config import BehaviorConfig
from segflow.representation.behavior import BehaviorModel, Variant, fit_behavior_model
from segflow.representation.behavior_training import Span, Trainer
from segflow.representation.compression import VariantRow, compare, variants_of
from segflow.representation.quantization import dequantize, quantize
from segflow.representation.sequences import EventSequences
from segflow_tests.benchmarks.behavior_job import log_of

CONFIG = BehaviorConfig(width=32, layers=2, heads=4, context=16, batch_moments=256, epochs=3, learning_rate=0.01)


@pytest.fixture(scope="module")
def log() -> EventSequences:
    return log_of(users=200, items=60, longest=24)


@pytest.fixture(scope="module")
def variants(log: EventSequences) -> dict[Variant, BehaviorModel]:
    vectors = np.random.default_rng(1).normal(size=(60, 64)).astype(np.float32)
    return variants_of(fit_behavior_model(log, vectors, CONFIG, seed=0), log)


@pytest.fixture(scope="module")
def rows(log: EventSequences, variants: dict[Variant, BehaviorModel]) -> dict[Variant, VariantRow]:
    return {row.variant: row for row in compare(variants, log)}


def _states(model: BehaviorModel, log: EventSequences) -> np.ndarray:
    users = np.arange(len(log.user_ids))
    return model.states(log, np.full(len(users), int(log.times.max())), users)


def test_every_variant_is_the_same_after_storage(log: EventSequences, variants: dict[Variant, BehaviorModel]) -> None:
    for variant, model in variants.items():
        data = model.to_bytes()
        back = BehaviorModel.from_bytes(data)
        assert back.variant == variant
        assert back.to_bytes() == data
        np.testing.assert_array_equal(_states(back, log), _states(model, log))
        np.testing.assert_array_equal(back.item_vectors(), model.item_vectors())


def test_int8_is_a_quarter_of_the_weights_and_near_the_full_model(
    log: EventSequences, variants: dict[Variant, BehaviorModel], rows: dict[Variant, VariantRow]
) -> None:
    assert rows["int8"].bytes < 0.45 * rows["full"].bytes  # of a model this small, headers are a tenth
    full, small = _states(variants["full"], log), _states(variants["int8"], log)
    cosine = (full * small).sum(1) / (np.linalg.norm(full, axis=1) * np.linalg.norm(small, axis=1))
    assert cosine.min() > 0.99


def test_pruned_matrices_are_smaller(variants: dict[Variant, BehaviorModel], rows: dict[Variant, VariantRow]) -> None:
    for block in variants["pruned"].network.layers:
        assert block.up.weight.shape == (64, 32)
        assert block.query_key_value.weight.shape == (3 * 16, 32)
        assert len(block.slopes) == 2
    assert rows["pruned"].bytes < rows["full"].bytes


def test_what_is_pruned_is_what_matters_least(log: EventSequences, variants: dict[Variant, BehaviorModel]) -> None:
    """Cutting the other half, the more important one, moves the states further."""
    full, model = _states(variants["full"], log), variants["full"]
    kept = variants["pruned"].network.layers
    other = BehaviorModel.from_bytes(model.to_bytes())
    with torch.no_grad():
        for block, small in zip(other.network.layers, kept, strict=True):
            stays = (block.up.weight[:, None] == small.up.weight[None]).all(2).any(1)
            block.down.weight[:, stays] = 0
    wrong = np.abs(_states(other, log) - full).mean()
    half = BehaviorModel.from_bytes(model.to_bytes())
    with torch.no_grad():
        for block, small in zip(half.network.layers, kept, strict=True):
            stays = (block.up.weight[:, None] == small.up.weight[None]).all(2).any(1)
            block.down.weight[:, ~stays] = 0
    right = np.abs(_states(half, log) - full).mean()
    assert right < wrong


def test_the_table_is_measured(
    log: EventSequences, variants: dict[Variant, BehaviorModel], rows: dict[Variant, VariantRow]
) -> None:
    assert list(rows) == ["full", "int8", "pruned"]
    for variant, row in rows.items():
        assert row.bytes == len(variants[variant].to_bytes())
        assert row.states_per_second > 0
        trainer = Trainer(variants[variant].network, log, CONFIG, Span.of(log, CONFIG), 0)
        assert row.losses == trainer.validate()
    assert rows["int8"].losses["loss"] == pytest.approx(rows["full"].losses["loss"], rel=0.02)
    assert rows["full"].recall_at_10 > 10 / 60


def test_quantized_rows_are_within_half_a_step() -> None:
    matrix = torch.randn(50, 20, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, 50)[:, None]
    matrix[7] = 0
    back = dequantize(quantize({"m": matrix, "v": matrix[0]}))
    step = matrix.abs().amax(1, keepdim=True) / 127
    assert ((back["m"] - matrix).abs() <= 0.51 * step).all()
    assert torch.equal(back["v"], matrix[0])
    again = quantize(back)
    assert all(torch.equal(one, again[name]) for name, one in quantize({"m": matrix, "v": matrix[0]}).items())
