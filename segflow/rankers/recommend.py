"""Top-N recommendations from scores: exact, block by block, ties always resolved the same way.

Lives here: choosing the best items. Does not live here: scoring.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt


def top_items(
    scores: npt.NDArray[np.float32], count: int, exclude: npt.NDArray[np.bool_] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The ``count`` best of (U, C) scores: (U, count) candidate positions and their scores, best first.

    Equal scores keep candidate order. Items marked in ``exclude`` (U, C) never appear; where fewer than ``count`` are
    left, the position is -1 and the score -inf.
    """
    if exclude is not None:
        scores = np.where(exclude, -np.inf, scores)
    count = min(count, scores.shape[1])
    # The value of the last place: everything above it is in; of what equals it, the first in candidate order.
    last = np.partition(scores, scores.shape[1] - count, axis=1)[:, [-count]]
    above, equal = scores > last, scores == last
    room = count - above.sum(axis=1, keepdims=True)
    chosen = above | (equal & (np.cumsum(equal, axis=1) <= room))
    position = np.nonzero(chosen)[1].reshape(len(scores), count)
    values = np.take_along_axis(scores, position, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    position, values = np.take_along_axis(position, order, axis=1), np.take_along_axis(values, order, axis=1)
    return np.where(np.isneginf(values), -1, position), values.astype(np.float32)


def recommend(
    score: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]],
    rows: npt.NDArray[np.int64],
    count: int,
    exclude: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]] | None = None,
    block: int = 1024,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Top items of all ``rows``, a block at a time: ``score`` and ``exclude`` map row numbers to (rows, C) arrays."""
    parts = []
    for start in range(0, len(rows), block):
        chosen = rows[start : start + block]
        parts.append(top_items(score(chosen), count, None if exclude is None else exclude(chosen)))
    if not parts:
        return np.zeros((0, count), np.int64), np.zeros((0, count), np.float32)
    return np.concatenate([position for position, _ in parts]), np.concatenate([value for _, value in parts])
