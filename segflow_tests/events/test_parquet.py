"""Rows held in memory, with words as numbers, are the rows that the query gives, whatever a log's Parquet files hold."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segflow.config import Config
from segflow.errors import UserError
from segflow.events import arrivals, parquet, words
from segflow.events.files import reading
from segflow.tables import RAW_EVENTS
from segflow_tests.events.test_arrivals import looked_into

Engine: TypeAlias = duckdb.DuckDBPyConnection
Columns: TypeAlias = dict[str, Any]
FILES, ROWS, NAN, INF = 3, 24, float("nan"), float("inf")
START, DAY = datetime(2024, 1, 1), timedelta(days=1)
FIRST, LAST = START.date(), START.date() + FILES * DAY
MAPPED = {
    "event_id": "id", "user_id": "user", "item_id": "item", "event_type": "type", "ts": "time",
    "value": "price", "quantity": "amount", "session_id": "basket", "text": "note",
}  # fmt: skip
TEXTS = ("user", "item", "type", "basket", "note")
CATEGORIES, TIMES = pa.dictionary(pa.int8(), pa.string()), pa.timestamp("us")
# Python has no name for years beyond 9999.
COMPARED = RAW_EVENTS.arrow.set(RAW_EVENTS.column_names.index("ts"), pa.field("ts", pa.int64()))


def some(*values: Any, type: pa.DataType | None = None) -> pa.Array:
    """A column of these values, again and again."""
    return pa.array(list(islice(cycle(values), ROWS)), type)


def named(*without: str, **more: str | list[str]) -> Columns:
    return {"columns": {field: column for field, column in {**MAPPED, **more}.items() if field not in without}}


def times(number: int, *first: Any) -> list[Any]:
    """On the day of the file, with rows of the days before it; those of the first file are outside the calendar."""
    late = {5: 1, 11: 1, 22: 2}
    there = [START + (number - late.get(row, 0)) * DAY + row * timedelta(minutes=37) for row in range(ROWS)]
    return [*first, *there[len(first) :]]


def micros(number: int, *first: Any) -> list[Any]:
    return [*first, *pa.array(times(number), TIMES).cast(pa.int64()).to_pylist()[len(first) :]]


def write(folder: Path, change: Callable[[int], Columns], name: str = "{}.parquet", **more: Any) -> None:
    """A log of a few files. change: number of a file -> the columns that it has otherwise; None for one that it lacks."""
    for number in range(FILES):
        columns = {
            "id": pa.array(range(100 * number, 100 * number + ROWS)), "user": some("u1", "u2", "u3", "u2", "u5"),
            "item": some(*(f"i{item}" for item in range(number, number + 7))), "type": some("view", "view", "buy"),
            "time": times(number), "price": some(0.25, 1.5, 0.0, -3.0, None), "amount": some(1, 2, None),
            "basket": some("b1", "b1", None, "b2"), "note": some("red shoes", None, " ", "schöne Grüße"),
            **change(number),
        }  # fmt: skip
        path = folder / name.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        there = pa.table({column: values for column, values in columns.items() if values is not None})
        pq.write_table(there, path, **{"row_group_size": 10, **more})


def settings(folder: Path, rows_at_once: int = 10**9, **events: Any) -> Config:
    source = {"events": {"path": str(folder), **named(), **events}}
    calendar, cleaning = {"start": FIRST, "end": LAST}, {"impute": {"event_type": "view"}}
    made = Config.model_validate({"source": source, "calendar": calendar, "cleaning": cleaning})
    return made.model_copy(update={"compute": made.compute.model_copy(update={"rows_at_once": rows_at_once})})


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each span that is read, whether its files were held in memory."""
    found, read = [], parquet.read

    def watched(*arguments: Any) -> list[pa.Table] | None:
        parts = read(*arguments)
        found.append(parts is not None)
        return parts

    monkeypatch.setattr(parquet, "read", watched)
    return found


def in_memory(connection: Engine, config: Config, first: date = FIRST, last: date = LAST) -> list[list[Columns]]:
    """The rows of each span as they are held, with all words spelled out."""
    plan = arrivals.reading_plan(connection, config, first, last)
    return [arrivals.raw_rows(connection, config, *days, only).cast(COMPARED).to_pylist() for days, only in plan]


def queried(connection: Engine, config: Config, first: date = FIRST, last: date = LAST) -> list[Columns]:
    """The rows of one span as the query gives them."""
    ((days, only),) = arrivals.reading_plan(connection, config, first, last)
    listed, query = ", ".join(RAW_EVENTS.column_names), arrivals.raw_query(connection, config, *days, only)
    rows = connection.sql(f"SELECT {listed} FROM ({query}) ORDER BY source_file, source_row").to_arrow_table()
    return rows.cast(COMPARED).to_pylist()


def same(connection: Engine, folder: Path, **events: Any) -> list[Columns]:
    """Assert that the log is read alike in one span, and in one for each day; return its rows."""
    looked_into(connection, settings(folder, **events))
    rows = queried(connection, settings(folder, **events))
    assert in_memory(connection, settings(folder, **events)) == [rows]
    by_day = [[row for row in rows if row["day"] == FIRST + n * DAY] for n in range(FILES)]
    assert in_memory(connection, settings(folder, 1, **events)) == by_day
    assert all(by_day)
    return rows


# Number of a file -> the columns that it has otherwise; and the settings.
KINDS: dict[str, tuple[Callable[[int], Columns], Columns]] = {
    "nothing odd": (lambda n: {}, {}),
    "small ids": (lambda n: {"id": some(1, 255, None, type=pa.uint8()), "price": some(Decimal("-0.01"), None)}, {}),
    "large ids": (lambda n: {"id": some(2**63 - 1, -(2**63)), "price": some(INF, NAN, -INF, 1, type=pa.float32())}, {}),
    "huge ids": (lambda n: {"id": some(2**64 - 1, 1, type=pa.uint64()), "time": [time.date() for time in times(n)]}, {}),
    "texts as ids": (lambda n: {"id": some("007", "7", "-0", None, "７", "", " 7")}, {}),
    "ids of two types": (lambda n: {"id": some("7", "8")} if n == 1 else {}, {}),
    "ids of two types with zeros": (lambda n: {"id": some("007", "7") if n == 1 else some(7)}, {}),
    "ids of two types and none": (lambda n: {"id": some((7, "7", None)[n])}, {}),
    "fractions as ids": (lambda n: {"id": some(1.0, 2.5, NAN), "user": some(7.0, None)}, {}),
    "no ids and types": (lambda n: {"id": None, "type": None}, {**named("event_id", "event_type"), "event_type": "Seen"}),
    "users of three types": (lambda n: {"user": some((7, "7", 7.5)[n]), "type": some(1, 2)}, {"types": {"1": "Buy"}}),
    "types": (lambda n: {"type": some("BUY", " Buy ", "View", "Ü", "", None)}, {"types": {"buy": "Purchase"}}),
    "all scripts": (lambda n: {"user": some("🦊", "李雷", "e\u0301", "é"), "item": some("👩‍👧", "牛奶"), "id": some("🥛")}, {}),
    "missing columns": (lambda n: dict.fromkeys(["basket", "id", "price", "type"] if n == 1 else []), {}),
    "missing users": (lambda n: {"user": some(None, type=pa.string()), "item": some(None)} if n == 1 else {}, {}),
    "categories": (lambda n: {name: some("x", "y", None).cast(CATEGORIES) for name in ("id", *TEXTS)}, {}),
    "categories in one file": (lambda n: {"user": some("x", "y").cast(CATEGORIES)} if n else {}, {}),
    "large texts": (lambda n: {name: some("x", None, "y", type=pa.large_string()) for name in ("id", *TEXTS)}, {}),
    "seconds": (lambda n: {"time": pa.array(times(n), pa.timestamp("s"))}, {}),
    "nanoseconds": (lambda n: {"time": pa.array(times(n), pa.timestamp("ns"))}, {"timezone": "America/New_York"}),
    "a zone": (lambda n: {"time": pa.array(times(n), pa.timestamp(("us", "ns", "ms")[n], "Asia/Tokyo"))}, {}),
    "far times": (lambda n: {"time": pa.array(micros(n, 2**62, -(2**62))).cast(TIMES)}, {}),
    "written times": (lambda n: {"time": ["noon", "", *map(str, times(n)[2:])]}, {}),
    "counted times": (lambda n: {"time": micros(n, 2**63 - 1, -(2**63), 0, None)}, {}),
    "measured times": (lambda n: {"time": pa.array(micros(n, NAN, INF, 1e300, None), pa.float64())}, {"unit": "us"}),
    "undated": (lambda n: {"time": some(None, type=TIMES) if n == 1 else times(n, None, None)}, {}),
    "junk": (lambda n: {
        "user": some(" u1", "u1 ", "u1", "", "  ", None), "basket": some("", " b ", "\tb"),
        "price": some("1.5", "abc", "inf", "", " 2 ", None), "amount": some("x", "1"),
    }, {}),
    "short prices": (lambda n: {"price": some(1.5, 0.25, None, type=pa.float16())}, {}),
    "several columns": (lambda n: {}, named(user_id=["user", "basket"], event_id=["id", "item"])),
    "one column twice": (lambda n: {"a.b": some("x"), "ts": some(1)}, named(session_id="user", text="a.b", item_id="a.b")),
    "an empty file": (lambda n: dict.fromkeys([*MAPPED.values()], some("x")[:0]) if n == 1 else {}, {}),
}  # fmt: skip
SAID: dict[str, tuple[str, set[str | None]]] = {
    "texts as ids": ("event_id", {"007", "7", "-0", "７", None}),
    "ids of two types with zeros": ("event_id", {"007", "7"}),
    "types": ("event_type", {"purchase", "view", "ü", None}),
    "junk": ("unparsed", {"quantity=x", "value=abc", "value=inf; quantity=x", None}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_same(connection: Engine, tmp_path: Path, held: list[bool], kind: str) -> None:
    change, events = KINDS[kind]
    write(tmp_path / "log", change)
    rows = same(connection, tmp_path / "log", **events)
    assert len(rows) == (FILES - (kind == "an empty file")) * ROWS
    field, values = SAID.get(kind, ("day", {FIRST + n * DAY for n in range(FILES)}))
    assert {row[field] for row in rows} == values
    # DuckDB and Arrow have different types for whole seconds; DuckDB takes no short floats from Arrow.
    assert held == [kind not in ("seconds", "short prices")] * (1 + FILES)


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"])
def test_texts_may_be_written_without_a_list_of_words(connection: Engine, tmp_path: Path, encoding: str) -> None:
    more: Columns = {
        "use_dictionary": False,
        "column_encoding": dict.fromkeys(TEXTS, encoding),
        "data_page_version": "2.0",
    }
    write(tmp_path / "log", lambda n: {}, **more)
    assert len(same(connection, tmp_path / "log")) == FILES * ROWS


@pytest.mark.parametrize("kind", ["hive", "csv"])
def test_other_files_are_queried(connection: Engine, tmp_path: Path, held: list[bool], kind: str) -> None:
    write(tmp_path / "hive", lambda n: {"basket": None}, "basket={}/1.parquet")
    (tmp_path / "csv").mkdir()
    for n in range(FILES):
        connection.execute(f"COPY (FROM '{tmp_path}/hive/basket={n}/1.parquet') TO '{tmp_path}/csv/{n}.csv'")
    assert {row["session_id"] for row in same(connection, tmp_path / kind)} == {"0", "1", "2"}
    assert held == [False] * (1 + FILES)


def test_a_day_has_the_rows_of_later_files_and_of_files_that_are_gone(connection: Engine, tmp_path: Path) -> None:
    write(tmp_path / "log", lambda n: {})
    config, day = settings(tmp_path / "log"), (FIRST + DAY, FIRST + 2 * DAY)
    whole = same(connection, tmp_path / "log")
    (rows,) = in_memory(connection, config, *day)
    assert rows == queried(connection, config, *day) == [row for row in whole if row["day"] == day[0]]
    assert {row["source_file"] for row in rows} == {"1.parquet", "2.parquet"}
    ((_, only),) = arrivals.reading_plan(connection, config, *day)
    connection.execute(f"CREATE TABLE {arrivals.STORED} AS {arrivals.raw_query(connection, config, *day, only)}")
    (tmp_path / "log" / "1.parquet").unlink()
    assert in_memory(connection, config, *day) == [queried(connection, config, *day)] == [rows]


def test_files_with_far_more_rows_than_wanted_are_not_held(connection: Engine, tmp_path: Path) -> None:
    write(tmp_path / "log", lambda n: {})
    more = (connection, settings(tmp_path / "log"), None, ["user_id"], "NULL")
    assert parquet.read(*more, FILES * ROWS - 1) is None
    assert [len(part) for part in parquet.read(*more, FILES * ROWS) or []] == [FILES * ROWS]


@pytest.mark.parametrize("flaw", ["user", "note", "id", "price", "no end", "no middle"])
def test_a_broken_file_is_named(connection: Engine, tmp_path: Path, flaw: str) -> None:
    broken, column = tmp_path / "log" / "1.parquet", flaw if flaw in MAPPED.values() else "user"
    write(tmp_path / "log", lambda n: {column: some("x", "y")})
    config = settings(tmp_path / "log")
    looked_into(connection, config)
    ((days, only),) = arrivals.reading_plan(connection, config, FIRST, LAST)
    if flaw == column:
        write(tmp_path / "log", lambda n: {column: some(b"x", b"\xff" if n == 1 else b"y").view(pa.string())})
    else:
        whole = broken.read_bytes()
        broken.write_bytes(whole[:-100] if flaw == "no end" else whole[:4] + whole[400:])
    told = f"{broken}: cannot be read as parquet" + ".*UTF" * (flaw == column)
    with pytest.raises(UserError, match=told), reading(str(tmp_path / "log")):
        arrivals.raw_rows(connection, config, *days, only).cast(COMPARED)


ENCODED, OTHERS = pa.array(["b", "a", None, "b"]).dictionary_encode(), pa.array(["c", None, "a"]).dictionary_encode()
NOTHING: list[pa.Array] = []


@pytest.mark.parametrize(
    "texts",
    [
        pa.chunked_array([["b", None], [], ["a", "b", ""]]),
        pa.chunked_array([["b", None], ["a", "é"]], pa.large_string()),
        pa.chunked_array([ENCODED, ENCODED[1:3], ENCODED]),
        pa.chunked_array([ENCODED, OTHERS, ENCODED[:0]]),
        pa.chunked_array([ENCODED.cast(CATEGORIES), OTHERS.cast(CATEGORIES)]),
        pa.chunked_array([[None, None]], pa.string()),
        pa.chunked_array([pa.nulls(2), pa.nulls(1)]),
        *(pa.chunked_array(NOTHING, kind) for kind in (pa.string(), words.WORDS, CATEGORIES, pa.null())),
    ],
)
def test_words_say_what_the_texts_said(texts: pa.ChunkedArray) -> None:
    coded = words.coded(texts)
    assert (coded.type, coded.to_pylist()) == (words.WORDS, texts.to_pylist())
    assert coded.num_chunks <= 1
    codes, known = words.codes(coded), words.known(coded).to_pylist()
    assert sorted(known) == sorted(set(texts.to_pylist()) - {None})
    assert codes.dtype == "int32"
    assert [None if code < 0 else known[code] for code in codes] == texts.to_pylist()
    places, names = words.in_alphabetical_order(codes[codes >= 0], words.known(coded))
    assert names.to_pylist() == sorted(known)
    assert [names[place].as_py() for place in places] == [text for text in texts.to_pylist() if text is not None]


def test_pieces_with_one_list_keep_it() -> None:
    whole = words.in_one_piece(pa.chunked_array([ENCODED, ENCODED[2:]]))
    assert (whole.num_chunks, whole.to_pylist()) == (1, ["b", "a", None, "b", None, "b"])
    assert words.known(whole).equals(ENCODED.dictionary)
