"""Engagement: what a user did on a day, as sums, and what the sums of a span say."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from segflow import tables
from segflow.config import ItemSource
from segflow.sql import load, render
from segflow_tests.events.steps import COLUMNS, classified, mapped, records, sessions, source, write

AS_OF = date(2024, 1, 29)
CATALOGUE = (
    "item,title,group,shelf",
    "milk,Milk,food,cold",
    "bread,Bread,food,dry",
    "soap,Soap,care,dry",
    "odd,Odd,,",
)


def user_days(connection: duckdb.DuckDBPyConnection, folder: Path, *lines: str) -> list[dict[str, Any]]:
    """The table user_days of events (user, item, type, time, value, quantity), left on the connection too."""
    log = write(folder / "log.csv", "user,item,type,time,price,count", *lines)
    columns = {"item_id": "item", "title": "title", "category": ["group", "shelf"]}
    catalogue = ItemSource(path=str(write(folder / "items.csv", *CATALOGUE)), columns=columns)
    mapped(connection, source(log, {**COLUMNS, "value": "price", "quantity": "count"}), catalogue)
    assert classified(connection) == [None] * len(lines)
    connection.register("found_sessions", pa.Table.from_pylist(sessions(connection), schema=tables.SESSIONS.arrow))
    connection.execute("CREATE OR REPLACE TEMP TABLE sessions AS SELECT * FROM found_sessions")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE user_days AS {load('events/user_days.sql')}")
    return records(connection, "SELECT * FROM user_days ORDER BY user_id, day")


def engagement(connection: duckdb.DuckDBPyConnection, as_of: date, days: int) -> dict[str, dict[str, Any]]:
    """The engagement of each user in the days before `as_of`."""
    rows = records(connection, render("events/engagement.sql", as_of=as_of, days=days))
    found = {row.pop("user_id"): row for row in rows}
    assert len(found) == len(rows)
    return found


def hours(**counts: int) -> list[int]:
    """24 counts, by hours written as h07=2."""
    return [counts.get(f"h{hour:02d}", 0) for hour in range(24)]


SMALL = (
    "u,milk,view,2024-01-02 00:00:00,,",
    "u,milk,buy,2024-01-02 00:10:00,1.5,2",
    "u,soap,view,2024-01-02 23:59:59.999999,2,",
    # The session begun before midnight belongs to the day before, its events do not.
    "u,bread,buy,2024-01-03 00:05:00,-0.5,1",
    "u,,search,2024-01-07 12:00:00,,",
    "v,odd,buy,2024-01-02 12:00:00,4,1",
    "v,unheard,buy,2024-01-02 12:01:00,,",
)


def test_a_day_is_the_sum_of_its_events(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    first, second, third, other = user_days(connection, tmp_path, *SMALL)
    assert first == {
        "day": date(2024, 1, 2),
        "user_id": "u",
        "events": 3,
        "sessions": 2,
        "seconds": pytest.approx(600 + 300.000001),
        "value": 3.5,
        "quantity": 2.0,
        "weight": 3.0,
        "distinct_items": 2,
        "distinct_categories": 2,
        "type_counts": {"buy": 1, "view": 2},
        "hour_counts": hours(h00=2, h23=1),
        "first": datetime(2024, 1, 2, tzinfo=UTC),
        "last": datetime(2024, 1, 2, 23, 59, 59, 999999, tzinfo=UTC),
    }
    assert set(first) == set(tables.USER_DAYS.column_names)
    assert (second["sessions"], second["seconds"], second["value"]) == (0, 0.0, -0.5)
    assert (second["events"], second["distinct_items"], second["hour_counts"]) == (1, 1, hours(h00=1))
    # Neither an item without a category nor one that is in no catalogue is of a category.
    assert (other["distinct_items"], other["distinct_categories"], other["sessions"]) == (2, 0, 1)
    assert other["hour_counts"] == hours(h12=2)
    assert (third["day"], third["distinct_items"], third["distinct_categories"]) == (date(2024, 1, 7), 0, 0)
    assert (third["value"], third["quantity"], third["weight"]) == (0.0, 0.0, 1.0)


def test_engagement_of_a_span(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    user_days(connection, tmp_path, *SMALL)
    found = engagement(connection, date(2024, 1, 8), 7)
    assert found["u"] == {
        "recency_days": 1,
        "active_days": 3,
        "sessions": 3,
        "events": 5,
        "value": 3.0,
        "seconds": pytest.approx(900.000001),
        "hour_shares": pytest.approx([one / 5 for one in hours(h00=3, h12=1, h23=1)]),
        # Tuesday, Wednesday and Sunday.
        "weekday_shares": pytest.approx([0, 1 / 3, 1 / 3, 0, 0, 0, 1 / 3]),
        "items_a_day": 1.0,
        "categories_a_day": 1.0,
    }
    assert (found["v"]["recency_days"], found["v"]["active_days"], found["v"]["items_a_day"]) == (6, 1, 2.0)


def test_the_span_is_half_open(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    user_days(connection, tmp_path, *SMALL)
    assert engagement(connection, date(2024, 1, 2), 30) == {}
    assert engagement(connection, date(2024, 1, 3), 1)["u"]["events"] == 3
    assert engagement(connection, date(2024, 1, 4), 1)["u"]["events"] == 1
    assert set(engagement(connection, date(2024, 1, 4), 1)) == {"u"}
    assert set(engagement(connection, date(2024, 1, 9), 7)) == {"u", "v"}
    assert set(engagement(connection, date(2024, 1, 10), 7)) == {"u"}


def test_a_user_without_items(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    user_days(connection, tmp_path, "w,,search,2024-01-02 10:00:00,,", "w,,search,2024-01-04 10:00:00,,")
    one = engagement(connection, AS_OF, 28)["w"]
    assert (one["items_a_day"], one["categories_a_day"], one["value"]) == (0.0, 0.0, 0.0)
    assert (one["sessions"], one["seconds"], one["events"]) == (2, 0.0, 2)


def random_log(seed: int, rows: int = 1500) -> pd.DataFrame:
    """Events of 25 users over four weeks, a third of them without item or value, times to the microsecond."""
    rng = np.random.default_rng(seed)
    offsets = rng.integers(0, 28 * 86_400_000_000, rows)
    frame = pd.DataFrame(
        {
            "user": [f"u{number}" for number in rng.integers(0, 25, rows)],
            "item": rng.choice(["milk", "bread", "soap", "odd", "unheard", ""], rows),
            "type": rng.choice(["view", "buy"], rows),
            "time": [datetime(2024, 1, 1) + timedelta(microseconds=int(offset)) for offset in offsets],
            "price": [f"{value:.2f}" if value < 60 else "" for value in rng.uniform(-5, 90, rows)],
            "count": rng.integers(1, 5, rows),
        }
    )
    return frame.drop_duplicates(["user", "time"])


def expected(log: pd.DataFrame, as_of: date, days: int) -> dict[str, dict[str, Any]]:
    """Engagement straight from the events of the span."""
    end = pd.Timestamp(as_of)
    log = log[(log["time"] < end) & (log["time"] >= end - pd.Timedelta(days=days))]
    categories = {"milk": "food", "bread": "food", "soap": "care"}
    found = {}
    for user, own in log.groupby("user"):
        dates = own["time"].dt.normalize()
        distinct = pd.DataFrame({"day": dates, "item": own["item"].replace("", None)})
        distinct["category"] = distinct["item"].map(categories)
        per_day = distinct.groupby("day")[["item", "category"]].nunique()
        active = pd.Series(dates.unique())
        found[str(user)] = {
            "recency_days": (end - dates.max()).days,
            "active_days": len(active),
            "events": len(own),
            "value": pytest.approx(pd.to_numeric(own["price"]).sum()),
            "hour_shares": pytest.approx([(own["time"].dt.hour == hour).mean() for hour in range(24)]),
            "weekday_shares": pytest.approx([(active.dt.weekday == day).mean() for day in range(7)]),
            "items_a_day": pytest.approx(per_day["item"].mean()),
            "categories_a_day": pytest.approx(per_day["category"].mean()),
        }
    return found


@pytest.mark.parametrize("seed", range(3))
def test_days_add_up_to_the_span(connection: duckdb.DuckDBPyConnection, tmp_path: Path, seed: int) -> None:
    log = random_log(seed)
    days = user_days(connection, tmp_path, *log.to_csv(index=False, header=False).splitlines())
    assert sum(one["events"] for one in days) == len(log)
    assert all(sum(one["hour_counts"]) == sum(one["type_counts"].values()) == one["events"] for one in days)
    for length in (1, 7, 28):
        found = engagement(connection, AS_OF, length)
        truth = expected(log, AS_OF, length)
        assert {user: {key: row[key] for key in truth[user]} for user, row in found.items()} == truth
        for row in found.values():
            assert sum(row["hour_shares"]) == pytest.approx(1)
            assert sum(row["weekday_shares"]) == pytest.approx(1)


def test_sessions_add_up_to_the_span(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    user_days(connection, tmp_path, *random_log(7).to_csv(index=False, header=False).splitlines())
    started = records(
        connection, "SELECT user_id, count(*) AS number, sum(duration) AS seconds FROM sessions GROUP BY user_id"
    )
    found = engagement(connection, AS_OF, 28)
    assert {one["user_id"]: (one["number"], pytest.approx(one["seconds"])) for one in started} == {
        user: (row["sessions"], row["seconds"]) for user, row in found.items()
    }


def test_the_order_of_rows_changes_nothing(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    lines = random_log(1).to_csv(index=False, header=False).splitlines()
    first = user_days(connection, tmp_path, *lines)
    whole = engagement(connection, AS_OF, 28)
    assert user_days(connection, tmp_path, *lines[::-1]) == first
    assert engagement(connection, AS_OF, 28) == whole
