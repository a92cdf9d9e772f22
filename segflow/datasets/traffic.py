"""What happens in the generated shop: sessions of a day, the rows they leave, the rows of bots, and the dirt on them.

Rows are numpy records with numbers in place of ids. Each carries the moment at which it arrives, which decides the file it
lies in. Each day has its own random generator, so that a day depends on nothing but the shop and its number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from segflow.datasets.shop import (
    BUY,
    CART,
    DEPARTMENTS,
    HABITS,
    HOUR,
    LOOKS,
    RATE,
    ROWS_PER_SESSION,
    WEEKEND,
    Array,
    Items,
    Shop,
    Users,
)

TYPES = ("view", "cart", "purchase")
SECOND = 1_000_000
DAY = 86_400 * SECOND
MISSING_TIME = np.iinfo(np.int64).min
"""Numpy's not-a-time."""

ROWS = np.dtype(
    [
        ("event_id", "i8"),
        ("ts", "i8"),  # microseconds since 1970
        ("arrival", "i8"),  # the same; not written
        ("price", "f8"),
        ("user", "i4"),  # -1: missing
        ("item", "i4"),  # position in the catalogue
        ("type", "i1"),  # number in TYPES; -1: missing
    ],
    align=True,
)

BOT_DAY = 6_000
"""Rows of a bot on a day on which it is about, if the log has bots enough for that."""

BAD = ("missing_user", "missing_time", "non_positive_value", "outside_calendar", "missing_type")
"""Kinds of bad rows, named by the reason for which cleaning refuses them."""

_EPOCH = date(1970, 1, 1)
_FAR_FUTURE = (date(2199, 1, 1) - _EPOCH).days * DAY
_BLOCK_SESSIONS = 50_000
_HOURS_SPREAD = 1.5
_MEAN_PAUSE = 45 * SECOND
_LONGEST_PAUSE = 1_190 * SECOND
_DISCOUNTS = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.9, 0.9, 0.8])

# A look is at one of the user's eight favourites in so many of 256 cases. A favourite is replaced after so many days.
_FAVOURITE = 90
_FAVOURITE_DAYS = 48
# Departments are looked up in a table of this many entries; so many of them (a seventh) are off the segment's taste.
_TABLE = 1024
_OFF_TASTE = 146
# The departments of one taste take turns in being preferred, once round in so many days.
_SEASON_DAYS = 84.0


@dataclass
class Dirt:
    """How many rows were spoilt so far, by kind."""

    duplicates: int = 0
    late: int = 0
    bad: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BAD, 0))


@dataclass(frozen=True)
class _Sessions:
    """The sessions of one day by start; `outcome` (0 view, 1 cart, 2 purchase) of a session's looks stand from `first`."""

    user: Array
    begin: Array
    looks: Array
    first: Array
    outcome: Array


class Traffic:
    """All rows of a shop, day by day."""

    def __init__(self, shop: Shop, items: Items, users: Users, rng: np.random.Generator) -> None:
        """`rng` decides on which days bots are about."""
        self._shop, self._items, self._users = shop, items, users
        self._start = (shop.start - _EPOCH).days * DAY
        self._prices = np.round(items.price[None, :] * _DISCOUNTS[:, None], 2)
        self.dirt = Dirt()
        bot_rows = round(shop.events * shop.bots)
        # Duplicates are copies of what users leave; a bot's rows stay as they are.
        people = round((shop.events - bot_rows) / (1 + _per_row(shop.duplicates, shop)))
        self._rows_until = _spread(people, self._expected_rows())
        self._bot_bursts = _spread(bot_rows, np.ones(max(bot_rows // BOT_DAY, 1)))
        self._bot_days = rng.permutation(shop.days)
        self.bots = -(-(len(self._bot_bursts) - 1) // shop.days) if bot_rows else 0
        self.bot_rows = bot_rows
        self.largest_bot_day = int(np.diff(self._bot_bursts).max())

    @property
    def end(self) -> int:
        """The end of the log, microseconds since 1970."""
        return self._start + self._shop.days * DAY

    def day_end(self, day: int) -> int:
        return self._start + (day + 1) * DAY

    def rows(self, day: int) -> Iterator[tuple[int, Array]]:
        """(moment, rows) in turn: after these rows, no more will arrive before the moment, but for those yielded so far.

        Rows are in no order, and some arrive days later; none arrives after the end of the log.
        """
        rng = np.random.default_rng([self._shop.seed, 1 + day])
        yield self.day_end(day) - DAY, self._bot_rows(day, rng)
        sessions = self._sessions(day, rng)
        departments = _department_table(day, self._shop.segments)
        shelf = self._items.on_shelf(day)
        event_id = int(self._rows_until[day])
        for low in range(0, len(sessions.user), _BLOCK_SESSIONS):
            high = low + _BLOCK_SESSIONS
            made = self._session_rows(day, sessions, slice(low, high), departments, shelf, rng)
            made["event_id"] = event_id + np.arange(len(made))
            event_id += len(made)
            horizon = int(sessions.begin[high]) if high < len(sessions.begin) else self.day_end(day)
            # What would happen after the end of the log is not part of it.
            yield horizon, self._soil(made.compress(made["ts"] < self.end), rng)

    def _expected_rows(self) -> Array:
        """(days,) relative number of events to expect."""
        shop, users = self._shop, self._users
        change = np.zeros((shop.days + 1, shop.segments))
        np.add.at(change, (users.first_day, users.segment), users.activity)
        np.add.at(change, (users.drift_day, users.segment), -users.activity)
        np.add.at(change, (users.drift_day, users.later_segment), users.activity)
        active = np.cumsum(change, axis=0)[:-1]
        rhythm = np.stack([self._rhythm(day) for day in range(shop.days)])
        return (active * rhythm * ROWS_PER_SESSION[: shop.segments]).sum(axis=1)

    def _rhythm(self, day: int) -> Array:
        """(segments,) sessions to expect of a user of activity 1."""
        habits = HABITS[: self._shop.segments]
        weekend = (self._shop.start.weekday() + day) % 7 >= 5
        return habits[:, RATE] / 7.0 * (habits[:, WEEKEND] if weekend else 1.0)

    def _sessions(self, day: int, rng: np.random.Generator) -> _Sessions:
        """Sessions that start on `day`, cut so that they leave exactly the rows planned for it."""
        users, wanted = self._users, int(self._rows_until[day + 1] - self._rows_until[day])
        segments = users.segment_on(day)
        weight = users.activity * self._rhythm(day)[segments] * (users.first_day <= day)
        cumulative = np.cumsum(weight)
        per_session = (weight * ROWS_PER_SESSION[segments]).sum() / cumulative[-1]
        expected = wanted / per_session
        drawn = int(expected + 8.0 * np.sqrt(expected)) + 8
        user = np.searchsorted(cumulative, rng.random(drawn) * cumulative[-1], side="right").astype(np.int32)
        np.minimum(user, len(weight) - 1, out=user)
        habits = HABITS[segments[user]]
        looks = 1 + rng.poisson(habits[:, LOOKS] - 1.0).astype(np.int32)
        hours = habits[:, HOUR] + users.shift[user] + rng.normal(0.0, _HOURS_SPREAD, drawn)
        carts = habits[:, CART].astype(np.float32)
        chance = rng.random(int(looks.sum()), np.float32)
        outcome = (chance < carts.repeat(looks)).view(np.int8)
        outcome += chance < (carts * habits[:, BUY].astype(np.float32)).repeat(looks)

        kept, looks = _cut(looks, outcome, wanted)
        begin = self.day_end(day) - DAY + (hours[:kept] % 24.0 * 3600.0 * SECOND).astype(np.int64)
        order = np.argsort(begin, kind="stable")
        first = np.cumsum(looks) - looks
        return _Sessions(user[order], begin[order], looks[order], first[order], outcome)

    def _session_rows(
        self,
        day: int,
        sessions: _Sessions,
        part: slice,
        departments: Array,
        shelf: Array,
        rng: np.random.Generator,
    ) -> Array:
        """The rows of some sessions: each look is one to three of them; time only moves forward inside a session."""
        looks = sessions.looks[part]
        user = sessions.user[part].repeat(looks)
        place = np.arange(len(user))
        outcome = sessions.outcome[place + (sessions.first[part] - (np.cumsum(looks) - looks)).repeat(looks)]
        words = rng.integers(0, 2**64, len(user), dtype=np.uint64)
        item = shelf[self._wanted(day, user, words, departments)]
        price = self._prices[(words >> np.uint64(50) & np.uint64(7)).astype(np.intp), item]

        steps = 1 + outcome
        first_rows = np.cumsum(steps, dtype=np.int64) - steps
        made = np.zeros(int(first_rows[-1] + steps[-1]), ROWS)
        made["user"] = user.repeat(steps)
        made["item"] = item.repeat(steps)
        made["price"] = price.repeat(steps)
        made["type"] = np.arange(len(made)) - first_rows.repeat(steps)
        begins = first_rows[np.cumsum(looks) - looks]
        pause = np.minimum(rng.standard_exponential(len(made), np.float32) * _MEAN_PAUSE + SECOND, _LONGEST_PAUSE)
        elapsed = np.cumsum(pause.astype(np.int64))
        made["ts"] = elapsed + (sessions.begin[part] - elapsed[begins]).repeat(np.diff(begins, append=len(made)))
        made["arrival"] = made["ts"]
        return made

    def _wanted(self, day: int, user: Array, words: Array, departments: Array) -> Array:
        """The position in the catalogue that each look is for, from its 64 random bits.

        A look at a favourite takes its bits from a hash of who looks and which favourite it is, in place of its own.
        """
        # Of two random numbers the common bits: low favourites are looked at most.
        choice = words >> np.uint64(8) & words >> np.uint64(11) & np.uint64(7)
        turn = (np.uint64(day) + choice * np.uint64(_FAVOURITE_DAYS // 8)) // np.uint64(_FAVOURITE_DAYS)
        key = (user.astype(np.uint64) * np.uint64(8) + choice) * np.uint64(4096) + turn
        hashed = _hash(key + np.uint64(self._shop.seed) * np.uint64(2**36 + 31))
        bits = np.where(words & np.uint64(255) < _FAVOURITE, hashed, words)
        segment = self._users.segment_on(day)[user]
        department = departments[segment, (bits >> np.uint64(16) & np.uint64(_TABLE - 1)).astype(np.intp)]
        share = (bits >> np.uint64(26) & np.uint64(2**24 - 1)).astype(np.float32) / np.float32(2**24)
        # Zipf: the rank is exponential in a uniform number.
        sizes = self._items.sizes
        rank = np.exp(share * np.log1p(sizes).astype(np.float32)[department]).astype(np.int64) - 1
        return self._items.starts[department] + np.minimum(rank, sizes[department] - 1)

    def _bot_rows(self, day: int, rng: np.random.Generator) -> Array:
        """Bots look at random items every two seconds."""
        shop = self._shop
        number = np.arange(len(self._bot_bursts) - 1)
        shelf = self._items.on_shelf(day)
        bursts = []
        for burst in number[self._bot_days[number % shop.days] == day]:
            low, high = self._bot_bursts[burst], self._bot_bursts[burst + 1]
            made = np.zeros(high - low, ROWS)
            pace = 2 * SECOND * np.arange(len(made))
            made["event_id"] = self._rows_until[-1] + np.arange(low, high)
            made["ts"] = self.day_end(day) - DAY + rng.integers(0, DAY - 2 * SECOND * len(made)) + pace
            made["arrival"] = made["ts"]
            made["user"] = shop.users + burst // shop.days
            made["item"] = shelf[rng.integers(0, shop.items, len(made))]
            made["price"] = self._items.price[made["item"]]
            bursts.append(made)
        return joined(bursts)

    def _soil(self, rows: Array, rng: np.random.Generator) -> Array:
        """Some rows late, some bad, and copies of some behind them; no row is two of these. Changes `rows`."""
        shop = self._shop
        shares = [_per_row(share, shop) for share in (shop.duplicates, shop.late, shop.bad)]
        edges = np.cumsum(shares)
        lot = rng.random(len(rows), np.float32)
        copies = rows[lot < edges[0]]
        late = np.flatnonzero((lot >= edges[0]) & (lot < edges[1]))
        bad = np.flatnonzero((lot >= edges[1]) & (lot < edges[2]))

        copies["arrival"] += np.where(
            rng.random(len(copies)) < 0.5, rng.integers(SECOND, 600 * SECOND, len(copies)), DAY
        )
        today = rows["ts"][late] // DAY
        days_later = rng.choice([1, 2, 3], len(late), p=[0.9, 0.05, 0.05])
        arrival = (today + days_later) * DAY + rng.integers(0, DAY, len(late))
        rows["arrival"][late] = np.minimum(arrival, self.end - 1)
        np.minimum(copies["arrival"], self.end - 1, out=copies["arrival"])
        kind = rng.integers(0, len(BAD), len(bad))
        rows["user"][bad[kind == 0]] = -1
        rows["ts"][bad[kind == 1]] = MISSING_TIME
        rows["price"][bad[kind == 2]] *= rng.choice([0.0, -1.0], int((kind == 2).sum()))
        rows["ts"][bad[kind == 3]] = _FAR_FUTURE
        rows["type"][bad[kind == 4]] = -1

        self.dirt.duplicates += len(copies)
        self.dirt.late += int((rows["arrival"][late] // DAY > today).sum())
        for number, count in enumerate(np.bincount(kind, minlength=len(BAD)).tolist()):
            self.dirt.bad[BAD[number]] += count
        return joined([rows, copies])


def joined(parts: Sequence[Array]) -> Array:
    """Rows one behind the other."""
    # Record by record, numpy copies each field on its own, which takes ten times as long as copying bytes.
    opaque = np.dtype((np.void, ROWS.itemsize))
    return np.concatenate([np.zeros(0, opaque), *(part.view(opaque) for part in parts)]).view(ROWS)


def _per_row(share: float, shop: Shop) -> float:
    """A share of all rows as a share of those that users leave, before copies are added."""
    return share / (1.0 - shop.duplicates - shop.bots)


def _spread(total: int, weights: Array) -> Array:
    """(n + 1,) running sums, from 0 to `total`, of whole parts that are in proportion to `weights`."""
    running = np.concatenate([[0.0], np.cumsum(weights)])
    return np.round(total * running / running[-1]).astype(np.int64)


def _cut(looks: Array, outcome: Array, wanted: int) -> tuple[int, Array]:
    """How many sessions leave `wanted` rows, and their looks. What the last look leads to is shortened in `outcome`."""
    rows = np.cumsum(outcome, dtype=np.int64)
    rows += np.arange(1, len(outcome) + 1)
    last = int(np.searchsorted(rows, wanted))
    if wanted == 0:
        return 0, looks[:0]
    if last == len(rows):
        return len(looks), looks
    outcome[last] -= rows[last] - wanted
    until = np.cumsum(looks)
    session = int(np.searchsorted(until, last, side="right"))
    kept = looks[: session + 1].copy()
    kept[-1] -= until[session] - last - 1
    return session + 1, kept


def _department_table(day: int, segments: int) -> Array:
    """(segments, 1024) departments, as often as they are to the taste of the segment in the season of `day`."""
    departments = np.arange(len(DEPARTMENTS))
    table = np.empty((segments, _TABLE), np.intp)
    for segment in range(segments):
        own = departments[departments % segments == segment]
        other = departments[departments % segments != segment]
        phase = day / _SEASON_DAYS + np.arange(len(own)) / len(own)
        counts = np.diff(_spread(_TABLE - _OFF_TASTE, 1.0 + 0.5 * np.cos(2.0 * np.pi * phase)))
        table[segment] = np.concatenate([np.resize(other, _OFF_TASTE), own.repeat(counts)])
    return table


def _hash(keys: Array) -> Array:
    """64 well mixed bits of each key: the finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ keys >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ keys >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return keys ^ keys >> np.uint64(31)
