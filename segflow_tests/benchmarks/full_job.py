"""The full job with the project's own statements: source files to sessions and quarantine, as Parquet.

Here is only their order, span by span of days: while the sessions of one span are made, the rows of the next are judged. What
the statements say is under `sql/events/`; measuring is done elsewhere.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

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
_FILES = """
SELECT file, coalesce(day, max(day) OVER (PARTITION BY file)) AS day, rows
FROM (SELECT source_file AS file, day, count(*) AS rows FROM ({rows}) GROUP BY ALL)
"""
_WORDS = ["type_counts.key_value.key", "items.list.element", "event_types.list.element"]
"""The columns in which few words occur often; looking for such in the others takes longer than writing them."""


def run(folder: Path, out: Path, memory_limit: str | None = None, rows_at_once: int | None = None) -> None:
    """Write `out`/sessions and `out`/quarantine, one file a span, from the generated log in `folder`.

    memory_limit: of DuckDB, such as `1GB`. rows_at_once: of one statement. Without them, the project's defaults.
    """
    settings = load(folder / "segflow.yaml")
    own = {"threads": 2, "spill": str(out / "spill"), "memory_limit": memory_limit, "rows_at_once": rows_at_once}
    told = {name: value for name, value in own.items() if value is not None}
    settings = settings.model_copy(update={"compute": settings.compute.model_copy(update=told)})
    for name in ("sessions", "quarantine"):
        (out / name).mkdir(parents=True)
    with connect(settings.compute) as connection, connection.cursor() as other, ThreadPoolExecutor(1) as ahead:
        other.execute("SET TimeZone = 'UTC'")
        items = connection.sql(catalogue.items_query(connection, settings.source)).to_arrow_table()
        for one in (connection, other):
            one.register("items", items)
        plan = _plan(connection, settings)
        made = Sessions(other, settings.sessions)
        coming = ahead.submit(_judge, connection, settings, out / "quarantine", *plan[0])
        for place, (days, _) in enumerate(plan):
            raw, rejected = coming.result()
            is_last = place + 1 == len(plan)
            if not is_last:
                coming = ahead.submit(_judge, connection, settings, out / "quarantine", *plan[place + 1])
            _show(other, settings, raw)
            other.register("rejected", rejected)
            other.execute(f"CREATE OR REPLACE TEMP VIEW events AS {clean.events_query(settings.cleaning)}")
            _write(made.add(until=None if is_last else days[1]), out / "sessions" / f"{days[0]}.parquet")


def _plan(connection: duckdb.DuckDBPyConnection, settings: Config) -> list[tuple[Days, set[str] | None]]:
    """Spans of days and the files to read for each. Only times are looked at."""
    rows = mapping.with_day(mapping.mapped_events(connection, settings.source), settings.calendar, "NULL")
    connection.execute(f"CREATE TEMP TABLE source_files AS {_FILES.format(rows=rows)}")
    ((start, end),) = connection.execute("SELECT min(day), max(day) FROM source_files").fetchall()
    return arrivals.reading_plan(connection, settings, start, end + _DAY)


def _judge(
    connection: duckdb.DuckDBPyConnection, settings: Config, quarantine: Path, days: Days, only: set[str] | None
) -> tuple[pa.Table, pa.Table]:
    """The raw rows of `days` and where those stand that are no events, which are written to `quarantine`."""
    mapped = [name for name in tables.RAW_EVENTS.column_names if name not in _absent(settings)]
    rows = connection.sql(f"SELECT {', '.join(mapped)} FROM ({arrivals.raw_query(connection, settings, *days, only)})")
    raw = rows.to_arrow_table()
    _show(connection, settings, raw)
    clean.judge(connection, settings.cleaning)
    rejected = connection.table("rejected").to_arrow_table()
    _write(rejected, quarantine / f"{days[0]}.parquet")
    return raw, rejected


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
