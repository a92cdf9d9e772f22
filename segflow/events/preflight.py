"""What can be found wrong before anything is written: unreadable sources, unmapped columns, an empty log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import duckdb

from segflow.config import Config
from segflow.errors import UserError
from segflow.events.catalogue import items_query, users_query
from segflow.events.mapping import mapped_events, with_day


def preflight(config: Config, weeks: Sequence[date] = ()) -> list[str]:
    """Read the sources without writing; returns a line about each.

    weeks: snapshot weeks that are to be run; each needs events in the week and in the test week after it.

    Raises UserError for a file that is missing or unreadable, a mapped column that does not exist, and a log that is empty or
    lies outside the calendar.
    """
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = with_day(mapped_events(connection, config.source.events, config.source.items), config.calendar)
        path = config.source.events.path
        counts = connection.execute(f"SELECT count(*), count(ts), min(ts), max(ts) FROM ({rows})").fetchone()
        assert counts is not None
        total, dated, first, last = counts
        if total == 0:
            raise UserError(f"{path}: the log is empty; put events there or correct source.events.path")
        if dated == 0:
            raise UserError(f"{path}: none of {total} rows has a readable time; correct source.events.columns.ts")
        start, end = config.calendar.start, config.calendar.end
        if last.date() < start or (end is not None and first.date() >= end):
            raise UserError(
                f"{path}: its events lie between {first.date()} and {last.date()}, outside the calendar from {start}"
                f"{f' to {end}' if end else ''}; correct calendar.start and calendar.end"
            )
        for week in weeks:
            for start, what in ((week, "the snapshot week"), (week + timedelta(weeks=1), "its test week")):
                found = connection.execute(
                    f"SELECT count(*) FROM ({rows}) WHERE day >= $1 AND day < $2", [start, start + timedelta(weeks=1)]
                ).fetchone()
                if not found or not found[0]:
                    raise UserError(f"week {week}: {what} from {start} has no events in {path}; choose another week")
        items = connection.execute(f"SELECT count(*) FROM ({items_query(connection, config.source)})").fetchone()
        users = connection.execute(
            f"SELECT count(DISTINCT user_id) FROM ({users_query(connection, config.source.users)})"
        ).fetchone()
        assert items is not None
        assert users is not None
        if items[0] == 0:
            raise UserError(f"{path}: the catalogue has no item; correct source.items")
    return [
        f"events: {total:,} rows from {first:%Y-%m-%d} to {last:%Y-%m-%d}, {total - dated:,} without a readable time",
        f"items: {items[0]:,}",
        f"users with static attributes: {users[0]:,}",
    ]
