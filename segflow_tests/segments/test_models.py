"""Models: every kind comes back from bytes as it was, and places a user alike whoever else is placed with it."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from scipy import sparse
from sklearn.cluster import DBSCAN
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from segflow.representation.users import UserFeatures
from segflow.segments.clusterers import CLUSTERERS
from segflow.segments.models import Centers, Landmarks, Levels, Model, Placement, Tiers, Topics, model_from
from segflow.segments.population import Population
from segflow_tests.segments.populations import CENTERS, ITEMS, PARAMETERS, planted


@cache
def fitted(algorithm: str) -> Model:
    return CLUSTERERS[algorithm].fit(planted()[0], PARAMETERS[algorithm], 2, 0)


def assert_consistent(placed: Placement, users: int, k: int) -> None:
    assert placed.labels.dtype == np.int64
    assert placed.probability.dtype == np.float32
    assert placed.labels.shape == (users,)
    assert placed.probability.shape == (users, k)
    inside = placed.labels >= 0
    assert set(placed.labels[~inside]) <= {-1}
    np.testing.assert_allclose(placed.probability[inside].sum(axis=1), 1, rtol=1e-5)
    assert (placed.probability[inside].argmax(axis=1) == placed.labels[inside]).all()
    assert not placed.probability[~inside].any()


@pytest.mark.parametrize("algorithm", CLUSTERERS)
def test_a_model_comes_back_from_bytes_as_it_was(algorithm: str):
    model, (population, _) = fitted(algorithm), planted(seed=2)
    data = save({name: np.ascontiguousarray(one) for name, one in model.to_tensors().items()})
    read = model_from(model.kind, load(data), json.loads(json.dumps(model.facts())))
    assert read.k == model.k == 3
    before, after = model.place(population), read.place(population)
    np.testing.assert_array_equal(before.labels, after.labels)
    np.testing.assert_array_equal(before.probability, after.probability)
    assert_consistent(before, len(population), 3)


@pytest.mark.parametrize("algorithm", CLUSTERERS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), users=st.integers(1, 60), spread=st.sampled_from([0.0, 1.0, 50.0]))
def test_a_user_is_placed_alike_in_any_company(algorithm: str, seed: int, users: int, spread: float):
    rng = np.random.default_rng(seed)
    population, _ = planted(seed=seed)
    some = population.take(rng.integers(len(population), size=users))
    # Whole numbers make equal distances, which are what an order could decide.
    moved = (np.round(some.points + rng.normal(0, 1, some.points.shape) * spread)).astype(np.float32)
    some = Population(moved, some.engagement, some.items, some.item_names, some.attribute, some.category)
    order, model = rng.permutation(users), fitted(algorithm)
    whole, permuted, alone = (model.place(one) for one in (some, some.take(order), some.take(order[:1])))
    assert_consistent(whole, users, model.k)
    np.testing.assert_array_equal(whole.labels[order], permuted.labels)
    np.testing.assert_allclose(whole.probability[order], permuted.probability, atol=1e-6)
    assert alone.labels[0] == whole.labels[order[0]]


def test_the_nearest_centre_is_exact_whatever_the_order_and_the_threads():
    rng = np.random.default_rng(0)
    centers = rng.integers(-2, 3, size=(12, 8)).astype(np.float32)
    # More than one chunk, full of equal distances; then far from the origin, where float32 is coarse.
    for points in (rng.integers(-2, 3, size=(40_000, 8)), rng.normal(size=(40_000, 8)) + 300):
        model, population = Centers(centers, 0.5), Population(points.astype(np.float32))
        squared = ((population.points[:, None].astype(np.float64) - centers) ** 2).sum(axis=2)
        placed, order = model.place(population), rng.permutation(len(population))
        np.testing.assert_array_equal(placed.labels, squared.argmin(axis=1))
        np.testing.assert_array_equal(model.place(population.take(order)).labels, placed.labels[order])
        with threadpool_limits(1):
            np.testing.assert_array_equal(model.place(population).labels, placed.labels)
        expected = np.exp(-(squared - squared.min(axis=1, keepdims=True)))
        np.testing.assert_allclose(placed.probability, expected / expected.sum(axis=1, keepdims=True), atol=2e-3)
        assert_consistent(placed, len(population), 12)


def test_half_way_between_two_centres_is_fifty_fifty():
    model = Centers(CENTERS, 1.0)
    placed = model.place(Population(((CENTERS[0] + CENTERS[1]) / 2)[None]))
    np.testing.assert_allclose(placed.probability[0], [0.5, 0.5, 0], atol=1e-6)
    assert Centers(CENTERS, 0.0).place(Population(CENTERS)).probability.tolist() == np.eye(3).tolist()


def test_a_mixture_gives_the_posterior_of_scikit_learn():
    population, _ = planted()
    own = GaussianMixture(3, reg_covar=1e-3 * float(population.points.astype(float).var(axis=0).mean()), random_state=0)
    expected = own.fit(population.points.astype(float)).predict_proba(population.points.astype(float))
    model = CLUSTERERS["gaussian_mixture"].fit(population, 3.0, 1, 0)
    np.testing.assert_allclose(model.place(population).probability, expected, atol=1e-6)


def test_dbscan_places_its_own_users_as_dbscan_did():
    population, _ = planted()
    model = fitted("dbscan")
    assert isinstance(model, Landmarks)
    own = DBSCAN(eps=model.reach[0], min_samples=5).fit(population.points).labels_
    placed = model.place(population).labels
    np.testing.assert_array_equal(placed < 0, own < 0)
    assert (placed == own).mean() > 0.99  # a border point may be of two clusters
    assert model.place(Population(np.full((1, 4), 99.0, np.float32))).labels.tolist() == [-1]


def test_landmarks_vote_by_distance_within_their_reach():
    at = np.array([[0.0], [1.0], [10.0]], np.float32)
    model = Landmarks(at, np.array([0, 1, 1]), np.array([2.0, 2.0, 2.0]), 2)
    placed = model.place(Population(np.array([[0.25], [1.0], [11.0], [14.0]], np.float32)))
    assert placed.labels.tolist() == [0, 1, 1, -1]
    np.testing.assert_allclose(placed.probability, [[0.75, 0.25], [0, 1], [0, 1], [0, 0]])


def test_of_equally_distant_landmarks_the_first_ones_vote():
    corners = np.array(list(np.ndindex(2, 2, 2)), np.float32)
    for seed in range(10):
        at = np.random.default_rng(seed).permutation(corners)
        model = Landmarks(at, np.array([0, 0, 0, 1, 1, 1, 1, 1]), np.full(8, np.inf), 2)
        placed = model.place(Population(np.concatenate([np.full((1, 3), 0.5), at + 0.1]).astype(np.float32)))
        np.testing.assert_allclose(placed.probability[0], [0.6, 0.4])


def test_no_landmark_places_nobody():
    model = Landmarks(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0), 0)
    placed = model.place(planted()[0])
    assert (placed.labels == -1).all()
    assert placed.probability.shape == (260, 0)


def test_topics_know_items_by_name():
    population, _ = planted()
    model = fitted("lda")
    assert isinstance(model, Topics)
    assert model.items == ITEMS
    assert population.items is not None
    shuffled = np.random.default_rng(0).permutation(len(ITEMS))
    strange = sparse.hstack([population.items[:, shuffled], sparse.csr_matrix(np.ones((len(population), 1)))]).tocsr()
    names = [ITEMS[column] for column in shuffled] + ["unheard of"]
    there = model.place(Population(population.points, items=strange, item_names=names))
    np.testing.assert_array_equal(there.labels, model.place(population).labels)
    nothing = Population(population.points[:2], items=strange[:2, -1:], item_names=["unheard of"])
    assert model.place(nothing).labels.tolist() == [-1, -1]


def test_tiers_are_the_mean_score():
    cuts = np.array([[1.0, 2, 3, 4]] * 3)
    model = Tiers(["log_recency_days", "log_sessions_per_week_long", "log_value_total"], cuts)
    # Scores: 5 5 5; 5 4 3 (twelve); 5 3 3; 2 3 3 (eight); 2 3 2 (seven); 1 1 1. A value at a cut is below it.
    rows = [[1.0, 9, 9], [0, 4, 3], [0, 3, 3], [4, 3, 3], [4, 3, 2], [9, 0, 0]]
    names = ["log_value_total", "log_sessions_per_week_long", "log_recency_days"]
    features = UserFeatures([""] * 6, np.array(rows, np.float32)[:, ::-1], names)
    placed = model.place(Population(np.zeros((6, 1), np.float32), features))
    assert [Tiers.NAMES[label] for label in placed.labels] == [
        "high-value", "high-value", "potential", "potential", "ordinary", "ordinary",
    ]  # fmt: skip


def test_levels_leave_out_what_they_do_not_know():
    model = Levels("category", ["bread", "milk"])
    column = np.array(["milk", None, "fish", "bread"], object)
    placed = model.place(Population(np.zeros((4, 1), np.float32), category=column))
    assert placed.labels.tolist() == [1, -1, -1, 0]
    assert placed.probability.tolist() == [[0, 1], [0, 0], [0, 0], [1, 0]]


@pytest.mark.parametrize("algorithm", ["kmeans", "gaussian_mixture", "ward"])
def test_vectors_of_another_width_are_a_bug(algorithm: str):
    with pytest.raises(ValueError, match="4 dimensions, the points 2"):
        fitted(algorithm).place(Population(np.zeros((3, 2), np.float32)))


@pytest.mark.parametrize("algorithm", ["lda", "rfm", "attribute", "category"])
def test_a_population_without_what_the_model_needs_is_a_bug(algorithm: str):
    with pytest.raises(ValueError, match="this population has none"):
        fitted(algorithm).place(Population(np.zeros((3, 4), np.float32)))
