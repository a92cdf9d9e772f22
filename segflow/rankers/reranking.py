"""Re-ranking of the best items of each user: lists that are varied, and items that are not in everybody's list.

Lives here: maximal marginal relevance and the cap on exposure, over a pool of each user's best items. Does not live here:
the pool (recommend.py) and what the lists are then worth (segflow/evaluation).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

_STEP = np.float32(2.0**-11)
_WINDOW = 32


def pool_size(count: int, exposure: float = 1.0) -> int:
    """How many of a user's best items lists of ``count`` are chosen from.

    With a cap on exposure the lists together need ``count / exposure`` items, so a user's pool should hold as many.
    """
    return max(100, 5 * count, min(1000, math.ceil(count / exposure)))


def unit_vectors(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(C, d) vectors of length one, rounded to 2**-11: sums of their products are exact in float32 in whatever order.

    Each product is a multiple of 2**-22 and the absolute products of two unit vectors sum to about one, so no partial sum
    needs more than the 24 bits there are; the number of threads cannot decide between two items that are nearly as good.
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, length, out=np.zeros_like(vectors, np.float32), where=length > 0)
    return np.round(unit / _STEP) * _STEP


def marginal_relevance_order(
    scores: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], weight: float, count: int
) -> npt.NDArray[np.int64]:
    """(B, count) positions in each user's pool, in the order of maximal marginal relevance (Carbonell & Goldstein 1998).

    The next item is the one with the greatest (1 - weight) * relevance - weight * greatest cosine to an item before it.
    Relevance is the score, brought to 0 ... 1 within the pool. Equals keep the order of the pool.

    Args:
        scores: (B, M) of the pool, best first; -inf where a user has fewer items, which come last.
        vectors: (B, M, d) ``unit_vectors`` of the pool.
        weight: of being unlike, 0 to 1; the lambda of the paper is 1 - weight.
    """
    return next(marginal_relevance_orders(scores, vectors, (weight,), count))


def marginal_relevance_orders(
    scores: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], weights: Iterable[float], count: int
) -> Iterator[npt.NDArray[np.int64]]:
    """``marginal_relevance_order`` for several weights; what costs most, the cosines within the pool, is found once."""
    left = ~np.isneginf(scores)
    lowest = np.where(left, scores, np.inf).min(axis=1, keepdims=True)
    span = np.maximum(scores.max(axis=1, keepdims=True) - lowest, np.float32(1e-12))
    relevance = np.divide(scores - lowest, span, out=np.zeros_like(scores), where=left)
    alike = np.matmul(vectors, vectors.transpose(0, 2, 1))
    rows = np.arange(len(scores))
    for weight in weights:
        order = np.empty((len(scores), count), np.int64)
        nearest = np.zeros_like(scores)
        # What an item is worth lies in -1 ... 1: places without an item come below that, and what was taken below these.
        worth = np.where(left, np.float32(1 - weight) * relevance, np.float32(-4))
        for place in range(count):
            best = (worth - np.float32(weight) * nearest).argmax(axis=1)
            order[:, place] = best
            worth[rows, best] = -8
            nearest = np.maximum(nearest, alike[rows, best]) if place else alike[rows, best].copy()
        yield order


def cap_exposure(
    items: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], count: int, most: int
) -> npt.NDArray[np.bool_]:
    """(U, M) which of the pool make up each user's list, no item being in more than ``most`` lists.

    Every user asks for the first ``count`` items of the pool; an item asked for too often refuses those for whom it is least
    likely; they ask for their next, until no item refuses. This is deferred acceptance (Gale & Shapley 1962): no user and
    no item refused would both rather have each other, whatever the order in which users ask. Of equals the user that comes
    first wins. A pool may run out; then the list is shorter.

    Args:
        items: (U, M) candidates in the order the user would have them.
        scores: (U, M) their scores; -inf where a user has fewer items, which come last.
    """
    likely, kept = log_shares(scores), np.zeros(items.shape, np.bool_)
    # How likely an item has to be for a user whom it is not to refuse at once; it only grows.
    least = np.full(int(items.max(initial=0)) + 1, np.finfo(np.float32).min)
    following, wanting = np.zeros(len(items), np.int64), np.full(len(items), count)
    while wanting.any():
        _ask(kept, following, wanting, likely, items, least)
        asked = np.flatnonzero(kept)
        item = items.ravel()[asked]
        crowded = np.bincount(item, minlength=1)[item] > most
        asked, item = asked[crowded], item[crowded]
        odds = likely.ravel()[asked]
        # Equals stay in the order of users.
        order = np.lexsort((-odds, item))
        place = _ordinal(item[order])
        last, refused = order[place == most - 1], asked[order[place >= most]]
        least[item[last]] = odds[last]
        kept.ravel()[refused] = False
        wanting = np.bincount(refused // items.shape[1], minlength=len(items))
    return kept


def log_shares(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(U, M) how likely each item of a pool is for its user: the score less the log sum of exponents over the pool."""
    there = ~np.isneginf(scores)
    best = np.max(scores, axis=1, keepdims=True, where=there, initial=np.finfo(np.float32).min)
    odds = np.where(there, scores - best, np.float32(-np.inf))
    return odds - np.log(np.maximum(np.exp(odds).sum(axis=1, keepdims=True), np.float32(1e-30)))


def _ask(
    kept: npt.NDArray[np.bool_],
    following: npt.NDArray[np.int64],
    wanting: npt.NDArray[np.int64],
    likely: npt.NDArray[np.float32],
    items: npt.NDArray[np.int64],
    least: npt.NDArray[np.float32],
) -> None:
    """Keep the next ``wanting`` places of each user that would not be refused at once, as far as the pool goes.

    Places are looked at from ``following`` on, which moves behind the last one kept; a window at a time, since most users
    find theirs near.
    """
    users, width = np.flatnonzero(wanting), items.shape[1]
    while len(users):
        window = following[users, None] + np.arange(_WINDOW)
        cell = users[:, None], np.minimum(window, width - 1)
        willing = (window < width) & (likely[cell] >= least[items[cell]])
        taken = willing & (np.cumsum(willing, axis=1) <= wanting[users, None])
        row, column = np.nonzero(taken)
        kept[users[row], window[row, column]] = True
        wanting[users] -= taken.sum(axis=1)
        found = wanting[users] == 0
        following[users] += np.where(found, _WINDOW - taken[:, ::-1].argmax(axis=1), _WINDOW)
        users = users[~found & (following[users] < width)]


def _ordinal(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How often each of the sorted values came before: 0 for the first of its kind."""
    first = np.flatnonzero(np.diff(values, prepend=-1))
    return np.arange(len(values)) - np.repeat(first, np.diff(np.append(first, len(values))))
