"""Clustering: finds planted groups, says so when there are none, and gives the same bytes twice."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segflow import tables
from segflow.config import SegmentConfig
from segflow.errors import UserError
from segflow.representation.users import UserFeatures
from segflow.segments.clustering import Clustering, fit_everybody, select
from segflow.segments.models import Centers
from segflow.segments.population import Population
from segflow.segments.selection import NO_STRUCTURE, SEGMENTS, UNSTABLE

QUICK = SegmentConfig(k_max=5, starts=2, bootstraps=4, bootstrap_starts=2, null_repeats=2)
SIZES = (160, 100, 60)
# Groups that differ in several columns at once: permuting the columns destroys them.
CENTERS = np.pad(np.array([[0, 0, 0, 0], [5, 5, 5, 5], [5, -5, 5, -5]], float), ((0, 0), (0, 2)))


def planted(sizes: tuple[int, ...] = SIZES, seed: int = 1) -> tuple[Population, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return Population((CENTERS[labels] + rng.normal(size=(len(labels), 6))).astype(np.float32)), labels


def noise(seed: int, users: int = 300) -> Population:
    return Population(np.random.default_rng(seed).normal(size=(users, 6)).astype(np.float32))


@pytest.fixture(scope="module")
def population() -> Population:
    return planted()[0]


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return planted()[1]


@pytest.fixture(scope="module")
def fitted(population: Population) -> Clustering:
    return select(population, QUICK, 0)


def test_finds_planted_groups(fitted: Clustering, population: Population, truth: np.ndarray) -> None:
    assert (fitted.k, fitted.verdict) == (3, SEGMENTS)
    # Clusters are numbered by falling size, as the planted ones are.
    assert (fitted.assign(population).labels == truth).mean() > 0.98
    (chosen,) = [row for row in fitted.candidates if row["chosen"]]
    assert (chosen["k"], chosen["eligible"], chosen["separated"]) == (3, True, True)
    assert chosen["silhouette"] > chosen["null_silhouette"] + 0.1
    assert (fitted.stability > 0.9).all()


@pytest.mark.parametrize("algorithm", ["bisecting_kmeans", "gaussian_mixture", "ward", "hdbscan"])
def test_every_kind_of_model_is_published(algorithm: str, population: Population, truth: np.ndarray) -> None:
    config = QUICK.model_copy(update={"algorithms": [algorithm], "dims": 4, "k_max": 4})
    found = select(population, config, 0)
    placed = found.assign(population)
    assert (found.k, found.algorithm) == (3, algorithm)
    assert (placed.labels == truth).mean() > 0.85
    again = Clustering.from_bytes(found.to_bytes()).assign(population)
    for one, other in zip(placed, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_tournament_keeps_the_best(population: Population) -> None:
    config = QUICK.model_copy(update={"algorithms": ["bisecting_kmeans", "kmeans"], "k_max": 3})
    found = select(population, config, 0)
    assert [(row["algorithm"], row["k"]) for row in found.candidates] == [
        ("bisecting_kmeans", 2), ("bisecting_kmeans", 3), ("kmeans", 2), ("kmeans", 3),
    ]  # fmt: skip
    assert sum(row["chosen"] for row in found.candidates) == 1


def test_assignment_is_consistent(fitted: Clustering, population: Population) -> None:
    placed = fitted.assign(population)
    np.testing.assert_allclose(placed.probability.sum(axis=1), 1, rtol=1e-5)
    assert (placed.probability.argmax(axis=1) == placed.labels).all()
    own = np.linalg.norm(population.points - fitted.centroids[placed.labels], axis=1)
    np.testing.assert_allclose(placed.distance, own, rtol=1e-4)
    assert 0 < placed.outlier.mean() <= 0.02
    assert fitted.assign(Population(np.full((1, 6), 50.0, np.float32))).outlier.all()
    with pytest.raises(ValueError, match="dimensions"):
        fitted.assign(Population(population.points[:, :2]))


def test_merged_and_unpublished_clusters(fitted: Clustering, population: Population) -> None:
    before = fitted.assign(population)
    merged = replace(
        fitted,
        published=np.array([0, 1, 0])[fitted.published],
        centroids=fitted.centroids[:2],
        outlier_distance=np.ones(2),
    )
    after = merged.assign(population)
    np.testing.assert_array_equal(after.labels, np.where(before.labels == 2, 0, before.labels))
    np.testing.assert_allclose(after.probability[:, 0], before.probability[:, [0, 2]].sum(axis=1))
    hidden = replace(merged, published=np.array([0, 1, -1])[fitted.published]).assign(population)
    nobody = before.labels == 2
    assert (hidden.labels[nobody] == -1).all()
    assert np.isnan(hidden.distance[nobody]).all()
    assert not hidden.outlier[nobody].any()
    assert not hidden.probability[nobody].any()


def test_same_input_same_bytes_and_round_trip(fitted: Clustering, population: Population) -> None:
    assert select(Population(population.points.copy()), QUICK, 0).to_bytes() == fitted.to_bytes()
    read = Clustering.from_bytes(fitted.to_bytes())
    assert read.candidates == fitted.candidates
    assert read.to_bytes() == fitted.to_bytes()
    np.testing.assert_array_equal(read.assign(population).probability, fitted.assign(population).probability)


_DIGEST = """
import hashlib, sys
from segflow_tests.segments.test_clustering import QUICK, planted
from segflow.segments import null
from segflow.segments.clustering import select
null._WORTH_THREADS = int(sys.argv[1])
print(hashlib.sha256(select(planted()[0], QUICK, 0).to_bytes()).hexdigest())
"""


@pytest.mark.slow
def test_the_number_of_threads_changes_nothing() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", _DIGEST, threads_from],
            env={"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PATH": ""},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads, threads_from in (("1", "1000000"), ("2", "1"))
    }
    assert len(found) == 1


@pytest.mark.parametrize("seed", range(3))
def test_noise_has_no_structure(seed: int) -> None:
    found = select(noise(seed), QUICK, 0)
    assert (found.k, found.verdict) == (0, NO_STRUCTURE)
    assert not any(row["chosen"] for row in found.candidates)
    placed = found.assign(noise(seed))
    assert (placed.labels == -1).all()
    assert placed.probability.shape == (300, 0)
    with pytest.raises(ValueError, match="no clustering to write"):
        found.to_bytes()


def test_a_long_cloud_has_no_structure() -> None:
    long = Population(
        noise(0, 400).points * np.array([6, 1, 1, 1, 1, 1], np.float32) @ np.linalg.qr(CENTERS.T @ CENTERS)[0]
    )
    found = select(long, QUICK, 0)
    assert found.verdict == NO_STRUCTURE
    # Permuted columns alone would be fooled: they know nothing of correlations.
    assert max(row["stability_mean"] for row in found.candidates) > 0.9


def test_groups_that_do_not_come_back_are_not_published(population: Population) -> None:
    found = select(population, QUICK.model_copy(update={"stable": 1.0, "unstable": 1.0}), 0)
    assert found.verdict in (UNSTABLE, SEGMENTS)
    strict = select(population, QUICK.model_copy(update={"min_share": 0.4, "k_min": 3}), 0)
    assert (strict.k, strict.verdict) == (0, UNSTABLE)


def test_plain_rules_need_no_structure() -> None:
    users = noise(0)
    columns = np.random.default_rng(1).gamma(2, size=(300, 3)).astype(np.float32)
    names = ["log_recency_days", "log_sessions_per_week_long", "log_value_total"]
    features = UserFeatures([f"u{n:03d}" for n in range(300)], columns, names)
    config = QUICK.model_copy(update={"algorithms": ["kmeans", "rfm"]})
    found = select(replace(users, engagement=features), config, 0)
    assert (found.algorithm, found.k, found.verdict) == ("rfm", 3, SEGMENTS)


def test_fits_on_a_sample_and_moves_to_everybody() -> None:
    users, truth = planted((400, 240, 160))
    found = select(users, QUICK.model_copy(update={"sample_users": 200, "min_users": 5}), 0)
    assert (found.assign(users).labels == truth).mean() > 0.98
    np.testing.assert_allclose(found.centroids[0], users.points[truth == 0].mean(axis=0), atol=0.1)


def test_everybody_is_fitted_no_worse_than_the_sample(fitted: Clustering, population: Population) -> None:
    assert isinstance(fitted.model, Centers)
    assert fitted.projection is None
    again, _ = fit_everybody(fitted.model, _identity(6), population)
    assert isinstance(again, Centers)

    def inertia(model: Centers) -> float:
        labels = model.place(population).labels
        return float(((population.points - model.centers[labels]) ** 2).sum())

    assert inertia(again) <= inertia(fitted.model) * (1 + 1e-6)


def _identity(width: int):
    from segflow.segments.projection import Projection

    return Projection(np.zeros(width), np.eye(width))


def test_rows_fit_the_table(fitted: Clustering) -> None:
    rows = [{**row, "verdict": fitted.verdict, "model": None, "week": None} for row in fitted.candidates]
    assert set(rows[0]) == set(tables.SEGMENTATION.column_names)
    pa.Table.from_pylist(rows, schema=tables.SEGMENTATION.arrow)
    json.dumps(fitted.candidates)


@pytest.mark.parametrize(
    ("points", "changed", "message"),
    [
        (np.eye(3), {"k_min": 4, "k_max": 4}, "3 users cannot be divided into k_min = 4"),
        (np.random.default_rng(0).normal(size=(30, 2)), {}, "at least min_users = 20"),
        (np.ones((100, 3)), {}, "all 100 users have one and the same vector"),
        (np.repeat([[0.0, 1.0], [1.0, 0.0]], 50, axis=0), {"k_min": 3}, "2 different vectors"),
    ],
)
def test_what_cannot_be_clustered_is_told_in_one_line(points: np.ndarray, changed: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        select(Population(points.astype(np.float32)), QUICK.model_copy(update=changed), 0)
    assert "\n" not in str(caught.value)


def test_vectors_that_are_no_numbers_are_told() -> None:
    with pytest.raises(UserError, match="NaN"):
        Population(np.array([[1.0, np.nan]] * 50, np.float32))
