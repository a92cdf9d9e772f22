"""Simple scorers: hard to beat, cheap, and the baselines of every comparison.

Lives here: recent popularity, personal frequency with decay, and item co-occurrence (EASE). Does not live here:
anything trained by gradient steps.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segflow.rankers.features import Features


def recent_popularity(features: Features, users: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(users, C) scores: how many users had the item in the last seven days; the same for everybody."""
    return np.repeat(features.popularity[None, :], len(users), axis=0)


def personal_frequency(features: Features, users: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(users, C) scores: days the user had the item, exponentially decayed; recent popularity orders the rest."""
    scores = features.pairs.dense(users, len(features.popularity), features.frequency)
    return scores + recent_popularity(features, users) * np.float32(1e-6)


def fit_cooccurrence(features: Features, regularization: float, limit: int) -> npt.NDArray[np.float32]:
    """(C, C) item-to-item weights of EASE (Steck 2019), from which items the same users had.

    Only the ``limit`` items that most users had take part (the rest have zero weights): the cost is cubic in them.
    """
    pairs, count = features.pairs, len(features.popularity)
    users = np.bincount(pairs.items, minlength=count)
    chosen = np.sort(np.argsort(-users, kind="stable")[:limit])
    rows = np.arange(len(pairs.offsets) - 1)
    gram = np.zeros((len(chosen), len(chosen)), np.float32)
    for start in range(0, len(rows), 4096):
        block = pairs.dense(rows[start : start + 4096], count, np.float32(1))[:, chosen]
        gram += block.T @ block
    gram[np.diag_indices(len(chosen))] += np.float32(regularization)
    precision = np.linalg.inv(gram)
    small = -precision / np.diag(precision)
    np.fill_diagonal(small, 0)
    weights = np.zeros((count, count), np.float32)
    weights[np.ix_(chosen, chosen)] = small
    return weights


def cooccurrence(
    features: Features, weights: npt.NDArray[np.float32], users: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """(users, C) scores: sum of the weights from all items the user had."""
    return features.pairs.dense(users, len(weights), np.float32(1)) @ weights
