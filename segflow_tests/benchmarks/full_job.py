"""The full job with the project's own statements: source files to sessions and quarantine, as Parquet.

Here is only their order, span by span of days. What they say is under `sql/events/`; measuring is done elsewhere.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import duckdb

from segflow.config import Config
from segflow.events import catalogue, clean, mapping
from segflow.events.days import Days, spans
from segflow.settings import load
from segflow.sql import identifier, literal
from segflow.storage import connect

_DAY = timedelta(days=1)
_NEEDED = "user_id, item_id, event_type, ts, value, weight, session_id, source_file, source_row"
"""The columns of events that sessions are made of."""


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
    with connect(settings.compute) as connection:
        connection.execute(f"CREATE TEMP TABLE items AS {catalogue.items_query(connection, settings.source)}")
        rows = _rows_of_files(connection, settings)
        per_day: dict[date, int] = {}
        for (_, day), count in rows.items():
            per_day[day] = per_day.get(day, 0) + count
        start, end = min(per_day), max(per_day) + _DAY
        kept: list[Days] = []
        for first, last in spans(per_day, start, end, settings.compute.rows_at_once):
            # A session may reach into the next day, so judging is a day ahead. No day is read or judged twice.
            new = (kept[-1][1] if kept else start, last + _DAY)
            _read(connection, settings, {file for file, day in rows if new[0] <= day < new[1]}, new)
            clean.judge(connection, settings.cleaning)
            _write(connection, clean.QUARANTINED_QUERY, out / "quarantine" / f"{first}.parquet")
            events = f"SELECT {_NEEDED} FROM ({clean.events_query(settings.cleaning)})"
            connection.execute(f"CREATE TEMP TABLE {_name(new)} AS {events}")
            connection.execute("DROP TABLE raw_events")
            kept.append(new)

            while kept[0][1] < first:
                connection.execute(f"DROP TABLE {_name(kept.pop(0))}")
            parts = " UNION ALL ".join(f"FROM {_name(days)}" for days in kept)
            connection.execute(f"CREATE OR REPLACE TEMP VIEW events AS {parts}")
            sessions = clean.sessions_query(connection, settings.sessions, first, last)
            _write(connection, sessions, out / "sessions" / f"{first}.parquet")


def _rows_of_files(connection: duckdb.DuckDBPyConnection, settings: Config) -> dict[tuple[str, date], int]:
    """(file, day) -> rows. Only times are read for it, and no span has to look into files that cannot concern it."""
    dated = mapping.with_day(mapping.mapped_events(connection, settings.source), settings.calendar)
    counted = connection.execute(f"SELECT source_file, day, count(*) FROM ({dated}) GROUP BY ALL").fetchall()
    return {(file, day): count for file, day, count in counted}


def _read(connection: duckdb.DuckDBPyConnection, settings: Config, only: set[str], days: Days) -> None:
    """The table raw_events of `days`, whose rows lie in the files `only`."""
    dated = mapping.with_day(mapping.mapped_events(connection, settings.source, only), settings.calendar)
    connection.execute(
        f"CREATE TEMP TABLE raw_events AS SELECT * FROM ({dated}) "
        f"WHERE day >= DATE '{days[0]}' AND day < DATE '{days[1]}'"
    )


def _name(days: Days) -> str:
    """The table with the events of `days`."""
    return identifier(f"events {days[0]}")


def _write(connection: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
    # Row groups that are small enough for all threads to write a span of days together.
    options = "FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE 32768"
    connection.execute(f"COPY ({query}) TO {literal(str(file))} ({options})")
