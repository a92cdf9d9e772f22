"""Judging rows that are held in memory: the statements of cleaning, for the few rows that need them.

The rules are those of SQL alone. What is told here, from numbers, is only which rows no rule can touch.
"""

from __future__ import annotations

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segflow.config import BotConfig, CleaningConfig, Config
from segflow.events import clean, words
from segflow.sql import literal, render
from segflow.tables import RAW_EVENTS

_PLACED = "placed_rows"
_NUMBERS = ("moment", "value", "weight")
_ALL = {"start": None, "end": None, "gap_us": 0, "half_day_us": 0, "share": 0, "shares": 1}


def judge(connection: duckdb.DuckDBPyConnection, config: CleaningConfig, rows: pa.Table) -> pa.Table:
    """The rows that are no events, with the reason. Leaves the view raw_events and the table rejected, where source_row is the
    place in `rows` and source_file says nothing: judging needs their order only, and one number says it. Reads the view items.

    Only rows that may be rejected are judged: they are few, and that the others are sound is told from numbers alone.
    """
    _show(connection, rows)
    clean.macros(connection, config)
    marks = connection.sql(f"SELECT fingerprint({_PLACED}) AS mark FROM {_PLACED}").fetchnumpy()["mark"]
    refused = connection.sql(f"SELECT source_row FROM ({clean.refused_query(config)})").fetchnumpy()["source_row"]
    doubtful = np.zeros(rows.num_rows, bool)
    doubtful[refused] = True
    doubtful[_repeated(marks)] = True
    if config.bots.enabled:
        doubtful |= _suspected(connection, config.bots, rows)
    _show(connection, rows, np.flatnonzero(doubtful))
    clean.judge(connection, config)
    _show(connection, rows)
    rejected = connection.table("rejected").to_arrow_table()
    places = rejected["source_row"]
    for name in ("source_file", "source_row"):
        rejected = rejected.set_column(rejected.column_names.index(name), name, rows[name].take(places))
    return rejected


def _show(connection: duckdb.DuckDBPyConnection, rows: pa.Table, places: npt.NDArray[np.intp] | None = None) -> None:
    kept = rows.drop_columns(["source_file"])
    if places is None:
        places = np.arange(rows.num_rows)
    else:
        kept = kept.take(pa.array(places))
    connection.register(_PLACED, kept.set_column(kept.column_names.index("source_row"), "source_row", pa.array(places)))
    listed = ", ".join(
        "'' AS source_file"
        if column.name == "source_file"
        else f"CAST({column.name} AS {column.type}) AS {column.name}"
        for column in RAW_EVENTS.columns
    )
    connection.execute(f"CREATE OR REPLACE TEMP VIEW raw_events AS SELECT {listed} FROM {_PLACED}")


def _repeated(marks: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """The rows whose mark occurs more than once. Counting by some of the bits acquits most rows, sorting tells the others."""
    bits = min((2 * len(marks)).bit_length(), 22)
    some = (marks & np.uint64(2**bits - 1)).astype(np.intp)
    maybe = np.flatnonzero((np.bincount(some) > 1)[some])
    _, kind, times = np.unique(marks[maybe], return_inverse=True, return_counts=True)
    found: npt.NDArray[np.intp] = maybe[times[kind] > 1]
    return found


def _suspected(connection: duckdb.DuckDBPyConnection, bots: BotConfig, rows: pa.Table) -> npt.NDArray[np.bool_]:
    """(rows,) whether a row's user did so much on its day, or has such a name, that `events/suspects.sql` looks closely."""
    limits = [one for one in (bots.events_per_day, bots.events_per_minute, bots.clockwork_events) if one]
    texts = words.coded(rows["user_id"])
    user, users = words.codes(texts), words.known(texts)
    found = np.zeros(len(user), bool)
    if limits and len(user):
        day = rows["day"].to_numpy().astype(np.int64)
        key = (day - day.min()) * (len(users) + 1) + user + 1
        found |= (np.bincount(key) >= min(limits))[key]
    if bots.user_pattern is not None:
        connection.register("known_words", pa.table({"word": users}))
        pattern = f"SELECT regexp_matches(word, {literal(bots.user_pattern)}) AS named FROM known_words"
        named = connection.sql(pattern).fetchnumpy()["named"]
        found |= np.append(named, False)[user]
    return found


def session_events(connection: duckdb.DuckDBPyConnection, config: Config, rows: pa.Table) -> pa.Table:
    """What `Sessions` takes of the view events, which is made of the view of `rows`. In the order of arrival."""
    query = render("events/session_events.sql", use_source_ids=config.sessions.use_source_ids, **_ALL)
    filled = ["event_type"] if config.cleaning.impute.event_type is not None else []
    made = connection.sql(f"SELECT {', '.join(['source_row', *_NUMBERS, *filled])} FROM ({query})").to_arrow_table()
    places = made["source_row"].to_numpy()
    if (np.diff(places) < 0).any():
        # A join may turn rows round.
        order = np.argsort(places)
        made, places = made.take(pa.array(order)), places[order]
    texts = rows.select(["user_id", "item_id", "event_type", "session_id"]).take(pa.array(places))
    found = {
        "user_id": texts["user_id"],
        "source_session": texts["session_id"]
        if config.sessions.use_source_ids
        else pa.chunked_array([pa.nulls(len(made))]),
        "item_id": texts["item_id"],
        "event_type": made["event_type"] if filled else texts["event_type"],
    }
    numbers = {name: made[name] for name in _NUMBERS}
    return pa.table({name: words.coded(values) for name, values in found.items()} | numbers)
