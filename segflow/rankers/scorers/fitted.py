"""The scorers that the global ranker mixes, fitted to what is known at a cut.

Lives here: which scorers these are, and one object of arrays that scores any user, also one that it was not fitted on. It
holds no user id, so a served model can carry it. Does not live here: how scores are weighed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, from_numpy

from segflow.config import RankerConfig
from segflow.rankers.features import Features
from segflow.rankers.scorers.cooccurrence import ease_weights
from segflow.rankers.scorers.user_knn import ReferenceUsers

SCORERS = ("cooccurrence", "counted_cooccurrence", "log_neighbours", "log_recent_neighbours")
COOCCURRENCE = SCORERS.index("cooccurrence")
_ARRAYS = ("items", "had", "counted", "trends")
_SMALLEST_SHARE = np.float32(1e-3)


@dataclass(frozen=True)
class FittedScorers:
    """Scorers of one cut.

    Attributes:
        items: (n,) candidates that take part in EASE.
        had: (n, n) float32 EASE weights from having an item.
        counted: (n, n) float32 EASE weights from the logarithm of one plus the decayed days with it.
        reference: users among whom the nearest are sought.
        neighbours: how many of them.
        trends: (C, J) float32 item features at the cut, for users who are scored without the rest of the log.
    """

    items: npt.NDArray[np.int64]
    had: npt.NDArray[np.float32]
    counted: npt.NDArray[np.float32]
    reference: ReferenceUsers
    neighbours: int
    trends: npt.NDArray[np.float32]

    @classmethod
    def of(cls, features: Features, config: RankerConfig) -> FittedScorers:
        """Fitted to all users of ``features``."""
        ridge, limit = config.cooccurrence_regularization, config.cooccurrence_items
        items, had = ease_weights(features, ridge, limit)
        return cls(
            items=items,
            had=had,
            counted=ease_weights(features, ridge, limit, _counts(features))[1],
            reference=ReferenceUsers.of(features, config.reference_users),
            neighbours=config.neighbours,
            trends=features.trends,
        )

    def score(self, features: Features, users: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """(users, C, len(SCORERS)) what each scorer says of each candidate, from the users' ``features`` at the cut or later."""
        ever, lately = self.reference.score(features, users, self.neighbours)
        found = np.zeros((len(users), len(features.popularity), len(SCORERS)), np.float16)
        pairs, candidates = features.pairs, found.shape[1]
        had, counted = pairs.dense(users, candidates, np.float32(1)), pairs.dense(users, candidates, _counts(features))
        found[:, self.items, 0] = had[:, self.items] @ self.had
        found[:, self.items, 1] = counted[:, self.items] @ self.counted
        found[:, :, 2], found[:, :, 3] = np.log(ever + _SMALLEST_SHARE), np.log(lately + _SMALLEST_SHARE)
        return found

    def to_tensors(self) -> dict[str, Tensor]:
        """All that ``from_tensors`` needs."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        tensors = {name: from_numpy(array) for name, array in arrays.items()}
        return (
            tensors
            | {"neighbours": from_numpy(np.array(self.neighbours))}
            | {f"reference.{name}": tensor for name, tensor in self.reference.to_tensors().items()}
        )

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> FittedScorers:
        """The inverse of ``to_tensors``."""
        reference = {name.removeprefix("reference."): tensor for name, tensor in tensors.items() if "." in name}
        arrays = {name: tensors[name].numpy() for name in _ARRAYS}
        return cls(reference=ReferenceUsers.from_tensors(reference), neighbours=int(tensors["neighbours"]), **arrays)


def _counts(features: Features) -> npt.NDArray[np.float32]:
    counts: npt.NDArray[np.float32] = np.log1p(features.frequency)
    return counts
