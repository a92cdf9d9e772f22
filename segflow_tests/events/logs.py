"""Drawn logs: hypothesis strategies for raw rows, events and cleaning settings, and a plain-Python model of sessions.

Times fall on the edges that matter much more often than chance would have them: midnight, noon, and a gap from either.
Nothing here runs SQL.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from segflow.config import BotConfig, CalendarConfig, CleaningConfig, ImputeConfig, SessionConfig

Row = dict[str, Any]

DAYS = 4
START = datetime(2024, 1, 10, tzinfo=UTC)
CALENDAR = CalendarConfig(start=START.date(), end=START.date() + timedelta(days=DAYS))
ITEMS: Sequence[Row] = (
    {"item_id": "milk", "title": "Milk 🥛", "category": ["food"], "price": 1.25},
    {"item_id": "petrol", "title": "Petrol", "category": ["fuel"], "price": 40.0},
    {"item_id": "gift", "title": None, "category": [], "price": None},
)
"""The catalogue. Events also name the item `unlisted`, which is not in it."""

_MINUTE = 60_000_000
_HALF_DAY = 12 * 60 * _MINUTE
_USERS = st.sampled_from(["u", "v", "bot-ü"])
_ITEM_IDS = st.sampled_from(["milk", "petrol", "gift", "unlisted", None])
_TYPES = ["view", "buy", "gaze"]
# Quarters add up exactly, in any order.
_AMOUNTS = st.one_of(st.none(), st.integers(-4, 40).map(lambda quarters: quarters / 4))
_SOURCE_SESSIONS = st.sampled_from([None, None, "s", "t"])
_OFFSETS = sorted({
    sign * offset + tick
    for sign in (-1, 1)
    for offset in (0, _MINUTE, 30 * _MINUTE, 90 * _MINUTE, 11 * 60 * _MINUTE)
    for tick in (-1, 0, 1)
})  # fmt: skip

gaps = st.one_of(st.sampled_from([1, 30, 90, 720]), st.integers(1, 720))
"""Minutes of inactivity that end a session."""
session_settings = st.builds(
    SessionConfig, gap_minutes=gaps, use_source_ids=st.sampled_from([True, True, False])
)  # fmt: skip


def at(microseconds: int) -> datetime:
    """The moment so long after START."""
    return START + timedelta(microseconds=microseconds)


moments = st.one_of(
    st.builds(lambda half, offset: half * _HALF_DAY + offset, st.integers(0, 2 * DAYS), st.sampled_from(_OFFSETS)),
    st.integers(0, 2 * DAYS * _HALF_DAY - 1),
).map(lambda moment: at(min(max(moment, 0), 2 * DAYS * _HALF_DAY - 1)))
"""Moments of the calendar, mostly near midnight and noon."""


def _event(fields: tuple[datetime, str, str | None, str | None, str, float | None, float]) -> Row:
    ts, user, session, item, kind, value, weight = fields
    return {
        "day": ts.date(),
        "user_id": user,
        "item_id": item,
        "event_type": kind,
        "ts": ts,
        "value": value,
        "weight": weight,
        "session_id": session,
        "source_file": "log",
    }


def numbered(rows: Sequence[Row]) -> list[Row]:
    """Events with their place in the log and an id."""
    return [{**row, "source_row": number, "event_id": f"e{number}"} for number, row in enumerate(rows)]


_events_at = st.tuples(
    moments, _USERS, _SOURCE_SESSIONS, _ITEM_IDS, st.sampled_from(_TYPES), _AMOUNTS, st.sampled_from([0.5, 1.0, 4.0])
).map(_event)
events = st.lists(_events_at, max_size=30).map(numbered)
"""Clean events, in any order, several at one moment."""


@st.composite
def walks(draw: st.DrawFn, gap: int) -> list[Row]:
    """Events of users whose pauses are just about as long as a session of `gap` minutes, or of the source, endures."""
    exact = [0, gap * _MINUTE, _HALF_DAY]
    near = st.sampled_from([pause + tick for pause in exact for tick in (-1, 0, 1)])
    pauses = st.one_of(near, st.just(gap * _MINUTE), st.just(gap * _MINUTE), st.integers(0, 13 * 60 * _MINUTE))
    # After one or two pauses of just the gap it is midnight.
    evenings = st.builds(
        lambda day, pauses: at(2 * day * _HALF_DAY - pauses * gap * _MINUTE),
        st.integers(1, DAYS - 1),
        st.integers(1, 2),
    )
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        moment, user, session = draw(st.one_of(moments, evenings, evenings)), draw(_USERS), draw(_SOURCE_SESSIONS)
        for pause in draw(st.lists(pauses, max_size=9)):
            rows.append(_event((moment, user, session, draw(_ITEM_IDS), "view", 0.5, 1.0)))
            moment += timedelta(microseconds=max(pause, 0))
            if moment >= at(2 * DAYS * _HALF_DAY):
                break
    return numbered(rows)


RAW = {
    "event_id": st.sampled_from([None, None, None, "1", "2"]),
    "user_id": st.sampled_from(["u", "u", "v", "bot-ü", None]),
    "item_id": _ITEM_IDS,
    "event_type": st.sampled_from([*_TYPES, None]),
    "ts": st.one_of(moments, moments, moments, st.sampled_from([None, at(-1), at(2 * DAYS * _HALF_DAY)])),
    "value": _AMOUNTS,
    "quantity": st.sampled_from([None, None, -1.0, 0.0, 2.0]),
    "session_id": _SOURCE_SESSIONS,
    "text": st.sampled_from([None, None, "词 🥛"]),
    "unparsed": st.sampled_from([*[None] * 8, "value=free"]),
}
"""Field -> what a mapped source row may hold in it."""


def placed(rows: Sequence[Row], file: str = "log") -> list[Row]:
    """Raw rows with their partition day and their place in `file`."""
    return [
        {**row, "day": _partition_day(row["ts"]), "source_file": file, "source_row": number}
        for number, row in enumerate(rows)
    ]


def _partition_day(ts: datetime | None) -> date:
    inside = ts is not None and START <= ts < at(2 * DAYS * _HALF_DAY)
    return ts.date() if ts is not None and inside else START.date()


def _with_copies(drawn: tuple[list[Row], list[int]]) -> list[Row]:
    rows, copies = drawn
    return [*rows, *(rows[number % len(rows)] for number in copies if rows)]


raw_rows = st.tuples(st.lists(st.fixed_dictionaries(RAW), max_size=20), st.lists(st.integers(0, 19), max_size=8)).map(
    _with_copies
)
"""Source rows of every kind, some of them twice."""
tellable_rows = st.tuples(
    st.lists(
        st.fixed_dictionaries({**RAW, "event_id": st.none()}),
        max_size=20,
        unique_by=lambda row: (row["user_id"], row["ts"]),
    ),
    st.lists(st.integers(0, 19), max_size=8),
).map(_with_copies)
"""Source rows whose order can be told from what they hold: of one user and moment there are only exact copies."""

cleanings = st.builds(
    CleaningConfig,
    require_positive=st.lists(st.sampled_from(["quantity", "value"]), unique=True),
    require_known_item=st.booleans(),
    require_known_type=st.booleans(),
    exclude_categories=st.sampled_from([[], [], ["fuel"], ["fuel", "food"]]),
    bots=st.builds(
        BotConfig,
        enabled=st.sampled_from([True, True, False]),
        events_per_day=st.sampled_from([None, 1, 3, 8]),
        events_per_minute=st.sampled_from([None, None, 1, 2]),
        user_pattern=st.sampled_from([None, None, "^bot", "(?i)U$"]),
        clockwork_events=st.sampled_from([None, 10]),
        clockwork_share=st.sampled_from([0.6, 1.0]),
    ),
    # Where nothing is filled in, rows held in memory go another way.
    impute=st.just(ImputeConfig())
    | st.builds(
        ImputeConfig,
        quantity=st.sampled_from([None, 2.0]),
        value=st.sampled_from([None, "item_price", "item_median", 0.5, -1.0]),
        event_type=st.sampled_from([None, "view", "other"]),
    ),
    type_weights=st.sampled_from([{}, {}, {"buy": 5.0}, {"view": 0.0, "buy": 5.0}]),
)
"""All cleaning settings, with limits that a small log can exceed."""

_TEXT = st.text(max_size=6)
_NUMBER = st.sampled_from(["1", "-2.5", "0", "inf", "-Infinity", "nan", "1e999", "1,5", "٣", "0x10", "1e-320", "NULL"])
_TIME = st.sampled_from([
    "2024-01-10 10:00:00", "2024-01-11T23:59:59.999999Z", "2024-01-12 00:00:00+02:00", "2024-02-30 10:00:00", "1704967200",
    "1704967200000", "1e400", "-1e18", "inf", "infinity", "-infinity", "epoch", "nan", "9999-12-31 23:59:59", "290000-01-01",
    "0001-01-01", "5000-01-01 (BC)", "2024-01-11 12:00:00 Europe/Berlin", "2024-01-11 12:00:00 Nowhere/Land", "24:00:00",
    "2024-01-11 24:00:00", "2024-01-10", "2024-01-11 25:61:61", "tomorrow", "99999999999999999999", "-1", "９９",
])  # fmt: skip
junk = st.lists(
    st.fixed_dictionaries({
        "id": st.one_of(st.none(), st.sampled_from(["1", "2", ""])),
        "user": st.one_of(st.none(), st.sampled_from(["u", " u ", "bot-ü", "", "\x00"]), _TEXT),
        "item": st.one_of(st.none(), st.sampled_from(["milk", "petrol", "🥛"]), _TEXT),
        "type": st.one_of(st.none(), st.sampled_from(["view", "BUY", "İ"]), _TEXT),
        "time": st.one_of(st.none(), _TIME, _TIME, _TIME, _TEXT, moments.map(str)),
        "price": st.one_of(st.none(), _NUMBER, _TEXT),
        "count": st.one_of(st.none(), _NUMBER, _TEXT),
        "session": st.one_of(st.none(), _TEXT),
        "words": st.one_of(st.none(), _TEXT),
    }),
    min_size=1,
    max_size=40,
)  # fmt: skip
"""Rows of a source file in which anything may stand."""


def sessions_by_hand(rows: Sequence[Row], config: SessionConfig) -> list[Row]:
    """What the statements under `sql/events/` should make of events: the same rules, one event after the other."""
    lanes: dict[tuple[str, str | None], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["ts"], row["source_file"], row["source_row"])):
        lanes[row["user_id"], row["session_id"] if config.use_source_ids else None].append(row)
    found = [
        _session(user, source, own)
        for (user, source), lane in lanes.items()
        for own in _cut(lane, source is not None, timedelta(minutes=config.gap_minutes))
    ]
    return sorted(found, key=lambda one: (one["day"], one["user_id"], one["start"], one["session_id"]))


def _cut(lane: Sequence[Row], of_source: bool, gap: timedelta) -> Iterator[list[Row]]:
    half_day = timedelta(hours=12)
    own: list[Row] = []
    for row in lane:
        ts, last = row["ts"], own[-1]["ts"] if own else None
        if last is not None:
            same_day = ts.date() == last.date()
            goes_on = ts - last <= gap or (of_source and (same_day or ts - last <= half_day))
            # Noon of a day that the session did not start on.
            cut = ts >= datetime.combine(own[0]["day"], datetime.min.time(), UTC) + 3 * half_day
            if cut or not goes_on:
                yield own
                own = []
        own.append(row)
    yield own


def _session(user: str, source: str | None, own: Sequence[Row]) -> Row:
    start, end = own[0]["ts"], own[-1]["ts"]
    items = [row["item_id"] for row in own if row["item_id"] is not None]
    titles: Mapping[str, str | None] = {item["item_id"]: item["title"] for item in ITEMS}
    named = [title for item in dict.fromkeys(items) if (title := titles.get(item)) is not None]
    times = [row["ts"] for row in own]
    return {
        "day": start.date(),
        "session_id": source or f"{user}@{start:%Y%m%dT%H%M%S.%f}",
        "user_id": user,
        "start": start,
        "end": end,
        "duration": (end - start).total_seconds(),
        "events": len(own),
        "type_counts": dict(Counter(row["event_type"] for row in own)),
        "distinct_items": len(set(items)),
        "value": sum(row["value"] or 0 for row in own),
        "weight": sum(row["weight"] for row in own),
        "items": items,
        "event_types": [row["event_type"] for row in own],
        "gaps": [0.0, *(float(np.float32((after - before).total_seconds())) for before, after in pairwise(times))],
        "text": "; ".join(named) or None,
    }
