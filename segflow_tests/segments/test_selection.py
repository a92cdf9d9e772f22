"""The choice among candidates, the null model, and what is merged or left out of the chosen one."""

from __future__ import annotations

import numpy as np
import pytest

from segflow.config import SegmentConfig
from segflow.segments.null import elliptical, null_reference, permuted
from segflow.segments.projection import Projection
from segflow.segments.publication import publish
from segflow.segments.selection import NO_STRUCTURE, SEGMENTS, UNSTABLE, choose, eligible, stability

CONFIG = SegmentConfig()


def row(k: int, separation: float, eligible: bool = True, separated: bool = True, algorithm: str = "kmeans") -> dict:
    return {"algorithm": algorithm, "k": k, "separation": separation, "eligible": eligible, "separated": separated}


def test_the_fewest_segments_near_the_best_are_chosen() -> None:
    rows = [row(2, 0.30), row(3, 0.39), row(4, 0.40), row(5, 0.60, eligible=False)]
    assert choose(rows, CONFIG) == (1, SEGMENTS)
    assert choose(rows[::-1], CONFIG) == (2, SEGMENTS)
    assert choose(rows, SegmentConfig(tolerance=0)) == (2, SEGMENTS)


def test_only_the_best_candidate_is_held_against_the_null_model() -> None:
    lucky = [row(2, 0.02, separated=False), row(3, 0.01, separated=True)]
    assert choose(lucky, CONFIG) == (None, NO_STRUCTURE)


def test_a_continuum_is_divided_only_if_asked_for_and_called_what_it_is() -> None:
    rows = [row(k, 0.0, separated=False) | {"silhouette": s} for k, s in ((4, 0.099), (5, 0.1), (6, 0.08))]
    assert choose(rows, CONFIG) == (None, NO_STRUCTURE)
    divide = SegmentConfig(without_structure="divide")
    assert choose(rows, divide) == (0, NO_STRUCTURE)
    assert choose([one | {"eligible": False} for one in rows], divide) == (None, NO_STRUCTURE)


def test_structure_that_does_not_come_back_is_told_from_no_structure() -> None:
    assert choose([row(2, 0.3, eligible=False)], CONFIG) == (None, UNSTABLE)
    assert choose([row(2, 0.3, eligible=False, separated=False)], CONFIG) == (None, NO_STRUCTURE)
    assert choose([], CONFIG) == (None, NO_STRUCTURE)


def test_a_plain_rule_needs_no_structure() -> None:
    rows = [row(2, 0.02, separated=False), row(3, -0.05, separated=False, algorithm="rfm")]
    assert choose(rows, CONFIG) == (1, SEGMENTS)
    assert choose([*rows, row(4, 0.2)], CONFIG) == (2, SEGMENTS)


@pytest.mark.parametrize(
    ("changed", "held"),
    [
        ({}, True),
        ({"k": 1}, False),
        ({"stable_share": 0.5}, False),
        ({"smallest_users": 19}, False),
        ({"smallest_share": 0.009}, False),
    ],
)
def test_what_makes_a_candidate_eligible(changed: dict[str, float], held: bool) -> None:
    good = {"k": 2, "stable_share": 0.6, "smallest_users": 20, "smallest_share": 0.01}
    assert eligible(good | changed, CONFIG) is held


def test_stability_is_the_best_match_of_each_cluster() -> None:
    # Rows: of no cluster, first, second. The second cluster came back whole, the first in two halves.
    counts = np.array([[0, 0, 0, 0], [0, 5, 5, 0], [0, 0, 0, 8]])
    gone = np.array([[0], [10], [8]])
    np.testing.assert_allclose(stability([counts]), [0.5, 1])
    np.testing.assert_allclose(stability([counts, gone]), [0.25, 0.5])


def test_permuted_copies_keep_columns_and_elliptical_ones_shape_and_tails() -> None:
    rng = np.random.default_rng(0)
    points = (rng.standard_t(4, size=(4000, 1)) * rng.normal(size=(4000, 3))) @ rng.normal(size=(3, 3))
    shuffled = permuted(points, rng)
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(points, axis=0))
    assert abs(np.corrcoef(shuffled.T)[0, 1]) < 0.1
    cloud = elliptical(points, rng)
    np.testing.assert_allclose(np.cov(cloud.T), np.cov(points.T), rtol=0.15, atol=0.1)
    axes = np.linalg.inv(np.cov(points.T))

    def farthest(x: np.ndarray) -> float:
        return float(np.sqrt(np.einsum("ui,ij,uj->u", x, axes, x)).max())

    # A Gaussian cloud of this size reaches about 4.8.
    assert farthest(cloud - points.mean(axis=0)) == pytest.approx(farthest(points - points.mean(axis=0)), rel=0.02)
    assert farthest(cloud - points.mean(axis=0)) > 8


def test_elliptical_copies_of_a_column_that_never_varies() -> None:
    points = np.random.default_rng(0).normal(size=(50, 3))
    points[:, 1] = 7
    np.testing.assert_allclose(elliptical(points, np.random.default_rng(1))[:, 1], 7)


def test_the_null_model_of_groups_has_no_gap() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=300)
    points = 6 * rng.normal(size=(3, 8))[labels] + rng.normal(size=(300, 8))
    found = null_reference(points, [2, 3], SegmentConfig(null_repeats=2), 0)
    assert list(found) == [2, 3]
    assert all(0 < one.silhouette < 0.4 and one.border > 0.05 for one in found.values())


def test_projection_keeps_what_is_nearest() -> None:
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(100, 12)) * np.geomspace(5, 0.1, 12)).astype(np.float32)
    projection = Projection.fit(points, 4)
    projected = projection.apply(points)
    centers = projected[[3, 50, 70]]
    lifted = projection.lift(centers)
    inside = ((projected[:, None] - centers) ** 2).sum(axis=2)
    whole = ((points[:, None] - lifted) ** 2).sum(axis=2)
    # What the projection leaves out is as far from one centre as from any other.
    np.testing.assert_allclose(whole - whole[:, :1], inside - inside[:, :1], atol=1e-3)
    again = Projection.from_tensors(projection.to_tensors()).apply(points)
    np.testing.assert_array_equal(again, projected)
    order = rng.permutation(100)
    np.testing.assert_array_equal(projection.apply(points[order]), projected[order])
    assert Projection.fit(points[:3], 16).axes.shape == (2, 12)


class TestPublish:
    """Four clusters on a line at 0, 10, 30 and 41, of 40, 50, 60 and 30 users."""

    sizes = (40, 50, 60, 30)
    labels = np.repeat(np.arange(4), sizes)
    points = np.array([0.0, 10, 30, 41])[labels][:, None]

    @staticmethod
    def overlaps(*shared: tuple[int, int, int]) -> list[np.ndarray]:
        """One resample in which (cluster, resampled cluster, users) are shared."""
        counts = np.zeros((5, 5), int)
        for own, again, users in shared:
            counts[own + 1, again + 1] = users
        return [counts]

    def test_sound_clusters_are_numbered_by_size(self) -> None:
        whole = self.overlaps(*((one, one, size) for one, size in enumerate(self.sizes)))
        found = publish(self.points, self.labels, 4, whole, CONFIG)
        assert found is not None
        assert found.numbers.tolist() == [2, 1, 0, 3]
        np.testing.assert_array_equal(found.labels, found.numbers[self.labels])
        assert found.stability.tolist() == [1, 1, 1, 1]

    def test_an_unstable_cluster_joins_the_nearest(self) -> None:
        # The first two come back as one that is neither, the others whole.
        blurred = self.overlaps((0, 0, 20), (0, 1, 20), (1, 0, 25), (1, 1, 25), (2, 2, 60), (3, 3, 30))
        found = publish(self.points, self.labels, 4, blurred, CONFIG)
        assert found is not None
        assert found.numbers.tolist() == [0, 0, 1, 2]
        assert found.stability.tolist() == [1, 1, 1]  # merged, the two come back as a whole
        left_out = publish(self.points, self.labels, 4, blurred, SegmentConfig(unstable_clusters="unpublish"))
        assert left_out is not None
        assert left_out.numbers.tolist() == [-1, -1, 0, 1]
        assert set(left_out.labels[self.labels < 2]) == {-1}

    def test_a_small_cluster_is_not_published_either(self) -> None:
        whole = self.overlaps(*((one, one, size) for one, size in enumerate(self.sizes)))
        found = publish(self.points, self.labels, 4, whole, SegmentConfig(min_users=35))
        assert found is not None
        assert found.numbers.tolist() == [2, 1, 0, 0]

    def test_fewer_than_two_segments_are_none(self) -> None:
        gone = self.overlaps(*((one, 0, size) for one, size in enumerate(self.sizes)))
        assert publish(self.points, self.labels, 4, gone, CONFIG) is None

    def test_a_cluster_without_users_is_none(self) -> None:
        whole = self.overlaps(*((one, one, size) for one, size in enumerate(self.sizes)))
        found = publish(self.points, self.labels, 5, [np.pad(whole[0], ((0, 1), (0, 0)))], CONFIG)
        assert found is not None
        assert found.numbers.tolist() == [2, 1, 0, 3, -1]
