"""Clustering: finds planted groups, is honest about noise, and gives the same bytes twice."""

from __future__ import annotations

import numpy as np
import pytest

from segflow.config import SegmentConfig
from segflow.errors import UserError
from segflow.segments.clustering import CLUSTERERS, Clustering, _finish, choose, select

QUICK = SegmentConfig(k_max=6, starts=3, bootstraps=5, null_repeats=2)
# Groups that differ in several columns at once: permuting the columns destroys them.
CENTERS = np.array([[0, 0, 0, 0], [4, 4, 4, 4], [4, -4, 4, -4]], float)


def planted(sizes: tuple[int, ...] = (200, 120, 80), seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    points = CENTERS[labels] + np.random.default_rng(seed).normal(size=(len(labels), 4))
    order = np.random.default_rng(seed).permutation(len(labels))
    return points[order], labels[order]


@pytest.mark.parametrize("algorithm", sorted(CLUSTERERS))
def test_finds_planted_groups(algorithm: str):
    points, truth = planted()
    fitted = select(points, QUICK.model_copy(update={"algorithms": [algorithm]}), 0)
    assert fitted.k == 3
    assert fitted.selection == "eligible"
    found = fitted.assign(points).labels
    # Clusters are numbered by falling size, as the planted ones are.
    assert (found == truth).mean() > 0.98
    chosen = [row for row in fitted.candidates if row["chosen"]]
    assert [row["k"] for row in chosen] == [3]
    assert chosen[0]["silhouette"] > chosen[0]["null_silhouette"] + 0.1
    assert (fitted.stability > 0.9).all()


def test_assignment_is_consistent():
    points, _ = planted()
    fitted = select(points, QUICK, 0)
    placed = fitted.assign(points)
    np.testing.assert_allclose(placed.probability.sum(axis=1), 1)
    assert (placed.probability.argmax(axis=1) == placed.labels).all()
    own = np.linalg.norm(points - fitted.centers[placed.labels], axis=1)
    np.testing.assert_allclose(placed.distance, own)
    assert 0 < placed.outlier.mean() <= 0.02
    assert fitted.assign(np.full((1, 4), 50.0)).outlier.all()
    between = fitted.assign((fitted.centers[0] + fitted.centers[1])[None] / 2)
    assert between.probability.max() == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match="dimensions"):
        fitted.assign(points[:, :2])


def test_same_input_same_bytes_and_round_trip():
    points, _ = planted()
    fitted = select(points, QUICK, 0)
    again = select(points.copy(), QUICK, 0)
    assert fitted.to_bytes() == again.to_bytes()
    read = Clustering.from_bytes(fitted.to_bytes())
    assert read.candidates == fitted.candidates
    assert read.to_bytes() == fitted.to_bytes()
    np.testing.assert_array_equal(read.assign(points).probability, fitted.assign(points).probability)


def test_everything_about_a_cluster_moves_with_its_number():
    points, truth = planted()
    cycled = CENTERS[[2, 0, 1]]  # a cycle: an order and its inverse are easily confused
    fitted = _finish(points, "kmeans", cycled, np.array([0.7, 0.9, 0.8]), "eligible", [], QUICK)
    np.testing.assert_array_equal(fitted.centers, CENTERS)
    np.testing.assert_array_equal(fitted.stability, [0.9, 0.8, 0.7])
    placed = fitted.assign(points)
    expected = [np.quantile(placed.distance[placed.labels == number], 0.99) for number in range(3)]
    np.testing.assert_allclose(fitted.outlier_distance, expected, rtol=1e-3)
    assert fitted.variance == pytest.approx(1, abs=0.1)
    assert (placed.labels == truth).mean() > 0.98


def test_noise_does_not_beat_its_null():
    noise = np.random.default_rng(3).normal(size=(400, 6))
    fitted = select(noise, QUICK, 0)
    chosen = next(row for row in fitted.candidates if row["chosen"])
    assert chosen["silhouette"] < chosen["null_silhouette"] + 0.02


def test_candidate_with_a_tiny_cluster_is_not_eligible():
    points, _ = planted((300, 200, 8))
    fitted = select(points, QUICK.model_copy(update={"min_share": 0.05}), 0)
    assert {row["k"]: row["eligible"] for row in fitted.candidates}[3] is False
    assert fitted.k == 2


def test_fits_on_a_sample_and_refits_on_everybody():
    points, truth = planted((400, 240, 160))
    fitted = select(points, QUICK.model_copy(update={"sample_users": 150}), 0)
    assert (fitted.assign(points).labels == truth).mean() > 0.98
    np.testing.assert_allclose(fitted.centers[0], points[truth == 0].mean(axis=0), atol=0.1)


def test_too_few_users_is_the_users_mistake():
    with pytest.raises(UserError, match="too few"):
        select(np.zeros((5, 2)), QUICK, 0)


def row(k: int, silhouette: float, eligible: bool = True, stability: float = 0.9, share: float = 0.2) -> dict:
    return {
        "k": k,
        "silhouette": silhouette,
        "eligible": eligible,
        "stability_mean": stability,
        "smallest_share": share,
    }


def test_choice_prefers_the_smallest_near_the_best_eligible():
    rows = [row(2, 0.30), row(3, 0.39), row(4, 0.40), row(5, 0.60, eligible=False)]
    assert choose(rows, SegmentConfig()) == (1, "eligible")
    assert choose(rows[::-1], SegmentConfig())[0] == 2


def test_choice_without_an_eligible_candidate_is_marked():
    rows = [row(2, 0.3, False, 0.5), row(3, 0.2, False, 0.7), row(4, 0.4, False, 0.8, share=0.01)]
    index, selection = choose(rows, SegmentConfig())
    assert index == 1
    assert selection == "most stable (none eligible)"
