"""Sessions: by gap, by the source's ids, across midnight, and the same day by day as in one pass."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segflow.config import SessionConfig
from segflow_tests.events.steps import COLUMNS, classified, mapped, sessions, source, write

Rows = list[tuple[str, str, str, str]]
START = datetime(2024, 1, 10)
NOON = timedelta(hours=12)


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


moments = st.lists(
    st.tuples(
        st.sampled_from(["u", "v"]),
        # Minutes from 8 January: mostly close together, so that chains of several days happen.
        st.one_of(st.integers(0, 6 * 24 * 60), st.integers(0, 6 * 24).map(lambda hour: hour * 60)),
        st.sampled_from(["", "", "s", "t"]),
    ),
    min_size=1,
    max_size=60,
)


@given(moments, st.sampled_from([1, 30, 240, 720]))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_event_lies_in_one_session_and_days_do_not_matter(
    connection: duckdb.DuckDBPyConnection, drawn: list[tuple[str, int, str]], gap: int
) -> None:
    start = datetime(2024, 1, 8, tzinfo=UTC)
    rows = [
        (user, f"i{number}", start + timedelta(minutes=minutes), session or None)
        for number, (user, minutes, session) in enumerate(drawn)
    ]
    fill_events(connection, rows)
    config = SessionConfig(gap_minutes=gap)
    found = sessions(connection, config)

    time_of = {item: time for _, item, time, _ in rows}
    assert sorted(item for one in found for item in one["items"]) == sorted(time_of)
    identities = [(one["day"], one["user_id"], one["session_id"]) for one in found]
    assert len(set(identities)) == len(found)
    own = [one for one in found if "@" in one["session_id"]]
    for one in own:
        times = [time_of[item] for item in one["items"]]
        assert times == sorted(times)
        assert all(b - a <= timedelta(minutes=gap) for a, b in pairwise(times))
        assert times[-1] < datetime.combine(one["day"], datetime.min.time(), UTC) + timedelta(days=1) + NOON
    for before, after in pairwise(own):
        if before["user_id"] == after["user_id"]:
            cut = after["start"].astimezone(UTC).hour >= 12 and before["start"] < midnight(after["start"])
            assert after["start"] - before["end"] > timedelta(minutes=gap) or cut

    day_by_day = []
    connection.execute("CREATE OR REPLACE TEMP TABLE all_events AS SELECT * FROM events")
    for number in range(7):
        day = date(2024, 1, 8) + timedelta(days=number)
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE events AS SELECT * FROM all_events "
            f"WHERE ts::DATE BETWEEN DATE '{day}' - 1 AND DATE '{day}' + 1"
        )
        day_by_day += sessions(connection, config, day, day + timedelta(days=1))
    assert sorted(day_by_day, key=str) == sorted(found, key=str)


def midnight(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def fill_events(connection: duckdb.DuckDBPyConnection, rows: list[tuple[str, str, datetime, str | None]]) -> None:
    """The tables events and items, without the way through files."""
    users, items, times, ids = zip(*rows, strict=True)
    drawn = pa.table(
        {
            "user_id": users,
            "item_id": items,
            "ts": pa.array(times, pa.timestamp("us", tz="UTC")),
            "session_id": pa.array(ids, pa.string()),
        }
    )
    connection.register("drawn", drawn)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE events AS SELECT *, 'view' AS event_type, 1.0::DOUBLE AS value, 1.0::DOUBLE AS weight, "
        "'log' AS source_file, item_id[2:]::BIGINT AS source_row FROM drawn"
    )
    connection.execute("CREATE OR REPLACE TEMP TABLE items AS SELECT ''::VARCHAR AS item_id, ''::VARCHAR AS title")
