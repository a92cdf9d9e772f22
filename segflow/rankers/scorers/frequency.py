"""What the user has often: the hardest simple scorer to beat where people repeat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segflow.rankers.features import Features
from segflow.rankers.scorers.popularity import recent_popularity


def personal_frequency(features: Features, users: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(users, C) scores: days the user had the item, exponentially decayed; recent popularity orders the rest."""
    scores = features.pairs.dense(users, len(features.popularity), features.frequency)
    return scores + recent_popularity(features, users) * np.float32(1e-6)
