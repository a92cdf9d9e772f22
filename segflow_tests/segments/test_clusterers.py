"""Clusterers: each finds what it is for, twice the same, and says what is wrong with users it cannot cluster."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from segflow.config import SegmentConfig
from segflow.config.segments import Algorithm
from segflow.errors import UserError
from segflow.representation.users import UserFeatures
from segflow.segments import clusterers
from segflow.segments.clusterers import CLUSTERERS
from segflow.segments.models import Mixture, Tiers
from segflow.segments.population import Population
from segflow_tests.segments.populations import PARAMETERS, planted

BY_NUMBER = [name for name in CLUSTERERS if PARAMETERS[name] == 3.0]
BY_POINTS = [name for name, one in CLUSTERERS.items() if not one.needs]


def test_every_clusterer_can_be_named_in_the_settings():
    assert list(CLUSTERERS) == list(get_args(Algorithm))


@pytest.mark.parametrize("algorithm", [name for name in CLUSTERERS if name != "rfm"])
def test_finds_planted_groups(algorithm: str):
    population, truth = planted()
    model = CLUSTERERS[algorithm].fit(population, PARAMETERS[algorithm], 3, 0)
    labels = model.place(population).labels
    assert model.k == 3
    inside = labels >= 0
    assert inside.mean() > 0.8
    assert adjusted_rand_score(truth[inside], labels[inside]) > 0.95


@pytest.mark.parametrize("algorithm", CLUSTERERS)
def test_fits_the_same_twice_with_any_number_of_threads(algorithm: str):
    population, _ = planted()
    fit = CLUSTERERS[algorithm].fit
    first, again = fit(population, PARAMETERS[algorithm], 2, 0), fit(population, PARAMETERS[algorithm], 2, 0)
    with threadpool_limits(1):
        narrow = fit(population, PARAMETERS[algorithm], 2, 0)
    for other in (again, narrow):
        assert other.facts() == first.facts()
        for name, tensor in first.to_tensors().items():
            np.testing.assert_array_equal(other.to_tensors()[name], tensor)


@pytest.mark.parametrize("algorithm", ["hdbscan", "dbscan"])
def test_density_leaves_out_users_far_from_everybody(algorithm: str):
    population, _ = planted()
    far = np.random.default_rng(0).uniform(-60, 60, size=(15, 4)).astype(np.float32)
    model = CLUSTERERS[algorithm].fit(Population(np.concatenate([population.points, far])), PARAMETERS[algorithm], 1, 0)
    assert model.k == 3
    assert (model.place(Population(far)).labels == -1).mean() > 0.9
    assert (model.place(population).labels >= 0).mean() > 0.85


@pytest.mark.parametrize("algorithm", ["ward", "spectral", "hdbscan", "dbscan"])
def test_costly_clusterers_learn_from_a_sample(algorithm: str, monkeypatch: pytest.MonkeyPatch):
    population, truth = planted((600, 400, 300))
    monkeypatch.setattr(clusterers, "_LANDMARKS", 300)
    model = CLUSTERERS[algorithm].fit(population, PARAMETERS[algorithm], 1, 0)
    assert len(model.to_tensors()["points"]) <= 300
    labels = model.place(population).labels
    assert (labels >= 0).mean() > 0.85
    assert adjusted_rand_score(truth[labels >= 0], labels[labels >= 0]) > 0.95


def test_a_mixture_learns_correlations_where_there_are_users_enough():
    population, _ = planted((400, 300, 200))
    shapes = {}
    for users in (100, 900):
        model = CLUSTERERS["gaussian_mixture"].fit(population.take(np.arange(users)), 3.0, 1, 0)
        assert isinstance(model, Mixture)
        shapes[users] = model.cholesky.shape
    assert shapes == {100: (3, 4), 900: (3, 4, 4)}


def test_rfm_tiers_rank_users_by_recency_frequency_and_value():
    population, _ = planted((300, 300, 300))
    model = CLUSTERERS["rfm"].fit(population, 0.0, 1, 0)
    labels = model.place(population).labels
    assert population.engagement is not None
    recency, frequency, value = population.engagement.matrix.T
    means = {
        tier: [float(one[labels == number].mean()) for one in (-recency, frequency, value)]
        for number, tier in enumerate(Tiers.NAMES)
    }
    assert (np.diff([means[tier] for tier in Tiers.NAMES], axis=0) < 0).all()
    assert np.bincount(labels).min() > 100


def test_rfm_leaves_out_what_does_not_vary():
    population, _ = planted()
    assert population.engagement is not None
    users, matrix, names = population.engagement
    worthless = matrix.copy()
    worthless[:, names.index("log_value_total")] = 0
    model = CLUSTERERS["rfm"].fit(Population(population.points, UserFeatures(users, worthless, names)), 0.0, 1, 0)
    assert model.facts()["features"] == ["log_recency_days", "log_sessions_per_week_long"]
    alike = Population(population.points, UserFeatures(users, np.ones_like(matrix), names))
    with pytest.raises(UserError, match="cannot tell 260 users apart"):
        CLUSTERERS["rfm"].fit(alike, 0.0, 1, 0)


def test_rare_levels_are_no_segment():
    column = np.array(["a"] * 50 + ["b"] * 46 + ["c"] * 3 + [None], object)
    population = Population(np.zeros((100, 1), np.float32), attribute=column)
    model = CLUSTERERS["attribute"].fit(population, 0.05, 1, 0)
    assert model.facts()["values"] == ["a", "b"]
    assert np.unique(model.place(population).labels, return_counts=True)[1].tolist() == [4, 50, 46]
    with pytest.raises(UserError, match="no attribute is known of 60% of 100 users"):
        CLUSTERERS["attribute"].fit(population, 0.6, 1, 0)


def test_lda_without_items_says_so():
    population = Population(np.zeros((5, 1), np.float32), items=sparse.csr_matrix((5, 0)))
    with pytest.raises(UserError, match="remove `lda`"):
        CLUSTERERS["lda"].fit(population, 3.0, 1, 0)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_broken_vectors_are_counted(broken: float):
    points = np.zeros((5, 3), np.float32)
    points[[1, 4], [0, 2]] = broken
    with pytest.raises(UserError, match=r"vectors of 2 of 5 users hold NaN or infinite .* materialize user_embeddings"):
        Population(points)


@pytest.mark.parametrize("algorithm", BY_POINTS)
def test_equal_vectors_cannot_be_segmented(algorithm: str):
    with pytest.raises(UserError, match="all 300 users have one and the same vector"):
        CLUSTERERS[algorithm].fit(Population(np.ones((300, 4), np.float32)), PARAMETERS[algorithm], 1, 0)


@pytest.mark.parametrize("algorithm", [name for name in BY_NUMBER if name in BY_POINTS])
def test_more_segments_than_different_vectors(algorithm: str):
    population, _ = planted((2, 2, 2))
    doubled = population.take(np.repeat(np.arange(2), 50))
    with pytest.raises(UserError, match="3 segments cannot be made of 100 users with 2 different vectors"):
        CLUSTERERS[algorithm].fit(doubled, 3.0, 1, 0)


def test_grids_hold_what_the_settings_ask_for():
    population, _ = planted()
    config = SegmentConfig(k_min=3, k_max=5, min_share=0.05)
    grids = {name: one.grid(population, config) for name, one in CLUSTERERS.items()}
    assert {tuple(grids[name]) for name in BY_NUMBER} == {(3.0, 4.0, 5.0)}
    assert grids["hdbscan"] == [0.05, 0.1]
    assert all(0 < share < 1 for share in grids["dbscan"])
    assert grids["rfm"] == [0.0]
    assert grids["attribute"] == grids["category"] == [0.05]
    with pytest.raises(UserError, match="different vectors"):
        CLUSTERERS["kmeans"].grid(population.take(np.array([0, 0, 1])), config)


def test_what_clusterers_need_beyond_points():
    assert {name: set(one.needs) for name, one in CLUSTERERS.items() if one.needs} == {
        "lda": {"items"},
        "rfm": {"engagement"},
        "attribute": {"attribute"},
        "category": {"category"},
    }


def test_the_attribute_baseline_needs_the_name_of_one():
    with pytest.raises(ValidationError, match="name the static attribute"):
        SegmentConfig(algorithms=["attribute"])
