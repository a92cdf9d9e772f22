"""The full job with the project's own statements: source files to sessions and quarantine, as Parquet.

Here is only their order, span by span of days. What they say is under `sql/events/`; measuring is done elsewhere.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import duckdb

from segflow import config
from segflow.events import catalogue, clean, mapping
from segflow.sql import literal
from segflow.storage import connect

_DAY = timedelta(days=1)


def run(folder: Path, out: Path, memory_limit: str | None = None) -> None:
    """Write `out`/sessions and `out`/quarantine, one file a span, from the generated log in `folder`.

    memory_limit: of DuckDB, such as `1GB`; the project's default without it.
    """
    settings = config.load(folder / "segflow.yaml")
    own = {"threads": 2, "spill": str(out / "spill")} | ({"memory_limit": memory_limit} if memory_limit else {})
    settings = settings.model_copy(update={"compute": settings.compute.model_copy(update=own)})
    for name in ("sessions", "quarantine"):
        (out / name).mkdir(parents=True)
    with connect(settings.compute) as connection:
        connection.execute(f"CREATE TEMP TABLE items AS {catalogue.items_query(connection, settings.source)}")
        rows = _rows_of_files(connection, settings)
        per_day: dict[date, int] = {}
        for (_, day), count in rows.items():
            per_day[day] = per_day.get(day, 0) + count
        start, end = min(per_day), max(per_day) + _DAY
        for first, last in clean.spans(per_day, start, end, settings.compute.rows_at_once):
            # A session may reach into the days on both sides.
            span = (first - _DAY, last + _DAY)
            only = {file for file, day in rows if span[0] <= day < span[1]}
            _span(connection, settings, only, span)
            within = f"day >= DATE '{first}' AND day < DATE '{last}'"
            quarantined = f"SELECT * FROM ({clean.QUARANTINED_QUERY}) WHERE {within}"
            _write(connection, quarantined, out / "quarantine" / f"{first}.parquet")
            sessions = clean.sessions_query(connection, settings.sessions, first, last)
            _write(connection, sessions, out / "sessions" / f"{first}.parquet")


def _rows_of_files(connection: duckdb.DuckDBPyConnection, settings: config.Config) -> dict[tuple[str, date], int]:
    """(file, day) -> rows. Only times are read for it, and no span has to look into files that cannot concern it."""
    dated = mapping.with_day(mapping.mapped_events(connection, settings.source), settings.calendar)
    counted = connection.execute(f"SELECT source_file, day, count(*) FROM ({dated}) GROUP BY ALL").fetchall()
    return {(file, day): count for file, day, count in counted}


def _span(
    connection: duckdb.DuckDBPyConnection, settings: config.Config, only: set[str], span: tuple[date, date]
) -> None:
    """Judge the rows of the days in `span`, and leave the view `events`."""
    mapped = mapping.mapped_events(connection, settings.source, only)
    dated = mapping.with_day(mapped, settings.calendar)
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW raw_events AS SELECT * FROM ({dated}) "
        f"WHERE day >= DATE '{span[0]}' AND day < DATE '{span[1]}'"
    )
    clean.judge(connection, settings.cleaning, settings.calendar)
    connection.execute(f"CREATE OR REPLACE TEMP VIEW events AS {clean.events_query(settings.cleaning)}")


def _write(connection: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
    connection.execute(f"COPY ({query}) TO {literal(str(file))} (FORMAT parquet, COMPRESSION snappy)")
