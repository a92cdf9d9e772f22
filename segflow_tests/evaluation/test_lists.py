"""Properties of recommended lists on cases small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segflow.evaluation.lists import list_quality

POPULARITY = np.array([4.0, 2.0, 1.0, 1.0])
CATEGORIES = np.array([0, 0, 1, 2])


def test_a_worked_example() -> None:
    quality = list_quality(
        "arm", np.array([[0, 1], [0, 2]]), POPULARITY, CATEGORIES, np.array([[3.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    )
    assert quality.coverage == 0.75
    assert quality.novelty == pytest.approx((1 + 2 + 1 + 3) / 4)
    assert quality.diversity == 0.5
    # The first list repeats the user's mix, the second shares nothing with it.
    assert quality.miscalibration == pytest.approx(0.5)


def test_users_without_history_do_not_count_against_calibration() -> None:
    quality = list_quality(
        "arm", np.array([[0, 2], [1, 3]]), POPULARITY, CATEGORIES, np.array([[2.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    )
    assert quality.miscalibration == pytest.approx(0.0)


def test_items_without_history_are_the_most_novel_but_finite() -> None:
    quality = list_quality("arm", np.array([[1]]), np.array([7.0, 0.0]), np.array([0, 0]), np.ones((1, 1)))
    assert quality.novelty == pytest.approx(math.log2(8))
