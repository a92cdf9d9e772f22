"""Events: source rows to clean events and sessions."""

from __future__ import annotations

import json

from segflow import tables
from segflow.defs.materializes import materializes
from segflow.defs.partitions import CONFIG, DAILY, NEIGHBOUR_DAYS, SAME_DAY, SNAPSHOT
from segflow.defs.step import Step
from segflow.events import catalogue, clean, mapping, source

GROUP = "events"


def _event_files() -> str:
    events = CONFIG.source.events
    return source.fingerprint([events.path])


def _catalogue_files() -> str:
    items = CONFIG.source.items
    return source.fingerprint([(items and items.path) or CONFIG.source.events.path])


def _user_files() -> str:
    return source.fingerprint([CONFIG.source.users.path]) if CONFIG.source.users else "none"


@materializes(
    tables.RAW_EVENTS,
    group=GROUP,
    reads={},
    observes=_event_files,
    partitions=DAILY,
    one_run_for_a_range=True,
    code=["events/source.py", "events/mapping.py"],
    settings=["source", "calendar"],
    kinds=["duckdb"],
)
def raw_events(step: Step) -> None:
    """Read from the files of `source.events`."""
    rows = mapping.mapped_events(step.connection, step.config.source.events, step.config.source.items)
    first, last = step.days
    dated = mapping.with_day(rows, step.config.calendar)
    step.write(tables.RAW_EVENTS, f"SELECT * FROM ({dated}) WHERE day >= DATE '{first}' AND day < DATE '{last}'")


@materializes(
    tables.ITEMS,
    group=GROUP,
    reads={},
    observes=_catalogue_files,
    code=["events/source.py", "events/catalogue.py", "events/items.sql"],
    settings=["source"],
    kinds=["duckdb"],
)
def items(step: Step) -> None:
    """Read from `source.items`, or from the items that the events name."""
    step.write(tables.ITEMS, catalogue.items_query(step.connection, step.config.source))


@materializes(
    tables.USERS,
    group=GROUP,
    reads={},
    observes=_user_files,
    code=["events/source.py", "events/catalogue.py"],
    settings=["source"],
    kinds=["duckdb"],
)
def users(step: Step) -> None:
    """Read from `source.users`."""
    step.write(tables.USERS, catalogue.users_query(step.connection, step.config.source.users))


@materializes(
    tables.EVENTS,
    tables.QUARANTINED_EVENTS,
    group=GROUP,
    reads={tables.RAW_EVENTS: SAME_DAY, tables.ITEMS: SNAPSHOT},
    partitions=DAILY,
    one_run_for_a_range=True,
    code=["events/clean.py", "events/classified.sql"],
    settings=["cleaning", "calendar"],
    checks={"row_accounting": "raw rows = events + quarantined + duplicates, on every day"},
    kinds=["duckdb"],
)
def events(step: Step) -> None:
    """One pass over the raw rows decides which are events."""
    step.view(tables.RAW_EVENTS)
    step.view(tables.ITEMS)
    classified = clean.classified_query(step.config.cleaning, step.config.calendar)
    step.connection.execute(f"CREATE TEMP TABLE {clean.CLASSIFIED} AS {classified}")
    account = clean.row_account(step.connection)
    step.require("row_accounting", account.balanced, account.sentence, **account.figures)
    step.write(tables.EVENTS, clean.EVENTS_QUERY)
    step.write(tables.QUARANTINED_EVENTS, clean.QUARANTINED_QUERY)
    step.note(**account.figures, reasons=json.dumps(account.reasons))


@materializes(
    tables.SESSIONS,
    group=GROUP,
    reads={tables.EVENTS: NEIGHBOUR_DAYS, tables.ITEMS: SNAPSHOT},
    partitions=DAILY,
    one_run_for_a_range=True,
    code=["events/clean.py", "events/sessions.sql"],
    settings=["sessions"],
    kinds=["duckdb"],
)
def sessions(step: Step) -> None:
    """By the source's own session id where an event has one, else by a gap of inactivity."""
    step.view(tables.EVENTS)
    step.view(tables.ITEMS)
    step.write(tables.SESSIONS, clean.sessions_query(step.config.sessions, *step.days))
