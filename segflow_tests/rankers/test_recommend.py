"""Top-N: exactly the best items, ties in candidate order, nothing hidden, nothing twice, no place without an item."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segflow.config import RecommendationConfig
from segflow.errors import UserError
from segflow.rankers.recommend import Lists, make_lists, recommend
from segflow.rankers.rules import Rules
from segflow.rankers.top import top_items

shapes = st.tuples(st.integers(1, 5), st.integers(1, 12))
scores = shapes.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=st.integers(-2, 2)))

USERS, ITEMS = 200, 70


@given(scores, st.integers(1, 15), st.randoms(use_true_random=False))
def test_top_items_equal_a_full_stable_sort(values: np.ndarray, count: int, random: Random) -> None:
    hidden = np.array([[random.random() < 0.3 for _ in row] for row in values])
    position, best = top_items(np.where(hidden, np.float32(-np.inf), values), count)
    for user, row in enumerate(values):
        order = [item for item in np.argsort(-row, kind="stable") if not hidden[user, item]][:count]
        assert position[user, : len(order)].tolist() == order
        assert best[user, : len(order)].tolist() == row[order].tolist()
        assert np.isneginf(best[user, len(order) :]).all()


@pytest.mark.parametrize("place", [0, 3, 8])
def test_a_score_that_is_no_number_is_refused(place: int) -> None:
    values = np.ones((3, 9), np.float32)
    values[1, place] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        top_items(values, 2)


def test_blocks_change_nothing() -> None:
    values = np.random.default_rng(0).integers(0, 4, (23, 9)).astype(np.float32)
    kept = values.copy()
    rows = np.arange(23)
    whole = top_items(np.where(values == 1, np.float32(-np.inf), values), 4)
    parts = recommend(lambda r: values[r], rows, 4, hidden=lambda r: np.nonzero(values[r] == 1), block=5)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])
    recommend(lambda r: values, rows, 4, hidden=lambda r: np.nonzero(values[r] == 1), block=23)
    np.testing.assert_array_equal(values, kept, "the ranker's own array is not written to")


def test_no_rows() -> None:
    position, best = recommend(lambda r: np.zeros((len(r), 9), np.float32), np.zeros(0, np.int64), 4)
    assert position.shape == best.shape == (0, 4)


def _lists(values: np.ndarray, had: np.ndarray, rules: Rules, **settings: object) -> Lists:
    config = RecommendationConfig.model_validate({"count": 8, **settings})
    vectors = np.random.default_rng(5).normal(size=(values.shape[1], 6)).astype(np.float32)
    return make_lists(lambda r: values[r], np.arange(len(values)), config, rules, vectors, lambda r: np.nonzero(had[r]))


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_lists_of_200_users_are_those_of_plain_loops(exclude_seen: bool) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 9, (USERS, ITEMS)).astype(np.float32)
    had = rng.random((USERS, ITEMS)) < 0.4
    had[3] = True
    had[7, 4:] = True
    added = np.where(rng.random(ITEMS) < 0.2, -np.inf, rng.integers(0, 3, ITEMS)).astype(np.float32)
    added[4] = 1
    lists = _lists(values, had, Rules(added, 0), exclude_seen=exclude_seen)
    expected = []
    for user in range(USERS):
        found = sorted((-(values[user, item] + added[item]), item) for item in range(ITEMS) if added[item] > -np.inf)
        found = [(score, item) for score, item in found if not (exclude_seen and had[user, item])]
        expected += [(user, place, item, -score) for place, (score, item) in enumerate(found[:8], 1)]
    assert list(zip(lists.row, lists.rank, lists.item, lists.score, strict=True)) == expected
    assert len(set(zip(lists.row.tolist(), lists.item.tolist(), strict=True))) == len(lists.row)
    if exclude_seen:
        assert not had[lists.row, lists.item].any()
        assert 3 not in lists.row
        assert 0 < np.sum(lists.row == 7) < 8
    assert lists.item.min() >= 0


def test_reranked_lists_keep_to_the_rules_and_to_the_cap() -> None:
    rng = np.random.default_rng(2)
    values = (rng.normal(size=(USERS, ITEMS)) + np.linspace(4, 0, ITEMS)).astype(np.float32)
    had = rng.random((USERS, ITEMS)) < 0.2
    added = np.zeros(ITEMS, np.float32)
    added[:3] = -np.inf
    plain = _lists(values, had, Rules(added, 0), exclude_seen=True)
    lists = _lists(values, had, Rules(added, 0), exclude_seen=True, diversity=0.3, exposure=0.2)
    assert np.bincount(plain.item).max() > 40
    assert np.bincount(lists.item).max() <= 40
    assert not had[lists.row, lists.item].any()
    assert not np.isin(lists.item, [0, 1, 2]).any()
    assert len(set(zip(lists.row.tolist(), lists.item.tolist(), strict=True))) == len(lists.row)
    for user in range(USERS):
        assert lists.rank[lists.row == user].tolist() == list(range(1, np.sum(lists.row == user) + 1))


def test_a_cap_that_cannot_be_kept_is_refused() -> None:
    values = np.ones((10, 20), np.float32)
    with pytest.raises(UserError, match=r"recommendations.exposure: 20 items in at most 2 lists each .* at least 0.4"):
        _lists(values, np.zeros_like(values, bool), Rules(np.zeros(20, np.float32), 0), exposure=0.2)
