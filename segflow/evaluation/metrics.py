"""Ranking metrics, one value a user, over a full ranking of all candidates.

What lives here: the exact top k of a score block and the accuracy metrics computed from it.
What does not: averages, intervals and comparisons between arms (statistics.py), and properties of the
recommended lists that need no ground truth (lists.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CUTOFFS = (5, 10, 20)
METRICS = ("ndcg", "recall", "hit", "mrr", "map")

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


def top_k(scores: FloatArray, k: int) -> IntArray:
    """The k best candidates of each row, best first; equal scores in candidate order.

    scores: (U, C), may hold -inf but not NaN. Returns column indices (U, min(k, C)).
    Exact and linear in C: only the k survivors of a partition are sorted.
    """
    users, candidates = scores.shape
    k = min(k, candidates)
    kth = np.partition(scores, candidates - k, axis=1)[:, candidates - k, None]
    above = scores > kth
    tied = scores == kth
    # A partition breaks ties at the k-th place arbitrarily; the first of the tied candidates must win.
    room = k - above.sum(axis=1, keepdims=True)
    chosen = above | (tied & (np.cumsum(tied, axis=1) <= room))
    columns = np.nonzero(chosen)[1].reshape(users, k)
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def ranking_metrics(
    scores: FloatArray,
    relevant: BoolArray,
    exclude: BoolArray | None = None,
    cutoffs: tuple[int, ...] = CUTOFFS,
) -> dict[str, FloatArray]:
    """Binary-relevance ranking metrics of a block of users, NaN where a user has no relevant candidate.

    scores, relevant, exclude: (U, C). Excluded candidates are neither ranked nor relevant. Ties are broken
    by candidate order. Returns `ndcg_k`, `recall_k`, `hit_k`, `mrr_k` and `map_k`, each (U,), for every cutoff k:

    - NDCG: gain 1, discount 1 / log2(rank + 1), ideal list truncated at k (Järvelin & Kekäläinen 2002);
    - recall: relevant candidates within the top k, as a share of *all* relevant candidates of the user;
    - hit: 1 when at least one relevant candidate is within the top k;
    - MRR: 1 / rank of the first relevant candidate within the top k, 0 when there is none;
    - MAP: average precision, the precision at the rank of each relevant candidate within the top k, summed and divided by
      *all* relevant candidates of the user, as trec_eval's `map_cut` does: at most k / relevant where there are more than k.

    Raises ValueError on mismatched shapes, an empty candidate list, a cutoff below 1 or non-finite scores.
    """
    if scores.ndim != 2 or scores.shape[1] == 0 or relevant.shape != scores.shape:
        raise ValueError(f"scores {scores.shape} and relevant {relevant.shape} must be one (users, candidates)")
    if exclude is not None and exclude.shape != scores.shape:
        raise ValueError(f"exclude {exclude.shape} must have the shape of scores {scores.shape}")
    if min(cutoffs) < 1:
        raise ValueError(f"cutoffs must be at least 1, got {cutoffs}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite: hide candidates through `exclude`, not by infinite scores")
    if exclude is not None:
        relevant = relevant & ~exclude
        scores = np.where(exclude, -np.inf, scores)

    hits = np.take_along_axis(relevant, top_k(scores, max(cutoffs)), axis=1)
    discounts = 1.0 / np.log2(np.arange(2, hits.shape[1] + 2))
    precision_at_hits = hits * np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    ideal_gain = np.concatenate([[0.0], np.cumsum(discounts)])
    relevant_count = relevant.sum(axis=1)
    undefined = relevant_count == 0
    denominator = np.where(undefined, 1, relevant_count)

    values: dict[str, FloatArray] = {}
    for k in cutoffs:
        top = hits[:, :k]
        ideal = ideal_gain[np.minimum(denominator, top.shape[1])]
        values[f"ndcg_{k}"] = top @ discounts[: top.shape[1]] / ideal
        found = top.sum(axis=1)
        values[f"recall_{k}"] = found / denominator
        values[f"hit_{k}"] = (found > 0).astype(np.float64)
        values[f"mrr_{k}"] = np.where(found > 0, 1.0 / (1.0 + top.argmax(axis=1)), 0.0)
        values[f"map_{k}"] = precision_at_hits[:, :k].sum(axis=1) / denominator
    return {name: np.where(undefined, np.nan, value) for name, value in values.items()}
