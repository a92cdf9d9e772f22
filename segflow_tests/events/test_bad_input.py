"""Bad input: what can be kept is kept and named, what cannot is one clear line; never a traceback, never a row lost unseen."""

from __future__ import annotations

import gzip
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from segflow.cli import main
from segflow.config import BotConfig, CleaningConfig, CsvDialect
from segflow.errors import UserError
from segflow.events import preflight as preflights
from segflow.events import source
from segflow.events.clean import judge
from segflow_tests.events.steps import COLUMNS, mapped, write
from segflow_tests.events.steps import source as events_at

HEADER = "user,item,type,time"
GOOD = "u,i,view,2024-01-02 10:00:00"


def check(folder: Path, capsys: pytest.CaptureFixture[str], path: str = "log", **events: Any) -> list[str]:
    """The lines of `segflow check` on the files in `folder/log`, or its one line of error."""
    values = {
        "source": {"events": {"path": path, "columns": COLUMNS, **events}},
        "calendar": {"start": "2024-01-01", "end": "2024-04-01"},
    }
    (folder / "segflow.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    before = sorted(folder.rglob("*"))
    code = main(["--config", str(folder / "segflow.yaml"), "check"])
    captured = capsys.readouterr()
    assert sorted(folder.rglob("*")) == before, "something was written"
    if code == 0:
        assert captured.err == ""
        return captured.out.splitlines()
    assert (code, captured.out) == (1, "")
    assert re.fullmatch(r"segflow: [^\n]+\n", captured.err), captured.err
    return [captured.err]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEGFLOW_CONFIG", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "replaced by the command, and restored after it")


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def truncated_parquet(folder: Path) -> None:
    path = parquet(folder / "b.parquet", user=list(range(1000)), item=["i"] * 1000)
    path.write_bytes(path.read_bytes()[:-200])


def damaged_parquet(folder: Path) -> None:
    rows = 5000
    path = parquet(
        folder / "b.parquet", user=[f"u{n * 7919}" for n in range(rows)], item=["i"] * rows, type=["view"] * rows,
        time=[f"2024-01-02 10:00:{n % 60:02}" for n in range(rows)],
    )  # fmt: skip
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(bytes(content))


def repeated_parquet(folder: Path) -> None:
    columns = [pa.array(["u"]), pa.array(["i"]), pa.array(["view"]), pa.array(["2024-01-02"]), pa.array(["v"])]
    folder.mkdir()
    pq.write_table(pa.table(columns, names=["user", "item", "type", "time", "User"]), folder / "b.parquet")


def of(*lines: str, name: str = "b.csv") -> Any:
    return lambda folder: write(folder / name, *lines)


def of_bytes(content: bytes, name: str = "b.csv") -> Any:
    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / name).write_bytes(content)

    return make


BROKEN = {
    "truncated Parquet": (
        truncated_parquet,
        r"log/b\.parquet: cannot be read as parquet: .*; replace it by a whole file",
    ),
    "damaged Parquet": (damaged_parquet, r"log/b\.parquet: cannot be read as parquet: "),
    "no Parquet": (of("x" * 100, name="b.parquet"), r"log/b\.parquet: cannot be read as parquet"),
    "repeated Parquet column": (repeated_parquet, r"log/b\.parquet: has two columns 'User'; rename or remove one"),
    "repeated CSV column": (of("user,item,type,time,user", GOOD + ",v"), r"log/b\.csv: has two columns 'user'; rename"),
    "repeated JSON key": (
        of('{"user": 1, "item": 1, "type": 1, "time": "2024-01-02", "user": 2}', name="b.jsonl"),
        r"b\.jsonl: cannot be read as json: .*duplicate key",
    ),
    "quote never closed": (
        of(HEADER + ",text", GOOD + ',"open', GOOD + ",x", GOOD + ",y"),
        r"log/b\.csv: the quote that opens in line 3 from the end is never closed.*close it",
    ),
    "quote closed too late": (
        of(HEADER + ",text", GOOD + ',"open', GOOD + ",x", GOOD + ',"y"'),
        r"log/b\.csv: cannot be read as csv: line 2: .*unterminated quote.*; close that quote",
    ),
    "quote never closed in gzip": (
        of_bytes(gzip.compress(f'{HEADER},text\n{GOOD},"open\n{GOOD},x\n'.encode()), "b.csv.gz"),
        r"log/b\.csv\.gz: the quote that opens in line 2 from the end is never closed",
    ),
    "far too many fields": (
        of(HEADER, GOOD, GOOD + ",1,2,3,4,5,6,7,8,9"),
        r"log/b\.csv: cannot be read as csv: line 3: Expected Number of Columns.*; correct that line",
    ),
    "not UTF-8": (
        of_bytes(f"{HEADER}\nJos".encode() + b"\xe9,i,view,2024-01-02\n"),
        r"log/b\.csv: cannot be read as csv: line 2: .*not utf-8.*; set `csv\.encoding`",
    ),
    "UTF-16": (
        of_bytes(f"{HEADER}\n{GOOD}\n".encode("utf-16")),
        r"b\.csv: is written in UTF-16; set `csv\.encoding: utf-16`",
    ),
    "endless row": (
        of(HEADER, "u,i,view," + "x" * 3_000_000, GOOD),
        r"log/b\.csv: cannot be read as csv: line 2: Maximum line size",
    ),
    "broken gzip": (
        of_bytes(
            gzip.compress("\n".join([HEADER, *(f"u{n},i{n * 7919},view,2024-01-02" for n in range(30_000))]).encode())[
                :-9000
            ],
            "b.csv.gz",
        ),
        r"log/b\.csv\.gz: cannot be read as csv: .*; replace it by a whole file",
    ),
    "no gzip": (of(HEADER, GOOD, name="b.csv.gz"), r"log/b\.csv\.gz: cannot be read as csv"),
    "broken JSON": (
        of('{"user": 1}', '{"user":', '{"user": 3}', name="b.jsonl"),
        r"log/b\.jsonl: cannot be read as json: Malformed JSON.*line \d.*; correct or remove that record",
    ),
    "JSON without keys": (of("1", "2", name="b.jsonl"), r"b\.jsonl: its records are no JSON objects with keys"),
    "one record without keys": (
        of('{"user": 1, "item": 1, "type": 1, "time": "2024-01-02"}', "1", name="b.jsonl"),
        r"b\.jsonl: cannot be read as json: .*in line 2: Expected OBJECT.*; correct or remove that record",
    ),
    "line ends of two kinds": (
        of_bytes(f"{HEADER}\n{GOOD}\r\n{GOOD}\n".encode()),
        r"b\.csv: cannot be read as csv: .*; a line may end unlike the others; end all lines alike",
    ),
    "first lines that end in two ways": (
        of_bytes(f"\n{HEADER}\r\n{GOOD}\r\n".encode()),
        r"b\.csv: its first lines end in different ways; end all lines alike",
    ),
    "all empty": (of_bytes(b""), r"log: the log is empty: 1 file\(s\) without a row"),
    "only a header": (of(HEADER), r"log: the log is empty"),
    "only blank lines": (of("", "", ""), r"log: the log is empty"),
    "an empty Parquet": (lambda folder: parquet(folder / "b.parquet", user=[], time=[]), r"log: the log is empty"),
    "a folder of a file's name": (
        lambda folder: (folder / "b.csv").mkdir(parents=True),
        r"log: the folder holds no Parquet",
    ),
    "only foreign files": (of("x", name="README.txt"), r"log: the folder holds no Parquet, CSV or JSON file"),
    "several formats": (
        lambda folder: (of(HEADER, GOOD)(folder), of("{}", name="c.json")(folder)),
        r"several formats \(csv, json\)",
    ),
    "no time to read": (
        of(HEADER, "u,i,view,soon"),
        r"none of 1 rows has a readable time; correct source\.events\.columns\.ts",
    ),
    "all outside the calendar": (
        of(HEADER, "u,i,view,1969-12-31"),
        r"between 1969-12-31 and 1969-12-31, outside the calendar",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_read_is_one_line_with_file_and_mend(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    make, message = BROKEN[case]
    make(tmp_path / "log")
    (line,) = check(tmp_path, capsys)
    assert re.search(message, line), line
    if case in ("no time to read", "all outside the calendar"):
        return
    # The pipeline's own reading says the same, whether planning finds it or the rows do.
    with pytest.raises(UserError) as raised, source.reading(str(tmp_path / "log")):
        mapped(connection, events_at(tmp_path / "log"))
    assert re.search(message, str(raised.value)), str(raised.value)
    assert connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'raw_events'").fetchone() == (0,)


def test_what_the_system_says_is_one_line_too(tmp_path: Path) -> None:
    for error in (
        PermissionError(13, "Permission denied", str(tmp_path / "log.csv")),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        pa.ArrowInvalid("two\nlines"),
        duckdb.IOException("IO Error: disk"),
    ):
        with (
            pytest.raises(UserError, match=r"^log\.csv: cannot be read as csv: .+; .+$") as raised,
            source.reading("log.csv"),
        ):
            raise error
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"csv": {"missing": [","]}},
            r"log/b\.csv: `csv\.missing` in the source's settings, ',', holds the delimiter ','",
        ),
        ({"csv": {"quote": ","}}, r"log/b\.csv: `csv\.quote` in the source's settings, ',', holds the delimiter"),
        ({"path": "package:../x"}, r"package:\.\./x: the package is not installed"),
    ],
)
def test_settings_that_only_a_file_shows_to_be_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], message: str
) -> None:
    write(tmp_path / "log" / "b.csv", HEADER, GOOD)
    (line,) = check(tmp_path, capsys, **settings)
    assert re.search(message, line), line


def test_a_pattern_that_is_none_is_named_with_its_setting(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(UserError, match=r"cleaning\.bots\.user_pattern: '\(' is no regular expression: missing \)"):
        judge(connection, CleaningConfig(bots=BotConfig(user_pattern="(")))


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
