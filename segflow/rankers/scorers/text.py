"""Items whose texts are like those of what the user has: the one scorer that knows items nobody had yet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segflow.rankers.features import Features


def text_similarity(
    features: Features, vectors: npt.NDArray[np.float32], users: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """(users, C) scores: cosine of an item's text vector and the user's profile, zero for a user without any item.

    The profile is the mean of the unit vectors of the user's items, weighted by the logarithm of one plus their decayed
    days (a content profile in the manner of Pazzani & Billsus 2007, with the damped term frequency of Salton & Buckley
    1988).

    Args:
        vectors: (C, d) float32 text vectors of the candidates.
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    profiles = features.pairs.dense(users, len(vectors), np.log1p(features.frequency)) @ unit
    length = np.linalg.norm(profiles, axis=1, keepdims=True)
    return np.divide(profiles, length, out=np.zeros_like(profiles), where=length > 0) @ unit.T
