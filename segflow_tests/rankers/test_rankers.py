"""The global ranker: better than its parts, and honest about time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segflow.rankers.examples import Examples, training_cuts
from segflow.rankers.global_ranker import GlobalRanker, fit_global_ranker, ranking_loss
from segflow.rankers.take_up import take_up
from segflow.representation.sequences import MICROSECONDS_PER_WEEK as WEEK
from segflow_tests.rankers.conftest import CONFIG, SNAPSHOT, USERS, World


def _rows(examples: Examples) -> np.ndarray:
    return np.arange(len(examples))


def _precision(scores: np.ndarray, examples: Examples, new: bool = False) -> float:
    """Share of wanted items among each user's first five."""
    wanted = examples.wanted.dense(_rows(examples), examples.candidates)
    if new:
        had = examples.had.dense(_rows(examples), examples.candidates)
        scores, wanted = np.where(had, -np.inf, scores), wanted & ~had
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    return float(np.take_along_axis(wanted, best, axis=1).mean())


def test_training_weeks_end_before_the_snapshot(world: World) -> None:
    cuts = training_cuts(SNAPSHOT, 4)
    assert cuts == [SNAPSHOT - back * WEEK for back in (4, 3, 2, 1)]
    assert world.training.cut.tolist() == sorted(world.training.cut)
    week = world.log.between(cuts[-1], SNAPSHOT)
    rows = np.flatnonzero(world.training.cut == 3)
    items = world.history.candidates[world.training.wanted.items[world.training.wanted.take(rows)[0]]]
    assert set(items) <= set(week.items)


def test_global_ranker_beats_popularity_and_finds_new_items(world: World) -> None:
    scores = world.ranker.score(world.test, _rows(world.test))
    popularity = np.repeat(world.test.trends[0, None, :, -1], len(world.test), axis=0)
    assert _precision(scores, world.test) > 1.5 * _precision(popularity, world.test)
    # New items come from the user's own half of the catalogue, which popularity does not know.
    assert _precision(scores, world.test, new=True) > 1.2 * _precision(popularity, world.test, new=True)


def test_loss_is_that_of_a_plain_loop(world: World) -> None:
    rows = _rows(world.test)[:9]
    batch = world.test.batch(rows)
    scores = torch.randn(9, world.test.candidates, generator=torch.Generator().manual_seed(0))
    wanted = world.test.wanted.dense(rows, world.test.candidates)
    new = ~world.test.had.dense(rows, world.test.candidates)

    def plain(allowed: np.ndarray) -> float:
        users = []
        for score, want, allow in zip(scores.numpy(), wanted, allowed, strict=True):
            rest = np.exp(score[~want & allow]).sum()
            if (want & allow).any():
                users.append(np.mean([np.log1p(rest / np.exp(s)) for s in score[want & allow]]))
        return float(np.mean(users))

    expected = plain(np.ones_like(new)) + 0.5 * plain(new)
    assert float(ranking_loss(scores, batch, 0.5)) == pytest.approx(expected, rel=1e-5)


def test_take_up_counts_what_was_seen_and_what_was_expected(world: World) -> None:
    ranker, training = world.ranker, world.training
    everybody = torch.ones(USERS)
    found = take_up(training, lambda rows: torch.from_numpy(ranker.score(training, rows)), [everybody])
    seen, expected = np.zeros(training.candidates), np.zeros(training.candidates)
    for row in _rows(training):
        rows = np.array([row])
        new = ~training.had.dense(rows, len(seen))[0]
        fresh = training.wanted.dense(rows, len(seen))[0] & new
        chance = np.where(new, np.exp(ranker.score(training, rows)[0].astype(np.float64)), 0)
        seen += fresh
        expected += fresh.sum() * chance / chance.sum() if new.any() else 0
    np.testing.assert_array_equal(found.seen[0], seen)
    np.testing.assert_allclose(found.expected[0], expected, rtol=1e-4)
    np.testing.assert_allclose(found.bias(3.0)[0], np.log((seen + 3) / (expected + 3)), atol=1e-4)


def test_same_seed_same_bytes_and_round_trip(world: World) -> None:
    ids = world.ranker.candidate_ids
    again = fit_global_ranker(world.training, world.validation, world.vectors, ids, CONFIG, seed=0)
    assert again.to_bytes() == world.ranker.to_bytes()
    back = GlobalRanker.from_bytes(again.to_bytes())
    assert back.candidate_ids == ids
    rows = _rows(world.test)
    np.testing.assert_array_equal(back.score(world.test, rows), again.score(world.test, rows))


def test_scores_do_not_depend_on_the_week_to_predict(world: World) -> None:
    rows = _rows(world.test)
    nothing = replace(world.test.wanted, offsets=np.zeros_like(world.test.wanted.offsets))
    blind = replace(world.test, wanted=nothing)
    np.testing.assert_array_equal(world.ranker.score(world.test, rows), world.ranker.score(blind, rows))


def test_scoring_everybody_in_blocks_is_the_same(world: World) -> None:
    assert world.everybody.users.tolist() == list(range(USERS))
    whole = world.ranker.score(world.everybody, _rows(world.everybody))
    blocks = [world.ranker.score(world.everybody, rows) for rows in np.array_split(_rows(world.everybody), 7)]
    np.testing.assert_allclose(whole, np.concatenate(blocks), atol=1e-4)


def test_scores_without_gradients_are_those_with_them(world: World) -> None:
    batch = world.training.batch(_rows(world.training))
    assert len(batch.states) > 32, "without gradients the hidden layer is made in several pieces"
    with torch.no_grad():
        in_pieces = world.ranker.network.parts(batch)
    for one, other in zip(in_pieces, world.ranker.network.parts(batch), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-6, atol=1e-6)
