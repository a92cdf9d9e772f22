"""The indices: equal to scikit-learn's where it has them, and saying what they are said to say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

from segflow.segments.indices import border, distances, indices, silhouette


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(1).integers(4, size=200)


def apart(gap: float, users: int = 500) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat([0, 1], users)
    points = np.random.default_rng(2).normal(size=(2 * users, 3))
    points[:, 0] += gap * labels
    return points, labels


def test_silhouette_is_scikit_learns(points: np.ndarray, labels: np.ndarray) -> None:
    assert silhouette(distances(points), labels) == pytest.approx(silhouette_score(points, labels), abs=1e-5)
    alone = np.where(np.arange(200) == 7, 9, labels)
    assert silhouette(distances(points), alone) == pytest.approx(silhouette_score(points, alone), abs=1e-5)


def test_users_of_no_cluster_count_zero(points: np.ndarray, labels: np.ndarray) -> None:
    some = np.where(np.arange(200) < 50, -1, labels)
    expected = silhouette_score(points[50:], labels[50:]) * 150 / 200
    assert silhouette(distances(points), some) == pytest.approx(expected, abs=1e-5)


def test_fewer_than_two_clusters_are_the_worst(points: np.ndarray) -> None:
    one = np.zeros(200, int)
    assert (silhouette(distances(points), one), border(points, one)) == (-1, 1)
    assert indices(points, one) == (None, None, None)
    assert indices(points, np.full(200, -1)) == (None, None, None)


def test_other_indices(points: np.ndarray, labels: np.ndarray) -> None:
    some = np.where(np.arange(200) < 50, -1, labels)
    found = indices(points, some)
    assert found.calinski_harabasz == pytest.approx(calinski_harabasz_score(points[50:], labels[50:]))
    assert found.davies_bouldin == pytest.approx(davies_bouldin_score(points[50:], labels[50:]))
    line = np.array([[0.0], [2.0], [10.0], [14.0]])
    # Centroids 1 and 12; users lie 1 and 2 from theirs on average, so the larger diameter is 4.
    assert indices(line, np.array([0, 0, 1, 1])).dunn == pytest.approx(11 / 4)


def test_border_is_the_share_between_the_clusters() -> None:
    line = np.array([[0.0], [10.0], [-1.0], [11.0], [4.9], [1.0], [9.0], [5.1]])
    # Centroids 1.225 and 8.775: the middle fifth reaches from 4.245 to 5.755.
    assert border(line, np.array([0, 1, 0, 1, 0, 0, 1, 1])) == 2 / 8
    # Whoever is nearer to the other cluster than to the own stands between them too.
    assert border(np.array([[0.0], [10.0], [0.0], [10.0], [9.0]]), np.array([0, 1, 0, 1, 0])) == pytest.approx(1 / 5)


def test_a_gap_empties_the_border() -> None:
    shares = [border(*apart(gap)) for gap in (2.0, 4.0, 8.0)]
    assert shares[0] > 2 * shares[1] > 0
    assert shares[2] == 0


def test_a_cloud_cut_in_two_has_a_crowded_border() -> None:
    cloud = np.random.default_rng(3).normal(size=(4000, 1))
    # A normal cut at its mean: centroids at +-0.8 deviations, a tenth of the line to each side holds 12.7 %.
    assert border(cloud, (cloud[:, 0] > 0).astype(int)) == pytest.approx(0.127, abs=0.02)
