"""The events stage without tables: what the assets do, on one in-memory connection."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from segflow.config import CalendarConfig, CleaningConfig, EventSource, Input, ItemSource, SessionConfig, SourceConfig
from segflow.events import catalogue, clean, mapping
from segflow.events.sessions import sessions as made

CALENDAR = CalendarConfig(start=date(2024, 1, 1), end=date(2024, 4, 1))
COLUMNS: dict[str, str | list[str]] = {"user_id": "user", "item_id": "item", "event_type": "type", "ts": "time"}


def write(path: Path, *lines: str) -> Path:
    """A text file with these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def source(path: Path | str, columns: dict[str, str | list[str]] | None = None, **more: Any) -> EventSource:
    """Events at `path`, by default with the columns user, item, type and time."""
    return EventSource(path=str(path), columns=columns or COLUMNS, **more)


def records(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    """The rows of a query as dictionaries."""
    found = connection.execute(query)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def mapped(
    connection: duckdb.DuckDBPyConnection,
    events: EventSource,
    items: ItemSource | None = None,
    calendar: CalendarConfig = CALENDAR,
    inputs: dict[str, Input] | None = None,
) -> list[dict[str, Any]]:
    """Make the tables raw_events and items; return the raw rows in source order."""
    settings = SourceConfig(events=events, items=items, inputs=inputs or {})
    query = mapping.with_day(mapping.mapped_events(connection, settings), calendar)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE raw_events AS {query}")
    catalogued = catalogue.items_query(connection, settings)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE items AS {catalogued}")
    return records(connection, "SELECT * FROM raw_events ORDER BY source_file, source_row")


def classified(
    connection: duckdb.DuckDBPyConnection, cleaning: CleaningConfig | None = None, calendar: CalendarConfig = CALENDAR
) -> list[str | None]:
    """Make the tables rejected, events and quarantined_events; return the reason of each raw row in source order."""
    clean.judge(connection, cleaning or CleaningConfig())
    connection.execute(f"CREATE OR REPLACE TEMP TABLE events AS {clean.events_query(cleaning or CleaningConfig())}")
    connection.execute("CREATE OR REPLACE TEMP TABLE quarantined_events AS FROM rejected")
    query = "SELECT reason FROM raw_events LEFT JOIN rejected USING (source_file, source_row) ORDER BY source_file, source_row"
    return [row["reason"] for row in records(connection, query)]


def sessions(
    connection: duckdb.DuckDBPyConnection,
    config: SessionConfig | None = None,
    first: date = CALENDAR.start,
    last: date = date(2024, 4, 1),
) -> list[dict[str, Any]]:
    """The sessions of `events` and `items` that start in [first, last)."""
    connection.register("made_sessions", made(connection, config or SessionConfig(), first, last))
    return records(connection, "FROM made_sessions ORDER BY day, user_id, start, session_id")
