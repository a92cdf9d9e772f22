"""Properties of recommended lists on cases small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segflow.evaluation.lists import Judges, gini, list_quality

POPULARITY = np.array([4.0, 2.0, 1.0, 1.0])
CATEGORIES = np.array([0, 0, 1, 2])
VECTORS = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])


def _judges(
    history: list[list[float]], popularity: np.ndarray = POPULARITY, profiles: list[float] | None = None
) -> Judges:
    profiles = np.full(len(history), np.nan) if profiles is None else np.array(profiles)
    return Judges(popularity, 8, CATEGORIES[: len(popularity)], np.array(history), profiles, VECTORS)


def test_a_worked_example() -> None:
    quality = list_quality(
        "arm", np.array([[0, 1], [0, 2]]), np.array([0.5, 1.0]), _judges([[3.0, 0.0, 0.0], [0.0, 0.0, 5.0]]), 0.3
    )
    assert (quality.diversity_weight, quality.ndcg_10, quality.coverage) == (0.3, 0.75, 0.75)
    assert quality.novelty == pytest.approx((1 + 2 + 1 + 3) / 4)
    assert quality.diversity == 0.5
    assert quality.distance == pytest.approx((0.4 + 1) / 2)
    # The first list repeats the user's mix, the second shares nothing with it.
    assert quality.miscalibration == pytest.approx(0.5)


def test_users_without_history_do_not_count_against_calibration() -> None:
    judges = _judges([[2.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    quality = list_quality("arm", np.array([[0, 2], [1, 3]]), np.ones(2), judges)
    assert quality.miscalibration == pytest.approx(0.0)


def test_items_without_history_are_the_most_novel_but_finite() -> None:
    judges = _judges([[1.0]], np.array([7.0, 0.0]))
    quality = list_quality("arm", np.array([[1]]), np.ones(1), judges)
    assert quality.novelty == pytest.approx(math.log2(8))


def test_popularity_of_lists_stands_beside_that_of_what_users_had() -> None:
    # Of eight users, 4, 2, 1 and 1 had the items. The second user had nothing.
    judges = _judges([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]], profiles=[3.0, math.nan])
    quality = list_quality("arm", np.array([[0, 1], [2, 3]]), np.ones(2), judges)
    assert quality.popularity == pytest.approx(((4 + 2) / 2 + (1 + 1) / 2) / 2 / 8)
    assert quality.profile_popularity == pytest.approx(3 / 8)
    assert quality.popularity_lift == pytest.approx(3 / 3 - 1)
    popular = list_quality("arm", np.array([[0], [0]]), np.ones(2), judges)
    assert popular.popularity_lift == pytest.approx(4 / 3 - 1)
    nobody = list_quality("arm", np.array([[0]]), np.ones(1), _judges([[0.0, 0.0, 0.0]]))
    assert nobody.profile_popularity is nobody.popularity_lift is None


def test_gini_is_the_mean_difference_of_two_items() -> None:
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 40, 25)
    apart = np.abs(counts[:, None] - counts[None]).mean()
    assert gini(counts) == pytest.approx(apart / (2 * counts.mean()))
    assert gini(np.full(9, 4)) == pytest.approx(0.0)
    assert gini(np.eye(1, 50, dtype=int)[0]) == pytest.approx(49 / 50)
    assert gini(np.zeros(5, int)) == 0.0
    quality = list_quality("arm", np.array([[0, 1], [0, 2]]), np.ones(2), _judges([[1.0, 0, 0], [1.0, 0, 0]]))
    assert quality.gini == pytest.approx(gini(np.array([2, 1, 1, 0])))
