"""The full job with the project's own statements: source files to sessions and quarantine, as Parquet.

Here is only their order, span by span of days: while the sessions of one span are made, the rows of the next are judged. What
the statements say is under `sql/events/`; measuring is done elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import TypeAlias, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from segflow import tables
from segflow.config import Config
from segflow.events import arrivals, catalogue, clean, mapping
from segflow.events.days import Days
from segflow.events.sessions import Sessions
from segflow.settings import load
from segflow.storage import connect

_DAY = timedelta(days=1)
_Step = TypeVar("_Step")
_Plan: TypeAlias = "list[tuple[Days, set[str] | None]]"
_FILES = """
SELECT file, coalesce(day, max(day) OVER (PARTITION BY file)) AS day, rows
FROM (SELECT source_file AS file, day, count(*) AS rows FROM ({rows}) GROUP BY ALL)
"""
_WORDS = ["type_counts.key_value.key", "items.list.element", "event_types.list.element"]
"""The columns in which few words occur often; looking for such in the others takes longer than writing them."""


def run(folder: Path, out: Path, memory_limit: str | None = None, rows_at_once: int = 500_000) -> None:
    """Write `out`/sessions and `out`/quarantine, one file a span, from the generated log in `folder`.

    memory_limit: of DuckDB, such as `1GB`; the default without it. rows_at_once: of one statement; days that stay in the
    processor's caches are fastest, while tables that are committed span by span want larger ones.
    """
    settings = load(folder / "segflow.yaml")
    own = {"threads": 2, "spill": str(out / "spill"), "memory_limit": memory_limit, "rows_at_once": rows_at_once}
    told = {name: value for name, value in own.items() if value is not None}
    settings = settings.model_copy(update={"compute": settings.compute.model_copy(update=told)})
    for name in ("sessions", "quarantine"):
        (out / name).mkdir(parents=True)
    with connect(settings.compute) as connection, connection.cursor() as other:
        other.execute("SET TimeZone = 'UTC'")
        items = connection.sql(catalogue.items_query(connection, settings.source)).to_arrow_table()
        for one in (connection, other):
            one.register("items", items)
        plan = _plan(connection, settings)
        # From here on the threads are our own, each at another span.
        connection.execute("SET threads = 1")
        judged = _ahead(_judged(connection, settings, plan, out / "quarantine"))
        for first, made in _ahead(_sessions(other, settings, judged, plan[-1][0])):
            _write(made, out / "sessions" / f"{first}.parquet")
            del made


def _ahead(steps: Iterator[_Step]) -> Iterator[_Step]:
    """The same steps, each taken in another thread while the one before is used.

    Here and below, what was handed on is let go at once: it would be kept until the next is there.
    """
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, steps, None)
        while (ready := coming.result()) is not None:
            coming = thread.submit(next, steps, None)
            yield ready
            del ready


def _plan(connection: duckdb.DuckDBPyConnection, settings: Config) -> _Plan:
    """Spans of days and the files to read for each. Only times are looked at."""
    rows = mapping.with_day(mapping.mapped_events(connection, settings.source), settings.calendar, "NULL")
    connection.execute(f"CREATE TEMP TABLE source_files AS {_FILES.format(rows=rows)}")
    ((start, end),) = connection.execute("SELECT min(day), max(day) FROM source_files").fetchall()
    return arrivals.reading_plan(connection, settings, start, end + _DAY)


def _judged(
    connection: duckdb.DuckDBPyConnection, settings: Config, plan: _Plan, quarantine: Path
) -> Iterator[tuple[Days, pa.Table, pa.Table]]:
    """The raw rows of each span, and which of them are no events; these are written to `quarantine`."""
    mapped = [name for name in tables.RAW_EVENTS.column_names if name not in _absent(settings)]
    for days, only in plan:
        query = arrivals.raw_query(connection, settings, *days, only)
        raw = connection.sql(f"SELECT {', '.join(mapped)} FROM ({query})").to_arrow_table()
        _show(connection, settings, raw)
        clean.judge(connection, settings.cleaning)
        rejected = connection.table("rejected").to_arrow_table()
        _write(rejected, quarantine / f"{days[0]}.parquet")
        connection.unregister("mapped_raw_events")
        ready = days, raw, rejected
        del raw, rejected
        yield ready
        del ready


def _sessions(
    connection: duckdb.DuckDBPyConnection,
    settings: Config,
    judged: Iterator[tuple[Days, pa.Table, pa.Table]],
    final: Days,
) -> Iterator[tuple[date, pa.Table]]:
    """The first day of each span, and the sessions that end in it. After the span `final`, no session goes on."""
    made = Sessions(connection, settings.sessions)
    for days, raw, rejected in judged:
        _show(connection, settings, raw)
        connection.register("rejected", rejected)
        connection.execute(f"CREATE OR REPLACE TEMP VIEW events AS {clean.events_query(settings.cleaning)}")
        found = made.add(until=days[1] if days != final else None)
        connection.unregister("mapped_raw_events")
        ready = days[0], found
        del raw, found
        yield ready
        del ready


def _show(connection: duckdb.DuckDBPyConnection, settings: Config, raw: pa.Table) -> None:
    """The view raw_events. What the source does not have is not carried along."""
    connection.register("mapped_raw_events", raw)
    missing = [
        f"NULL::{column.type} AS {column.name}"
        for column in tables.RAW_EVENTS.columns
        if column.name in _absent(settings)
    ]
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW raw_events AS SELECT {', '.join(['*', *missing])} FROM mapped_raw_events"
    )


def _absent(settings: Config) -> set[str]:
    return {"value", "quantity", "session_id", "text"} - settings.source.events.columns.keys()


def _write(rows: pa.Table, file: Path) -> None:
    pq.write_table(
        rows,
        file,
        use_dictionary=_WORDS if "items" in rows.column_names else True,
        row_group_size=131_072,
        write_statistics=False,
    )
