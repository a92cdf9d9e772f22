"""The simple scorers agree with slow, plain computations of what their sources describe."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from segflow.config import RankerConfig
from segflow.rankers.features import Features, ItemHistory
from segflow.rankers.scorers import (
    SCORERS,
    FittedScorers,
    ReferenceUsers,
    TifuSettings,
    all_time_popularity,
    cooccurrence,
    fit_cooccurrence,
    fit_item_neighbours,
    group_popularity,
    nearest_mean,
    text_similarity,
    tifu_knn,
    tifu_vectors,
)
from segflow.representation.sequences import MICROSECONDS_PER_DAY as DAY
from segflow.representation.sequences import MICROSECONDS_PER_WEEK as WEEK
from segflow.representation.sequences import EventSequences
from segflow_tests.rankers.conftest import ITEMS, SNAPSHOT, USERS, make_log

EVERYBODY = np.arange(USERS)


@pytest.fixture(scope="module")
def log() -> EventSequences:
    return make_log()


@pytest.fixture(scope="module")
def history(log: EventSequences) -> ItemHistory:
    return ItemHistory(log, np.arange(ITEMS))


@pytest.fixture(scope="module")
def features(history: ItemHistory) -> Features:
    return history.at(SNAPSHOT, half_life_days=30)


@pytest.fixture(scope="module")
def had(features: Features) -> np.ndarray:
    return features.pairs.dense(EVERYBODY, ITEMS).astype(float)


def test_all_time_popularity_counts_users(features: Features, had: np.ndarray) -> None:
    scores = all_time_popularity(features, np.array([3, 9]))
    np.testing.assert_array_equal(scores, np.stack([had.sum(axis=0)] * 2))


def test_group_popularity_lies_between_the_group_and_everybody(features: Features, had: np.ndarray) -> None:
    groups = np.where(EVERYBODY < 10, 0, np.where(EVERYBODY < 50, 1, -1))
    plain = group_popularity(features, groups, EVERYBODY, smoothing=0.0)
    np.testing.assert_allclose(plain[4], had[:10].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(plain[55], had.mean(axis=0), rtol=1e-6)
    drawn = group_popularity(features, groups, EVERYBODY, smoothing=30.0)
    np.testing.assert_allclose(drawn[4], (had[:10].sum(axis=0) + 30 * had.mean(axis=0)) / 40, rtol=1e-5)
    np.testing.assert_allclose(drawn[20], (had[10:50].sum(axis=0) + 30 * had.mean(axis=0)) / 70, rtol=1e-5)


def test_item_neighbours_are_the_most_alike_by_cosine(features: Features, had: np.ndarray) -> None:
    weights = fit_item_neighbours(features, neighbours=4, shrinkage=0.0, limit=ITEMS)
    nearest = NearestNeighbors(n_neighbors=5, metric="cosine").fit(had.T)
    distance, near = nearest.kneighbors(had.T)
    for item in range(ITEMS):
        used = np.flatnonzero(weights[:, item])
        assert len(used) >= 4
        assert weights[used, item].min() == pytest.approx(1 - distance[item, 4], abs=1e-5), "ties aside, the four best"
        assert weights[near[item, 1:], item] == pytest.approx(1 - distance[item, 1:], abs=1e-5)
    np.testing.assert_allclose(cooccurrence(features, weights, EVERYBODY), had @ weights, rtol=1e-5)


def test_shrinkage_hurts_rare_items_most(features: Features) -> None:
    free, shrunk = (fit_item_neighbours(features, ITEMS, shrinkage, ITEMS) for shrinkage in (0.0, 10.0))
    users = np.bincount(features.pairs.items, minlength=ITEMS)
    both = np.sqrt(users[:, None] * users[None, :])
    kept = free > 0
    np.testing.assert_allclose((shrunk / np.where(kept, free, 1))[kept], (both / (both + 10))[kept], rtol=1e-5)


def _plain_tifu(log: EventSequences, settings: TifuSettings) -> np.ndarray:
    """The method as its authors describe it, user by user."""
    baskets: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for user, item, time in zip(log.user_of_event, log.items, log.times, strict=True):
        if time < SNAPSHOT:
            baskets[user][time // DAY].add(item)
    vectors = np.zeros((USERS, ITEMS))
    for user, days in baskets.items():
        latest_first = [days[day] for day in sorted(days, reverse=True)]
        groups = [latest_first[i : i + settings.group] for i in range(0, len(latest_first), settings.group)]
        for place, group in enumerate(groups):
            for back, basket in enumerate(group):
                for item in basket:
                    share = settings.within**back / len(group)
                    vectors[user, item] += settings.between**place * share / len(groups)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    near = np.argsort(distances, axis=1)[:, : settings.neighbours]
    return settings.own * vectors + (1 - settings.own) * vectors[near].mean(axis=1)


@pytest.mark.parametrize("settings", [TifuSettings(3, 0.9, 0.6, 5, 0.7), TifuSettings(1, 1.0, 0.95, 12, 0.0)])
def test_tifu_knn_against_plain_loops(log: EventSequences, history: ItemHistory, settings: TifuSettings) -> None:
    scores = tifu_knn(tifu_vectors(history, SNAPSHOT, settings), EVERYBODY[::-1], settings)
    np.testing.assert_allclose(scores, _plain_tifu(log, settings)[::-1], atol=1e-6)


def test_neighbours_are_sought_among_the_named_users_alone(history: ItemHistory) -> None:
    vectors = tifu_vectors(history, SNAPSHOT, TifuSettings())
    among = np.arange(3, USERS, 4)
    found = nearest_mean(vectors, EVERYBODY, 5, among)
    dense = vectors.toarray()
    for user in range(0, USERS, 5):
        others = among[among != user]
        near = np.argsort(np.linalg.norm(dense[others] - dense[user], axis=1), kind="stable")[:5]
        np.testing.assert_allclose(found[user], dense[others[near]].mean(axis=0), atol=1e-6)


def test_tifu_knn_knows_nothing_of_the_future(log: EventSequences, history: ItemHistory) -> None:
    past = ItemHistory(log.before(SNAPSHOT), np.arange(ITEMS))
    settings = TifuSettings()
    one, two = (tifu_vectors(known, SNAPSHOT, settings).toarray() for known in (history, past))
    np.testing.assert_array_equal(one, two)
    assert one.any()


def test_users_without_a_history_get_what_others_have(history: ItemHistory) -> None:
    settings = TifuSettings(neighbours=5)
    vectors = tifu_vectors(history, SNAPSHOT, settings).toarray()
    vectors[5:50] = 0
    scores = tifu_knn(sparse.csr_array(vectors), np.array([7, 8]), settings)
    # All that the others have in common with somebody who had nothing is how little they had.
    smallest = np.argsort(np.where(vectors.any(axis=1), np.linalg.norm(vectors, axis=1), np.inf))[:5]
    np.testing.assert_allclose(scores, np.stack([0.3 * vectors[smallest].mean(axis=0)] * 2), rtol=1e-5)


def test_the_order_of_users_does_not_matter(history: ItemHistory) -> None:
    settings = TifuSettings(neighbours=5)
    vectors = tifu_vectors(history, SNAPSHOT, settings).toarray()
    vectors[20:30] = vectors[10:20]  # ties
    order = np.random.default_rng(5).permutation(USERS)
    scores = tifu_knn(sparse.csr_array(vectors), EVERYBODY, settings)
    shuffled = tifu_knn(sparse.csr_array(vectors[order]), EVERYBODY, settings)
    np.testing.assert_allclose(shuffled, scores[order], atol=1e-6)


def test_text_similarity_is_the_cosine_to_the_profile(features: Features) -> None:
    vectors = np.random.default_rng(3).normal(size=(ITEMS, 6)).astype(np.float32)
    scores = text_similarity(features, vectors, EVERYBODY)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    user = 11
    pairs = slice(features.pairs.offsets[user], features.pairs.offsets[user + 1])
    profile = np.log1p(features.frequency[pairs]) @ unit[features.pairs.items[pairs]]
    np.testing.assert_allclose(scores[user], unit @ profile / np.linalg.norm(profile), atol=1e-5)


def test_text_similarity_of_a_user_without_items_is_zero(history: ItemHistory) -> None:
    nothing = history.at(0, half_life_days=30)
    scores = text_similarity(nothing, np.ones((ITEMS, 3), np.float32), EVERYBODY)
    np.testing.assert_array_equal(scores, np.zeros((USERS, ITEMS)))


def test_user_neighbours_against_plain_loops(log: EventSequences, features: Features, had: np.ndarray) -> None:
    reference = ReferenceUsers.of(features, limit=1000)
    ever, lately = reference.score(features, EVERYBODY[::-1], neighbours=5)
    rarity = np.log(USERS / np.maximum(had.sum(axis=0), 1))
    recent = np.zeros_like(had)
    for user, item, time in zip(log.user_of_event, log.items, log.times, strict=True):
        if SNAPSHOT - 28 * DAY <= time < SNAPSHOT:
            recent[user, item] = 1
    unit = had * rarity / np.linalg.norm(had * rarity, axis=1, keepdims=True)
    for user in range(0, USERS, 7):
        similarity = unit @ unit[user]
        similarity[(had <= had[user]).all(axis=1)] = 0  # the user, and whoever had nothing else
        similarity[similarity < np.sort(similarity)[-5]] = 0
        weights = similarity / similarity.sum()
        np.testing.assert_allclose(ever[::-1][user], weights @ had, atol=1e-5)
        np.testing.assert_allclose(lately[::-1][user], weights @ recent, atol=1e-5)


def test_without_any_reference_user_nothing_is_scored(log: EventSequences, history: ItemHistory) -> None:
    before = history.at(int(log.times.min()) // DAY * DAY, half_life_days=30)
    assert before.pairs.items.size == 0
    reference = ReferenceUsers.of(before, limit=1000)
    ever, lately = reference.score(before, EVERYBODY[:3], neighbours=5)
    assert ever.shape == lately.shape == (3, ITEMS)
    assert not ever.any()
    assert not lately.any()


def test_reference_users_are_a_sample_without_ids(features: Features) -> None:
    reference = ReferenceUsers.of(features, limit=10)
    assert len(reference.offsets) == 11
    again = ReferenceUsers.of(features, limit=10)
    np.testing.assert_array_equal(reference.items, again.items)
    owned = {tuple(features.pairs.items[a:b]) for a, b in pairwise(features.pairs.offsets)}
    assert all(tuple(reference.items[a:b]) in owned for a, b in pairwise(reference.offsets))


def test_counted_ease_weighs_pairs(features: Features) -> None:
    counts = np.log1p(features.frequency)
    weights = fit_cooccurrence(features, 5.0, ITEMS, counts).astype(float)
    counted = features.pairs.dense(EVERYBODY, ITEMS, counts.astype(float))
    gradient = counted.T @ (counted @ weights - counted) + 5.0 * weights
    np.fill_diagonal(gradient, 0)
    np.testing.assert_allclose(gradient, 0, atol=1e-3)
    np.testing.assert_allclose(cooccurrence(features, weights, EVERYBODY, counts), counted @ weights, rtol=1e-4)


def test_fitted_scorers_score_users_they_were_not_fitted_on(log: EventSequences, history: ItemHistory) -> None:
    config = RankerConfig(neighbours=5, cooccurrence_regularization=10)
    fitted = FittedScorers.of(history.at(SNAPSHOT - WEEK, 30), config)
    carried = FittedScorers.from_tensors(fitted.to_tensors())
    whole = carried.score(history.at(SNAPSHOT, 30), np.array([7, 8]))
    assert whole.dtype == np.float16
    assert whole.shape == (2, ITEMS, len(SCORERS))
    np.testing.assert_array_equal(whole, fitted.score(history.at(SNAPSHOT, 30), np.array([7, 8])))
    # The two alone, as a served model sees them: what it knows of everybody comes with the scorers.
    mine = np.isin(log.user_of_event, [7, 8])
    alone = replace(
        log,
        user_ids=log.user_ids[7:9],
        offsets=log.offsets[7:10] - log.offsets[7],
        items=log.items[mine],
        types=log.types[mine],
        times=log.times[mine],
        values=log.values[mine],
    )
    features = ItemHistory(alone, np.arange(ITEMS)).at(SNAPSHOT, 30, trends=carried.trends)
    np.testing.assert_array_equal(carried.score(features, np.array([0, 1])), whole)
    np.testing.assert_array_equal(features.trends, carried.trends)


def test_fitted_scorers_know_nothing_of_the_future(log: EventSequences, history: ItemHistory) -> None:
    config = RankerConfig(neighbours=5)
    past = ItemHistory(log.before(SNAPSHOT), np.arange(ITEMS)).at(SNAPSHOT, 30)
    now = history.at(SNAPSHOT, 30)
    one, two = (FittedScorers.of(known, config).score(known, EVERYBODY) for known in (past, now))
    np.testing.assert_array_equal(one, two)
