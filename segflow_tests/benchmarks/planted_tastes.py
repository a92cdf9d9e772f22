"""A log whose segments truly differ in what their users take next, by as much as is asked for.

All segments have the same items, and each its own popularity of them: everybody's, times a factor for each item whose
logarithm has the strength as its standard deviation. Histories are short, so that one user's events tell little of the
segment, and its members' together tell all. With strength 0 segments are labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segflow.representation.sequences import MICROSECONDS_PER_DAY, MICROSECONDS_PER_WEEK, EventSequences
from segflow_tests.sequences import sequences_of

_EVENTS = 0.9
"""Mean events of a user in a week after arriving."""


@dataclass(frozen=True)
class PlantedTastes:
    """The log, the segment of each user, and the start of the snapshot week."""

    sequences: EventSequences
    segment: npt.NDArray[np.int64]
    snapshot_us: int


def planted_tastes(
    strength: float, users: int = 2000, items: int = 240, segments: int = 4, weeks: int = 14, seed: int = 0
) -> PlantedTastes:
    """Users arrive all along, the last ones before the snapshot week, which is the last but one.

    At most one event a user, day and item.
    """
    rng = np.random.default_rng(seed)
    segment = rng.permutation(np.arange(users) % segments)
    popularity = np.exp(strength * rng.normal(size=(segments, items))) / np.arange(5, items + 5) ** 0.7
    steps = (popularity / popularity.sum(1, keepdims=True)).cumsum(1)
    arrival = rng.integers(weeks - 2, size=users)
    counts = rng.poisson(_EVENTS, (users, weeks)) * (np.arange(weeks) >= arrival[:, None])
    user, week = (index.repeat(counts.ravel()) for index in np.indices(counts.shape).reshape(2, -1))
    item = (rng.random(len(user))[:, None] > steps[segment[user]]).sum(1).clip(max=items - 1)
    day = week * 7 + rng.integers(7, size=len(user))
    noon = day * MICROSECONDS_PER_DAY + MICROSECONDS_PER_DAY // 2
    rows = np.unique(np.stack([user, noon, item], axis=1), axis=0)
    return PlantedTastes(sequences_of(rows, users, items), segment, (weeks - 2) * MICROSECONDS_PER_WEEK)
