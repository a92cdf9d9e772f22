"""Odd input that is read all the same: what can be kept is kept and named, and no row is lost unseen."""

from __future__ import annotations

import gzip
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from segflow.config import CsvDialect
from segflow.events import preflight as preflights
from segflow.events import source
from segflow_tests.events.inputs import GOOD, HEADER, check, parquet
from segflow_tests.events.steps import COLUMNS, mapped, write
from segflow_tests.events.steps import source as events_at

pytestmark = pytest.mark.usefixtures("environment")


def test_rows_with_too_many_or_too_few_fields_are_kept(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "log" / "1.csv", HEADER, GOOD, GOOD + ",and,more", "u,i", GOOD + ",", GOOD, "", GOOD)
    rows = mapped(connection, events_at(tmp_path / "log"))
    assert [(row["source_row"], row["user_id"], row["ts"] is not None, row["unparsed"]) for row in rows] == [
        (0, "u", True, None),
        (1, "u", True, "row=fields beyond the header: and,more"),
        (2, "u", False, None),
        (3, "u", True, None),
        (4, "u", True, None),
        (5, "u", True, None),
    ]
    lines = check(tmp_path, capsys)
    assert lines[0] == "events: 6 rows from 2024-01-02 to 2024-01-02, 1 without a readable time"
    assert lines[4] == (
        "quarantine: 33.3% of the rows looked at would not become events: missing_time 16.7% (such as 1.csv, row 2), "
        "unreadable_field 16.7% (such as row=fields beyond the header: and,more in 1.csv, row 1)"
    )


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("blank lines above.csv", f"\n\n{HEADER}\n{GOOD}\n", 1),
        ("line break in header.csv", f'"more\nwords",{HEADER}\r\nx,{GOOD}\r\nx,{GOOD}\r\n', 2),
        ("our own names.csv", f"{HEADER},source_extra_0,SOURCE_EXTRA_1_,source_overflow\n{GOOD},1,2,3,4\n", 1),
        ("NUL in header.csv", f"{HEADER},a\0b\n{GOOD},x\n", 1),
        ("rows of tabs.csv", HEADER.replace(",", "\t") + "\n\t\t\t\n\t\t\t\n", 2),
        (
            "many keys.jsonl",
            "".join(f'{{"k{n}": 1, "user": 1, "item": 1, "type": 1, "time": "2024-01-02"}}\n' for n in range(500)),
            500,
        ),
        ("keys in two cases.jsonl", '{"User": 2, "user": 1, "item": 1, "type": 1, "time": "2024-01-02"}\n', 1),
        ("no name, NUL.jsonl", '{"": 2, "a\\u0000": 1, "user": 1, "item": 1, "type": 1, "time": "2024-01-02"}\n', 1),
    ],
)
def test_odd_files_are_read_with_all_their_rows(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, name: str, content: str, rows: int
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    found = mapped(connection, events_at(tmp_path / name))
    assert len(found) == rows
    assert {row["user_id"] for row in found} == {None if "tabs" in name else "u" if name.endswith("csv") else "1"}


def test_wrong_types_cost_their_rows_only(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    prices = ["-1.5", "free", "inf", "-Infinity", "nan", "1e400", "1e-400", "0x10", "1,5", ""]
    path = write(tmp_path / "1.csv", HEADER + ",price", *(f'{GOOD},"{price}"' for price in prices))
    rows = mapped(connection, events_at(path, {**COLUMNS, "value": "price"}))
    read = {price: (row["value"], row["unparsed"]) for price, row in zip(prices, rows, strict=True)}
    assert {price for price, (value, _) in read.items() if value is not None} == {"-1.5", "1e-400"}
    assert read["-1.5"] == (-1.5, None)
    assert read[""] == (None, None)
    refused = set(prices) - {"-1.5", "1e-400", ""}
    assert {price for price, (_, unparsed) in read.items() if unparsed == f"value={price}"} == refused


def test_only_plain_spaces_around_a_text_are_none_of_it(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    texts = [" a ", "\xa0", " \xa0", "\u2003a ", "  "]
    path = write(tmp_path / "1.csv", HEADER, *(f'"{text}",i,view,2024-01-02' for text in texts))
    rows = mapped(connection, events_at(path))
    assert [row["user_id"] for row in rows] == ["a", "\xa0", "\xa0", "\u2003a", None]


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.decimal128(21, 2), pa.int16(), pa.string()])
def test_typed_values(connection: duckdb.DuckDBPyConnection, tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([-2, None, 3]).cast(pa.float64() if pa.types.is_floating(kind) else pa.int64()).cast(kind)
    parquet(tmp_path / "1.parquet", user=["u"] * 3, item=[1.0, 2.0, None], type=["v"] * 3, time=[0] * 3, price=values)
    rows = mapped(connection, events_at(tmp_path, {**COLUMNS, "value": "price"}))
    assert [(row["item_id"], row["value"], row["unparsed"]) for row in rows] == [
        ("1", -2.0, None), ("2", None, None), (None, 3.0, None),
    ]  # fmt: skip


def test_infinite_and_missing_numbers_of_parquet(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    numbers = [float("inf"), float("-inf"), float("nan"), None, 2.5]
    parquet(tmp_path / "1.parquet", user=numbers, item=["i"] * 5, type=["v"] * 5, time=numbers, price=numbers)
    rows = mapped(connection, events_at(tmp_path, {**COLUMNS, "value": "price"}))
    assert [(row["user_id"], row["value"], row["unparsed"]) for row in rows] == [
        ("inf", None, "value=inf; ts=inf"),
        ("-inf", None, "value=-inf; ts=-inf"),
        (None, None, None),
        (None, None, None),
        ("2.5", 2.5, None),
    ]
    assert rows[4]["ts"] == datetime(1970, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC)


def test_time_zones_may_differ_from_row_to_row(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    times = ["2024-01-02T10:00:00Z", "2024-01-02T12:00:00+02:00", "2024-01-02 05:00:00-05", "2024-01-02 05:00:00"]
    path = write(tmp_path / "1.csv", HEADER, *(f"u,i,view,{time}" for time in times))
    rows = mapped(connection, events_at(path, timezone="America/New_York"))
    assert {row["ts"].astimezone(UTC) for row in rows} == {datetime(2024, 1, 2, 10, tzinfo=UTC)}


def test_a_byte_order_mark_is_no_part_of_a_name(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    for name, content in (("1.csv", f"{HEADER}\n{GOOD}\n"), ("2.csv", f'"user",item,type,time\n{GOOD}\n')):
        (tmp_path / name).write_text("\ufeff" + content, encoding="utf-8")
    assert [row["user_id"] for row in mapped(connection, events_at(tmp_path))] == ["u", "u"]
    (tmp_path / "j").mkdir()
    for name, content in (("1.jsonl", '{"user": "u", "item": 1, "type": "v", "time": 0}\n'), ("2.jsonl", "")):
        (tmp_path / "j" / name).write_text("\ufeff" + content, encoding="utf-8")
    assert [row["user_id"] for row in mapped(connection, events_at(tmp_path / "j"))] == ["u"]


def test_empty_files_among_others_are_named(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "log" / "1.csv", HEADER, GOOD)
    write(tmp_path / "log" / "2.csv")
    write(tmp_path / "log" / "3.csv", "other,columns")
    with gzip.open(tmp_path / "log" / "4.csv.gz", "wb"):
        pass
    write(tmp_path / "log" / "5.csv", HEADER + ",extra", GOOD + ",x")
    write(tmp_path / "log" / "README.txt", "x")
    assert [row["source_file"] for row in mapped(connection, events_at(tmp_path / "log"))] == ["1.csv", "5.csv"]
    assert check(tmp_path, capsys)[-5:] == [
        "2.csv: empty: no row",
        "3.csv: empty: no row",
        "4.csv.gz: empty: no row",
        "5.csv: extra: extra",
        "README.txt: not read, since it is no Parquet, CSV or JSON file",
    ]


def test_an_empty_parquet_among_others(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    parquet(tmp_path / "1.parquet", user=["u"], item=["i"], type=["v"], time=["2024-01-02"])
    parquet(tmp_path / "2.parquet", user=pa.nulls(0))
    (tmp_path / "3.parquet").write_bytes(b"")
    assert len(mapped(connection, events_at(tmp_path))) == 1
    assert source.drift(connection, events_at(tmp_path)) == {"2.parquet": "empty: no row", "3.parquet": "empty: no row"}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "text", ["x" * 10_000, "a\x00b", "🛒👩‍👩‍👧", "漢字,と かな", 'quote " and \\', "'; DROP TABLE x; --"]
)
def test_ids_may_be_any_text(connection: duckdb.DuckDBPyConnection, tmp_path: Path, kind: str, text: str) -> None:
    if kind == "parquet":
        parquet(tmp_path / "1.parquet", user=[text], item=[text], type=[text], time=["2024-01-02"])
    elif kind == "jsonl":
        write(tmp_path / "1.jsonl", json.dumps({"user": text, "item": text, "type": text, "time": "2024-01-02"}))
    else:
        quoted = '"' + text.replace('"', '""') + '"'
        write(tmp_path / "1.csv", HEADER, f"{quoted},{quoted},{quoted},2024-01-02")
    (row,) = mapped(connection, events_at(tmp_path))
    assert (row["user_id"], row["item_id"], row["event_type"], row["unparsed"]) == (text, text, text.lower(), None)
    assert connection.execute("SELECT item_id FROM items").fetchall() == [(text,)]


def test_a_day_without_events_is_no_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], connection: duckdb.DuckDBPyConnection
) -> None:
    write(tmp_path / "log" / "1.csv", HEADER, "u,i,view,2024-01-02", "u,i,view,2024-01-04")
    assert len({row["day"] for row in mapped(connection, events_at(tmp_path / "log"))}) == 2
    assert check(tmp_path, capsys) == [
        "events: 2 rows from 2024-01-02 to 2024-01-04, 0 without a readable time",
        "items: 1",
        "users with static attributes: 0",
        "event types: view (2)",
    ]


def test_a_large_log_is_judged_by_its_first_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflights, "_READ_WHOLE", 100)
    monkeypatch.setattr(preflights, "_FIRST_ROWS", 3)
    for number in range(3):
        write(tmp_path / "log" / f"{number}.csv", HEADER, *[f"u{number},i,view,2024-01-0{number + 2}"] * 5, ",,,")
    lines = check(tmp_path, capsys)
    assert (
        lines[0]
        == "events: 3 file(s), 0 MB; 6 rows looked at, from 2024-01-02 to 2024-01-04, 0 without a readable time"
    )
    assert lines[1] == "items: those that the events name"
    # Typed times are read off all of it.
    for file in (tmp_path / "log").iterdir():
        file.unlink()
    for number in range(3):
        day = datetime(2024, 1, 5 - number)
        parquet(
            tmp_path / "log" / f"{number}.parquet",
            user=["u"] * 5,
            item=["i"] * 5,
            type=["v"] * 5,
            time=[day] * 4 + [None],
        )
    lines = check(tmp_path, capsys)
    assert lines[0] == "events: 15 rows from 2024-01-03 to 2024-01-05, 3 without a readable time"
    assert lines[3] == "event types: v (6)"


def test_a_dialect_set_wrong_shows_in_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "log" / "1.csv", *[GOOD] * 3, "u,i,view,2024-01-02 10:00:00,x")
    dialect = CsvDialect(columns=["user", "item", "type"]).model_dump()
    (line,) = check(tmp_path, capsys, csv=dialect)
    assert re.search(r"no column 'time'; it has: user, item, type", line)
    dialect = CsvDialect(columns=["time", "user", "item", "type"]).model_dump()
    (line,) = check(tmp_path, capsys, csv=dialect)
    assert re.search(r"none of 4 rows has a readable time", line)
