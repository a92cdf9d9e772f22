"""What holds for every log: no row is lost, and how rows are delivered means nothing.

The logs are drawn; `logs.py` says how. Each property is tried on two hundred of them, the same ones each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from segflow import tables
from segflow.config import CleaningConfig, Config, SessionConfig, SourceConfig
from segflow.events import clean, in_memory, mapping, parquet
from segflow_tests.events import logs, steps
from segflow_tests.events.logs import CALENDAR, Row
from segflow_tests.events.properties import (
    FIRST,
    FLAWS,
    LAST,
    PLACE,
    cleaned,
    each_log,
    fill,
    multiset,
    places,
)

# 1. No row is lost.


@given(logs.junk, logs.cleanings)
@each_log
def test_each_row_of_any_file_is_an_event_or_refused_with_a_reason(
    engine: duckdb.DuckDBPyConnection, folder: Path, rows: list[Row], cleaning: CleaningConfig
) -> None:
    columns = {
        **steps.COLUMNS, "event_id": "id", "value": "price", "quantity": "count", "session_id": "session", "text": "words",
    }  # fmt: skip
    file = folder / "junk.parquet"
    pq.write_table(pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in rows[0]])), file)
    query = mapping.mapped_events(engine, SourceConfig(events=steps.source(file, columns)))
    engine.execute(f"CREATE OR REPLACE TEMP TABLE raw_events AS {mapping.with_day(query, CALENDAR)}")
    raw = steps.records(engine, "FROM raw_events ORDER BY source_row")
    assert places(raw) == [(file.name, number) for number in range(len(rows))]
    assert_all_accounted_for(engine, raw, cleaning)


@given(logs.raw_rows.map(logs.placed), logs.cleanings)
@each_log
def test_each_mapped_row_is_an_event_or_refused_with_a_reason(
    engine: duckdb.DuckDBPyConnection, rows: list[Row], cleaning: CleaningConfig
) -> None:
    fill(engine, tables.RAW_EVENTS, rows)
    assert_all_accounted_for(engine, rows, cleaning)


@given(logs.raw_rows.map(logs.placed), logs.cleanings, st.booleans())
@each_log
def test_rows_in_memory_are_judged_as_those_in_tables(
    engine: duckdb.DuckDBPyConnection, rows: list[Row], cleaning: CleaningConfig, use_source_ids: bool
) -> None:
    fill(engine, tables.RAW_EVENTS, rows)
    kept, refused = cleaned(engine, cleaning)
    engine.execute("DROP TABLE raw_events")
    engine.execute("DROP TABLE events")
    config = Config.model_construct(cleaning=cleaning, sessions=SessionConfig(use_source_ids=use_source_ids))
    held = parquet.joined([parquet.coded(pa.Table.from_pylist(rows, tables.RAW_EVENTS.arrow))])
    judge = in_memory.Judge(engine, config)
    engine.register("judged", judge.rejected(held))
    taken = judge.session_events(held).to_pylist()
    engine.execute("DROP VIEW IF EXISTS events")
    engine.execute("DROP VIEW raw_events")

    assert multiset(steps.records(engine, "FROM judged")) == multiset(refused)
    assert [(row["user_id"], row["item_id"], row["event_type"], row["value"], row["weight"]) for row in taken] == [
        (row["user_id"], row["item_id"], row["event_type"], row["value"] or 0.0, row["weight"]) for row in kept
    ]
    year_1 = datetime(1, 1, 1, tzinfo=UTC)
    assert [row["moment"] for row in taken] == [(row["ts"] - year_1) // timedelta(microseconds=1) for row in kept]
    assert [row["source_session"] for row in taken] == [row["session_id"] if use_source_ids else None for row in kept]


def assert_all_accounted_for(engine: duckdb.DuckDBPyConnection, raw: list[Row], cleaning: CleaningConfig) -> None:
    events, refused = cleaned(engine, cleaning)
    assert sorted(places(events) + places(refused)) == places(raw)
    reason = {place: row["reason"] for place, row in zip(places(refused), refused, strict=True)}
    assert set(reason.values()) <= set(tables.REASONS)
    original = dict(zip(places(raw), raw, strict=True))
    for row in refused:
        assert {name: value for name, value in row.items() if name != "reason"} == original[places([row])[0]]
    account = clean.row_account(engine, "events", "quarantined_events")
    assert account.balanced
    assert (account.raw, account.events) == (len(raw), len(events))
    assert account.duplicates + account.quarantined == len(refused)

    required = [column.name for column in tables.EVENTS.columns if not column.nullable]
    assert all(row[name] is not None for row in events for name in required)
    assert len({(row["day"], row["event_id"]) for row in events}) == len(events)
    told = set()
    for row in raw:
        why = reason.get((row["source_file"], row["source_row"]))
        fields = ("user_id", "item_id", "event_type", "ts", "value", "quantity", "session_id", "text")
        identity = (row["day"], row["event_id"] or tuple(row[name] for name in fields))
        if why not in FLAWS:
            assert (why == "duplicate") == (identity in told), "the first to tell of an event, and no other, is kept"
            told.add(identity)


# 2. and 3. How rows are delivered means nothing.


def write_csv(file: Path, rows: Sequence[Row]) -> None:
    names = {
        "event_id": "id",
        "user_id": "user",
        "item_id": "item",
        "event_type": "type",
        "ts": "time",
        "value": "price",
    }
    lines = (",".join("" if row[name] is None else str(row[name]) for name in names) for row in rows)
    steps.write(file, ",".join(names.values()), *lines)


def delivered(engine: duckdb.DuckDBPyConnection, folder: Path, files: Sequence[tuple[str, list[Row]]]) -> list[Row]:
    """The raw rows of a folder into which these files were written one after the other, the last one first by its clock."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, (name, rows) in enumerate(files):
        write_csv(folder / name, rows)
        os.utime(folder / name, (1e9 - number, 1e9 - number))
    columns = {**steps.COLUMNS, "event_id": "id", "value": "price"}
    query = mapping.mapped_events(engine, SourceConfig(events=steps.source(folder, columns)))
    return steps.records(engine, f"FROM ({mapping.with_day(query, CALENDAR)}) ORDER BY source_file, source_row")


@given(st.lists(st.lists(st.fixed_dictionaries(logs.RAW), min_size=1, max_size=8), min_size=1, max_size=3), st.data())
@each_log
def test_files_may_be_written_in_any_order_and_cut_anywhere(
    engine: duckdb.DuckDBPyConnection, folder: Path, parts: list[list[Row]], data: st.DataObject
) -> None:
    files = [(f"2024-01-{10 + number}.csv", rows) for number, rows in enumerate(parts)]
    found = delivered(engine, folder / "files", files)
    assert len(found) == sum(map(len, parts))
    assert delivered(engine, folder / "files", data.draw(st.permutations(files))) == found
    cut = []
    for name, rows in files:
        at = data.draw(st.integers(0, len(rows)))
        cut += [(name.replace(".", f"-{part}."), rows) for part, rows in enumerate((rows[:at], rows[at:])) if rows]
    again = delivered(engine, folder / "files", data.draw(st.permutations(cut)))
    assert list(map(str, without_place(again))) == list(map(str, without_place(found)))


def without_place(rows: Iterable[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name not in PLACE} for row in rows]


@given(
    st.lists(st.sampled_from(["a", "b"]), min_size=28, max_size=28), logs.tellable_rows, logs.cleanings, st.randoms()
)
@each_log
def test_rows_may_stand_in_any_order_in_their_file(
    engine: duckdb.DuckDBPyConnection,
    files: list[str],
    rows: list[Row],
    cleaning: CleaningConfig,
    random: st.RandomType,
) -> None:
    outcomes = []
    held = {name: [row for row, file in zip(rows, files, strict=False) if file == name] for name in ("a", "b")}
    for _ in range(2):
        raw = [row for name, own in held.items() for row in logs.placed(own, name)]
        random.shuffle(raw)
        fill(engine, tables.RAW_EVENTS, raw)
        events, refused = cleaned(engine, cleaning)
        found = steps.sessions(engine, SessionConfig(), FIRST, LAST)
        outcomes.append((multiset(events, "source_row"), multiset(refused, "source_row"), found))
        for own in held.values():
            random.shuffle(own)
    assert outcomes[0] == outcomes[1]


@given(logs.raw_rows, logs.cleanings, st.integers(0, 28))
@each_log
def test_a_file_may_be_split_in_two(
    engine: duckdb.DuckDBPyConnection, rows: list[Row], cleaning: CleaningConfig, cut: int
) -> None:
    outcomes = []
    for raw in (logs.placed(rows, "day"), logs.placed(rows[:cut], "day-1") + logs.placed(rows[cut:], "day-2")):
        fill(engine, tables.RAW_EVENTS, raw)
        kept, refused = map(without_place, cleaned(engine, cleaning))
        outcomes.append((kept, refused, steps.sessions(engine, SessionConfig(), FIRST, LAST)))
    assert outcomes[0] == outcomes[1]
