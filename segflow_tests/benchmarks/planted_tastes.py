"""A log whose segments truly differ in what their users take up next, by as much as is asked for.

Everybody has habits, drawn from one popularity for all. What users try beside them comes from that popularity too, until the
season starts: from then on a share of it, the strength, comes from a list of the user's own segment. The lists are new to
everybody, so a history from before the season tells nothing of the segment. With strength 0 segments are labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segflow.representation.sequences import MICROSECONDS_PER_DAY, MICROSECONDS_PER_WEEK, EventSequences

SEASON_WEEKS = 8
"""Weeks of the season; the last two are the snapshot week and the test week."""

_HABITS, _AGAIN, _TRIED, _LIST = 10, 0.25, 1.5, 15


@dataclass(frozen=True)
class PlantedTastes:
    """The log, the segment of each user, and the start of the snapshot week."""

    sequences: EventSequences
    segment: npt.NDArray[np.int64]
    snapshot_us: int


def planted_tastes(
    strength: float, users: int = 1000, items: int = 240, segments: int = 4, weeks: int = 22, seed: int = 0
) -> PlantedTastes:
    """Users 0 to ``users`` with items 0 to ``items``; at most one event a user, day and item."""
    rng = np.random.default_rng(seed)
    segment = rng.permutation(np.arange(users) % segments)
    popularity = 1 / np.arange(3, items + 3)
    lists = rng.permutation(np.arange(items // 4, items))[: segments * _LIST].reshape(segments, _LIST)
    popularity[lists.ravel()] = 0
    popularity /= popularity.sum()
    habits = np.stack([rng.choice(items, _HABITS, replace=False, p=popularity) for _ in range(users)])
    owner, week, slot = np.nonzero(rng.random((users, weeks, _HABITS)) < _AGAIN)
    tries = rng.poisson(_TRIED, (users, weeks))
    trier, when = (index.repeat(tries.ravel()) for index in np.indices(tries.shape).reshape(2, -1))
    own = (when >= weeks - SEASON_WEEKS) & (rng.random(len(trier)) < strength)
    tried = rng.choice(items, len(trier), p=popularity)
    tried[own] = lists[segment[trier[own]], rng.integers(_LIST, size=int(own.sum()))]
    user, item = np.concatenate([owner, trier]), np.concatenate([habits[owner, slot], tried])
    day = np.concatenate([week, when]) * 7 + rng.integers(7, size=len(user))
    rows = np.unique(np.stack([user, day, item], axis=1), axis=0)
    sequences = EventSequences(
        user_ids=np.array([f"u{number:05}" for number in range(users)]),
        offsets=np.searchsorted(rows[:, 0], np.arange(users + 1)).astype(np.int64),
        items=rows[:, 2].astype(np.int32),
        types=np.zeros(len(rows), np.int8),
        times=rows[:, 1].astype(np.int64) * MICROSECONDS_PER_DAY + MICROSECONDS_PER_DAY // 2,
        values=np.ones(len(rows), np.float32),
        item_ids=np.array([f"i{number:04}" for number in range(items)]),
        event_types=("buy",),
    )
    return PlantedTastes(sequences, segment, (weeks - 2) * MICROSECONDS_PER_WEEK)
