"""TIFU-KNN: a user's own decayed item frequencies, mixed with those of the users most like them.

Source: Hu, He, Gao & Zhang 2020, "Modeling Personalized Item Frequency Information for Next-basket Recommendation" (SIGIR).
A basket is a day. Other than the authors' program, which cuts a history into a number of groups, groups hold a number of
baskets, as their paper says; a user is no neighbour of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from segflow.rankers.features import ItemHistory

_BLOCK = 1024


@dataclass(frozen=True)
class TifuSettings:
    """The method's five numbers.

    Attributes:
        group: baskets in a group; the earliest group holds what is left.
        within: weight of a basket over that of the next one in its group, 0 to 1.
        between: weight of a group over that of the next one, 0 to 1.
        neighbours: most alike users whose mean is mixed in.
        own: weight of the user's own frequencies, 0 to 1; the neighbours get the rest.
    """

    group: int = 7
    within: float = 0.9
    between: float = 0.7
    neighbours: int = 300
    own: float = 0.7


def tifu_vectors(history: ItemHistory, cut_us: int, settings: TifuSettings) -> sparse.csr_array:
    """(U, C) float32 decayed item frequencies from the days before ``cut_us``; the row of a user without any is zero."""
    users, items, days = history.known(cut_us)
    span = int(days.max(initial=0)) + 1
    baskets, basket = np.unique(users * span + days, return_inverse=True)
    owner = baskets // span
    sizes = np.bincount(owner, minlength=history.users)
    # Numbered from the user's latest basket, 0, backwards.
    back = np.cumsum(sizes)[owner] - 1 - np.arange(len(baskets))
    group = back // settings.group
    groups = -(-sizes // settings.group)[owner]
    held = np.where(group == groups - 1, sizes[owner] - group * settings.group, settings.group)
    weight = settings.within ** (back % settings.group) / held * settings.between**group / groups
    shape = (history.users, len(history.candidates))
    return sparse.csr_array((weight[basket].astype(np.float32), (users, items)), shape=shape)


def tifu_knn(
    vectors: sparse.csr_array, users: npt.NDArray[np.int64], settings: TifuSettings
) -> npt.NDArray[np.float32]:
    """(users, C) scores: own frequencies, and the mean of the nearest users' by Euclidean distance."""
    return tifu_mixed(vectors, users, nearest_mean(vectors, users, settings.neighbours), settings.own)


def tifu_mixed(
    vectors: sparse.csr_array, users: npt.NDArray[np.int64], others: npt.NDArray[np.float32], own: float
) -> npt.NDArray[np.float32]:
    """(users, C) scores: ``own`` times the users' frequencies and the rest of ``others``, as ``nearest_mean`` has them."""
    mixed: npt.NDArray[np.float32] = np.float32(own) * vectors[users].toarray() + np.float32(1 - own) * others
    return mixed


def nearest_mean(
    vectors: sparse.csr_array,
    users: npt.NDArray[np.int64],
    neighbours: int,
    among: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float32]:
    """(users, C) mean frequencies of the nearest users.

    Who is as near as the last of the neighbours is one too, so that the order of users does not matter; who had nothing is
    nobody's neighbour.

    Args:
        among: (R,) users, ascending, among whom neighbours are sought, so that the cost need not grow with the square of
            the users; default: all.
    """
    among = np.arange(vectors.shape[0]) if among is None else among
    reference = vectors if len(among) == vectors.shape[0] else vectors[among]
    found = np.empty((len(users), vectors.shape[1]), np.float32)
    lengths = np.asarray(reference.multiply(reference).sum(axis=1)).ravel()
    count = min(neighbours, len(among))
    for start in range(0, len(users), _BLOCK):
        rows = users[start : start + _BLOCK]
        distances = lengths[None, :] - 2 * (reference @ vectors[rows].toarray().T).T
        distances[:, lengths == 0] = np.inf
        place = np.minimum(np.searchsorted(among, rows), len(among) - 1)
        itself = among[place] == rows
        distances[np.flatnonzero(itself), place[itself]] = np.inf
        furthest = np.partition(distances, count - 1, axis=1)[:, [count - 1]]
        near = (distances <= furthest) & np.isfinite(distances)
        weights = near / np.maximum(near.sum(axis=1, keepdims=True), 1).astype(np.float32)
        found[start : start + _BLOCK] = (sparse.csr_array(weights) @ reference).toarray()
    return found
