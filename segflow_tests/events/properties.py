"""What the tests of properties share: how often each is tried, and the stage on rows that are at hand."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, timedelta

import duckdb
import pyarrow as pa
from hypothesis import HealthCheck, settings

from segflow import tables
from segflow.config import CleaningConfig, SessionConfig
from segflow.events import clean
from segflow.tables import Table
from segflow_tests.events import steps
from segflow_tests.events.logs import DAYS, START, Row

each_log = settings(
    max_examples=100,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FIRST, DAY = START.date(), timedelta(days=1)
LAST = FIRST + DAYS * DAY
PLACE = ("source_file", "source_row")
FLAWS = {"unreadable_field", "missing_user", "missing_time", "outside_calendar", "missing_type"}


def fill(engine: duckdb.DuckDBPyConnection, table: Table, rows: Sequence[Row]) -> None:
    """A temporary table of these rows, in this order."""
    engine.register("drawn", pa.Table.from_pylist(list(rows), table.arrow))
    engine.execute(f"CREATE OR REPLACE TEMP TABLE {table.name} AS FROM drawn")


def cleaned(engine: duckdb.DuckDBPyConnection, cleaning: CleaningConfig) -> tuple[list[Row], list[Row]]:
    """Make the tables events and quarantined_events of raw_events; return both, in source order."""
    clean.judge(engine, cleaning)
    engine.execute(f"CREATE OR REPLACE TEMP TABLE events AS {clean.events_query(cleaning)}")
    engine.execute("CREATE OR REPLACE TEMP TABLE quarantined_events AS FROM rejected")
    kept, refused = (
        steps.records(engine, f"FROM {name} ORDER BY source_file, source_row")
        for name in ("events", "quarantined_events")
    )
    return kept, refused


def sessions_of(
    engine: duckdb.DuckDBPyConnection,
    rows: Sequence[Row],
    config: SessionConfig,
    first: date = FIRST,
    last: date = LAST,
) -> list[Row]:
    """The sessions of the days [first, last), made of the events that a step sees: theirs and those of the neighbours."""
    fill(engine, tables.EVENTS, [row for row in rows if first - DAY <= row["day"] <= last])
    return steps.sessions(engine, config, first, last)


def by_day(rows: Iterable[Row]) -> dict[date, list[Row]]:
    found = defaultdict(list)
    for row in rows:
        found[row["day"]].append(row)
    return dict(found)


def stretches(days: Collection[date]) -> Iterator[tuple[date, date]]:
    """The half-open ranges of neighbouring days among those of the calendar."""
    inside = sorted(day for day in days if FIRST <= day < LAST)
    starts = [day for day in inside if day - DAY not in inside]
    ends = [day + DAY for day in inside if day + DAY not in inside]
    return zip(starts, ends, strict=True)


def multiset(rows: Iterable[Row], *without: str) -> Counter[str]:
    return Counter(str({name: value for name, value in row.items() if name not in without}) for row in rows)


def places(rows: Iterable[Row]) -> list[tuple[str, int]]:
    return [(row["source_file"], row["source_row"]) for row in rows]
