"""Fuzzed files: whatever bytes arrive, every row of them is an event or in quarantine, or the file is refused in one clear line.

What the rows of damaged text are is told by the parsers of the standard library.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import duckdb
from hypothesis import assume, example, given
from hypothesis import strategies as st

from segflow.config import EventSource
from segflow_tests.fuzz.files import PACKINGS, Csv, Json, damaged, damaged_packing, unpacked, written_csv, written_json
from segflow_tests.fuzz.judging import Outcome, cases, outcome

COLUMNS: dict[str, str | list[str]] = {"user_id": "user", "ts": "time", "text": "text"}


def read(engine: duckdb.DuckDBPyConnection, folder: Path, name: str, content: bytes) -> Outcome:
    """What becomes of a file with this content, twice the same."""
    file = folder / name
    file.write_bytes(content)
    events = EventSource(path=str(file), columns=COLUMNS, event_type="view")
    first = outcome(engine, file, events)
    if len(content) % 5 == 0:
        assert outcome(engine, file, events) == first
    return first


def tidy(text: str) -> str | None:
    return text.strip(" ") or None


@given(written_csv(), st.sampled_from([*PACKINGS]))
@cases(0.06)
def test_csv_by_the_book_is_read_as_it_was_meant(
    engine: duckdb.DuckDBPyConnection, folder: Path, file: Csv, packing: str
) -> None:
    found = read(engine, folder, f"log.csv{packing}", PACKINGS[packing](file.content))
    meant = [dict(zip(file.names, row, strict=False)) for row in file.rows]
    assert found.refused is None
    assert [row["user_id"] for row, _ in found.rows] == [tidy(row.get("user", "")) for row in meant]
    assert [row["text"] for row, _ in found.rows] == [tidy(row.get("text", "")) for row in meant]


@given(written_csv().flatmap(lambda file: damaged(file.content)))
@example(b'"user"\x00,"time","type","text"\n"a","2024-01-02 10:00:00","",""\n')
@cases(0.06)
def test_damaged_csv_loses_no_row(engine: duckdb.DuckDBPyConnection, folder: Path, content: bytes) -> None:
    found = read(engine, folder, "log.csv", content)
    if found.refused is None:
        text = content.decode("utf-8-sig", "replace")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=max(",\t;|", key=text.count)) if row]
        assert len(found.rows) == len(rows) - 1


@given(written_json(), st.sampled_from([*PACKINGS]))
@cases(0.06)
def test_json_by_the_book_is_read_as_it_was_meant(
    engine: duckdb.DuckDBPyConnection, folder: Path, file: Json, packing: str
) -> None:
    assume(any(isinstance(value, dict) and {"user", "time", "text"} <= set(value) for value in file.values))
    found = read(engine, folder, f"log.jsonl{packing}", PACKINGS[packing](file.content))
    assert found.refused is None
    assert len(found.rows) == len(file.values)


@given(written_json().flatmap(lambda file: damaged(file.content)))
@cases(0.06)
def test_damaged_json_loses_no_row(engine: duckdb.DuckDBPyConnection, folder: Path, content: bytes) -> None:
    found = read(engine, folder, "log.jsonl", content)
    if found.refused is None:
        assert len(found.rows) == len(records(content.decode("utf-8-sig")))


@given(
    st.one_of(written_csv(), written_json()).flatmap(
        lambda file: st.tuples(st.just(file), damaged_packing(file.content))
    )
)
@cases(0.06)
def test_damaged_gzip_loses_no_row(
    engine: duckdb.DuckDBPyConnection, folder: Path, drawn: tuple[Csv | Json, bytes]
) -> None:
    file, content = drawn
    found = read(engine, folder, f"log.{'csv' if isinstance(file, Csv) else 'jsonl'}.gz", content)
    if unpacked(content) is None:
        assert found.refused is not None
    elif found.refused is None and unpacked(content) == file.content:
        assert len(found.rows) == len(file.rows if isinstance(file, Csv) else file.values)


def records(text: str) -> list[Any]:
    """The values of a JSON file, or those of the one array that it is."""
    values, at, decoder = [], 0, json.JSONDecoder()
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        values.append(value)
    return values[0] if len(values) == 1 and isinstance(values[0], list) else values
