"""Top-N recommendations from scores: exact, block by block, ties always resolved the same way.

Lives here: choosing the best items, and the rows of the recommendations table. Does not live here: scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segflow.rankers.deltas import Grouped
from segflow.rankers.global_ranker import GlobalRanker
from segflow.rankers.snapshot import RankingWeek


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


def recommendation_rows(
    week: RankingWeek,
    ranker: GlobalRanker,
    grouped: Grouped | None,
    segment_of: Mapping[str, str],
    count: int,
) -> pa.Table:
    """user_id, rank, item_id, score, arm and segment_id of everybody's top items for the week after the snapshot week."""
    examples = week.after(only_with_targets=False)
    users = [str(user) for user in week.sequences.user_ids[examples.users]]
    places, scores = recommend(lambda rows: ranker.score(examples, rows, grouped), np.arange(len(examples)), count)
    served = np.zeros(len(users), bool) if grouped is None else grouped.membership.group.numpy()[examples.users] >= 0
    repeat = places.shape[1]
    candidates = np.asarray(week.candidate_ids)
    return pa.table(
        {
            "user_id": np.repeat(users, repeat),
            "rank": np.tile(np.arange(1, repeat + 1, dtype=np.int32), len(users)),
            "item_id": candidates[places.ravel()],
            "score": scores.ravel().astype(np.float64),
            "arm": np.repeat(np.where(served, "segment", "global"), repeat),
            "segment_id": np.repeat([segment_of.get(user, "unassigned") for user in users], repeat),
        }
    )
