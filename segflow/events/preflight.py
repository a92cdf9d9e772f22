"""What can be found wrong before anything is written: unreadable sources, unmapped columns, an empty log, bad first rows.

Takes seconds whatever the size of the log: a large one is judged by the first rows of its first and last file.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import duckdb

from segflow.config import CalendarConfig, Config, EventSource, Input
from segflow.errors import UserError
from segflow.events.catalogue import items_query, user_edges_query, users_query
from segflow.events.clean import check_pattern
from segflow.events.files import SourceFile
from segflow.events.mapping import mapped_events, with_day
from segflow.events.source import Contents, contents, differences, files, foreign, reading
from segflow.events.user_ids import UserIds
from segflow.sql import literal

_READ_WHOLE = 64_000_000
"""Bytes up to which a log is read from end to end."""

_FIRST_ROWS = 10_000
_SHOWN = 5
_NOTEWORTHY = 0.05


def preflight(config: Config, weeks: Sequence[date] = ()) -> list[str]:
    """Read the sources without writing; returns a line about each, and one about all that is odd in them.

    weeks: snapshot weeks that are to be run; each needs events in the week and in the test week after it.

    Raises UserError for a file that is missing or unreadable, a mapped column that does not exist, a log that is empty or lies
    outside the calendar, and a key of pseudonyms that is not set.
    """
    events, ids = config.source.events, UserIds.of(config.source)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        check_pattern(connection, config.cleaning.bots)
        found = files(events.path, events.format)
        held = contents(connection, events)
        whole = sum(file.size for file in found) <= _READ_WHOLE
        with reading(events.path):
            lines = _log(connection, config, found, whole, typed=_typed_times(events, held))
            _check_weeks(connection, config, weeks)
        lines[1:1] = _catalogue(connection, config, counted=whole)
        lines += _odd_files(events, held)
        if ids.hashed:
            lines.append("user ids: hashed with a secret key as they are read")
        if ids.digests:
            lines.append(f"erased users whose rows are not read: {len(ids.digests):,}")
        return lines


def _log(
    connection: duckdb.DuckDBPyConnection, config: Config, found: Sequence[SourceFile], whole: bool, typed: bool
) -> list[str]:
    """Lines about the events."""
    events, calendar = config.source.events, config.calendar
    rows = with_day(mapped_events(connection, config.source), calendar)
    if whole:
        connection.execute(f"CREATE TEMP VIEW looked_at AS {rows}")
    else:
        _first_rows(connection, config, [found[0], found[-1]])
    # Times that need no parsing are read off the whole log in the time that others take for a part of it.
    facts = connection.execute(
        f"SELECT count(*), count(ts), min(ts), max(ts) FROM ({rows if typed else 'looked_at'})"
    ).fetchone()
    assert facts is not None
    total, dated, first, last = facts
    every = whole or typed
    if dated == 0:
        of = "" if every else "the first "
        raise UserError(
            f"{events.path}: none of {of}{total} rows has a readable time; correct source.events.columns.ts"
        )
    outside = last.date() < calendar.start or (calendar.end is not None and first.date() >= calendar.end)
    span = f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
    if outside and every:
        raise UserError(
            f"{events.path}: its events lie between {first.date()} and {last.date()}, outside the calendar from "
            f"{calendar.start}{f' to {calendar.end}' if calendar.end else ''}; correct calendar.start and calendar.end"
        )
    unread = f"{total - dated:,} without a readable time"
    size = f"{len(found):,} file(s), {sum(file.size for file in found) / 1e6:,.0f} MB"
    line = (
        f"{total:,} rows from {span}, {unread}" if every else f"{size}; {total:,} rows looked at, from {span}, {unread}"
    )
    return [f"events: {line}", *_quality(connection, calendar)]


def _first_rows(connection: duckdb.DuckDBPyConnection, config: Config, found: Sequence[SourceFile]) -> None:
    """The table `looked_at` with the first rows of the given files."""
    for number, name in enumerate(dict.fromkeys(file.name for file in found)):
        rows = with_day(mapped_events(connection, config.source, only=[name]), config.calendar)
        target = "INSERT INTO looked_at" if number else "CREATE TEMP TABLE looked_at AS"
        connection.execute(f"{target} SELECT * FROM ({rows}) LIMIT {_FIRST_ROWS}")


def _typed_times(events: EventSource, held: Contents) -> bool:
    """Whether the time of every row stands in a column that needs no parsing."""
    return events.sql is None and all(
        layout.columns.get(str(events.columns["ts"]), "VARCHAR") != "VARCHAR" for layout in held.layouts
    )


def _quality(connection: duckdb.DuckDBPyConnection, calendar: CalendarConfig) -> list[str]:
    """The types among the rows looked at; and, if many rows would be refused as they stand, which share and why."""
    kinds = connection.execute(
        "SELECT coalesce(event_type, '(none)'), count(*) FROM looked_at GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    more = f" and {len(kinds) - _SHOWN:,} more" if len(kinds) > _SHOWN else ""
    lines = [f"event types: {', '.join(f'{kind} ({count:,})' for kind, count in kinds[:_SHOWN])}{more}"]
    end = literal(calendar.end) if calendar.end else "DATE '9999-12-31'"
    refused = connection.execute(
        f"""
        SELECT reason, count(*), min(coalesce(unparsed, '') || ' in ' || source_file || ', row ' || source_row)
        FROM (
            SELECT *, CASE
                WHEN unparsed IS NOT NULL THEN 'unreadable_field'
                WHEN user_id IS NULL THEN 'missing_user'
                WHEN ts IS NULL THEN 'missing_time'
                WHEN epoch_us(ts) < epoch_us({literal(calendar.start)}::TIMESTAMP)
                    OR epoch_us(ts) >= epoch_us({end}::TIMESTAMP) THEN 'outside_calendar'
                WHEN event_type IS NULL THEN 'missing_type' END AS reason
            FROM looked_at
        )
        GROUP BY reason ORDER BY count(*) DESC, reason
        """
    ).fetchall()
    total = sum(count for _, count, _ in refused)
    refused = [one for one in refused if one[0] is not None]
    share = sum(count for _, count, _ in refused) / total
    if share > _NOTEWORTHY:
        reasons = ", ".join(
            f"{reason} {count / total:.1%} (such as{_short(example)})" for reason, count, example in refused
        )
        lines.append(f"quarantine: {share:.1%} of the rows looked at would not become events: {reasons}")
    return lines


def _short(example: str) -> str:
    value, _, place = example.rpartition(" in ")
    return f" {value[:60]}{'…' if len(value) > 60 else ''} in {place}" if value else f" {place}"


def _check_weeks(connection: duckdb.DuckDBPyConnection, config: Config, weeks: Sequence[date]) -> None:
    if not weeks:
        return
    rows = with_day(mapped_events(connection, config.source), config.calendar)
    days = {row[0] for row in connection.execute(f"SELECT DISTINCT day FROM ({rows})").fetchall()}
    for week in weeks:
        for start, what in ((week, "the snapshot week"), (week + timedelta(weeks=1), "its test week")):
            if not any(start <= day < start + timedelta(weeks=1) for day in days):
                raise UserError(
                    f"week {week}: {what} from {start} has no events in {config.source.events.path}; choose another week"
                )


def _catalogue(connection: duckdb.DuckDBPyConnection, config: Config, counted: bool) -> list[str]:
    source = config.source
    own = source.items is not None and source.items.path is not None
    path = (source.items and source.items.path) or source.events.path
    query = items_query(connection, source)
    lines = ["items: those that the events name"]
    if own or counted:
        items = _count(connection, f"SELECT count(*) FROM ({query})", path)
        if items == 0:
            raise UserError(f"{path}: the catalogue has no item; correct source.items")
        lines = [f"items: {items:,}"]
    users = users_query(connection, source)
    path = source.users.path if source.users else ""
    lines.append(
        f"users with static attributes: {_count(connection, f'SELECT count(DISTINCT user_id) FROM ({users})', path):,}"
    )
    if source.edges:
        ties = user_edges_query(connection, source)
        lines.append(f"ties between users: {_count(connection, f'SELECT count(*) FROM ({ties})', source.edges.path):,}")
    return lines


def _count(connection: duckdb.DuckDBPyConnection, query: str, path: str) -> int:
    with reading(path):
        found = connection.execute(query).fetchone()
    assert found is not None
    return int(found[0])


def _odd_files(events: Input, held: Contents) -> list[str]:
    """The files that differ from the others, and those that are not read."""
    said = [f"{name}: {how}" for name, how in differences(held).items()]
    said += [
        f"{name}: not read, since it is no Parquet, CSV or JSON file" for name in foreign(events.path, events.format)
    ]
    more = [f"… and {len(said) - _SHOWN:,} more files that differ"] if len(said) > _SHOWN else []
    return said[:_SHOWN] + more
