"""Judging rows that are held in memory: the statements of cleaning, for the few rows that need them.

The rules are those of SQL alone. What is told here, from numbers, is only which rows no rule can touch.
"""

from __future__ import annotations

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segflow.config import BotConfig, Config
from segflow.events import clean, words
from segflow.events.sessions import FROM_YEAR_1_US
from segflow.sql import literal, render
from segflow.tables import RAW_EVENTS

_PLACED = "placed_rows"
_NUMBERS = ("moment", "value", "weight")
_ALL = {"start": None, "end": None, "gap_us": 0, "half_day_us": 0, "share": 0, "shares": 1}


class Judge:
    """Says of rows, span by span, which are no events and what sessions are made of. Reads the view items.

    Leaves views and the table rejected on the connection: there, source_row is the place in the rows and source_file says
    nothing. Judging needs the order of rows only, and one number says it.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, config: Config):
        self._connection = connection
        self._config = config
        self._views: set[str] = set()
        self._rejected = np.zeros(0, np.int64)

    def rejected(self, rows: pa.Table) -> pa.Table:
        """Those of `rows` that are no events, with the reason.

        Only rows that may be rejected are judged: they are few, and that the others are sound is told from numbers alone.
        """
        connection, cleaning = self._connection, self._config.cleaning
        self._show(rows)
        clean.macros(connection, cleaning)
        marks = connection.sql(f"SELECT fingerprint({_PLACED}) AS mark FROM {_PLACED}").fetchnumpy()["mark"]
        refused = connection.sql(f"SELECT source_row, reason FROM ({clean.refused_query(cleaning)})").to_arrow_table()
        repeated = _repeated(marks)
        busy = _suspected(connection, cleaning.bots, rows) if cleaning.bots.enabled else np.zeros(0, np.intp)
        self._show(rows, np.unique(np.concatenate([repeated, busy, refused["source_row"].to_numpy()])))
        told = {
            "alike": pa.table({"source_row": repeated}),
            "suspects": pa.table({"source_row": busy}),
            "refused": refused,
        }
        for name, places in told.items():
            connection.register(f"told_{name}", places)
        known = {name: f"SELECT * FROM raw_events SEMI JOIN told_{name} USING (source_row)" for name in told}
        known["refused"] = "SELECT raw_events.*, reason FROM raw_events JOIN told_refused USING (source_row)"
        if not len(busy):
            known["bots"] = "SELECT day, user_id, '' AS reason FROM suspects WHERE false"
        clean.judge(connection, cleaning, known)
        found = connection.table("rejected").to_arrow_table()
        places = found["source_row"]
        self._rejected = places.to_numpy()
        for name in ("source_file", "source_row"):
            found = found.set_column(found.column_names.index(name), name, rows[name].take(places))
        return found

    def session_events(self, rows: pa.Table) -> pa.Table:
        """What `Sessions` takes, of the `rows` that were judged last. In the order of arrival."""
        config = self._config
        made = self._filled(rows) if clean.fills(config.cleaning) else self._as_they_came(rows)
        places = made["source_row"]
        texts = rows.select(["user_id", "item_id", "event_type", "session_id"]).take(places)
        found = {
            "user_id": texts["user_id"],
            "source_session": texts["session_id"]
            if config.sessions.use_source_ids
            else pa.chunked_array([pa.nulls(len(made))]),
            "item_id": texts["item_id"],
            "event_type": (made if "event_type" in made.column_names else texts)["event_type"],
        }
        numbers = {name: made[name] for name in _NUMBERS}
        return pa.table({name: words.coded(values) for name, values in found.items()} | numbers)

    def _filled(self, rows: pa.Table) -> pa.Table:
        """Place, numbers and, where it may be filled in, type of each event among `rows`, in their order."""
        config = self._config
        self._show(rows)
        self._view("events", clean.events_query(config.cleaning))
        query = render("events/session_events.sql", use_source_ids=config.sessions.use_source_ids, **_ALL)
        filled = ["event_type"] if config.cleaning.impute.event_type is not None else []
        listed = ", ".join(["source_row", *_NUMBERS, *filled])
        made = self._connection.sql(f"SELECT {listed} FROM ({query})").to_arrow_table()
        # A join may turn rows round.
        return made if (np.diff(made["source_row"].to_numpy()) >= 0).all() else made.sort_by("source_row")

    def _as_they_came(self, rows: pa.Table) -> pa.Table:
        """The same where nothing is filled in: then the statements do no more than leave out what is rejected."""
        kept = np.ones(rows.num_rows, bool)
        kept[self._rejected] = False
        events = rows.select(["ts", "value"]).filter(pa.array(kept))
        return pa.table(
            {
                "source_row": np.flatnonzero(kept),
                "moment": pc.add(events["ts"].cast(pa.int64()), FROM_YEAR_1_US),
                "value": pc.fill_null(events["value"].cast(pa.float64()), 0.0),
                "weight": np.ones(events.num_rows),
            }
        )

    def _show(self, rows: pa.Table, places: npt.NDArray[np.intp] | None = None) -> None:
        """The view raw_events of `rows`, or of those at `places`."""
        kept = rows.drop_columns(["source_file"])
        if places is None:
            places = np.arange(rows.num_rows)
        else:
            kept = kept.take(pa.array(places))
        place = kept.column_names.index("source_row")
        self._connection.register(_PLACED, kept.set_column(place, "source_row", pa.array(places)))
        # Columns without a value have no type.
        typed = [f"CAST({column.name} AS {column.type}) AS {column.name}" for column in RAW_EVENTS.columns]
        typed[RAW_EVENTS.column_names.index("source_file")] = "'' AS source_file"
        self._view("raw_events", f"SELECT {', '.join(typed)} FROM {_PLACED}")

    def _view(self, name: str, query: str) -> None:
        """Make a view the first time: it sees what is registered later, and making it again takes time."""
        if name not in self._views:
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")
            self._views.add(name)


def _repeated(marks: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """The rows whose mark occurs more than once. Counting by some of the bits acquits most rows, sorting tells the others."""
    bits = min((2 * len(marks)).bit_length(), 22)
    some = (marks & np.uint64(2**bits - 1)).astype(np.intp)
    maybe = np.flatnonzero((np.bincount(some) > 1)[some])
    _, kind, times = np.unique(marks[maybe], return_inverse=True, return_counts=True)
    found: npt.NDArray[np.intp] = maybe[times[kind] > 1]
    return found


def _suspected(connection: duckdb.DuckDBPyConnection, bots: BotConfig, rows: pa.Table) -> npt.NDArray[np.intp]:
    """The rows of users who did so much on the day, or have such a name, that they may be among `events/suspects.sql`."""
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
    # A row without a user is nobody's.
    return np.flatnonzero(found & (user >= 0))
