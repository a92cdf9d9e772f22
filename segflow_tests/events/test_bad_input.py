"""Input that cannot be read, and settings that do not fit it: one clear line, never a traceback."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segflow.config import BotConfig, CleaningConfig
from segflow.errors import UserError
from segflow.events import source
from segflow.events.clean import judge
from segflow_tests.events.inputs import GOOD, HEADER, check, parquet
from segflow_tests.events.steps import mapped, write
from segflow_tests.events.steps import source as events_at

pytestmark = pytest.mark.usefixtures("environment")


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
    "text behind a quote in the header": (
        of('"user",item,"type"x,time', GOOD),
        r"log/b\.csv: in the header, or a line above it, text stands behind the quote \" .*; mend that line, or set `csv\.quote`",
    ),
    "quote never closed in the header": (
        of('user,item,type,time,"', GOOD),
        r"log/b\.csv: .*, or a quote is never closed",
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
        ({"csv": {"skip": 1}}, r"log/b\.csv: in the header, or a line above it, text stands behind the quote"),
        ({"path": "package:../x"}, r"package:\.\./x: the package is not installed"),
    ],
)
def test_settings_that_only_a_file_shows_to_be_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], message: str
) -> None:
    # What is skipped is no field, but the engine looks for quotes in it.
    above = ['"Sales" of spring'] if "skip" in settings.get("csv", {}) else []
    write(tmp_path / "log" / "b.csv", *above, HEADER, GOOD)
    (line,) = check(tmp_path, capsys, **settings)
    assert re.search(message, line), line


def test_a_pattern_that_is_none_is_named_with_its_setting(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(UserError, match=r"cleaning\.bots\.user_pattern: '\(' is no regular expression: missing \)"):
        judge(connection, CleaningConfig(bots=BotConfig(user_pattern="(")))
