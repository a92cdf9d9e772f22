"""Lloyd's passes over shards: scikit-learn's centres, the same to the last bit wherever shards are worked on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from segflow.segments import passes
from segflow.segments.passes import moved
from segflow_tests.compute.engines import sending


def planted(users: int, k: int, offset: float = 0.0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Users around k places, and centres that are not quite there."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(k, 12))
    points = places[rng.integers(0, k, users)] + 0.7 * rng.normal(size=(users, 12)) + offset
    return points.astype(np.float32), (places + 0.4 * rng.normal(size=places.shape) + offset).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_centres_are_those_of_scikit_learn(offset: float) -> None:
    points, centers = planted(20_000, 7, offset)
    expected = KMeans(7, init=centers, n_init=1, max_iter=3, tol=0).fit(points.astype(np.float64)).cluster_centers_
    # So far from zero, float32 tells no more than this of a user.
    np.testing.assert_allclose(moved(points, centers, 3), expected, atol=1e-5 + offset * 1e-6)


def test_other_machines_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_SHARD", 3_000)
    points, centers = planted(20_000, 5)
    here = moved(points, centers, 3)
    with sending(tmp_path) as engine:
        there = moved(points, centers, 3, engine)
        assert len(engine.given) == 3 * 7
        assert max(engine.given) < 2_000
    np.testing.assert_array_equal(here, there)


def test_passes_end_when_nothing_moves(tmp_path: Path) -> None:
    points, centers = planted(500, 2)
    with sending(tmp_path) as engine:
        still = moved(points, centers, 100, engine)
        assert 1 < len(engine.given) < 50
    np.testing.assert_array_equal(still, moved(points, centers, len(engine.given)))


def test_equally_near_users_go_to_the_first_centre_and_a_centre_without_users_stays() -> None:
    points = np.array([[-1.0], [0.0], [1.0]], np.float32)
    centers = np.array([[-1.0], [1.0], [1.0], [50.0]], np.float32)
    np.testing.assert_array_equal(moved(points, centers, 1)[:, 0], [-0.5, 1.0, 1.0, 50.0])
