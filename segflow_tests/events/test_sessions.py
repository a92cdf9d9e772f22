"""Sessions: by gap, by the source's ids, and across midnight."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from segflow.config import SessionConfig
from segflow_tests.events.steps import COLUMNS, classified, mapped, sessions, source, write

Rows = list[tuple[str, str, str, str]]
START = datetime(2024, 1, 10)


def given_events(connection: duckdb.DuckDBPyConnection, folder: Path, rows: Rows) -> None:
    """Events of (user, item, time, source session)."""
    lines = (f"{user},{item},view,{time},{session},1.5" for user, item, time, session in rows)
    path = write(folder / "log.csv", "user,item,type,time,session,price", *lines)
    mapped(connection, source(path, {**COLUMNS, "session_id": "session", "value": "price"}))
    assert classified(connection) == [None] * len(rows)


def items_of(found: list[dict[str, Any]]) -> list[list[str]]:
    return [session["items"] for session in found]


def test_a_session_ends_with_the_gap(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    given_events(
        connection,
        tmp_path,
        [
            ("u", "a", "2024-01-02 10:00:00", ""),
            ("u", "b", "2024-01-02 10:30:00", ""),
            ("u", "c", "2024-01-02 11:00:00.000001", ""),
            ("v", "d", "2024-01-02 11:00:00", ""),
            ("u", "c", "2024-01-02 11:00:01", ""),
        ],
    )
    found = sessions(connection)
    assert items_of(found) == [["a", "b"], ["c", "c"], ["d"]]
    first, second, _ = found
    assert (first["session_id"], first["events"], first["distinct_items"], first["value"]) == (
        "u@20240102T100000.000000", 2, 2, 3.0,
    )  # fmt: skip
    assert first["end"] - first["start"] == timedelta(minutes=30)
    assert (second["distinct_items"], second["event_types"], second["text"]) == (1, ["view", "view"], "c")
    assert items_of(sessions(connection, SessionConfig(gap_minutes=31))) == [["a", "b", "c", "c"], ["d"]]


def test_a_session_over_midnight_is_whole_and_belongs_to_its_first_day(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    times = ["2024-01-02 23:50:00", "2024-01-03 00:10:00", "2024-01-03 00:40:00", "2024-01-03 09:00:00"]
    given_events(connection, tmp_path, [("u", f"i{number}", time, "") for number, time in enumerate(times)])
    second = sessions(connection, first=date(2024, 1, 2), last=date(2024, 1, 3))
    third = sessions(connection, first=date(2024, 1, 3), last=date(2024, 1, 4))
    assert [(session["day"], session["items"]) for session in second + third] == [
        (date(2024, 1, 2), ["i0", "i1", "i2"]),
        (date(2024, 1, 3), ["i3"]),
    ]


def test_sessions_of_the_source_win_over_gaps(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    rows = [
        ("u", "a", "2024-01-02 10:00:00", "s1"),
        ("u", "b", "2024-01-02 10:01:00", "s2"),
        ("u", "c", "2024-01-02 10:02:00", ""),
        ("u", "d", "2024-01-02 14:00:00", "s1"),
        ("v", "e", "2024-01-02 14:00:00", "s1"),
        ("u", "f", "2024-01-02 10:29:00", ""),
    ]
    given_events(connection, tmp_path, rows)
    found = sessions(connection)
    assert [(session["user_id"], session["session_id"], session["items"]) for session in found] == [
        ("u", "s1", ["a", "d"]),
        ("u", "s2", ["b"]),
        ("u", "u@20240102T100200.000000", ["c", "f"]),
        ("v", "s1", ["e"]),
    ]
    assert items_of(sessions(connection, SessionConfig(use_source_ids=False))) == [["a", "b", "c", "f"], ["d"], ["e"]]


def test_equal_times_keep_the_order_of_the_source(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    items = [f"i{number * 37 % 50:02d}" for number in range(50)]
    given_events(connection, tmp_path, [("u", item, "2024-01-02 10:00:00", "") for item in items])
    (only,) = sessions(connection)
    assert only["items"] == items
    assert only["text"] == "; ".join(items)


def test_events_without_an_item_count(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    given_events(connection, tmp_path, [("u", "", "2024-01-02 10:00:00", "")])
    (only,) = sessions(connection)
    assert (only["events"], only["items"], only["event_types"], only["text"]) == (1, [], ["view"], None)


@pytest.mark.parametrize("session", ["", "s"])
def test_a_session_that_came_over_midnight_is_cut_at_noon(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, session: str
) -> None:
    hourly = [START + timedelta(hours=10 + number) for number in range(52)]
    given_events(connection, tmp_path, [("u", f"i{number}", str(time), session) for number, time in enumerate(hourly)])
    found = sessions(connection, SessionConfig(gap_minutes=60))
    assert [one["start"].astimezone(UTC).replace(tzinfo=None) for one in found] == [
        START + timedelta(hours=10), START + timedelta(days=1, hours=12), START + timedelta(days=2, hours=12),
    ]  # fmt: skip
    assert sum(one["events"] for one in found) == 52
