"""The full job with the project's own statements: source files to sessions and quarantine, as Parquet.

Here is only their order, span by span of days. What they say is under `sql/events/`; measuring is done elsewhere.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import duckdb

from segflow import config
from segflow.events import catalogue, clean, mapping
from segflow.events.days import Days, spans
from segflow.sql import literal
from segflow.storage import connect

_DAY = timedelta(days=1)


def run(folder: Path, out: Path, memory_limit: str | None = None, rows_at_once: int | None = None) -> None:
    """Write `out`/sessions and `out`/quarantine, one file a span, from the generated log in `folder`.

    memory_limit: of DuckDB, such as `1GB`. rows_at_once: of one statement. Without them, the project's defaults.
    """
    settings = config.load(folder / "segflow.yaml")
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
        known: list[Days] = []
        for first, last in spans(per_day, start, end, settings.compute.rows_at_once):
            # A session may reach into the next day, so judging is a day ahead. No day is read or judged twice.
            new = (known[-1][1] if known else start, last + _DAY)
            _read(connection, settings, {file for file, day in rows if new[0] <= day < new[1]}, new)
            _view(connection, "raw_events", [new])
            clean.judge(connection, settings.cleaning)
            _write(connection, clean.QUARANTINED_QUERY, out / "quarantine" / f"{first}.parquet")
            connection.execute(f"CREATE TEMP TABLE {_table('sound', new)} AS {clean.events_query(settings.cleaning)}")
            connection.execute(f"DROP TABLE {_table('raw', new)}")
            known.append(new)

            while known[0][1] < first:
                connection.execute(f"DROP TABLE {_table('sound', known.pop(0))}")
            _view(connection, "events", known)
            sessions = clean.sessions_query(connection, settings.sessions, first, last)
            _write(connection, sessions, out / "sessions" / f"{first}.parquet")


def _rows_of_files(connection: duckdb.DuckDBPyConnection, settings: config.Config) -> dict[tuple[str, date], int]:
    """(file, day) -> rows. Only times are read for it, and no span has to look into files that cannot concern it."""
    dated = mapping.with_day(mapping.mapped_events(connection, settings.source), settings.calendar)
    counted = connection.execute(f"SELECT source_file, day, count(*) FROM ({dated}) GROUP BY ALL").fetchall()
    return {(file, day): count for file, day, count in counted}


def _read(connection: duckdb.DuckDBPyConnection, settings: config.Config, only: set[str], days: Days) -> None:
    """The raw rows of `days`, which lie in the files `only`, as a table."""
    dated = mapping.with_day(mapping.mapped_events(connection, settings.source, only), settings.calendar)
    connection.execute(
        f"CREATE TEMP TABLE {_table('raw', days)} AS SELECT * FROM ({dated}) "
        f"WHERE day >= DATE '{days[0]}' AND day < DATE '{days[1]}'"
    )


def _write(connection: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
    connection.execute(f"COPY ({query}) TO {literal(str(file))} (FORMAT parquet, COMPRESSION snappy)")


def _view(connection, name, parts):
    tables = " UNION ALL ".join(f"FROM {_table({'raw_events': 'raw', 'events': 'sound'}[name], part)}" for part in parts)
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {tables}")


def _table(kind, days):
    return f'"{kind} {days[0]}"'
