"""What can be said about a user and an item at a cut, counted from the log: the claims that reasons rest on.

Lives here: days, intervals, which items are had by the same users, whose texts are alike, what a segment has had lately.
Does not live here: which of them is the reason for a recommendation (reasons.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse

from segflow.rankers.features import Pairs
from segflow.rankers.snapshot import RankingWeek
from segflow.rankers.top import top_items
from segflow.representation.sequences import MICROSECONDS_PER_DAY, MICROSECONDS_PER_WEEK

EVIDENCE_USERS = 5
"""Users that a claim about what others had needs at least."""
RECENT_DAYS = 28
_ALIKE = 0.5  # cosine of two texts from which the items are called alike
_PARTNERS, _NEAREST = 20, 10
_SHRINKAGE = 10.0  # users added to those who had an item, so that few of them make no strong partner
_MOST_POPULAR, _POPULAR_SHARE = 100, 10
_BLOCK = 512


@dataclass(frozen=True)
class Neighbours:
    """For each candidate its K nearest others, best first, and how near they are; 0 where it is no claim."""

    items: npt.NDArray[np.int64]  # (C, K)
    near: npt.NDArray[np.float32]  # (C, K)

    def of(
        self, had: Pairs, users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """For each (user, item), users ascending: the nearest item that the user had, -1 for none, and how near it is."""
        several, local = np.unique(users, return_inverse=True)
        known = had.dense(several, len(self.items))
        near = np.where(known[local[:, None], self.items[items]], self.near[items], np.float32(0))
        best = near.argmax(axis=1)
        rows = np.arange(len(items))
        value = near[rows, best]
        return value, np.where(value > 0, self.items[items, best], -1)


@dataclass(frozen=True)
class Facts:
    """Users U in the order of the sequences, candidates C, P pairs of a user and an item it had, G segments.

    Attributes:
        days: (P,) different days with the item.
        since: (P,) days from the last of them to the cut, 1 for the day before it.
        interval: (P,) mean days between two of them, 0 for a single one.
        frequency: (P,) those days, decayed by the personal half-life.
        group: (U,) row of ``popular`` of each user; the last row is everybody, for users without a segment.
        log_share: (G + 1, C) log of the share of the group that had the item in the last four weeks.
        popular: (G + 1, C) among the most had of the group in these weeks: the first tenth, a hundred at most.
        partners: by how much greater the share of those who had the item is among those who had the other.
        nearest: cosine of the texts.
    """

    item_ids: tuple[str, ...]
    segments: tuple[str, ...]
    had: Pairs
    days: npt.NDArray[np.int64]
    since: npt.NDArray[np.int64]
    interval: npt.NDArray[np.float64]
    frequency: npt.NDArray[np.float64]
    group: npt.NDArray[np.int64]
    log_share: npt.NDArray[np.float64]
    popular: npt.NDArray[np.bool_]
    partners: Neighbours
    nearest: Neighbours

    @classmethod
    def of(cls, week: RankingWeek, segment_of: Mapping[str, str], vectors: npt.NDArray[np.float32]) -> Facts:
        """What is known when the week is over.

        Args:
            vectors: (C, d) text vectors of the candidates.
        """
        cut = week.start_us + MICROSECONDS_PER_WEEK
        user, item, day = week.history.known(cut)
        count, users = len(week.candidate_ids), week.history.users
        # Days of a history count from the first day of its log.
        age = cut // MICROSECONDS_PER_DAY - int(week.sequences.times.min()) // MICROSECONDS_PER_DAY - day
        starts = np.flatnonzero(np.diff(user * count + item, prepend=-1))
        days = np.diff(np.append(starts, len(user)))
        latest = starts + days - 1
        had = Pairs(np.searchsorted(user[starts], np.arange(users + 1)).astype(np.int64), item[starts])
        segments = tuple(sorted(set(segment_of.values())))
        place = {segment: number for number, segment in enumerate(segments)}
        own = (place.get(segment_of.get(str(one), ""), len(segments)) for one in week.sequences.user_ids)
        group = np.fromiter(own, np.int64, users)
        decayed = np.exp2(-(age - 0.5) / week.config.half_life_days)
        recent = age <= RECENT_DAYS
        pairs = np.unique(user[recent] * count + item[recent])
        log_share, popular = _popularity(pairs // count, pairs % count, group, len(segments), count)
        return cls(
            item_ids=week.candidate_ids,
            segments=segments,
            had=had,
            days=days,
            since=age[latest],
            interval=(age[starts] - age[latest]) / np.maximum(days - 1, 1),
            frequency=np.add.reduceat(decayed, starts) if len(starts) else decayed,
            group=group,
            log_share=log_share,
            popular=popular,
            partners=_partners(had, count),
            nearest=_nearest(vectors),
        )

    @cached_property
    def due(self) -> npt.NDArray[np.bool_]:
        """(P,) had at intervals, the last of which is over for no longer than it lasted."""
        return (self.days >= 3) & (self.since >= self.interval) & (self.since <= 2 * self.interval)

    def pair_of(self, users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The pair of each (user, item), -1 where the user did not have the item."""
        keys, wanted = self._keys, users * len(self.item_ids) + items
        place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
        return np.where(keys[place] == wanted, place, -1) if len(keys) else np.full(len(wanted), -1)

    @cached_property
    def _keys(self) -> npt.NDArray[np.int64]:
        return self.had.user_of_pair * len(self.item_ids) + self.had.items


def _popularity(
    user: npt.NDArray[np.int64], item: npt.NDArray[np.int64], group: npt.NDArray[np.int64], groups: int, count: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """(G + 1, C) log share of each group's users with the item, and whether it is one of the most had."""
    cells = np.bincount(group[user] * count + item, minlength=(groups + 1) * count).reshape(groups + 1, count)
    sizes = np.bincount(group, minlength=groups + 1)
    cells[-1], sizes[-1] = cells.sum(axis=0), len(group)
    places, _ = top_items(cells.astype(np.float32), max(1, min(_MOST_POPULAR, count // _POPULAR_SHARE)))
    popular = np.zeros(cells.shape, np.bool_)
    np.put_along_axis(popular, places, True, axis=1)
    return np.log((cells + 0.5) / (sizes[:, None] + 1)), popular & (cells >= EVIDENCE_USERS)


def _partners(had: Pairs, count: int) -> Neighbours:
    """By how much the share of those who had an item is greater among those who had another."""
    users = len(had.offsets) - 1
    ones = np.ones(len(had.items), np.float32)
    matrix = sparse.csr_array((ones, had.items, had.offsets), shape=(users, count))
    columns, number = matrix.tocsc(), np.bincount(had.items, minlength=count)

    def near(block: slice) -> npt.NDArray[np.float32]:
        both = (columns[:, block].T @ matrix).toarray()
        gain = both / (number + _SHRINKAGE) - number[block, None] / max(users, 1)
        return np.where(both >= EVIDENCE_USERS, np.maximum(gain, 0), 0).astype(np.float32)

    return _neighbours(near, count, _PARTNERS)


def _nearest(vectors: npt.NDArray[np.float32]) -> Neighbours:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)

    def near(block: slice) -> npt.NDArray[np.float32]:
        cosine = unit[block] @ unit.T
        return np.where(cosine >= _ALIKE, cosine, np.float32(0))

    return _neighbours(near, len(vectors), _NEAREST)


def _neighbours(near: Callable[[slice], npt.NDArray[np.float32]], count: int, most: int) -> Neighbours:
    """The ``most`` greatest of each row of a (C, C) matrix that is made a block of rows at a time, but for the diagonal."""
    items, values = [], []
    for start in range(0, count, _BLOCK):
        block = near(slice(start, min(start + _BLOCK, count)))
        np.fill_diagonal(block[:, start:], 0)
        best, value = top_items(block, most)
        items.append(best)
        values.append(value)
    return Neighbours(np.concatenate(items), np.concatenate(values))
