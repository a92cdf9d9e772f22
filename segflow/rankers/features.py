"""What a user's own history says about each candidate item at a cut in time, and what everybody's says about the item.

Lives here: the candidates, the history of (user, item, day), the features of every pair a user already had, and the trends
of items. Does not live here: anything learned from data.

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
LAST_VISITS = (1, 3, 6, 12, 25)
TREND_DAYS = (3, 7, 14, 28)
PAIR_FEATURES = (
    *(f"log_count_{half_life:g}d" for half_life in HALF_LIVES_DAYS),
    "log_rate_60d",
    "log_rate_1000d",
    "log_recency",
    "log_due",
    "repeated",
    "log_popularity",
    "log_trend",
    "log_visits_since",
    *(f"share_of_last_{visits}_visits" for visits in LAST_VISITS),
    "log_days_since_first",
    "log_interval_mean",
    "log_interval_deviation",
    "log_interval_last",
)
"""Of an item that a user had. Counts are of days with it, decayed by half-life in days; a rate is a count by that of the
user's visits (days with any event). Due: days since the last one over the mean interval. Visits since: days with any event
after the last one with the item. Share of the last visits: those with the item. Intervals are of days between two days with
the item, zero where there is one only. Popularity and trend are those of the item."""
ITEM_FEATURES = (
    *(f"log_{who}_{days}d" for days in TREND_DAYS for who in ("buyers", "first_buyers")),
    "log_buyers_ever",
)
"""Of an item: users who had it in the last days, and users who had it for the first time, each as users a week."""
CONTEXT_FEATURES = ("log_visits_21d", "log_visits", "log_days_since_visit", "log_distinct_items")
_POPULAR_DAYS = 7
_RECENT, _LONG = (ITEM_FEATURES.index(f"log_buyers_{days}d") for days in (_POPULAR_DAYS, 28))


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

    def of(self, rows: npt.NDArray[np.int64]) -> Pairs:
        """The pairs of ``rows`` alone, in that order."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        return Pairs(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), self.items[self.take(rows)[0]])

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
        trends: (C, len(ITEM_FEATURES)) float32.
    """

    pairs: Pairs
    values: npt.NDArray[np.float32]
    frequency: npt.NDArray[np.float32]
    context: npt.NDArray[np.float32]
    popularity: npt.NDArray[np.float32]
    trends: npt.NDArray[np.float32]

    @property
    def log_popularity(self) -> npt.NDArray[np.float32]:
        """(C, 2) float32, log of the weekly users of the last seven and of the last 28 days."""
        return self.trends[:, [_RECENT, _LONG]]


@dataclass(frozen=True)
class _Known:
    """The days before a cut on which users had items: rows ordered by pair, then by day; pair p owns starts[p]..stops[p]."""

    user: npt.NDArray[np.int64]  # (P,)
    item: npt.NDArray[np.int64]  # (P,)
    starts: npt.NDArray[np.int64]  # (P,) the oldest day of each pair
    stops: npt.NDArray[np.int64]  # (P,) the latest, inclusive
    day: npt.NDArray[np.int32]  # (R,)
    age: npt.NDArray[np.float32]  # (R,) days before the cut, counted from the middle of the day
    visits_since: npt.NDArray[np.int64]  # (R,) later days on which the user had anything

    def sums(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(P,) sum over the days of each pair."""
        return np.add.reduceat(values, self.starts) if len(self.starts) else values


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
        self._first_visit = np.searchsorted(self._visitor, np.arange(self.users + 1))
        self._visit = np.searchsorted(visit, self._pair // len(candidates) * span + self._day)

    def at(self, cut_us: int, half_life_days: float, trends: npt.NDArray[np.float32] | None = None) -> Features:
        """Features from the days before ``cut_us`` (which must be a midnight UTC).

        Args:
            trends: those of the whole log, where this history is of a few of its users.
        """
        if cut_us % MICROSECONDS_PER_DAY:
            raise ValueError("a cut must be a midnight UTC: features count whole days")
        cut = cut_us // MICROSECONDS_PER_DAY - self._first_day
        known = self._known(cut)
        pairs = Pairs(np.searchsorted(known.user, np.arange(self.users + 1)).astype(np.int64), known.item)
        visits, since = self._visits(cut)
        decayed = {h: known.sums(np.exp2(-known.age / np.float32(h))) for h in {*HALF_LIVES_DAYS, half_life_days}}
        trends = _trends(known, len(self.candidates)) if trends is None else trends
        popular, lately = trends[known.item, _LONG], trends[known.item, _RECENT]
        values = [np.log(decayed[h] + np.float32(0.02)) for h in HALF_LIVES_DAYS]
        values += [np.log((decayed[h] + 0.05) / (visits[h][known.user] + 1)) for h in (60.0, 1000.0)]
        rhythm = _rhythm(known)
        values += [*rhythm[:3], popular, lately - popular, *rhythm[3:]]
        distinct = np.diff(pairs.offsets)
        context = [np.log1p(visits[21.0]), np.log1p(visits[1000.0]), np.log1p(since), np.log1p(distinct)]
        return Features(
            pairs=pairs,
            values=np.stack(values, axis=1).astype(np.float32),
            frequency=decayed[half_life_days].astype(np.float32),
            context=np.stack(context, axis=1).astype(np.float32),
            popularity=np.bincount(
                known.item[known.age[known.stops] < _POPULAR_DAYS], minlength=len(self.candidates)
            ).astype(np.float32),
            trends=trends,
        )

    def frequency(self, cut_us: int, half_life_days: float) -> npt.NDArray[np.float32]:
        """(P,) days with the item before ``cut_us``, decayed; the pairs are those of ``at``."""
        known = self._known(cut_us // MICROSECONDS_PER_DAY - self._first_day)
        return known.sums(np.exp2(-known.age / np.float32(half_life_days))).astype(np.float32)

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

    def _known(self, cut: int) -> _Known:
        before = self._day < cut
        pair, day = self._pair[before], self._day[before]
        starts = np.flatnonzero(np.diff(pair, prepend=-1))
        user = pair // len(self.candidates)
        visits = np.bincount(self._visitor[self._visit_day < cut], minlength=self.users)
        return _Known(
            user=user[starts],
            item=pair[starts] % len(self.candidates),
            starts=starts,
            stops=np.append(starts[1:], len(pair))[: len(starts)] - 1,
            day=day,
            age=(cut - day - 0.5).astype(np.float32),
            visits_since=(self._first_visit[:-1] + visits)[user] - 1 - self._visit[before],
        )


def _rhythm(known: _Known) -> list[npt.NDArray]:
    """Columns (P,): recency, due, repeated, visits since, shares of the last visits, first day, and the three intervals."""
    starts, stops = known.starts, known.stops
    oldest, latest = known.age[starts], known.age[stops]
    again = stops - starts
    interval = (oldest - latest) / np.maximum(again, 1)
    due = np.where(again > 0, np.log((latest + 1) / (interval + 1)), 0)
    gaps = np.diff(known.day, prepend=0).astype(np.float32)
    gaps[starts] = 0
    variance = known.sums(gaps**2) / np.maximum(again, 1) - interval**2
    shares = [known.sums((known.visits_since < last).astype(np.float32)) / last for last in LAST_VISITS]
    intervals = [interval, np.sqrt(np.maximum(variance, 0)), gaps[stops]]
    return [
        *(np.log1p(latest), due, again > 0, np.log1p(known.visits_since[stops])),
        *(*shares, np.log1p(oldest), *(np.log1p(one) for one in intervals)),
    ]


def _trends(known: _Known, candidates: int) -> npt.NDArray[np.float32]:
    """(C, len(ITEM_FEATURES)): a user's latest day with an item tells a buyer, the oldest a first-time buyer."""
    columns = []
    for days in TREND_DAYS:
        for row in (known.stops, known.starts):
            users = np.bincount(known.item[known.age[row] < days], minlength=candidates)
            columns.append(np.log1p(users * (7 / days)))
    columns.append(np.log1p(np.bincount(known.item, minlength=candidates)))
    return np.stack(columns, axis=1).astype(np.float32)
