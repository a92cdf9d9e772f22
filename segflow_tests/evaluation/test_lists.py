"""Properties of recommended lists on cases small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segflow.evaluation.lists import Judges, list_quality

POPULARITY = np.array([4.0, 2.0, 1.0, 1.0])
CATEGORIES = np.array([0, 0, 1, 2])
VECTORS = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])


def _judges(history: list[list[float]], popularity: np.ndarray = POPULARITY) -> Judges:
    return Judges(popularity, CATEGORIES[: len(popularity)], np.array(history), VECTORS)


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
