"""Checkpoints: a training that was interrupted ends with the same weights, and a damaged file is never taken up."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from segflow.config import BehaviorConfig
from segflow.representation.behavior import BehaviorModel, fit_behavior_model
from segflow.representation.checkpoints import Checkpoint, pack, unpack
from segflow.representation.sequences import EventSequences
from segflow_tests.benchmarks.behavior_job import log_of

CONFIG = BehaviorConfig(width=16, layers=1, heads=2, context=16, batch_moments=128, epochs=4, patience=4, dropout=0.1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def log() -> EventSequences:
    return log_of(users=80, items=60, longest=24)


@pytest.fixture(scope="module")
def whole(log: EventSequences) -> bytes:
    """The model of a training that nothing interrupted."""
    return fit_behavior_model(log, _vectors(), CONFIG, seed=0).to_bytes()


def _vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32)


class _StoppedError(Exception):
    """Stands for what ends a process."""


def _interrupted(log: EventSequences, path: Path, after: int = 2, config: BehaviorConfig = CONFIG) -> None:
    """Train until epoch ``after`` has begun to be logged: the checkpoint is of the epoch before."""

    def stop(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == after:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        fit_behavior_model(log, _vectors(), config, 0, stop, path)


def _resumed(log: EventSequences, path: Path, config: BehaviorConfig = CONFIG) -> tuple[BehaviorModel, list[int], int]:
    """The model, the epochs logged, and how many of them were trained, not read."""
    epochs: list[int] = []
    trained: list[int] = []
    fit = torch.optim.AdamW.step

    def counted(self: torch.optim.AdamW, *args: object) -> object:
        trained.append(len(epochs))
        return fit(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", counted)
        model = fit_behavior_model(log, _vectors(), config, 0, lambda epoch, _: epochs.append(epoch), path)
    return model, epochs, len(set(trained))


def test_resumed_training_gives_the_same_weights(log: EventSequences, whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "model.safetensors"
    _interrupted(log, path)
    assert path.is_file()
    model, epochs, trained = _resumed(log, path)
    assert model.to_bytes() == whole
    assert epochs == [0, 1, 2, 3]
    assert trained == 2
    assert not list(path.parent.iterdir())


def test_a_checkpoint_of_other_data_or_settings_is_not_taken_up(
    log: EventSequences, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.safetensors"
    _interrupted(log, path, config=CONFIG.model_copy(update={"learning_rate": 0.001}))
    with caplog.at_level(logging.WARNING):
        _, epochs, trained = _resumed(log, path)
    assert (len(epochs), trained) == (4, 4)
    assert f"checkpoint {path} is of other data or settings" in caplog.text


@pytest.mark.parametrize("damage", ["half", "flip", "nan", "empty", "foreign"])
def test_a_damaged_checkpoint_is_named_and_training_starts_over(
    damage: str, log: EventSequences, whole: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.safetensors"
    _interrupted(log, path, after=1)
    data = path.read_bytes()
    tensors, values = unpack(data)
    flipped = bytearray(data)
    flipped[-50] ^= 1
    damaged = {
        "half": data[: len(data) // 2],
        "flip": bytes(flipped),
        "nan": pack(tensors | {"network.item": tensors["network.item"] * torch.nan}, values),
        "empty": b"",
        "foreign": b"not a checkpoint at all",
    }
    path.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING):
        model, epochs, trained = _resumed(log, path)
    assert (len(epochs), trained) == (4, 4)
    assert f"checkpoint {path} " in caplog.text
    assert "training starts over" in caplog.text
    assert model.to_bytes() == whole


def test_a_flip_anywhere_is_noticed() -> None:
    data = pack({"a": torch.arange(5.0), "b": torch.tensor(3)}, {"text": "x"})
    for place in range(len(data)):
        spoilt = bytearray(data)
        spoilt[place] ^= 4
        try:
            tensors, values = unpack(bytes(spoilt))
        except ValueError:
            continue
        assert torch.equal(tensors["a"], torch.arange(5.0))
        assert (tensors["b"].item(), values) == (3, {"text": "x"})


def test_an_interrupted_save_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(tmp_path / "model.safetensors", "run")
    checkpoint.save({"a": torch.ones(3)}, {"epoch": 1})

    def fail(self: Path, target: Path) -> Path:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save({"a": torch.zeros(3)}, {"epoch": 2})
    found = checkpoint.load()
    assert found is not None
    assert found[1] == {"epoch": 1}


_TRAIN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from segflow.representation.behavior import fit_behavior_model
from segflow_tests.representation.test_checkpoints import CONFIG, _vectors, log_of
log = log_of(users=80, items=60, longest=24)
model = fit_behavior_model(log, _vectors(), CONFIG, 0, checkpoint=Path(sys.argv[1]))
Path(sys.argv[2]).write_bytes(model.to_bytes())
"""


def test_a_killed_training_goes_on(log: EventSequences, whole: bytes, tmp_path: Path) -> None:
    """SIGKILL as soon as a checkpoint is there; the next process ends with the weights of an undisturbed training."""
    path, out = tmp_path / "model.safetensors", tmp_path / "out"
    command = [sys.executable, "-c", _TRAIN, str(path), str(out)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not path.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert path.is_file()
    assert not out.exists()
    subprocess.run(command, check=True)
    assert out.read_bytes() == whole
    assert not path.exists()
