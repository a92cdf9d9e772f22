"""Training the global ranker: within its memory, to the same weights after a kill, and with a clear word when it cannot."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segflow.config import RankerConfig
from segflow.errors import UserError
from segflow.rankers.examples import Examples, LazyScores, build_examples, training_cuts
from segflow.rankers.global_ranker import GlobalRanker, fit_global_ranker
from segflow_tests.rankers.conftest import CONFIG, OFTEN, SNAPSHOT, World


def test_a_killed_training_goes_on(world: World, tmp_path: Path) -> None:
    """SIGKILL as soon as a checkpoint is there; the next process ends with the weights of an undisturbed training."""
    path = tmp_path / "ranker.safetensors"
    threads = str(torch.get_num_threads())
    process = subprocess.Popen([sys.executable, "-m", "segflow_tests.rankers.training_job", str(path), threads])
    deadline = time.monotonic() + 60
    while not path.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it was killed before it was done"
    steps: list[int] = []
    resumed = _fit(world, OFTEN, log=lambda step, metrics: steps.append(step), checkpoint=path)
    assert steps == list(range(1, OFTEN.steps + 1))
    assert resumed.to_bytes() == _fit(world, OFTEN).to_bytes()
    assert not path.exists()


def test_a_checkpoint_of_other_data_is_not_taken(world: World, tmp_path: Path) -> None:
    path = tmp_path / "ranker.safetensors"

    class StoppedError(Exception):
        pass

    def stop(step: int, metrics: dict[str, float]) -> None:
        if step == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        _fit(world, OFTEN, log=stop, checkpoint=path)
    steps: list[int] = []
    other = OFTEN.model_copy(update={"learning_rate": 0.001})
    _fit(world, other, log=lambda step, metrics: steps.append(step), checkpoint=path)
    assert steps == list(range(1, other.steps + 1))


def test_the_curve_of_a_resumed_training_is_whole(world: World, tmp_path: Path) -> None:
    whole: dict[int, dict[str, float]] = {}
    _fit(world, OFTEN, log=lambda step, metrics: whole.update({step: metrics}))
    path = tmp_path / "ranker.safetensors"

    def stop(step: int, metrics: dict[str, float]) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fit(world, OFTEN, log=stop, checkpoint=path)
    resumed: dict[int, dict[str, float]] = {}
    _fit(world, OFTEN, log=lambda step, metrics: resumed.update({step: metrics}), checkpoint=path)
    assert resumed == whole
    assert min(m["valid_loss"] for m in whole.values()) < whole[1]["valid_loss"]


def test_few_examples_are_not_learned_by_heart(world: World) -> None:
    steps: list[int] = []
    many = CONFIG.model_copy(update={"steps": 100_000, "check_every": 50})
    few = _rows_of(world.training, 30)
    fit_global_ranker(few, world.validation, world.vectors, (), many, 0, lambda step, metrics: steps.append(step))
    assert steps[-1] == 20 * len(few) // min(many.batch_users, len(few))


def test_scores_without_room_are_made_when_asked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = training_cuts(SNAPSHOT, 4)
    kept = build_examples(world.log, world.history, world.backbone, cuts, CONFIG)
    monkeypatch.setattr("segflow.rankers.examples.MEGABYTE", 1)
    made = build_examples(world.log, world.history, world.backbone, cuts, CONFIG)
    assert isinstance(made.scores, LazyScores)
    assert not isinstance(kept.scores, LazyScores)
    assert kept.left_out == made.left_out == 0
    rows = np.arange(len(kept))[::-3]
    np.testing.assert_allclose(kept.scores(rows), made.scores(rows), atol=1e-3)


def test_sampled_examples_keep_what_belongs_to_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = training_cuts(SNAPSHOT, 4)
    whole = build_examples(world.log, world.history, world.backbone, cuts, CONFIG, sample=True)
    bytes_of_one = 2 * whole.scores(np.arange(1)).size
    monkeypatch.setattr("segflow.rankers.examples.MEGABYTE", bytes_of_one)
    some = build_examples(
        world.log, world.history, world.backbone, cuts, CONFIG.model_copy(update={"example_memory": 50}), sample=True
    )
    assert (len(some), some.left_out) == (50, len(whole) - 50)
    at = {(user, cut): row for row, (user, cut) in enumerate(zip(whole.users, whole.cut, strict=True))}
    rows = np.array([at[one] for one in zip(some.users, some.cut, strict=True)])
    assert (np.diff(rows) > 0).all()
    ours, theirs = some.batch(np.arange(50)), whole.batch(rows)
    for name in ("states", "context", "inputs", "pair_row", "pair_item", "pair_values", "target_row", "target_item"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-6)


def test_a_loss_that_is_no_number_is_an_error(world: World) -> None:
    values = world.training.values.copy()
    values[0] = np.nan
    broken = replace(world.training, values=values)
    with pytest.raises(
        UserError, match=r"global ranker: the loss is nan at training step \d+; lower rankers.learning_rate"
    ):
        fit_global_ranker(broken, world.validation, world.vectors, (), CONFIG, 0)


def test_nothing_to_train_on_is_an_error(world: World) -> None:
    with pytest.raises(UserError, match="choose a later week"):
        fit_global_ranker(_rows_of(world.training, 0), world.validation, world.vectors, (), CONFIG, 0)


def test_a_damaged_model_is_refused(world: World) -> None:
    data = world.ranker.to_bytes()
    with pytest.raises(UserError, match="global ranker: the stored model is damaged"):
        GlobalRanker.from_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def _fit(world: World, config: RankerConfig, **options: object) -> GlobalRanker:
    ids = world.candidate_ids
    return fit_global_ranker(world.training, world.validation, world.vectors, ids, config, 0, **options)  # type: ignore[arg-type]


def _rows_of(examples: Examples, count: int) -> Examples:
    """The first ``count`` examples."""
    return replace(examples, users=examples.users[:count], cut=examples.cut[:count], context=examples.context[:count])
