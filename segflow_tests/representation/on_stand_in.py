"""The behaviour model on a device that is not the CPU. ``test_devices`` runs these tests, in a process of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, distributed

from segflow.config import BehaviorConfig
from segflow.representation import (
    behavior,
    behavior_network,
    behavior_training,
    devices,
    moments,
    pretraining,
)
from segflow.representation.behavior import BehaviorModel, fit_behavior_model
from segflow.representation.behavior_network import Network
from segflow.representation.behavior_training import Span, Trainer
from segflow.representation.checkpoints import pack, unpack
from segflow.representation.process_group import ALONE, Group
from segflow_tests.benchmarks.behavior_job import log_of
from segflow_tests.representation.stand_in import StandIn, make_device

DEVICE = make_device()
USERS = 16
LOG = log_of(users=USERS, items=60, longest=16)
VECTORS = np.random.default_rng(1).normal(size=(60, 12)).astype(np.float32)
# Dropout draws other random numbers on other kinds of device.
CONFIG = BehaviorConfig(
    width=16,
    layers=1,
    heads=2,
    context=4,
    batch_moments=128,
    epochs=2,
    negatives=16,
    dropout=0.0,
    learning_rate=0.02,
    tasks={"next_item": 1.0, "next_type": 0.5, "return": 1.0, "wait": 1.0, "masked": 2.0},
)
DROPPING = CONFIG.model_copy(update={"dropout": 0.2})


@pytest.fixture(autouse=True)
def _same_products(monkeypatch: pytest.MonkeyPatch) -> None:
    # What autocast rounds is for each kind of device to say, and says nothing of where tensors are.
    for module in (devices, pretraining):
        monkeypatch.setattr(module, "use_bfloat16", lambda device: False)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(behavior, "find_device", lambda: DEVICE)
    with StandIn():
        yield


@pytest.fixture(scope="module")
def on_cpu() -> BehaviorModel:
    with pytest.MonkeyPatch.context() as patch:
        for module in (devices, pretraining):
            patch.setattr(module, "use_bfloat16", lambda device: False)
        return fit_behavior_model(LOG, VECTORS, CONFIG, 0)


def _trainer(config: BehaviorConfig, group: Group = ALONE) -> Trainer:
    torch.manual_seed(0)
    network = Network(torch.from_numpy(VECTORS), len(LOG.event_types), config).to(DEVICE)
    return Trainer(network, LOG, config, Span.of(LOG, config), 0, group)


def _until(epoch: int, path: Path) -> None:
    """Train until ``epoch`` has begun to be logged: the checkpoint is of the one before."""

    def stop(now: int, _: dict[str, float]) -> None:
        if now == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_behavior_model(LOG, VECTORS, CONFIG, 0, stop, path)
    assert path.is_file()


@pytest.mark.usefixtures("card")
def test_training_gives_the_bytes_of_the_cpu(on_cpu: BehaviorModel, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: set[str] = set()
    learn = Trainer._learn

    def noted(self: Trainer, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> dict[str, float]:
        found = learn(self, starts, stops)
        states = [one for state in self.optimizer.state.values() for one in state.values()]
        weights = [*self.network.parameters(), *self.network.buffers()]
        for one in [*weights, *states, *self.rows.tables, *(one for pair in self.rows.moments for one in pair)]:
            trained.add(one.device.type)
        return found

    monkeypatch.setattr(Trainer, "_learn", noted)
    model = fit_behavior_model(LOG, VECTORS, CONFIG, 0)
    assert trained == {DEVICE.type}
    assert model.network.device == devices.CPU
    assert model.to_bytes() == on_cpu.to_bytes()


@pytest.mark.usefixtures("card")
def test_a_checkpoint_goes_on_on_another_kind_of_device(
    on_cpu: BehaviorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    for first, then in ((DEVICE, devices.CPU), (devices.CPU, DEVICE)):
        monkeypatch.setattr(behavior, "find_device", lambda first=first: first)
        _until(1, path)
        monkeypatch.setattr(behavior, "find_device", lambda then=then: then)
        epochs: list[int] = []
        model = fit_behavior_model(LOG, VECTORS, CONFIG, 0, lambda epoch, _, epochs=epochs: epochs.append(epoch), path)
        assert epochs == [0, 1]
        assert model.to_bytes() == on_cpu.to_bytes()


@pytest.mark.usefixtures("card")
def test_a_checkpoint_holds_the_random_numbers_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # Those of the stand-in are the processor's, which a checkpoint holds too: here they come back from the device alone.
    module, restore = torch.get_device_module(DEVICE), torch.set_rng_state
    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    monkeypatch.setattr(module, "set_rng_state", lambda state, device: restore(state))
    first, second = _trainer(DROPPING), _trainer(DROPPING)
    tensors, state = unpack(pack(*first._state({}, [])))
    expected = first.train()
    second._restore(tensors, state)
    assert second.train() == expected


@pytest.mark.usefixtures("card")
def test_states_and_vectors_are_those_of_the_cpu(on_cpu: BehaviorModel) -> None:
    there = BehaviorModel.from_bytes(on_cpu.to_bytes(), DEVICE)
    assert {one.device for one in there.network.state_dict().values()} == {DEVICE}
    cuts, users = np.full(USERS, int(LOG.times.max()) + 1), np.arange(USERS)
    for state in ("last", "mean"):
        states = on_cpu.states(LOG, cuts, users, state)
        np.testing.assert_array_equal(there.states(LOG, cuts, users, state), states)
    np.testing.assert_array_equal(there.item_vectors(), on_cpu.item_vectors())
    np.testing.assert_array_equal(there.queries(states), on_cpu.queries(states))
    assert there.to_bytes() == on_cpu.to_bytes()


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("module", [moments, behavior_network, pretraining, behavior_training])
def test_what_is_left_on_the_cpu_is_noticed(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "moved", lambda array, device: torch.from_numpy(array))
    with pytest.raises(RuntimeError, match="some tensors are on the CPU and others on stand_in"):
        fit_behavior_model(LOG, VECTORS, CONFIG, 0)


@pytest.mark.usefixtures("card")
def test_what_processes_exchange_is_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    exchanged: list[str] = []

    def added(one: Tensor) -> None:
        exchanged.append(one.device.type)
        one.mul_(2)  # as if the other process had found the same

    def gathered(others: list[Tensor], own: Tensor) -> None:
        exchanged.extend(one.device.type for one in (own, *others))
        for one in others:
            one.copy_(own)

    monkeypatch.setattr(distributed, "all_reduce", added)
    monkeypatch.setattr(distributed, "all_gather", gathered)
    trainer = _trainer(CONFIG, Group(0, 2, DEVICE))
    assert trainer.train()["loss"] > 0
    assert trainer.validate()["loss"] > 0
    assert len(exchanged) > 4
    assert set(exchanged) == {DEVICE.type}
