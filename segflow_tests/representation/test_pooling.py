"""A session's vector is the mean of what it holds, wherever the session stands in the column."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from segflow.representation.text import pool_sessions

IDS = ["a", "b", "c"]
VECTORS = np.eye(3, dtype=np.float32)
SESSIONS = pa.array([["c"], ["a", "b", "a"], None, [], ["x"], ["x", "b"]], pa.list_(pa.string()))
EXPECTED = np.array(
    [[0, 0, 1], [2 / 5**0.5, 1 / 5**0.5, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]], dtype=np.float32
)


def test_every_event_counts_once_and_unknown_items_not_at_all() -> None:
    assert np.allclose(pool_sessions(SESSIONS, IDS, VECTORS), EXPECTED)


def test_a_part_of_a_column_is_pooled_as_in_the_whole() -> None:
    for start in range(len(SESSIONS)):
        assert np.allclose(pool_sessions(SESSIONS.slice(start, 2), IDS, VECTORS), EXPECTED[start : start + 2])
