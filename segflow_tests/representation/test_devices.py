"""Where torch computes: the choice of a card, what it takes to have several, and the behaviour model on one.

There is no card here: its choice is tried by telling how many there are, and what runs on it by a stand-in (``stand_in``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import distributed

from segflow.config import BehaviorConfig
from segflow.errors import UserError
from segflow.reading import Reader
from segflow.reading import rankers as reading
from segflow.representation import behavior_training, devices
from segflow.representation.behavior import BehaviorModel, fit_behavior_model
from segflow.representation.behavior_network import Network
from segflow.representation.devices import CPU, find_device, rounded, use_bfloat16
from segflow.representation.process_group import joined
from segflow.representation.training_processes import Processes
from segflow_tests.benchmarks.behavior_job import log_of

CARD = torch.device("cuda", 0)
CONFIG = BehaviorConfig(width=16, layers=1, heads=2, context=16, batch_moments=256)


def _cards(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("cards", "found"), [(0, ["cpu", "cpu", "cpu"]), (1, ["cuda:0"] * 3), (2, ["cuda:0", "cuda:1", "cuda:0"])]
)
def test_each_process_has_a_card_if_there_is_one(cards: int, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _cards(monkeypatch, cards)
    assert [str(find_device(rank)) for rank in range(3)] == found


@pytest.mark.parametrize(("generation", "native"), [(7, False), (8, True)])
def test_a_card_rounds_only_if_it_multiplies_bfloat16_itself(
    generation: int, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=generation))
    # By emulation every card knows bfloat16.
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
    assert use_bfloat16(CARD) is native


def test_layers_round_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        with rounded(CPU):
            product = torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2))
        assert product.dtype == (torch.bfloat16 if native else torch.float32)


def test_fewer_cards_than_processes_are_a_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _cards(monkeypatch, 2)
    with pytest.raises(
        UserError, match=r"compute\.training_processes: 3 processes need a .* card each, .* has 2; lower"
    ):
        _fit(Processes(3, folder=str(tmp_path / "spill")))
    assert not (tmp_path / "spill").exists()


@pytest.mark.parametrize(("device", "backend"), [(CPU, "gloo"), (torch.device("cuda", 1), "nccl")])
def test_processes_with_cards_meet_by_nccl(
    device: torch.device, backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    met: list[tuple[str, int, int]] = []
    named: list[torch.device] = []
    monkeypatch.setattr(
        distributed, "init_process_group", lambda kind, rank, world_size, **_: met.append((kind, rank, world_size))
    )
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_device", named.append)
    with joined(1, 2, tmp_path, 1.0, device) as group:
        assert (group.rank, group.size, group.device) == (1, 2, device)
    assert met == [(backend, 1, 2)]
    assert named == [device] * (device.type == "cuda")


def test_a_card_without_memory_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(behavior_training.Trainer, "fit", full)
    with pytest.raises(UserError, match=r"card has no memory left; lower behavior\.batch_moments \(256\)"):
        _fit(Processes(1))


def test_views_of_users_are_computed_where_there_is_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    data = BehaviorModel(Network(torch.zeros(10, 4), 3, CONFIG), CONFIG, ("a", "b", "c")).to_bytes()
    monkeypatch.setattr(reading, "_behavior_model_bytes", lambda _: data)
    for device in ("meta", "cpu"):
        monkeypatch.setattr(devices, "find_device", lambda device=device: torch.device(device))
        assert reading.behavior_model_of(cast(Reader, None)).network.device.type == device


def test_the_behaviour_model_on_a_device_that_is_not_the_cpu() -> None:
    tests = Path(__file__).with_name("on_stand_in.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", str(tests)]
    alone = os.environ | {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, env=alone, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _fit(processes: Processes) -> None:
    fit_behavior_model(log_of(20, 10, 8), np.zeros((10, 4), np.float32), CONFIG, 0, processes=processes)
