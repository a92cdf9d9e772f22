"""Top-N: exactly the best items, ties in candidate order, nothing excluded."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segflow.rankers.recommend import recommend, top_items

shapes = st.tuples(st.integers(1, 5), st.integers(1, 12))
scores = shapes.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=st.integers(-2, 2)))


@given(scores, st.integers(1, 15), st.randoms(use_true_random=False))
def test_top_items_equal_a_full_stable_sort(values: np.ndarray, count: int, random: Random) -> None:
    exclude = np.array([[random.random() < 0.3 for _ in row] for row in values])
    position, best = top_items(values, count, exclude)
    for user, row in enumerate(values):
        order = [item for item in np.argsort(-row, kind="stable") if not exclude[user, item]][:count]
        width = min(count, values.shape[1])
        assert position[user].tolist() == order + [-1] * (width - len(order))
        assert best[user, : len(order)].tolist() == row[order].tolist()


def test_blocks_change_nothing() -> None:
    values = np.random.default_rng(0).integers(0, 4, (23, 9)).astype(np.float32)
    seen = values == 1
    rows = np.arange(23)
    whole = top_items(values, 4, seen)
    parts = recommend(lambda r: values[r], rows, 4, lambda r: seen[r], block=5)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])


def test_no_rows() -> None:
    position, best = recommend(lambda r: np.zeros((len(r), 9), np.float32), np.zeros(0, np.int64), 4)
    assert position.shape == best.shape == (0, 4)
