"""Logs of a shop with planted user segments, made to order, and their user vectors by the code of the pipeline.

A segment is a behaviour: a taste in departments, a rhythm, and a way of spending. How many segments there are, how even,
how much they have in common, how many users have none, and what becomes of them from week to week, is the plant. The
behaviour model is left out, since training one for each of hundreds of logs would take hours: users are the text view (the
packaged language model, once for the one catalogue) and the engagement view, fused as the pipeline does. No assertion is
made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import adjusted_rand_score, balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from segflow.arrow import vector_column
from segflow.config import TextConfig, UserEmbeddingConfig
from segflow.datasets.shop import DEPARTMENTS, Shop, make_items
from segflow.representation.encoder import Encoder
from segflow.representation.histories import Histories
from segflow.representation.users import UserFeatures
from segflow.representation.views import UserViews, ViewSources, fuse_views, make_views, session_pools

START = datetime(2024, 1, 1, tzinfo=UTC)
"""A Monday, the beginning of week 0."""
NONE, ABSENT = -1, -2
"""In place of a segment: behaves like everybody, and is not there."""
MOST_SEGMENTS = len(DEPARTMENTS)

_DAY, _WEEK = 86_400, 7 * 86_400
_ITEMS_OF_A_DEPARTMENT = 20
# A segment looks so often in its own department, else in the next one, which is another segment's own.
_OWN = 0.7
_ACTIVITY, _LIKING, _PRICE = 0.25, 0.5, 0.2  # how much users, tastes and prices vary: deviations of logarithms
_HOURS_SPREAD = 1.5
_EVERYBODY = MOST_SEGMENTS


def _cycled(values: Sequence[float], each: int, everybody: float) -> list[float]:
    """The values in turn, `each` segments one, and what everybody does at the end."""
    return [*(values[number // each % len(values)] for number in range(MOST_SEGMENTS)), everybody]


# One row a segment, the last for what everybody does. No two segments are alike in all of it.
_HABITS = np.transpose(
    [
        _cycled([3.0, 2.0, 4.0], 1, 2.8),  # sessions a week
        _cycled([10.0, 20.0, 7.0, 15.0], 1, 14.0),  # hour (UTC)
        _cycled([0.6, 2.0], 4, 1.2),  # a day of the weekend over another day
        _cycled([3.0, 5.0, 4.0, 6.0, 2.5], 1, 4.0),  # looks a session
        _cycled([0.6, 0.25], 2, 0.4),  # chance to buy what one looks at
        _cycled([1.0, 2.0, 0.6], 3, 1.1),  # price level
    ]
)
_RATE, _HOUR, _WEEKEND, _LOOKS, _BUY, _LEVEL = range(_HABITS.shape[1])


@dataclass(frozen=True)
class Split:
    """From `week` on, `share` of a segment's users behave like the segment `into`, which had nobody before."""

    week: int
    segment: int
    into: int
    share: float = 0.45


@dataclass(frozen=True)
class Merge:
    """From `week` on, all users of a segment behave like those of `into`."""

    week: int
    segment: int
    into: int


@dataclass(frozen=True)
class Birth:
    """In `week`, `users` new users arrive, who make a segment of their own."""

    week: int
    segment: int
    users: int


@dataclass(frozen=True)
class Death:
    """In `week`, all users of a segment are gone."""

    week: int
    segment: int


Change = Split | Merge | Birth | Death


@dataclass(frozen=True)
class Plant:
    """What is asked for. The same plant gives the same log.

    `users` are there in week 0, the share `noise` of them without a segment; the others are in `segments` segments of
    numbers from 0, whose sizes fall evenly (in logarithms) from the largest to 1 / `balance` of it. `overlap` is the share
    of a segment's sessions that are like anybody's. Each week, the share `drift` of the users moves to another segment,
    the share `churn` leaves, and as many new users arrive. `script` are changes to whole segments.
    """

    segments: int = 4
    users: int = 800
    weeks: int = 4
    balance: float = 1.0
    overlap: float = 0.1
    noise: float = 0.0
    drift: float = 0.0
    churn: float = 0.0
    script: tuple[Change, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Log:
    """Events and sessions as views take them; `segment` (weeks, users) is where each of `user_ids` was in each week."""

    events: pa.Table
    sessions: pa.Table
    user_ids: list[str]
    segment: np.ndarray


@dataclass(frozen=True)
class Week:
    """A snapshot: rows of `user_embeddings` and `user_views`, the events behind them, and what is true.

    `users` are those with enough history in order of id, with their vectors `points` (U, D), `engagement`, and the
    planted segment `truth` (U,) of most weeks of the window in which they were there, the later of two.
    """

    start: date
    embeddings: pa.Table
    views: pa.Table
    events: pa.Table
    users: list[str]
    points: np.ndarray
    engagement: UserFeatures
    truth: np.ndarray


def plant(asked: Plant) -> Log:
    """The log that was asked for: about 30 events a user and month."""
    rng = np.random.default_rng(asked.seed)
    segment = _whereabouts(asked, rng)
    users = segment.shape[1]
    activity = rng.lognormal(0, _ACTIVITY, users)
    week, user = np.nonzero(segment != ABSENT)
    habit = segment[week, user]
    habit = np.where(habit == NONE, _EVERYBODY, habit)
    common = np.where(habit == _EVERYBODY, 1.0, asked.overlap)
    rate = (1 - common) * _HABITS[habit, _RATE] + common * _HABITS[_EVERYBODY, _RATE]
    visits = rng.poisson(rate * activity[user])
    week, user, habit, common = (part.repeat(visits) for part in (week, user, habit, common))
    habit = np.where(rng.random(len(habit)) < common, _EVERYBODY, habit)
    begin = week * _WEEK + _within_week(habit, rng)
    order = np.lexsort((begin, user))
    user, habit, begin = user[order], habit[order], begin[order]
    # Visits of a user that follow within the gap of sessions would be one session.
    apart = np.append(True, (np.diff(begin) > 5_400) | (np.diff(user) != 0))
    return _tables(user[apart], habit[apart], begin[apart], segment, rng)


def snapshot(log: Log, week: int, history_weeks: int, config: UserEmbeddingConfig) -> Week:
    """The users of the `history_weeks` before `week`, as the pipeline sees them at its start."""
    since, until = START + timedelta(weeks=week - history_weeks), START + timedelta(weeks=week)
    events = log.events.filter(_between(log.events["ts"], since, until))
    sessions = log.sessions.filter(_between(log.sessions["start"], since, until))
    ids, vectors = _catalogue_vectors()
    views = make_views(
        ViewSources([Histories(events, sessions)], {"text": [session_pools(sessions, ids, vectors)]}), until, config
    )
    fused = fuse_views(views, config.listed, config)
    kept = views.enough_history
    users = [one for one, enough in zip(views.user_ids, kept, strict=True) if enough]
    embeddings = {"user_id": views.user_ids, "enough_history": kept, "cold": views.cold}
    window = log.segment[week - history_weeks : week, np.searchsorted(log.user_ids, users)]
    return Week(
        until.date(),
        pa.table({**embeddings, "fused": vector_column(fused.matrix)}),
        views.to_table(until.date()),
        events,
        users,
        fused.matrix[kept],
        _engagement(views, kept, users),
        _mostly(window),
    )


class Told(NamedTuple):
    """How well the planted segments of users are told from their vectors, having learned those of others."""

    accuracy: float  # mean over the segments of the share of users who are told right
    ari: float  # adjusted Rand index of what is told with what was planted: no clusterer, which learns nothing, does better


def told(points: np.ndarray, truth: np.ndarray) -> Told:
    """What a classifier makes of vectors (U, D): linear discriminants in five folds, of users who have a segment.

    It knows what no clusterer knows, and so says whether the vectors show what was planted.
    """
    known = truth >= 0
    points, truth = points[known].astype(np.float64), truth[known]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    guessed = cross_val_predict(LinearDiscriminantAnalysis(), points, truth, cv=folds)
    return Told(float(balanced_accuracy_score(truth, guessed)), float(adjusted_rand_score(truth, guessed)))


def _whereabouts(asked: Plant, rng: np.random.Generator) -> np.ndarray:
    """(weeks, users) segment of everybody who is ever there."""
    none = round(asked.noise * asked.users)
    sizes = asked.balance ** -np.linspace(0, 1, asked.segments)
    edges = np.round(np.cumsum(sizes) / sizes.sum() * (asked.users - none)).astype(int)
    ordered = np.searchsorted(edges, np.arange(asked.users), side="right")
    now = rng.permutation(np.where(ordered == asked.segments, NONE, ordered))
    weeks = [now]
    for week in range(1, asked.weeks):
        now = _changed(_moved(now, asked, rng), [one for one in asked.script if one.week == week], rng)
        weeks.append(now)
    found = np.full((asked.weeks, len(now)), ABSENT)
    for row, one in zip(found, weeks, strict=True):
        row[: len(one)] = one
    return found


def _moved(now: np.ndarray, asked: Plant, rng: np.random.Generator) -> np.ndarray:
    """A week later: some users moved, some left, some arrived."""
    there = np.flatnonzero(now != ABSENT)
    living = np.unique(now[now >= 0])
    moved = now.copy()
    movers = there[(rng.random(len(there)) < asked.drift) & (now[there] >= 0)]
    if len(living) > 1:
        step = rng.integers(1, len(living), len(movers))
        moved[movers] = living[(np.searchsorted(living, now[movers]) + step) % len(living)]
    leavers = there[rng.random(len(there)) < asked.churn]
    # Whoever arrives takes the place of somebody who left, so that sizes stay as they are.
    arrived = moved[leavers]
    moved[leavers] = ABSENT
    return np.append(moved, arrived)


def _changed(now: np.ndarray, changes: Sequence[Change], rng: np.random.Generator) -> np.ndarray:
    now = now.copy()
    for change in changes:
        members = np.flatnonzero(now == change.segment)
        match change:
            case Split(into=into, share=share):
                now[rng.permutation(members)[: round(share * len(members))]] = into
            case Merge(into=into):
                now[members] = into
            case Death():
                now[members] = ABSENT
            case Birth(segment=segment, users=users):
                now = np.append(now, np.full(users, segment))
    return now


def _within_week(habit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Seconds after Monday at which sessions of these habits begin."""
    weekend = rng.random(len(habit)) < 2 * _HABITS[habit, _WEEKEND] / (5 + 2 * _HABITS[habit, _WEEKEND])
    day = np.where(weekend, rng.integers(5, 7, len(habit)), rng.integers(0, 5, len(habit)))
    spread = np.where(habit == _EVERYBODY, 3 * _HOURS_SPREAD, _HOURS_SPREAD)
    hour = np.clip(rng.normal(_HABITS[habit, _HOUR], spread), 0, 23)
    return (day * _DAY + hour * 3600).astype(np.int64)


def _tables(
    user: np.ndarray, habit: np.ndarray, begin: np.ndarray, segment: np.ndarray, rng: np.random.Generator
) -> Log:
    """Each look is a view, and a purchase after it where one buys; a minute passes between two events."""
    looks = 1 + np.minimum(rng.poisson(_HABITS[habit, _LOOKS] - 1), 9)
    session = np.arange(len(user)).repeat(looks)
    item = _items(user[session], habit[session], segment.shape[1], rng)
    level = _HABITS[habit[session], _LEVEL] * rng.lognormal(0, _PRICE, len(session))
    rows = 1 + (rng.random(len(session)) < _HABITS[habit[session], _BUY])
    look, first = np.arange(len(session)).repeat(rows), np.cumsum(rows) - rows
    bought = np.arange(len(look)) != first[look]
    size = np.bincount(session[look], minlength=len(user))
    stops = np.cumsum(size)
    ts = begin[session[look]] + 60 * (np.arange(len(look)) - (stops - size)[session[look]])
    ids, _, prices = _catalogue()
    value = np.where(bought, np.round(prices[item] * level, 2)[look], np.nan)
    names = [f"u{number:05d}" for number in range(segment.shape[1])]
    events = {
        "user_id": np.array(names)[user[session[look]]],
        "item_id": pa.array(ids).take(pa.array(item[look])),
        "event_type": np.where(bought, "purchase", "view"),
        "ts": _moments(ts),
        "value": pa.array(value, from_pandas=True),
        "category": np.array(DEPARTMENTS)[item[look] // _ITEMS_OF_A_DEPARTMENT],
    }
    sessions = {
        "user_id": np.array(names)[user],
        "start": _moments(ts[stops - size]),
        "end": _moments(ts[stops - 1]),
        "events": size,
        "value": np.add.reduceat(np.nan_to_num(value), stops - size),
        "items": pa.ListArray.from_arrays(np.append(0, stops).astype(np.int32), events["item_id"]),
    }
    return Log(pa.table(events), pa.table(sessions), names, segment)


def _items(user: np.ndarray, habit: np.ndarray, users: int, rng: np.random.Generator) -> np.ndarray:
    """The item of each look: a department by the habit, and in it by popularity and the user's own liking."""
    popularity = 1 / (1 + np.arange(_ITEMS_OF_A_DEPARTMENT))
    liking = popularity * rng.lognormal(0, _LIKING, (users, MOST_SEGMENTS, _ITEMS_OF_A_DEPARTMENT))
    own = (habit + (rng.random(len(habit)) >= _OWN)) % MOST_SEGMENTS
    department = np.where(habit == _EVERYBODY, _drawn(liking.sum(axis=2)[user], rng), own)
    return department * _ITEMS_OF_A_DEPARTMENT + _drawn(liking[user, department], rng)


def _drawn(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column for each row of `weights`, with a chance in proportion to it."""
    running = weights.cumsum(axis=1)
    return (running < rng.random(len(running))[:, None] * running[:, -1:]).sum(axis=1)


@cache
def _catalogue() -> tuple[list[str], list[str], np.ndarray]:
    """Ids, texts and prices of the items, department by department; every log has the same."""
    shop = Shop(items=_ITEMS_OF_A_DEPARTMENT * MOST_SEGMENTS, new_items=0.0)
    items = make_items(shop, np.random.default_rng(0))
    titles, categories, brands = items.titles()
    texts = [f"{c} > {b} {t}".lower() for t, c, b in zip(titles, categories, brands, strict=True)]
    return [f"i{number:03d}" for number in range(len(texts))], texts, items.price


@cache
def _catalogue_vectors() -> tuple[list[str], np.ndarray]:
    ids, texts, _ = _catalogue()
    return ids, Encoder.load(TextConfig()).encode(texts)


def _mostly(window: np.ndarray) -> np.ndarray:
    """Of (weeks, users), the segment of most weeks in which a user was there; of two alike, the later."""
    weeks = 1 + 1e-3 * np.arange(len(window))[:, None]
    labels = np.arange(NONE, MOST_SEGMENTS)
    spent = np.stack([((window == one) * weeks).sum(axis=0) for one in labels])
    return labels[spent.argmax(axis=0)]


def _engagement(views: UserViews, kept: np.ndarray, users: list[str]) -> UserFeatures:
    return UserFeatures(users, views.views["engagement"][kept], views.names["engagement"])


def _between(column: pa.ChunkedArray, since: datetime, until: datetime) -> pa.ChunkedArray:
    return pc.and_(pc.greater_equal(column, pa.scalar(since)), pc.less(column, pa.scalar(until)))


def _moments(seconds: np.ndarray) -> pa.Array:
    return pa.array((int(START.timestamp()) + seconds).astype(np.int64) * 1_000_000).cast(pa.timestamp("us", tz="UTC"))
