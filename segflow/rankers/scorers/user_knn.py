"""What the users most like somebody have: the classic neighbourhood method, for sets of items.

Source: Breese, Heckerman & Kadie 1998, "Empirical Analysis of Predictive Algorithms for Collaborative Filtering" (UAI): cosine
of items weighted by their rarity (inverse user frequency). Neighbours are sought among reference users, so that the cost
grows with the number of users and not with its square. They are kept without their ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse
from torch import Tensor, from_numpy

from segflow.rankers.features import PAIR_FEATURES, Features

RECENT_DAYS = 28
_BLOCK = 1024
_RECENCY = PAIR_FEATURES.index("log_recency")


@dataclass(frozen=True)
class ReferenceUsers:
    """The items that R users had.

    Attributes:
        offsets: (R + 1,) user r owns ``offsets[r]:offsets[r + 1]`` of ``items``.
        items: candidate positions.
        recent: which of them the user had within the last 28 days.
        rarity: (C,) float32 weight of an item, the less the more users had it.
    """

    offsets: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    recent: npt.NDArray[np.bool_]
    rarity: npt.NDArray[np.float32]

    @classmethod
    def of(cls, features: Features, limit: int) -> ReferenceUsers:
        """A sample of at most ``limit`` of the users who had anything; the same for every seed of a training."""
        pairs = features.pairs
        users = np.flatnonzero(np.diff(pairs.offsets))
        if len(users) > limit:
            users = np.sort(np.random.default_rng(0).choice(users, limit, replace=False))
        index, owner = pairs.take(users)
        had = np.bincount(pairs.items, minlength=len(features.popularity))
        return cls(
            offsets=np.searchsorted(owner, np.arange(len(users) + 1)).astype(np.int64),
            items=pairs.items[index].astype(np.int32),
            recent=features.values[index, _RECENCY] < np.log1p(np.float32(RECENT_DAYS)),
            rarity=np.log((len(pairs.offsets) - 1) / np.maximum(had, 1)).astype(np.float32),
        )

    def score(
        self, features: Features, users: npt.NDArray[np.int64], neighbours: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Two times (users, C): the share of the nearest users that ever had the item, and that had it lately.

        Shares are weighted by similarity. A reference user all of whose items the user has too is no neighbour: they know
        nothing new, and are often the same person. Who is as near as the last of the neighbours is one too, so that the
        order of users does not matter.
        """
        count = len(self.rarity)
        found = np.zeros((2, len(users), count), np.float32)
        for start in range(0, len(users), _BLOCK):
            block = users[start : start + _BLOCK]
            weights = self._weights(features.pairs.dense(block, count, np.float32(1)), neighbours)
            for kind, had in enumerate(self._had):
                found[kind, start : start + _BLOCK] = (weights @ had).toarray()
        return found[0], found[1]

    @cached_property
    def _had(self) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Two times (R, C): ones at the items that each had, and at those that each had lately."""
        shape = (len(self.offsets) - 1, len(self.rarity))
        ever, lately = (
            sparse.csr_array((values.astype(np.float32), self.items, self.offsets), shape=shape)
            for values in (np.ones(len(self.items)), self.recent)
        )
        return ever, lately

    @cached_property
    def _profiles(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(R, C) unit vectors of the items weighted by rarity, and (R,) their lengths before; made once for all who ask."""
        profiles = self._had[0].toarray() * self.rarity
        length = np.linalg.norm(profiles, axis=1)
        profiles /= np.maximum(length, 1e-9)[:, None]
        return profiles, length

    def _weights(self, had: npt.NDArray[np.float32], neighbours: int) -> sparse.csr_array:
        """(rows, R) similarities to the nearest, summing to one in each row that has any."""
        profiles, length = self._profiles
        own = had * self.rarity
        # Of a user all of whose items are shared, what is shared weighs as much as all of it.
        similarity = own @ profiles.T
        similarity[similarity >= length * np.float32(1 - 1e-5)] = 0
        count = min(neighbours, similarity.shape[1])
        if count == 0:
            # Early in a log nobody may have had any candidate yet.
            return sparse.csr_array(similarity)
        least = np.partition(similarity, similarity.shape[1] - count, axis=1)[:, [similarity.shape[1] - count]]
        similarity[similarity < least] = 0
        return sparse.csr_array(similarity / np.maximum(similarity.sum(axis=1, keepdims=True), 1e-9))

    def to_tensors(self) -> dict[str, Tensor]:
        """All that ``from_tensors`` needs."""
        return {name: from_numpy(getattr(self, name)) for name in ("offsets", "items", "recent", "rarity")}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ReferenceUsers:
        """The inverse of ``to_tensors``."""
        return cls(**{name: tensors[name].numpy() for name in ("offsets", "items", "recent", "rarity")})
