"""Events: source files to clean events, sessions and what users did each day."""

from __future__ import annotations

from pathlib import Path

from segflow import tables
from segflow.defs.automation import FOLLOWS
from segflow.defs.materializes import materializes
from segflow.defs.partitions import CONFIG, DAILY, NEIGHBOUR_DAYS, ROWS_OF_DAY, SAME_DAY, SNAPSHOT
from segflow.defs.step import Step
from segflow.events import arrivals, catalogue, clean, mapping, source
from segflow.events.sessions import STATEMENTS
from segflow.events.shares import StoredLog, stored_sessions
from segflow.events.user_ids import UserIds
from segflow.sql import load

GROUP = "events"
_READERS = ["events/files.py", "events/readers.py", "events/source.py", "events/mapping.py", "events/user_ids.py"]


def _statement(path: str | None) -> str:
    """A statement of the source's own; it lies outside the code."""
    return load(path) if path else ""


def _key() -> str:
    """Which key user ids are hashed with. Asked first: without the key nothing is read."""
    return UserIds.of(CONFIG.source).fingerprint


def _event_files() -> str:
    events = CONFIG.source.events
    return _key() + source.fingerprint([events, *CONFIG.source.inputs.values()]) + _statement(events.sql)


def _catalogue_files() -> str:
    items = CONFIG.source.items
    files = source.fingerprint([mapping.items_input(CONFIG.source), *CONFIG.source.inputs.values()])
    return files + _statement(items.sql if items else None)


def _user_files() -> str:
    return _key() + source.fingerprint([CONFIG.source.users]) if CONFIG.source.users else "none"


def _edge_files() -> str:
    return _key() + source.fingerprint([CONFIG.source.edges]) if CONFIG.source.edges else "none"


@materializes(
    tables.SOURCE_FILES,
    group=GROUP,
    reads={},
    observes=_event_files,
    code=[*_READERS, "events/arrivals.py", "events/files.sql", "events/file_contents.sql"],
    settings=["source", "calendar"],
    kinds=["duckdb"],
)
def source_files(step: Step) -> None:
    """New and changed files of `source.events` are read once; what lies in the others is known."""
    step.previous(tables.SOURCE_FILES, arrivals.KNOWN)
    with source.reading(step.config.source.events.path):
        staged = step.stage(tables.SOURCE_FILES, arrivals.files_query(step.connection, step.config, step.code_version))
    found = step.connection.execute(f"SELECT day::VARCHAR, file, digest FROM {staged} WHERE rows > 0").fetchall()
    drifted, lines = arrivals.drift_report(step.connection, staged)
    step.note(files=len({file for _, file, _ in found}), files_that_differ=drifted, drift="\n".join(lines))
    step.note(suppressed_rows=arrivals.suppressed_rows(step.connection, step.config))
    step.commit(tables.SOURCE_FILES, staged)
    step.aspects(tables.SOURCE_FILES, {"": arrivals.day_digests(found)})


@materializes(
    tables.RAW_EVENTS,
    group=GROUP,
    reads={tables.SOURCE_FILES: ROWS_OF_DAY},
    partitions=DAILY,
    one_run_for_a_range=True,
    code=[*_READERS, "events/arrivals.py"],
    settings=["source", "calendar"],
    kinds=["duckdb"],
)
def raw_events(step: Step) -> None:
    """Read from the files that hold rows of the days."""
    step.view(tables.SOURCE_FILES)
    for part, only in arrivals.reading_plan(step.connection, step.config, *step.days):
        # Looked into only if need be: a day whose own file is damaged can be made again from its sources.
        if arrivals.gone(step.connection, step.config, *part):
            step.previous(tables.RAW_EVENTS, arrivals.STORED, part)
        with source.reading(step.config.source.events.path):
            staged = step.stage(tables.RAW_EVENTS, arrivals.raw_query(step.connection, step.config, *part, only), part)
            arrivals.require_as_listed(step.connection, step.config, staged, *part)
        step.commit(tables.RAW_EVENTS, staged, part)


@materializes(
    tables.ITEMS,
    group=GROUP,
    reads={},
    observes=_catalogue_files,
    code=[*_READERS, "events/catalogue.py", "events/items.sql"],
    settings=["source", "text"],
    kinds=["duckdb"],
)
def items(step: Step) -> None:
    """Read from `source.items`, or from the items that the events name."""
    with source.reading(mapping.items_input(step.config.source).path):
        staged = step.stage(tables.ITEMS, catalogue.items_query(step.connection, step.config.source, step.config.text))
    step.commit(tables.ITEMS, staged)


@materializes(
    tables.USERS,
    group=GROUP,
    reads={},
    observes=_user_files,
    code=[*_READERS, "events/catalogue.py"],
    settings=["source"],
    kinds=["duckdb"],
)
def users(step: Step) -> None:
    """Read from `source.users`."""
    with source.reading(step.config.source.users.path if step.config.source.users else ""):
        staged = step.stage(tables.USERS, catalogue.users_query(step.connection, step.config.source))
    step.commit(tables.USERS, staged)


@materializes(
    tables.USER_EDGES,
    group=GROUP,
    reads={},
    observes=_edge_files,
    code=[*_READERS, "events/catalogue.py"],
    settings=["source"],
    kinds=["duckdb"],
)
def user_edges(step: Step) -> None:
    """Read from `source.edges`."""
    with source.reading(step.config.source.edges.path if step.config.source.edges else ""):
        staged = step.stage(tables.USER_EDGES, catalogue.user_edges_query(step.connection, step.config.source))
    step.commit(tables.USER_EDGES, staged)


@materializes(
    tables.EVENTS,
    tables.QUARANTINED_EVENTS,
    group=GROUP,
    reads={tables.RAW_EVENTS: SAME_DAY, tables.ITEMS: SNAPSHOT},
    partitions=DAILY,
    one_run_for_a_range=True,
    code=["events/clean.py", *(f"events/{name}.sql" for name in clean.CLEANING), "events/edges.sql"],
    # The gap decides how far the edges of a day reach.
    settings=["cleaning", "calendar", "sessions"],
    checks={"row_accounting": "raw rows = events + quarantined + duplicates, on every day"},
    kinds=["duckdb"],
)
def events(step: Step) -> None:
    """What raw rows are events is decided in a few passes of SQL; the others keep their reason."""
    accounts = []
    step.view(tables.ITEMS)
    for part in step.spans(tables.RAW_EVENTS):
        step.view(tables.RAW_EVENTS, days=part)
        clean.judge(step.connection, step.config.cleaning)
        kept = step.stage(tables.EVENTS, clean.events_query(step.config.cleaning), part)
        rejected = step.stage(tables.QUARANTINED_EVENTS, "FROM rejected", part)
        accounts.append(clean.row_account(step.connection, kept, rejected))
        if not accounts[-1].balanced:
            break
        step.aspects(tables.EVENTS, clean.edges(step.connection, step.config.sessions, kept))
        step.commit(tables.EVENTS, kept, part)
        step.commit(tables.QUARANTINED_EVENTS, rejected, part)
    account = clean.total(accounts)
    step.require("row_accounting", account.balanced, account.sentence, **account.figures)
    step.note(**account.figures, reasons=account.reasons)


@materializes(
    tables.SESSIONS,
    group=GROUP,
    reads={tables.EVENTS: NEIGHBOUR_DAYS, tables.ITEMS: SNAPSHOT},
    partitions=DAILY,
    one_run_for_a_range=True,
    code=["events/sessions.py", "events/shares.py", "events/words.py", *(f"events/{name}.sql" for name in STATEMENTS)],
    settings=["sessions"],
    kinds=["duckdb"],
)
def sessions(step: Step) -> None:
    """By the source's own session id where an event has one, else by a gap of inactivity."""
    parts = list(step.spans(tables.EVENTS))
    # A day is never cut, so a span may hold more rows than may be held at once.
    largest = max((step.rows(tables.EVENTS, part) for part in parts), default=0)
    made = stored_sessions(
        step.engine,
        step.connection,
        StoredLog.of(step.config.storage, step.config.compute),
        step.config.sessions,
        parts,
        lambda part: step.bounds(tables.EVENTS, part),
        shares=max(1, -(-largest // step.config.compute.rows_at_once)),
    )
    for part, found in made:
        step.write(tables.SESSIONS, found, part)


@materializes(
    tables.USER_DAYS,
    group=GROUP,
    reads={tables.EVENTS: SAME_DAY, tables.SESSIONS: SAME_DAY, tables.ITEMS: SNAPSHOT},
    partitions=DAILY,
    one_run_for_a_range=True,
    code=["events/user_days.sql"],
    kinds=["duckdb"],
    automation=FOLLOWS,
)
def user_days(step: Step) -> None:
    """Sums that make engagement over any time cheap: recency, frequency, value, hours, weekdays, variety."""
    step.view(tables.ITEMS)
    for part in step.spans(tables.EVENTS):
        step.view(tables.EVENTS, days=part)
        step.view(tables.SESSIONS, days=part)
        step.write(tables.USER_DAYS, load("events/user_days.sql"), part)


@materializes(
    tables.DAY_REPORTS,
    group=GROUP,
    reads={
        tables.SOURCE_FILES: ROWS_OF_DAY,
        tables.RAW_EVENTS: SAME_DAY,
        tables.EVENTS: SAME_DAY,
        tables.QUARANTINED_EVENTS: SAME_DAY,
        tables.SESSIONS: SAME_DAY,
    },
    partitions=DAILY,
    one_run_for_a_range=True,
    code=["events/day_page.py", "events/day.html.jinja", "events/day.css.jinja"],
    settings=["source", "cleaning", "calendar"],
    kinds=["duckdb"],
    automation=FOLLOWS,
)
def day_reports(step: Step) -> None:
    """Also written as files, so that a page can be opened and sent."""
    from segflow.events.day_page import pages

    step.view(tables.SOURCE_FILES)
    for part in step.spans(tables.RAW_EVENTS):
        for table in (tables.RAW_EVENTS, tables.EVENTS, tables.QUARANTINED_EVENTS, tables.SESSIONS):
            step.view(table, days=part)
        made = pages(step.connection, part, step.config)
        step.write(tables.DAY_REPORTS, made, part)
        for day, html in zip(made["day"].to_pylist(), made["html"].to_pylist(), strict=True):
            if len(step.keys) == 1:
                step.show_page(f"days/{day}.html", html, "day.html")
            else:
                step.page(f"days/{day}.html", html)
    step.note(pages=Path(step.config.report.folder) / "days")
