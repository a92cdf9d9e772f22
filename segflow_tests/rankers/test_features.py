"""Features and simple scorers agree with slow, plain computations, and see nothing of the future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segflow.errors import UserError
from segflow.rankers.features import (
    ITEM_FEATURES,
    LAST_VISITS,
    PAIR_FEATURES,
    ItemHistory,
    Pairs,
    candidate_items,
)
from segflow.rankers.scorers import cooccurrence, fit_cooccurrence, personal_frequency, recent_popularity
from segflow.representation.sequences import MICROSECONDS_PER_DAY as DAY
from segflow.representation.sequences import MICROSECONDS_PER_WEEK as WEEK
from segflow_tests.rankers.conftest import ITEMS, SNAPSHOT, USERS, make_log

EVERYBODY = np.arange(USERS)


def test_candidates_need_enough_events_and_users() -> None:
    log = make_log().before(3 * WEEK)
    by_item = [log.user_of_event[log.items == item] for item in range(ITEMS)]
    wanted = [item for item, users in enumerate(by_item) if len(users) >= 15 and len(set(users)) >= 12]
    assert candidate_items(log, 15, 12).tolist() == wanted
    assert 0 < len(wanted) < ITEMS
    with pytest.raises(UserError, match="minimum_item_events"):
        candidate_items(log, 10_000, 1)


def test_scorers_against_plain_loops() -> None:
    log = make_log()
    candidates = np.arange(0, ITEMS, 2)
    features = ItemHistory(log, candidates).at(SNAPSHOT, half_life_days=30)
    expected = np.zeros((USERS, len(candidates)))
    buyers: list[set[int]] = [set() for _ in candidates]
    cut = SNAPSHOT // DAY
    days = {(u, i, t // DAY) for u, i, t in zip(log.user_of_event, log.items, log.times, strict=True)}
    for user, item, day in days:
        if item % 2 == 0 and day < cut:
            expected[user, item // 2] += 0.5 ** ((cut - day - 0.5) / 30)
            if day >= cut - 7:
                buyers[item // 2].add(user)
    popularity = np.array([len(users) for users in buyers])
    np.testing.assert_array_equal(recent_popularity(features, EVERYBODY)[3], popularity)
    scores = personal_frequency(features, EVERYBODY)
    np.testing.assert_allclose(scores, expected + 1e-6 * popularity, rtol=1e-4)
    np.testing.assert_array_equal(ItemHistory(log, candidates).frequency(SNAPSHOT, 30), features.frequency)
    seen = features.pairs.dense(EVERYBODY, len(candidates))
    np.testing.assert_array_equal(seen, expected > 0)


def test_a_day_counts_once() -> None:
    log = make_log()
    doubled = replace(
        log,
        offsets=log.offsets * 2,
        items=np.repeat(log.items, 2),
        types=np.repeat(log.types, 2),
        times=np.repeat(log.times, 2),
        values=np.repeat(log.values, 2),
    )
    one, two = (ItemHistory(part, np.arange(ITEMS)).at(SNAPSHOT, 30) for part in (log, doubled))
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.frequency, two.frequency)


def test_the_future_changes_nothing() -> None:
    log = make_log()
    whole = ItemHistory(log, np.arange(ITEMS)).at(SNAPSHOT, 30)
    past = ItemHistory(log.before(SNAPSHOT), np.arange(ITEMS)).at(SNAPSHOT, 30)
    for name in ("values", "frequency", "context", "popularity", "trends"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(past, name))
    assert whole.values.shape == (len(whole.pairs.items), len(PAIR_FEATURES))
    assert np.isfinite(whole.values).all()


def test_wanted_items_are_those_of_the_week() -> None:
    log = make_log()
    wanted = ItemHistory(log, np.arange(ITEMS)).had(SNAPSHOT, SNAPSHOT + WEEK)
    week = log.between(SNAPSHOT, SNAPSHOT + WEEK)
    for user in range(USERS):
        mine = wanted.items[wanted.offsets[user] : wanted.offsets[user + 1]]
        assert mine.tolist() == sorted(set(week.items[week.user_of_event == user]))


def test_a_cut_within_a_day_is_refused() -> None:
    with pytest.raises(ValueError, match="midnight"):
        ItemHistory(make_log(), np.arange(ITEMS)).at(SNAPSHOT + 1, 30)


def test_cooccurrence_minimizes_the_ease_objective() -> None:
    features = ItemHistory(make_log(), np.arange(ITEMS)).at(2 * WEEK, 30)
    weights = fit_cooccurrence(features, regularization=5.0, limit=ITEMS).astype(float)
    assert not np.diag(weights).any()
    seen = features.pairs.dense(EVERYBODY, ITEMS, 1.0)
    # At the minimum of |X - XB|^2 + l |B|^2 with a zero diagonal, the gradient off the diagonal is zero.
    gradient = seen.T @ (seen @ weights - seen) + 5.0 * weights
    np.fill_diagonal(gradient, 0)
    np.testing.assert_allclose(gradient, 0, atol=1e-3)
    np.testing.assert_allclose(cooccurrence(features, weights, EVERYBODY), seen @ weights, rtol=1e-5)


def test_cooccurrence_limit_keeps_the_most_common_items() -> None:
    features = ItemHistory(make_log(), np.arange(ITEMS)).at(2 * WEEK, 30)
    users = np.bincount(features.pairs.items, minlength=ITEMS)
    used = np.flatnonzero(fit_cooccurrence(features, 5.0, limit=6).any(axis=0))
    assert users[used].min() >= np.sort(users)[-6]
    assert len(used) == 6


def test_pairs_take_and_dense() -> None:
    pairs = Pairs(np.array([0, 2, 2, 3]), np.array([1, 4, 0]))
    index, owner = pairs.take(np.array([2, 0]))
    assert index.tolist() == [2, 0, 1]
    assert owner.tolist() == [0, 1, 1]
    assert pairs.dense(np.array([0, 1]), 5, np.array([7, 8, 9])).tolist() == [[0, 7, 0, 0, 8], [0, 0, 0, 0, 0]]


def test_rhythm_and_trends_against_plain_loops() -> None:
    log = make_log()
    features = ItemHistory(log, np.arange(ITEMS)).at(SNAPSHOT, 30)
    cut = SNAPSHOT // DAY
    days: dict[tuple[int, int], list[int]] = {}
    visits: dict[int, set[int]] = {}
    for user, item, time in zip(log.user_of_event, log.items, log.times, strict=True):
        if time < SNAPSHOT:
            days.setdefault((int(user), int(item)), []).append(time // DAY)
            visits.setdefault(int(user), set()).add(time // DAY)
    pairs = zip(features.pairs.user_of_pair.tolist(), features.pairs.items.tolist(), strict=True)
    columns = {name: features.values[:, number] for number, name in enumerate(PAIR_FEATURES)}
    for place, pair in enumerate(pairs):
        mine, visited = sorted(set(days[pair])), sorted(visits[pair[0]], reverse=True)
        gaps = np.diff(mine) if len(mine) > 1 else np.zeros(1)
        expected = {
            "log_visits_since": np.log1p(visited.index(mine[-1])),
            "log_days_since_first": np.log1p(cut - mine[0] - 0.5),
            "log_interval_mean": np.log1p(gaps.mean()),
            "log_interval_deviation": np.log1p(gaps.std()),
            "log_interval_last": np.log1p(gaps[-1]),
        } | {f"share_of_last_{n}_visits": len(set(visited[:n]) & set(mine)) / n for n in LAST_VISITS}
        for name, value in expected.items():
            assert columns[name][place] == pytest.approx(value, abs=2e-3), name
    for number, name in enumerate(ITEM_FEATURES[:-1]):
        window = int(name.split("_")[-1][:-1])
        edge = min if "first" in name else max
        users = [
            sum(edge(found) >= cut - window for (_, i), found in days.items() if i == item) for item in range(ITEMS)
        ]
        np.testing.assert_allclose(features.trends[:, number], np.log1p(np.array(users) * 7 / window), rtol=1e-5)
    users = [sum(i == item for _, i in days) for item in range(ITEMS)]
    np.testing.assert_allclose(features.trends[:, -1], np.log1p(users), rtol=1e-5)
