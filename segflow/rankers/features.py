"""What a user's own history says about each candidate item at a cut in time.

Lives here: the candidates, the history of (user, item, day), and the features of every pair a user already had.
Does not live here: anything learned from data.

A day counts once: ten lines of one item on one day say no more about next week than one line does. On grocery data this
alone lifts personal frequency by about 0.03 NDCG@10.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segflow.errors import UserError
from segflow.representation.sequences import MICROSECONDS_PER_DAY, EventSequences

HALF_LIVES_DAYS = (7.0, 21.0, 60.0, 180.0, 1000.0)
PAIR_FEATURES = (
    *(f"log_count_{half_life:g}d" for half_life in HALF_LIVES_DAYS),
    "log_rate_60d",
    "log_rate_1000d",
    "log_recency",
    "log_due",
    "repeated",
    "log_popularity",
    "log_trend",
)
CONTEXT_FEATURES = ("log_visits_21d", "log_visits", "log_days_since_visit", "log_distinct_items")
_RECENT_DAYS = 7
_LONG_DAYS = 28


def candidate_items(
    sequences: EventSequences, minimum_events: int = 20, minimum_users: int = 5
) -> npt.NDArray[np.int64]:
    """(C,) ascending indices of the items with at least so many events by so many users in ``sequences``."""
    count = len(sequences.item_ids)
    real = sequences.items >= 0
    items = sequences.items[real].astype(np.int64)
    events = np.bincount(items, minlength=count)
    pairs = np.unique(sequences.user_of_event[real] * count + items)
    users = np.bincount(pairs % count, minlength=count)
    chosen = np.flatnonzero((events >= minimum_events) & (users >= minimum_users))
    if not len(chosen):
        raise UserError(
            f"rankers: no item has {minimum_events} events by {minimum_users} users before the snapshot; "
            "lower rankers.minimum_item_events and rankers.minimum_item_users or choose a later week"
        )
    return chosen


@dataclass(frozen=True)
class Pairs:
    """Sparse rows of users: user u owns ``offsets[u]:offsets[u + 1]`` of ``items`` (candidate positions, ascending)."""

    offsets: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]

    @property
    def user_of_pair(self) -> npt.NDArray[np.int64]:
        """(P,) the row each pair belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def dense(self, rows: npt.NDArray[np.int64], candidates: int, values: npt.ArrayLike = True) -> npt.NDArray:
        """(rows, candidates) array that holds ``values`` (one, or one per pair) at the pairs and zero elsewhere."""
        index, owner = self.take(rows)
        values = np.asarray(values)
        out = np.zeros((len(rows), candidates), values.dtype)
        out[owner, self.items[index]] = values[index] if values.ndim else values
        return out

    def take(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Indices of the pairs of ``rows``, and for each the position in ``rows`` it belongs to."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        owner = np.repeat(np.arange(len(rows)), lengths)
        return np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + starts[owner], owner


@dataclass(frozen=True)
class Features:
    """Everything known at a cut. Pairs are the items a user already had; no other item has pair features.

    Attributes:
        pairs: what each user already had.
        values: (P, len(PAIR_FEATURES)) float32.
        frequency: (P,) float32, days with the item, decayed by the personal half-life.
        context: (U, len(CONTEXT_FEATURES)) float32.
        popularity: (C,) float32, users who had the item in the last seven days.
        log_popularity: (C, 2) float32, log of the last seven days' and of the last 28 days' weekly users.
    """

    pairs: Pairs
    values: npt.NDArray[np.float32]
    frequency: npt.NDArray[np.float32]
    context: npt.NDArray[np.float32]
    popularity: npt.NDArray[np.float32]
    log_popularity: npt.NDArray[np.float32]


class ItemHistory:
    """The distinct (user, candidate, day) of a log, ready to be summarized before any cut."""

    def __init__(self, sequences: EventSequences, candidates: npt.NDArray[np.int64]) -> None:
        self.users = len(sequences.user_ids)
        self.candidates = candidates
        position = np.full(len(sequences.item_ids) + 1, -1)
        position[candidates] = np.arange(len(candidates))
        owner, day = sequences.user_of_event, sequences.times // MICROSECONDS_PER_DAY
        self._first_day = int(day.min()) if len(day) else 0
        span = int(day.max()) - self._first_day + 1 if len(day) else 1
        item = position[sequences.items]
        pair = owner * len(candidates) + item
        key = np.unique((pair * span + day - self._first_day)[item >= 0])
        self._pair, self._day = key // span, (key % span).astype(np.int32)
        visit = np.unique(owner * span + day - self._first_day)
        self._visitor, self._visit_day = visit // span, (visit % span).astype(np.int32)

    def at(self, cut_us: int, half_life_days: float) -> Features:
        """Features from the days before ``cut_us`` (which must be a midnight UTC)."""
        if cut_us % MICROSECONDS_PER_DAY:
            raise ValueError("a cut must be a midnight UTC: features count whole days")
        cut = cut_us // MICROSECONDS_PER_DAY - self._first_day
        known = self._day < cut
        pair, age = self._pair[known], (cut - self._day[known] - 0.5).astype(np.float32)
        starts = np.flatnonzero(np.diff(pair, prepend=-1))
        count = len(self.candidates)
        user, item = pair[starts] // count, pair[starts] % count
        pairs = Pairs(np.searchsorted(user, np.arange(self.users + 1)).astype(np.int64), item)
        visits, since = self._visits(cut)
        decayed = {h: _sums(np.exp2(-age / np.float32(h)), starts) for h in {*HALF_LIVES_DAYS, half_life_days}}
        recent = self._buyers(pair, age, _RECENT_DAYS)
        weekly = self._buyers(pair, age, _LONG_DAYS) * (_RECENT_DAYS / _LONG_DAYS)
        log_popularity = np.log1p(np.stack([recent, weekly], axis=1))
        # Rows of a pair are in time order: its first row is the oldest day, its last row the latest.
        stops = np.append(starts[1:], len(pair)) - 1
        oldest, latest = (age[starts], age[stops]) if len(starts) else (age, age)
        times = stops - starts + 1
        interval = (oldest - latest) / np.maximum(times - 1, 1)
        due = np.where(times > 1, np.log((latest + 1) / (interval + 1)), 0)
        values = [np.log(decayed[h] + np.float32(0.02)) for h in HALF_LIVES_DAYS]
        values += [np.log((decayed[h] + 0.05) / (visits[h][user] + 1)) for h in (60.0, 1000.0)]
        values += [np.log1p(latest), due, times > 1, log_popularity[item, 1]]
        values += [log_popularity[item, 0] - log_popularity[item, 1]]
        distinct = np.diff(pairs.offsets)
        context = [np.log1p(visits[21.0]), np.log1p(visits[1000.0]), np.log1p(since), np.log1p(distinct)]
        return Features(
            pairs=pairs,
            values=np.stack(values, axis=1).astype(np.float32),
            frequency=decayed[half_life_days].astype(np.float32),
            context=np.stack(context, axis=1).astype(np.float32),
            popularity=recent.astype(np.float32),
            log_popularity=log_popularity.astype(np.float32),
        )

    def known(self, cut_us: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """User, candidate and day number of each distinct day with an item before ``cut_us``, in that order."""
        before = self._day < cut_us // MICROSECONDS_PER_DAY - self._first_day
        pair, count = self._pair[before], len(self.candidates)
        return pair // count, pair % count, self._day[before].astype(np.int64)

    def had(self, start_us: int, end_us: int) -> Pairs:
        """The distinct candidates each user had on the days in [start, end): what a ranking should find."""
        low, high = (cut // MICROSECONDS_PER_DAY - self._first_day for cut in (start_us, end_us))
        pair = np.unique(self._pair[(self._day >= low) & (self._day < high)])
        user, item = pair // len(self.candidates), pair % len(self.candidates)
        return Pairs(np.searchsorted(user, np.arange(self.users + 1)).astype(np.int64), item)

    def _visits(self, cut: int) -> tuple[dict[float, npt.NDArray], npt.NDArray]:
        """Decayed number of days with any event by half-life, and the days since the last one (365 when none)."""
        known = self._visit_day < cut
        user, age = self._visitor[known], cut - self._visit_day[known] - 0.5
        decayed = {h: np.bincount(user, np.exp2(-age / h), minlength=self.users) for h in HALF_LIVES_DAYS}
        since = np.full(self.users, 365.0)
        np.minimum.at(since, user, age)
        return decayed, since

    def _buyers(self, pair: npt.NDArray[np.int64], age: npt.NDArray[np.float32], days: int) -> npt.NDArray:
        """(C,) users who had the item within the last ``days`` days."""
        recent = np.unique(pair[age < days])
        return np.bincount(recent % len(self.candidates), minlength=len(self.candidates)).astype(np.float32)


def _sums(values: npt.NDArray[np.float32], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    return np.add.reduceat(values, starts) if len(starts) else values
