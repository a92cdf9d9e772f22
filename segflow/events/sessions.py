"""Sessions: events of a user that no long pause parts, gathered as slices of one order.

SQL says which events can matter. Strings are slow to sort and to gather, so ids become small numbers as they are read; columns of
numbers are put in order once, and the lists of all sessions are these columns, cut where a session starts: no row is moved twice,
and names are looked up by number at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from itertools import chain
from typing import Any, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segflow.config import SessionConfig
from segflow.events import words
from segflow.events.days import Days
from segflow.sql import load, render

STATEMENTS = ("session_events", "session_ids")
"""The statements under `sql/events/`, in the order in which they run."""
FROM_YEAR_1_US = 62_135_596_800_000_000
"""What a moment has more than the same time in microseconds since 1970."""

_CODED = ("user_id", "source_session", "item_id", "event_type", "source_file")
_BATCH_ROWS = 131_072
_DAY_US = 86_400_000_000
_HALF_DAY = timedelta(hours=12)
_HALF_DAY_US = _DAY_US // 2

Numbers: TypeAlias = npt.NDArray[Any]
Columns: TypeAlias = dict[str, Numbers]
Names: TypeAlias = dict[str, pa.Array]
Share: TypeAlias = tuple[int, int]


def sessions(
    connection: duckdb.DuckDBPyConnection, config: SessionConfig, first: date, last: date, share: Share = (0, 1)
) -> pa.Table:
    """The sessions that start in [first, last), with the columns of the table `sessions`.

    share: (number, of how many) shares of the users. Reads the views events (one day more on both sides) and items.
    """
    made = Sessions(connection, config)
    # Of the day after, what can follow on the last day: what comes over midnight is cut at noon.
    events = _between(connection, config, _midnight(first), _midnight(last) + _HALF_DAY, follows=True, share=share)
    return _readable(_starting(made.add(events), (first, last)))


def sessions_of_spans(
    connection: duckdb.DuckDBPyConnection,
    config: SessionConfig,
    parts: Sequence[Days],
    look: Callable[[Days], None],
    shares: int = 1,
) -> Iterator[tuple[Days, pa.Table | str]]:
    """The sessions that start in each of `parts`, spans of days on end: a table, or a query that is good until the next one.

    look: make the view events of a span (one day more on both sides). shares: of the users, to be worked on one after the other;
    more than one for days that are too large to be held at once. Reads the view items too.
    """
    if shares > 1:
        for part in parts:
            look(part)
            yield part, kept(connection, (sessions(connection, config, *part, (one, shares)) for one in range(shares)))
        return
    made = Sessions(connection, config)
    before: tuple[Days, pa.Table] | None = None
    for part in parts:
        look(part)
        is_first, is_last = part == parts[0], part == parts[-1]
        end = _midnight(part[1]) + (_HALF_DAY if is_last else timedelta())
        events = _between(connection, config, _midnight(part[0]), end, follows=is_first)
        found = made.add(events, None if is_last else part[1])
        if before is not None:
            late = found.filter(pc.field("day") < part[0])
            yield before[0], _readable(pa.concat_tables([before[1], late]))
        before = part, _starting(found, part)
    if before is not None:
        yield before[0], _readable(before[1])


def _between(
    connection: duckdb.DuckDBPyConnection,
    config: SessionConfig,
    start: datetime,
    end: datetime,
    follows: bool,
    share: Share = (0, 1),
) -> pa.RecordBatchReader:
    """What `Sessions` takes of the view events. follows: take also those before `start` that later ones may follow on."""
    query = render(
        "events/session_events.sql",
        start=start,
        end=end,
        use_source_ids=config.use_source_ids,
        gap_us=config.gap_minutes * 60_000_000 if follows else 0,
        half_day_us=_HALF_DAY_US if follows else 0,
        share=share[0],
        shares=share[1],
    )
    return connection.sql(query).to_arrow_reader(_BATCH_ROWS)


def _starting(found: pa.Table, days: Days) -> pa.Table:
    return found.filter((pc.field("day") >= days[0]) & (pc.field("day") < days[1]))


def kept(connection: duckdb.DuckDBPyConnection, pieces: Iterable[pa.Table]) -> str:
    """A query of all the pieces, which DuckDB holds, or spills."""
    for number, piece in enumerate(pieces):
        connection.register("piece", piece)
        made = "INSERT INTO gathered_sessions" if number else "CREATE OR REPLACE TEMP TABLE gathered_sessions AS"
        connection.execute(f"{made} FROM piece")
        connection.unregister("piece")
    return "FROM gathered_sessions"


class Sessions:
    """Sessions of a log that comes span after span of days, in order; each event is read once.

    Between two spans, the events of the sessions are kept that may go on. Reads the view items, once.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, config: SessionConfig):
        self._connection = connection
        self._gap = config.gap_minutes * 60_000_000
        self._open: list[pa.RecordBatch] = []
        self._items = connection.sql("SELECT item_id, title FROM items").to_arrow_table().combine_chunks()

    def add(self, events: pa.RecordBatchReader, until: date | None = None) -> pa.Table:
        """The sessions that have ended, with the columns of the table `sessions`.

        events: the columns of `events/session_events.sql`, texts plain or as dictionaries; without source_file and source_row
        when they come in the order of arrival. until: the day from which on events will come in further calls; without it,
        no session goes on.
        """
        columns, names = _coded(self._open, events)
        columns = _ordered(columns)
        starts = np.flatnonzero(_starts(columns, self._gap))
        lengths = np.diff(starts, append=len(columns["moment"]))
        if until is not None:
            final = starts + lengths - 1
            reach = np.where(columns["source_session"][final] >= 0, _HALF_DAY_US, self._gap)
            goes_on = columns["moment"][final] >= _since_year_1(until) - reach
            kept = np.repeat(goes_on, lengths)
            self._open = [_batch(columns, names, kept)]
            columns = {name: column[~kept] for name, column in columns.items()}
            lengths = lengths[~goes_on]
        return _gathered(self._connection, columns, lengths, names, self._items)


def _coded(kept: Sequence[pa.RecordBatch], reader: pa.RecordBatchReader) -> tuple[Columns, Names]:
    """The columns with numbers in place of strings, -1 for a missing one, and the names by these numbers.

    Files and types are numbered in the order of their names.
    """
    pieces: dict[str, list[pa.Array]] = {name: [] for name in reader.schema.names}
    for batch in chain(kept, reader):
        for name, column in zip(pieces, batch.columns, strict=True):
            is_text = name in _CODED and not pa.types.is_dictionary(column.type)
            pieces[name].append(column.dictionary_encode() if is_text else column)
    columns: Columns = {}
    names: Names = {}
    for field in reader.schema:
        parts = pieces.pop(field.name)
        if field.name not in _CODED:
            columns[field.name] = pa.chunked_array(parts, field.type).to_numpy()
            continue
        coded = words.in_one_piece(pa.chunked_array(parts, words.WORDS))
        columns[field.name], names[field.name] = words.codes(coded), words.known(coded)
    for name in names.keys() & {"event_type", "source_file"}:
        columns[name], names[name] = words.in_alphabetical_order(columns[name], names[name])
    return columns, names


def _batch(events: Columns, names: Names, rows: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    """The chosen rows as `_coded` takes them, with no more names than they need."""
    columns: dict[str, pa.Array] = {}
    for name, column in events.items():
        if name not in names:
            columns[name] = pa.array(column[rows])
            continue
        used, codes = np.unique(column[rows], return_inverse=True)
        missing = int(len(used) > 0 and used[0] < 0)
        indices = pa.array(codes.astype(np.int32) - missing, mask=codes < missing)
        columns[name] = pa.DictionaryArray.from_arrays(indices, names[name].take(pa.array(used[missing:])))
    return pa.record_batch(columns)


def _ordered(events: Columns) -> Columns:
    """The events by user and time. Equal times are ordered by where they stand in the source: always the same order."""
    by = [name for name in ("source_row", "source_file", "moment", "source_session", "user_id") if name in events]
    digits = [digit for name in by for digit in _digits(events[name])]
    order = np.lexsort(digits) if digits else np.arange(len(events["moment"]))
    return {name: column[order] for name, column in events.items()}


def _digits(numbers: Numbers) -> list[npt.NDArray[np.uint16]]:
    """`numbers` as digits of 16 bits, the lowest first: such are sorted by counting, three times as fast as by comparing.

    None for numbers that are all the same.
    """
    if not len(numbers):
        return []
    above = numbers - numbers.min()
    return [(above >> shift).astype(np.uint16) for shift in range(0, int(above.max()).bit_length(), 16)]


def _starts(events: Columns, gap: int) -> npt.NDArray[np.bool_]:
    """(events,) whether a session starts with an event, by looking at the one before.

    A pause longer than `gap` ends a session. The source's own session ends with the source's id, or with twelve idle hours over
    midnight. A session that came over midnight is cut at noon, so that a user who never pauses is seen the same whether days
    are computed one by one or all at once: the days next to a day are enough to tell its sessions.
    """
    moment, source = events["moment"], events["source_session"]
    day, pause = moment // _DAY_US, np.diff(moment)
    on = pause <= gap
    if (source >= 0).any():
        on |= (source[1:] >= 0) & ((pause <= _HALF_DAY_US) | (day[1:] == day[:-1]))
    breaks = np.ones(len(moment), bool)
    breaks[1:] = ~on | (np.diff(events["user_id"]) != 0) | (np.diff(source) != 0)
    # The day that an event's session starts on: that of the last break, and a new one from each noon after a midnight.
    last_break = np.maximum.accumulate(np.where(breaks, np.arange(len(moment)), 0))
    start_day = np.maximum(day[last_break], (moment - _HALF_DAY_US) // _DAY_US)
    breaks[1:] |= np.diff(start_day) != 0
    return breaks


def _gathered(
    connection: duckdb.DuckDBPyConnection, events: Columns, lengths: Numbers, names: Names, catalogue: pa.Table
) -> pa.Table:
    """One row a session. lengths: (sessions,) how many of the events in order each of them has. catalogue: titles of items."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    starts = offsets[:-1]
    session = np.repeat(np.arange(len(lengths)), lengths)
    moment, items = events["moment"], events["item_id"]
    first, last = moment[starts], moment[offsets[1:] - 1]
    user = _spelled(events["user_id"][starts], names["user_id"])
    source_session = _spelled(events["source_session"][starts], names["source_session"])
    known = items >= 0
    new = known & _first_of_each(session, items)
    new_offsets = _share(new, offsets)
    gaps = np.diff(moment, prepend=moment[:1]) / 1e6
    gaps[starts] = 0
    return pa.table(
        {
            "day": pa.array(((first - FROM_YEAR_1_US) // _DAY_US).astype(np.int32)).cast(pa.date32()),
            "session_id": _ids(connection, user, source_session, first),
            "user_id": user,
            "start": _times(first),
            "end": _times(last),
            "duration": (last - first) / 1e6,
            "events": lengths.astype(np.int32),
            "type_counts": _counts(session, events["event_type"], len(lengths), names["event_type"]),
            "distinct_items": np.diff(new_offsets),
            "value": _totals(events["value"], starts),
            "weight": _totals(events["weight"], starts),
            "items": _lists(_share(known, offsets), items[known], names["item_id"]),
            "event_types": _lists(offsets, events["event_type"], names["event_type"]),
            "gaps": pa.ListArray.from_arrays(offsets, gaps.astype(np.float32)),
            "text": _texts(new_offsets, items[new], _titles(catalogue, names["item_id"])),
        }
    )


def _ids(connection: duckdb.DuckDBPyConnection, user: pa.Array, source_session: pa.Array, first: Numbers) -> pa.Array:
    started = pa.table({"user_id": user, "source_session": source_session, "first_moment": first})
    connection.register("started", started)
    named = connection.sql(load("events/session_ids.sql")).to_arrow_table()
    connection.unregister("started")
    return named["session_id"]


def _share(marked: npt.NDArray[np.bool_], offsets: Numbers) -> Numbers:
    """(sessions + 1,) offsets of the marked events alone."""
    return np.concatenate([[0], np.cumsum(marked)])[offsets].astype(np.int32)


def _totals(numbers: Numbers, starts: Numbers) -> Numbers:
    """(sessions,) sums of millionths, exact in whatever order: sums of fractions would depend on it."""
    if not len(starts):
        return numbers
    if (numbers == 1).all():
        # Without weights of event types, nothing needs adding up.
        return np.diff(starts, append=len(numbers)).astype(np.float64)
    millionths = np.rint(numbers * 1e6)
    # Two halves, since a sum of the largest values that are allowed is wider than an integer.
    upper = np.floor(millionths / 2**32)
    lower = (millionths - upper * 2**32).astype(np.int64)
    return (np.add.reduceat(upper.astype(np.int64), starts) * 2.0**32 + np.add.reduceat(lower, starts)) / 1e6


def _first_of_each(session: Numbers, codes: Numbers) -> npt.NDArray[np.bool_]:
    """(events,) whether an event is the first of its session with its code."""
    keys = (session << 32) | (codes.astype(np.int64) + 1)
    order = np.argsort(keys, kind="stable")
    found = np.zeros(len(keys), bool)
    found[order] = np.diff(keys[order], prepend=-1) != 0
    return found


def _counts(session: Numbers, types: Numbers, sessions: int, names: pa.Array) -> pa.MapArray:
    """How often each type occurs in each session; types in alphabetical order."""
    keys = session * len(names) + types
    if sessions * len(names) <= 8 * len(keys):
        table = np.bincount(keys)
        keys = np.flatnonzero(table)
        counts = table[keys]
    else:
        keys, counts = np.unique(keys, return_counts=True)
    which, code = np.divmod(keys, max(len(names), 1))
    offsets = np.searchsorted(which, np.arange(sessions + 1)).astype(np.int32)
    return pa.MapArray.from_arrays(offsets, names.take(pa.array(code)), pa.array(counts))


def _titles(catalogue: pa.Table, items: pa.Array) -> pa.Array:
    """The title of each item, missing where the catalogue has none."""
    return catalogue["title"].combine_chunks().take(pc.index_in(items, value_set=catalogue["item_id"]))


def _texts(offsets: Numbers, items: Numbers, titles: pa.Array) -> pa.Array:
    """The titles of each session's different items in one text, missing where there is none."""
    titled = titles.is_valid().to_numpy(zero_copy_only=False)[items]
    own = _share(titled, offsets)
    # Long titles of many events are more than 32-bit offsets reach.
    spelled = titles.cast(pa.large_string()).take(pa.array(items[titled]))
    texts = pc.binary_join(pa.ListArray.from_arrays(own, spelled), pa.scalar("; ", pa.large_string()))
    return pc.if_else(pa.array(np.diff(own) > 0), texts, None)


def _lists(offsets: Numbers, codes: Numbers, names: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(offsets, pa.DictionaryArray.from_arrays(pa.array(codes), names))


def _readable(found: pa.Table) -> pa.Table:
    """DuckDB 2.0 fails on a batch of nothing but empty lists over a dictionary: then items are spelled out."""
    items = found["items"]
    if not pc.any(pc.equal(pc.list_value_length(items), 0)).as_py():
        return found
    return found.set_column(found.schema.get_field_index("items"), "items", items.cast(pa.list_(pa.string())))


def _spelled(codes: Numbers, names: pa.Array) -> pa.Array:
    return names.take(pa.array(codes, mask=codes < 0))


def _times(moments: Numbers) -> pa.Array:
    return pa.array(moments - FROM_YEAR_1_US).cast(pa.timestamp("us", "UTC"))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time())


def _since_year_1(day: date) -> int:
    """The start of a day in microseconds since the year 1."""
    return (day.toordinal() - 1) * _DAY_US
