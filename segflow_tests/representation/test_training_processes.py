"""Several processes train one behaviour model: what they learn is what one learns, and none of them is lost unnoticed."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from segflow.config import BehaviorConfig
from segflow.errors import UserError
from segflow.representation import behavior_training, devices, pretraining
from segflow.representation.behavior import BehaviorModel, fit_behavior_model
from segflow.representation.behavior_network import Network
from segflow.representation.behavior_training import Log, Span, Trainer
from segflow.representation.moments import full_batches
from segflow.representation.process_group import ALONE, Group
from segflow.representation.sequences import EventSequences
from segflow.representation.training_processes import LostProcessError, Processes, Training, train
from segflow_tests.benchmarks.behavior_job import log_of

# Without dropout, which leaves out other units in each process, all that differs is the order of sums.
CONFIG = BehaviorConfig(
    width=16,
    layers=1,
    heads=2,
    context=16,
    batch_moments=128,
    epochs=2,
    negatives=16,
    dropout=0.0,
    learning_rate=0.02,
    tasks={"next_item": 1.0, "next_type": 0.5, "return": 1.0, "wait": 1.0, "masked": 2.0},
)
TWO = Processes(2)
# Of a loss in bfloat16, over two epochs; with float32 it is 1e-5.
TOLERANCE = 5e-3


@pytest.fixture(scope="module")
def log() -> EventSequences:
    return log_of(users=80, items=60, longest=24)


@pytest.fixture(scope="module")
def vectors() -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(60, 12)).astype(np.float32)


@dataclass(frozen=True)
class Fitted:
    model: BehaviorModel
    curve: list[dict[str, float]]


def _fit(
    log: EventSequences, vectors: npt.NDArray[np.float32], processes: Processes, config: BehaviorConfig = CONFIG
) -> Fitted:
    curve: list[dict[str, float]] = []
    model = fit_behavior_model(log, vectors, config, 0, lambda _, metrics: curve.append(metrics), None, processes)
    return Fitted(model, curve)


@pytest.fixture(scope="module")
def two(log: EventSequences, vectors: npt.NDArray[np.float32]) -> Fitted:
    return _fit(log, vectors, TWO)


@dataclass(frozen=True)
class Noting(Group):
    """One of several processes that never meet: it keeps what it would add."""

    gradients: list[list[Tensor | None]] = None  # type: ignore[assignment]
    figures: list[list[float]] = None  # type: ignore[assignment]

    def add_gradients(self, parameters: list[Tensor], figures: list[float]) -> list[float]:  # type: ignore[override]
        self.gradients.append([None if one.grad is None else one.grad.clone() for one in parameters])
        self.figures.append(figures)
        return figures


@pytest.mark.parametrize("size", [2, 3, 200])
def test_the_gradients_of_all_processes_add_up_to_those_of_one(
    log: EventSequences, vectors: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    for module in (devices, pretraining):
        monkeypatch.setattr(module, "use_bfloat16", lambda device: False)
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    clipped: list[list[Tensor | None]] = []

    def noted(parameters: list[Tensor], norm: float) -> None:
        clipped.append([None if one.grad is None else one.grad.clone() for one in parameters])

    monkeypatch.setattr(behavior_training.nn.utils, "clip_grad_norm_", noted)
    groups = [ALONE, *(Noting(rank, size, gradients=[], figures=[]) for rank in range(size))]
    parts = [_first_step(log, vectors, group) for group in groups]
    whole, together = clipped[0], [group.gradients[0] for group in groups[1:]]  # type: ignore[attr-defined]
    assert any(one is not None and one.abs().max() > 1e-3 for one in whole)
    for place, one in enumerate(whole):
        found = [gradients[place] for gradients in together if gradients[place] is not None]
        assert (one is None) == (not found)
        if one is not None:
            torch.testing.assert_close(torch.stack(found).sum(0), one, rtol=1e-4, atol=1e-7)
    assert parts[0].keys() == {"loss", "next_item", "next_type", "return", "wait", "masked"}
    for name, value in parts[0].items():
        assert sum(part[name] for part in parts[1:]) == pytest.approx(value, rel=1e-5)


def _first_step(log: EventSequences, vectors: npt.NDArray[np.float32], group: Group) -> dict[str, float]:
    torch.manual_seed(0)
    network = Network(torch.from_numpy(vectors), len(log.event_types), CONFIG).train()
    trainer = Trainer(network, log, CONFIG, Span.of(log, CONFIG), 0, group)
    begin, end = trainer._before_split
    starts = begin[end > begin]
    batch = full_batches(starts, np.minimum(end[end > begin], starts + CONFIG.context), CONFIG.batch_moments)[1]
    assert len(batch[0]) < 200
    return trainer._learn(*batch)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(
    log: EventSequences, vectors: npt.NDArray[np.float32], two: Fitted
) -> None:
    one = _fit(log, vectors, Processes(1))
    assert len(one.curve) == len(two.curve) == CONFIG.epochs
    for alone, together in zip(one.curve, two.curve, strict=True):
        assert alone.keys() == together.keys()
        losses = {name for name in alone if not name.endswith("_per_second")}
        assert {name: together[name] for name in losses} == pytest.approx(
            {name: alone[name] for name in losses}, rel=TOLERANCE
        )
    assert not active_children()


@pytest.mark.slow
def test_two_processes_end_with_the_same_bytes_each_time(
    log: EventSequences, vectors: npt.NDArray[np.float32], two: Fitted
) -> None:
    assert _fit(log, vectors, TWO).model.to_bytes() == two.model.to_bytes()


@pytest.mark.slow
def test_a_share_of_a_batch_in_which_nothing_is_to_be_predicted(
    log: EventSequences, vectors: npt.NDArray[np.float32]
) -> None:
    """What few moments there are to learn from lie with one process, or in no share of a batch."""
    masked = {name: float(name == "masked") for name in CONFIG.tasks}
    config = CONFIG.model_copy(update={"tasks": masked, "mask_share": 0.03, "batch_moments": 64, "epochs": 1})
    (alone,), (together,) = (_fit(log, vectors, processes, config).curve for processes in (Processes(1), TWO))
    assert together["train_masked"] == pytest.approx(alone["train_masked"], rel=TOLERANCE)
    assert together["valid_masked"] == pytest.approx(alone["valid_masked"], rel=TOLERANCE)


def _apart(
    sequences: EventSequences, item_vectors: npt.NDArray[np.float32], training: Training, group: Group, log: Log
) -> bytes:
    """Processes that hold the same weights, and then no longer do."""
    weights = {"a": torch.arange(5.0), "b": torch.ones(2)}
    group.require_same(weights)
    log(0, {})
    weights["b"][1] += group.rank * 1e-7
    group.require_same(weights)
    return b"never"


@pytest.mark.slow
def test_processes_that_no_longer_agree_are_noticed(log: EventSequences, vectors: npt.NDArray[np.float32]) -> None:
    epochs: list[int] = []
    with pytest.raises(
        RuntimeError, match=r"training process \d of 2 failed: RuntimeError: .* no longer have the same weights"
    ):
        train(_apart, log, vectors, CONFIG, 0, lambda epoch, _: epochs.append(epoch), None, TWO)
    assert epochs == [0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blow", "told"),
    [
        (signal.SIGKILL, "training process 2 of 2 was ended by SIGKILL"),
        (signal.SIGSTOP, "training process 1 of 2 lost the others, or waited"),
    ],
)
def test_a_lost_process_ends_all_and_the_next_training_goes_on(
    log: EventSequences, vectors: npt.NDArray[np.float32], tmp_path: Path, blow: signal.Signals, told: str
) -> None:
    config, path = (
        CONFIG.model_copy(update={"epochs": 4, "patience": 4, "dropout": 0.1}),
        tmp_path / "model.safetensors",
    )
    whole = fit_behavior_model(log, vectors, config, 0, processes=TWO)
    struck: list[float] = []

    def strike(epoch: int, _: dict[str, float]) -> None:
        if epoch == 1:
            (second,) = (one for one in active_children() if one.name == "training-1")
            assert second.pid is not None
            os.kill(second.pid, blow)
            struck.append(time.monotonic())

    with pytest.raises(LostProcessError, match=told):
        fit_behavior_model(
            log, vectors, config, 0, strike, path, replace(TWO, patience=5.0, folder=str(tmp_path / "spill"))
        )
    assert time.monotonic() - struck[0] < 15
    assert not active_children()
    assert path.is_file()
    assert not list((tmp_path / "spill").iterdir())
    epochs: list[int] = []
    model = fit_behavior_model(log, vectors, config, 0, lambda epoch, _: epochs.append(epoch), path, TWO)
    assert epochs == [0, 1, 2, 3]
    assert model.to_bytes() == whole.to_bytes()


@pytest.mark.slow
def test_a_mistake_is_told_as_with_one_process(log: EventSequences, vectors: npt.NDArray[np.float32]) -> None:
    wild = CONFIG.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at training step \d+; lower behavior\.learning_rate"):
        fit_behavior_model(log, vectors, wild, 0, processes=TWO)
    assert not active_children()
