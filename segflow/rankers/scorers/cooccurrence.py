"""Which items the same users have: item-to-item weights, learned in closed form (EASE) or by counting (item-kNN)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segflow.rankers.features import Features


def fit_cooccurrence(
    features: Features, regularization: float, limit: int, counts: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """(C, C) item-to-item weights of EASE (Steck 2019), from which items the same users had.

    Only the ``limit`` items that most users had take part (the rest have zero weights): the cost is cubic in them.

    Args:
        counts: (P,) how much each pair counts, as the same in ``cooccurrence``; default: having the item is all.
    """
    return _spread(*ease_weights(features, regularization, limit, counts), len(features.popularity))


def ease_weights(
    features: Features, regularization: float, limit: int, counts: npt.NDArray[np.float32] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """``fit_cooccurrence`` without the zeros: the n items that take part, ascending, and their (n, n) weights."""
    chosen, gram = shared_users(features, limit, counts)
    return chosen, solve_ease(gram, regularization)


def shared_users(
    features: Features, limit: int, counts: npt.NDArray[np.float32] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The n, at most ``limit``, items that most users had, ascending, and (n, n): how many users had each two of them."""
    pairs, count = features.pairs, len(features.popularity)
    users = np.bincount(pairs.items, minlength=count)
    chosen = np.sort(np.argsort(-users, kind="stable")[:limit])
    rows = np.arange(len(pairs.offsets) - 1)
    gram = np.zeros((len(chosen), len(chosen)), np.float32)
    for start in range(0, len(rows), 4096):
        block = pairs.dense(rows[start : start + 4096], count, np.float32(1) if counts is None else counts)[:, chosen]
        gram += block.T @ block
    return chosen, gram


def solve_ease(gram: npt.NDArray[np.float32], regularization: float) -> npt.NDArray[np.float32]:
    """(n, n) EASE weights from how many users had each two of n items."""
    ridge = gram + np.diag(np.full(len(gram), regularization, np.float32))
    precision = np.linalg.inv(ridge)
    weights: npt.NDArray[np.float32] = (-precision / np.diag(precision)).astype(np.float32, copy=False)
    np.fill_diagonal(weights, 0)
    return weights


def fit_item_neighbours(features: Features, neighbours: int, shrinkage: float, limit: int) -> npt.NDArray[np.float32]:
    """(C, C) item-to-item weights: cosine of the sets of users, for each item's ``neighbours`` most alike items only.

    ``shrinkage`` users are added to the denominator, which draws similarities that rest on few users to zero. Source:
    Sarwar et al. 2001; the shrinkage is that of Bell & Koren 2007. Only the ``limit`` items that most users had take part.
    """
    chosen, gram = shared_users(features, limit)
    users = np.diag(gram).copy()
    similarity = gram / np.maximum(np.sqrt(users[:, None] * users[None, :]) + np.float32(shrinkage), np.float32(1e-9))
    np.fill_diagonal(similarity, 0)
    kept = min(neighbours, len(chosen))
    least = np.partition(similarity, len(chosen) - kept, axis=0)[len(chosen) - kept]
    return _spread(chosen, np.where(similarity >= least, similarity, np.float32(0)), len(features.popularity))


def cooccurrence(
    features: Features,
    weights: npt.NDArray[np.float32],
    users: npt.NDArray[np.int64],
    counts: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """(users, C) scores: sum of the weights from all items the user had, times ``counts`` (P,) of the pairs if given."""
    return features.pairs.dense(users, len(weights), np.float32(1) if counts is None else counts) @ weights


def _spread(chosen: npt.NDArray[np.int64], small: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    weights = np.zeros((count, count), np.float32)
    weights[np.ix_(chosen, chosen)] = small
    return weights
