"""Sources and mapping: what is read from files of every kind, and which mistakes are named."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segflow.config import CalendarConfig
from segflow.errors import UserError
from segflow_tests.events.steps import COLUMNS, mapped, source, write


def moment_of(connection: duckdb.DuckDBPyConnection, folder: Path, text: str, zone: str = "UTC") -> datetime | None:
    path = write(folder / "log.csv", "user,item,type,time", f"u,i,view,{text}")
    row = mapped(connection, source(path, timezone=zone))[0]
    assert (row["ts"] is None) == (row["unparsed"] == f"ts={text}")
    return row["ts"] and row["ts"].astimezone(UTC).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-01-02 10:00:00", datetime(2024, 1, 2, 15)),
        ("2024-07-02T10:00:00.25", datetime(2024, 7, 2, 14, 0, 0, 250000)),
        ("2024-01-02", datetime(2024, 1, 2, 5)),
        # Clocks skip 02:30 on 10 March and show 01:30 twice on 3 November.
        ("2024-03-10 01:59:59", datetime(2024, 3, 10, 6, 59, 59)),
        ("2024-03-10 02:30:00", datetime(2024, 3, 10, 7, 30)),
        ("2024-03-10 03:00:00", datetime(2024, 3, 10, 7)),
        ("2024-11-03 00:59:59", datetime(2024, 11, 3, 4, 59, 59)),
        ("2024-11-03 02:00:00", datetime(2024, 11, 3, 7)),
    ],
)
def test_times_without_a_zone_are_in_the_configured_one(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, text: str, utc: datetime
) -> None:
    assert moment_of(connection, tmp_path, text, "America/New_York") == utc


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-01-02T10:00:00Z", datetime(2024, 1, 2, 10)),
        ("2024-01-02 10:00:00 UTC", datetime(2024, 1, 2, 10)),
        ("2024-01-02T10:00:0Z", datetime(2024, 1, 2, 10)),
        ("2024-01-02T10:00:00 PST8PDT", datetime(2024, 1, 2, 18)),
        ("2024-01-02 10:00:00 Europe/Paris", datetime(2024, 1, 2, 9)),
        ("2024-01-02T10:00:00+05:30", datetime(2024, 1, 2, 4, 30)),
        ("2024-01-02 10:00:00 +0200", datetime(2024, 1, 2, 8)),
        ("2024-01-02 10:00:00.5-03", datetime(2024, 1, 2, 13, 0, 0, 500000)),
        ("1704189600", datetime(2024, 1, 2, 10)),
        ("1704189600.5", datetime(2024, 1, 2, 10, 0, 0, 500000)),
        ("1704189600250", datetime(2024, 1, 2, 10, 0, 0, 250000)),
        ("1704189600000007", datetime(2024, 1, 2, 10, 0, 0, 7)),
    ],
)
def test_times_with_a_zone_or_since_the_epoch_ignore_the_configured_zone(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, text: str, utc: datetime
) -> None:
    assert moment_of(connection, tmp_path, text, "America/New_York") == utc


@pytest.mark.parametrize(
    "text",
    [
        "soon",
        "2024-02-30",
        "2024-01-02 10:00:00 PM",
        "2024-13-02 10:00:00",
        "2024-13-02 10:00:00Z",
        "nan",
        "infinity",
        "1e30",
        "24-13-01",
    ],
)
def test_what_is_no_time_is_kept_as_text(connection: duckdb.DuckDBPyConnection, tmp_path: Path, text: str) -> None:
    assert moment_of(connection, tmp_path, text) is None


def test_numbers_that_cannot_be_read_are_kept_as_text(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(
        tmp_path / "log.csv",
        "user,item,type,time,price,count",
        "u,i,view,2024-01-02,12.5,3",
        "u,i,view,2024-01-02,free,two",
        "u,i,view,2024-01-02,inf,nan",
        "u,i,view,2024-01-02, ,",
    )
    rows = mapped(connection, source(path, {**COLUMNS, "value": "price", "quantity": "count"}))
    assert [(row["value"], row["quantity"], row["unparsed"]) for row in rows] == [
        (12.5, 3.0, None),
        (None, None, "value=free; quantity=two"),
        (None, None, "value=inf; quantity=nan"),
        (None, None, None),
    ]


def test_text_is_trimmed_types_are_lower_case_and_ids_are_joined(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    path = write(tmp_path / "log.csv", "user,item,type,time,basket", " u1 , i1, VIEW ,2024-01-02,b", ",,,,")
    first, second = mapped(
        connection, source(path, {**COLUMNS, "event_id": ["basket", "item"], "session_id": "basket"})
    )
    fields = ("user_id", "item_id", "event_type", "event_id", "session_id")
    assert [first[field] for field in fields] == ["u1", "i1", "view", "b-i1", "b"]
    assert [second[field] for field in fields] == [None] * 5
    assert [first["source_row"], second["source_row"]] == [0, 1]


@pytest.mark.parametrize("kind", ["BIGINT", "DOUBLE", "VARCHAR", "DECIMAL(38, 0)", "HUGEINT"])
@pytest.mark.parametrize(
    ("unit", "number", "utc"),
    [
        ("s", 1704189600, datetime(2024, 1, 2, 10)),
        ("ms", 1704189600250, datetime(2024, 1, 2, 10, 0, 0, 250000)),
        ("us", 1704189600000500, datetime(2024, 1, 2, 10, 0, 0, 500)),
        ("ns", 1704189600000000000, datetime(2024, 1, 2, 10)),
        ("auto", 1704189600, datetime(2024, 1, 2, 10)),
        ("auto", 1704189600250, datetime(2024, 1, 2, 10, 0, 0, 250000)),
        ("auto", 1704189600000500, datetime(2024, 1, 2, 10, 0, 0, 500)),
        ("auto", 1704189600000000000, datetime(2024, 1, 2, 10)),
        # Of what size tells nothing, the setting tells all.
        ("ms", 1000, datetime(1970, 1, 1, 0, 0, 1)),
        ("us", 1000000, datetime(1970, 1, 1, 0, 0, 1)),
        ("ns", 1000000000, datetime(1970, 1, 1, 0, 0, 1)),
        ("s", 100_000_000_000, datetime(5138, 11, 16, 9, 46, 40)),
        ("s", -1, datetime(1969, 12, 31, 23, 59, 59)),
        ("ms", -1, datetime(1969, 12, 31, 23, 59, 59, 999000)),
        ("auto", -86400, datetime(1969, 12, 31)),
    ],
)
def test_units_of_numeric_times(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, kind: str, unit: str, number: int, utc: datetime
) -> None:
    connection.execute(
        f"COPY (SELECT 'u' AS user, 'i' AS item, 'v' AS type, CAST({number} AS {kind}) AS time) "
        f"TO '{tmp_path}/1.parquet' (FORMAT parquet)"
    )
    settings = source(tmp_path / "1.parquet", unit=unit, timezone="America/New_York")
    calendar = CalendarConfig(start=date(1969, 1, 1), end=date(2024, 4, 1))
    (row,) = mapped(connection, settings, calendar=calendar)
    assert row["ts"].astimezone(UTC).replace(tzinfo=None) == utc
    assert row["unparsed"] is None
    assert row["day"] == (utc.date() if utc.year < 2025 else calendar.start)


def test_nanoseconds_are_rounded_down(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    connection.execute(
        "COPY (SELECT 'u' AS user, 'i' AS item, 'v' AS type, unnest([-1001, -1000, -1, 0, 999, 1000]) AS time) "
        f"TO '{tmp_path}/1.parquet' (FORMAT parquet)"
    )
    rows = mapped(
        connection, source(tmp_path / "1.parquet", unit="ns"), calendar=CalendarConfig(start=date(1969, 1, 1))
    )
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert [(row["ts"] - epoch) // timedelta(microseconds=1) for row in rows] == [-2, -1, -1, 0, 0, 1]
    assert [row["day"] for row in rows] == [date(1969, 12, 31)] * 3 + [date(1970, 1, 1)] * 3


@pytest.mark.parametrize("kind", ["BIGINT", "DOUBLE", "VARCHAR", "HUGEINT"])
@pytest.mark.parametrize(
    ("unit", "number"), [("s", 10**15), ("ms", -(10**18)), ("us", 9 * 10**18), ("auto", -(2**63) + 1)]
)
def test_numbers_too_large_for_a_time_are_kept_as_text(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, kind: str, unit: str, number: int
) -> None:
    connection.execute(
        f"COPY (SELECT 'u' AS user, 'i' AS item, 'v' AS type, CAST({number} AS {kind}) AS time) "
        f"TO '{tmp_path}/1.parquet' (FORMAT parquet)"
    )
    (row,) = mapped(connection, source(tmp_path / "1.parquet", unit=unit))
    assert row["ts"] is None
    assert row["unparsed"].startswith("ts=")


def test_days_before_1970_start_at_midnight_too(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    times = ["1969-12-31 00:00:00", "1969-12-31 23:59:59.999999", "1970-01-01 00:00:00", "1901-05-06 07:08:09"]
    path = write(tmp_path / "log.csv", "user,item,type,time", *(f"u,i,view,{time}" for time in times))
    rows = mapped(connection, source(path), calendar=CalendarConfig(start=date(1900, 1, 1)))
    assert [str(row["day"]) for row in rows] == [time[:10] for time in times]


def test_event_types_get_the_names_that_are_set(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(
        tmp_path / "log.csv", "user,item,type,time", *(f"u,i,{kind},2024-01-02" for kind in ("1", " PV ", "Other", ""))
    )
    rows = mapped(connection, source(path, types={"1": "Purchase", "pv": "it's viewed"}))
    assert [row["event_type"] for row in rows] == ["purchase", "it's viewed", "other", None]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_any_precision(connection: duckdb.DuckDBPyConnection, tmp_path: Path, unit: str) -> None:
    moment = datetime(2024, 1, 2, 10)
    for number, zone in enumerate([None, "Asia/Tokyo"]):
        columns = {"user": ["u"], "item": ["i"], "type": ["v"], "time": pa.array([moment], pa.timestamp(unit, zone))}
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
        (row,) = mapped(connection, source(tmp_path / f"{number}.parquet", timezone="Asia/Tokyo"))
        assert row["ts"].astimezone(UTC).hour == (1 if zone is None else 10)


def test_a_log_of_one_kind_of_event(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user,item,time", "u,i,2024-01-02")
    columns = {field: column for field, column in COLUMNS.items() if field != "event_type"}
    assert mapped(connection, source(path, columns, event_type="Purchase"))[0]["event_type"] == "purchase"


def test_days_are_utc_and_rows_outside_the_calendar_go_to_its_first_day(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    times = [
        "2024-01-15T23:30:00-05:00",
        "2024-03-31T23:59:59Z",
        "2024-04-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "soon",
    ]
    path = write(tmp_path / "log.csv", "user,item,type,time", *(f"u,i,view,{time}" for time in times))
    days = [row["day"] for row in mapped(connection, source(path))]
    first = date(2024, 1, 1)
    assert days == [date(2024, 1, 16), date(2024, 3, 31), first, first, first]


def test_a_folder_of_files_that_differ_in_columns(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write(tmp_path / "log" / "b" / "2.csv", "time,user,type,price", "2024-01-02,u2,view,5")
    write(
        tmp_path / "log" / "1.csv", "user,item,type,time,colour", "u1,i1,view,2024-01-02,red", "u1,i2,view,2024-01-03,"
    )
    with gzip.open(tmp_path / "log" / "3.csv.gz", "wt") as file:
        file.write("user,item,type,time\nu3,i3,view,2024-01-02\n")
    write(tmp_path / "log" / "README.txt", "not a part of the log")
    rows = mapped(connection, source(tmp_path / "log", {**COLUMNS, "value": "price"}))
    assert [(row["source_file"], row["source_row"], row["user_id"], row["item_id"], row["value"]) for row in rows] == [
        ("1.csv", 0, "u1", "i1", None),
        ("1.csv", 1, "u1", "i2", None),
        ("3.csv.gz", 0, "u3", "i3", None),
        ("b/2.csv", 0, "u2", None, 5.0),
    ]


def test_a_glob_and_a_file_of_line_breaks_and_short_rows(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write(
        tmp_path / "day-1.csv", "user,item,type,time,text", 'u1,i,view,2024-01-02,"two', 'lines, one row"', "u2,i,view"
    )
    write(tmp_path / "other.csv", "user,item,type,time,text", "u3,i,view,2024-01-02,x")
    rows = mapped(connection, source(f"{tmp_path}/day-*.csv", {**COLUMNS, "text": "text"}))
    assert [(row["source_row"], row["user_id"], row["text"]) for row in rows] == [
        (0, "u1", "two\nlines, one row"),
        (1, "u2", None),
    ]
    assert rows[1]["ts"] is None


def test_parquet_keeps_its_types(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    for number, zoned in enumerate(["TIMESTAMP", "TIMESTAMPTZ"]):
        connection.execute(
            f"COPY (SELECT 7 AS user, 'i' AS item, 'view' AS type, {zoned} '2024-01-02 10:00:00' AS time, "
            f"'nan'::DOUBLE AS price) TO '{tmp_path}/{number}.parquet' (FORMAT parquet)"
        )
    # Not-a-number is how data frames write a missing value: no reason to refuse the row.
    for number, hour in enumerate([15, 10]):
        row = mapped(
            connection,
            source(tmp_path / f"{number}.parquet", {**COLUMNS, "value": "price"}, timezone="America/New_York"),
        )[0]
        assert (row["user_id"], row["value"], row["unparsed"]) == ("7", None, None)
        assert row["ts"].astimezone(UTC).hour == hour


def test_json_lines_with_late_surprises(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    usual = {"user": 1, "item": "i", "type": "view", "time": "2024-01-02T10:00:00+02:00", "price": 1}
    late = {"user": "x", "item": "i", "type": "view", "time": "2024-01-02 10:00:00", "price": "n/a", "text": "new"}
    path = write(tmp_path / "log.jsonl", *[json.dumps(usual)] * 25_000, json.dumps(late))
    rows = mapped(connection, source(path, {**COLUMNS, "value": "price", "text": "text"}, timezone="America/New_York"))
    assert len(rows) == 25_001
    assert (rows[0]["user_id"], rows[0]["value"], rows[0]["ts"].astimezone(UTC).hour) == ("1", 1.0, 8)
    last = rows[-1]
    assert (last["user_id"], last["unparsed"], last["text"]) == ("x", "value=n/a", "new")
    assert last["ts"].astimezone(UTC).hour == 15


def test_a_copied_log_keeps_its_row_identities(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    def identities(folder: Path) -> list[tuple[str, int]]:
        write(folder / "a" / "1.csv", "user,item,type,time", "u,i,view,2024-01-02")
        write(folder / "b" / "1.csv", "user,item,type,time", "u,i,view,2024-01-03")
        return [(row["source_file"], row["source_row"]) for row in mapped(connection, source(folder))]

    assert (
        identities(tmp_path / "here") == identities(tmp_path / "there" / "deeper") == [("a/1.csv", 0), ("b/1.csv", 0)]
    )


def test_a_missing_column_is_named_with_its_setting_and_the_nearest(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    path = write(tmp_path / "log.csv", "user,item,type,timestamp", "u,i,view,2024-01-02")
    with pytest.raises(UserError, match=r"log\.csv: source\.events\.columns\.ts: no column 'times'.*mean 'timestamp'"):
        mapped(connection, source(path, {**COLUMNS, "ts": "times"}))


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        ({}, "log.csv", r"log\.csv: no such file"),
        ({}, "*.csv", r"\*\.csv: no such file"),
        ({"notes.txt": "x"}, "", r"holds no Parquet, CSV or JSON file"),
        ({"log.dat": "x"}, "log.dat", r"log\.dat: cannot tell the format"),
        ({"log.csv": "user,item,type,time\n"}, "log.csv", r"log\.csv: the log is empty"),
        ({"log.csv": ""}, "log.csv", r"log\.csv: the log is empty"),
        ({"log.parquet": "PAR"}, "log.parquet", r"log\.parquet: cannot be read as parquet"),
        ({"log.jsonl": '{"user": 1}\n{"user":\n'}, "log.jsonl", r"log\.jsonl: cannot be read as json"),
        ({"a.csv": "user\n1\n", "b.jsonl": '{"user": 1}\n'}, "", r"several formats \(csv, json\)"),
    ],
)
def test_unusable_sources_are_one_line_errors(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, files: dict[str, str], path: str, message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        mapped(connection, source(tmp_path / path))
    assert "\n" not in str(raised.value)


def test_a_package_that_is_not_installed(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(UserError, match="not installed"):
        mapped(connection, source("package:no_such_package_here/log.csv"))
