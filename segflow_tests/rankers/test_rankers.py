"""The rankers: better than their parts, honest about time, and deltas that depend on their own group only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segflow.rankers.examples import Examples, training_cuts
from segflow.rankers.global_ranker import GlobalRanker, fit_global_ranker, ranking_loss
from segflow.rankers.segment_rankers import delta_from_bytes, delta_to_bytes, score_with_deltas, train_deltas
from segflow.representation.sequences import MICROSECONDS_PER_WEEK as WEEK
from segflow_tests.rankers.conftest import CONFIG, SNAPSHOT, USERS, World

GROUPS = np.arange(USERS) % 3


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


def test_one_group_alone_equals_the_same_group_among_others(world: World) -> None:
    before = world.ranker.to_bytes()
    together = train_deltas(world.ranker, world.training, GROUPS, CONFIG, seed=0)
    assert sorted(together) == [0, 1, 2]
    alone = train_deltas(world.ranker, world.training, np.where(GROUPS == 1, 7, -1), CONFIG, seed=0)
    assert delta_to_bytes(alone[7]) == delta_to_bytes(together[1])
    assert delta_to_bytes(together[0]) != delta_to_bytes(together[1])
    assert world.ranker.to_bytes() == before, "the global ranker is frozen"


def test_deltas_lower_the_training_loss_of_their_group(world: World) -> None:
    halves = np.arange(USERS) % 2
    deltas = train_deltas(world.ranker, world.training, halves, CONFIG, seed=0)
    for code, delta in deltas.items():
        rows = np.flatnonzero(halves[world.training.users] == code)
        batch = world.training.batch(rows)
        with torch.no_grad():
            before = ranking_loss(world.ranker.network(batch), batch, CONFIG.new_item_weight)
            scores = torch.from_numpy(world.ranker.score(world.training, rows, delta))
            after = ranking_loss(scores, batch, CONFIG.new_item_weight)
        assert after < before


def test_thin_groups_stay_near_the_global_ranker(world: World) -> None:
    assignment = np.where(np.arange(USERS) < 2, 0, 1)
    deltas = train_deltas(world.ranker, world.training, assignment, CONFIG, seed=0)
    assert deltas[0].gate == pytest.approx(2 / 22)
    assert deltas[1].gate == pytest.approx(58 / 78)


def test_users_of_no_group_get_the_global_ranker(world: World) -> None:
    assignment = np.where(np.arange(USERS) % 2 == 0, 4, -1)
    deltas = train_deltas(world.ranker, world.training, assignment, CONFIG, seed=0)
    rows = _rows(world.everybody)
    scores = score_with_deltas(world.ranker, deltas, assignment, world.everybody, rows)
    base = world.ranker.score(world.everybody, rows)
    np.testing.assert_allclose(scores[1::2], base[1::2], atol=1e-4)
    assert np.abs(scores[::2] - base[::2]).max() > 1e-3


def test_delta_bytes_round_trip(world: World) -> None:
    delta = train_deltas(world.ranker, world.training, GROUPS, CONFIG, seed=0)[2]
    back = delta_from_bytes(delta_to_bytes(delta))
    rows = _rows(world.test)
    np.testing.assert_array_equal(
        world.ranker.score(world.test, rows, back), world.ranker.score(world.test, rows, delta)
    )
