"""Re-ranking: what the definitions say, by plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segflow.rankers.reranking import cap_exposure, log_shares, marginal_relevance_order, unit_vectors

USERS, POOL, COUNT = 6, 12, 5


def _pool(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.normal(size=(USERS, POOL)).astype(np.float32), axis=1)
    scores[1, 4:] = -np.inf
    return scores, unit_vectors(rng.normal(size=(USERS * POOL, 4)).astype(np.float32)).reshape(USERS, POOL, 4)


def _loop(scores: np.ndarray, vectors: np.ndarray, weight: float) -> list[int]:
    there = [item for item in range(POOL) if scores[item] > -np.inf]
    low, high = min(scores[there]), max(scores[there])
    taken: list[int] = []
    while len(taken) < min(COUNT, len(there)):
        worth = {}
        for item in there:
            if item not in taken:
                alike = max((float(vectors[item] @ vectors[other]) for other in taken), default=0.0)
                worth[item] = (1 - weight) * (scores[item] - low) / (high - low) - weight * alike
        taken.append(max(worth, key=lambda item: (round(worth[item], 5), -item)))
    return taken


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7, 1.0])
def test_order_is_that_of_the_definition(weight: float) -> None:
    scores, vectors = _pool(0)
    order = marginal_relevance_order(scores, vectors, weight, COUNT)
    for user in range(USERS):
        expected = _loop(scores[user], vectors[user], weight)
        assert order[user, : len(expected)].tolist() == expected
        assert np.isneginf(scores[user, order[user, len(expected) :]]).all()
        assert len(set(order[user])) == COUNT
    if weight == 0:
        np.testing.assert_array_equal(order, np.tile(np.arange(COUNT), (USERS, 1)))


def test_sums_of_rounded_vectors_are_exact_in_any_order() -> None:
    rng = np.random.default_rng(3)
    vectors = unit_vectors(rng.normal(size=(40, 384)).astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    exact = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    for order in (np.arange(384), rng.permutation(384)):
        np.testing.assert_array_equal((vectors[:, order] @ vectors[:, order].T).astype(np.float64), exact)


def _one_by_one(items: np.ndarray, scores: np.ndarray, count: int, most: int) -> np.ndarray:
    """Deferred acceptance as it is told: one user asks for one item, which refuses the one it likes least if it has too many."""
    likely = log_shares(scores)
    holders: dict[int, list[tuple[float, int, int]]] = {}
    following = [0] * len(items)
    asking = list(range(len(items))) * count
    while asking:
        user = asking.pop()
        place = following[user]
        if place == items.shape[1] or np.isneginf(scores[user, place]):
            continue
        following[user] += 1
        held = holders.setdefault(int(items[user, place]), [])
        held.append((-float(likely[user, place]), user, place))
        if len(held) > most:
            held.sort()
            asking.append(held.pop()[1])
    kept = np.zeros(items.shape, bool)
    for held in holders.values():
        for _, user, place in held:
            kept[user, place] = True
    return kept


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 70), st.integers(1, 9))
def test_the_order_in_which_users_ask_decides_nothing(seed: int, users: int, pool: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    alike = rng.choice([0.0, 0.05, 0.5])
    items = np.argsort(rng.random((users, pool + 3)) + alike * np.arange(pool + 3), axis=1)[:, :pool]
    # Whole numbers tie often.
    drawn = rng.integers(0, 5, (users, pool)) if seed % 2 else rng.normal(size=(users, pool))
    scores = -np.sort(-drawn.astype(np.float32), axis=1)
    scores[np.arange(pool) >= rng.integers(0, 2 * pool + 1, users)[:, None]] = -np.inf
    most = int(rng.integers(1, users + 1))
    expected = _one_by_one(items, scores, count, most)
    np.testing.assert_array_equal(cap_exposure(items, scores, count, most), expected)


@given(st.integers(0, 500), st.integers(1, 4))
def test_nobody_and_no_refused_item_would_rather_have_each_other(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    items = np.argsort(rng.random((USERS, POOL)) + np.arange(POOL) * 0.2, axis=1)
    scores = -np.sort(-rng.integers(0, 4, (USERS, POOL)).astype(np.float32), axis=1)
    scores[2, 3:] = -np.inf
    kept = cap_exposure(items, scores, 3, most)
    assert np.bincount(items[kept], minlength=POOL).max() <= most
    assert kept.sum(axis=1).max() <= 3
    assert not kept[np.isneginf(scores)].any()
    with np.errstate(divide="ignore"):
        likely = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    for user in range(USERS):
        last = np.flatnonzero(kept[user])[-1] if kept[user].sum() == 3 else POOL - 1
        for place in range(last):
            if not kept[user, place] and scores[user, place] > -np.inf:
                holders = np.flatnonzero((kept & (items == items[user, place])).any(axis=1))
                assert len(holders) == most
                for other in holders:
                    there = int(np.flatnonzero(items[other] == items[user, place])[0])
                    assert likely[other, there] >= likely[user, place] - 1e-5


def test_without_a_crowd_the_cap_changes_nothing() -> None:
    items = np.tile(np.arange(POOL), (USERS, 1))
    kept = cap_exposure(items, np.zeros((USERS, POOL), np.float32), COUNT, USERS)
    assert kept[:, :COUNT].all()
    assert not kept[:, COUNT:].any()
