"""What holds for every log: no row lost, the order of delivery without meaning, sessions by their rules, days on their own.

The logs are drawn; `logs.py` says how. Each property is tried on two hundred of them, the same ones each time.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segflow import tables
from segflow.config import CleaningConfig, ComputeConfig, Config, SessionConfig, SourceConfig
from segflow.events import clean, in_memory, mapping, parquet
from segflow.events.sessions import sessions_of_spans
from segflow.storage import connect
from segflow.tables import Table
from segflow_tests.events import logs, steps
from segflow_tests.events.logs import CALENDAR, DAYS, START, Row

each_log = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FIRST, DAY = START.date(), timedelta(days=1)
LAST = FIRST + DAYS * DAY
PLACE = ("source_file", "source_row")
FLAWS = {"unreadable_field", "missing_user", "missing_time", "outside_calendar", "missing_type"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """One engine for all logs, with the catalogue."""
    spill = tmp_path_factory.mktemp("spill")
    with connect(ComputeConfig(spill=str(spill), threads=1)) as connection:
        items = pa.schema([tables.ITEMS.arrow.field(name) for name in ("item_id", "title", "category", "price")])
        connection.register("catalogue", pa.Table.from_pylist(list(logs.ITEMS), items))
        connection.execute("CREATE TEMP TABLE items AS FROM catalogue")
        yield connection


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log")


def fill(engine: duckdb.DuckDBPyConnection, table: Table, rows: Sequence[Row]) -> None:
    """A temporary table of these rows, in this order."""
    engine.register("drawn", pa.Table.from_pylist(list(rows), table.arrow))
    engine.execute(f"CREATE OR REPLACE TEMP TABLE {table.name} AS FROM drawn")


def cleaned(engine: duckdb.DuckDBPyConnection, cleaning: CleaningConfig) -> tuple[list[Row], list[Row]]:
    """Make the tables events and quarantined_events of raw_events; return both, in source order."""
    clean.judge(engine, cleaning)
    engine.execute(f"CREATE OR REPLACE TEMP TABLE events AS {clean.events_query(cleaning)}")
    engine.execute("CREATE OR REPLACE TEMP TABLE quarantined_events AS FROM rejected")
    kept, refused = (
        steps.records(engine, f"FROM {name} ORDER BY source_file, source_row")
        for name in ("events", "quarantined_events")
    )
    return kept, refused


def sessions_of(
    engine: duckdb.DuckDBPyConnection,
    rows: Sequence[Row],
    config: SessionConfig,
    first: date = FIRST,
    last: date = LAST,
) -> list[Row]:
    """The sessions of the days [first, last), made of the events that a step sees: theirs and those of the neighbours."""
    fill(engine, tables.EVENTS, [row for row in rows if first - DAY <= row["day"] <= last])
    return steps.sessions(engine, config, first, last)


def by_day(rows: Iterable[Row]) -> dict[date, list[Row]]:
    found = defaultdict(list)
    for row in rows:
        found[row["day"]].append(row)
    return dict(found)


def stretches(days: Collection[date]) -> Iterator[tuple[date, date]]:
    """The half-open ranges of neighbouring days among those of the calendar."""
    inside = sorted(day for day in days if FIRST <= day < LAST)
    starts = [day for day in inside if day - DAY not in inside]
    ends = [day + DAY for day in inside if day + DAY not in inside]
    return zip(starts, ends, strict=True)


def multiset(rows: Iterable[Row], *without: str) -> Counter[str]:
    return Counter(str({name: value for name, value in row.items() if name not in without}) for row in rows)


def places(rows: Iterable[Row]) -> list[tuple[str, int]]:
    return [(row["source_file"], row["source_row"]) for row in rows]


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
    engine.execute("DROP VIEW events")
    engine.execute("DROP VIEW raw_events")

    assert multiset(steps.records(engine, "FROM judged")) == multiset(refused)
    assert [(row["user_id"], row["item_id"], row["event_type"], row["value"], row["weight"]) for row in taken] == [
        (row["user_id"], row["item_id"], row["event_type"], row["value"] or 0.0, row["weight"]) for row in kept
    ]
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


# 4. and 5. Sessions.


@given(logs.events, logs.session_settings)
@each_log
def test_sessions_partition_the_events(
    engine: duckdb.DuckDBPyConnection, events: list[Row], config: SessionConfig
) -> None:
    found = sessions_of(engine, events, config)
    assert found == logs.sessions_by_hand(events, config)
    assert sum(one["events"] for one in found) == len(events)
    assert sum(one["value"] for one in found) == sum(row["value"] or 0 for row in events)
    assert len({(one["day"], one["user_id"], one["session_id"]) for one in found}) == len(found)


@given(st.data(), logs.session_settings)
@each_log
def test_a_pause_of_exactly_the_gap_stays_and_a_microsecond_more_splits(
    engine: duckdb.DuckDBPyConnection, data: st.DataObject, config: SessionConfig
) -> None:
    events = data.draw(logs.walks(config.gap_minutes))
    assert sessions_of(engine, events, config) == logs.sessions_by_hand(events, config)


@given(st.data(), logs.session_settings, st.sets(st.integers(1, DAYS - 1), min_size=1, max_size=2))
@each_log
def test_days_may_be_computed_in_any_spans(
    engine: duckdb.DuckDBPyConnection, data: st.DataObject, config: SessionConfig, cuts: set[int]
) -> None:
    events = data.draw(logs.walks(config.gap_minutes))
    bounds = [FIRST, *(FIRST + cut * DAY for cut in sorted(cuts)), LAST]
    parts = list(pairwise(bounds))
    whole = sessions_of(engine, events, config)
    assert [one for part in parts for one in sessions_of(engine, events, config, *part)] == whole
    # And with the sessions that may go on handed from span to span.
    fill(engine, tables.EVENTS, events)
    for shares in (1, 3):
        handed_on = []
        for _, found in sessions_of_spans(engine, config, parts, lambda _: None, shares):
            if not isinstance(found, str):
                engine.register("made_sessions", found)
            query = found if isinstance(found, str) else "FROM made_sessions"
            handed_on += steps.records(engine, f"{query} ORDER BY day, user_id, start, session_id")
        assert handed_on == whole


# 6. What is brought in day by day equals what is made in one go.


@given(st.lists(st.tuples(st.sampled_from(["b", "a", "d", "c"]), logs.raw_rows), max_size=3), logs.cleanings)
@each_log
def test_late_rows_need_only_their_own_days(
    engine: duckdb.DuckDBPyConnection, deliveries: list[tuple[str, list[Row]]], cleaning: CleaningConfig
) -> None:
    raw: list[Row] = []
    made: dict[date, tuple[list[Row], list[Row]]] = {}
    for number, (name, rows) in enumerate(deliveries):
        arrived = logs.placed(rows, f"{name}{number}")
        raw += arrived
        days = {row["day"] for row in arrived}
        fill(engine, tables.RAW_EVENTS, [row for row in raw if row["day"] in days])
        events, refused = map(by_day, cleaned(engine, cleaning))
        made.update({day: (events.get(day, []), refused.get(day, [])) for day in days})
    fill(engine, tables.RAW_EVENTS, raw)
    whole = cleaned(engine, cleaning)
    for number, expected in enumerate(map(by_day, whole)):
        assert {day: both[number] for day, both in made.items() if both[number]} == expected


FATES = st.dictionaries(st.integers(0, 9), st.sampled_from(["late", "gone", "corrected"]), min_size=1, max_size=3)


@given(st.data(), logs.session_settings, FATES)
@each_log
def test_only_days_that_changed_and_neighbours_of_changed_edges_need_new_sessions(
    engine: duckdb.DuckDBPyConnection, data: st.DataObject, config: SessionConfig, fates: dict[int, str]
) -> None:
    events = data.draw(logs.walks(config.gap_minutes))
    before = [row for row in events if fates.get(row["source_row"]) != "late"]
    made = by_day(sessions_of(engine, before, config))
    old = clean.edges(engine, config, "events")

    corrected = {number for number, fate in fates.items() if fate == "corrected"}
    after = [
        {**row, "value": 2.5} if row["source_row"] in corrected else row
        for row in events
        if fates.get(row["source_row"]) != "gone"
    ]
    whole = sessions_of(engine, after, config)
    new = clean.edges(engine, config, "events")
    touched = {row["day"] for row in events if row["source_row"] in fates}
    assert {day for day in {*old, *new} if old.get(day) != new.get(day)} <= {str(day) for day in touched}
    again = touched | {
        day + step * DAY
        for day in touched
        for step, edge in ((-1, "head"), (1, "tail"))
        if old.get(str(day), {}).get(edge, "none") != new.get(str(day), {}).get(edge, "none")
    }
    for first, last in stretches(again):
        remade = by_day(sessions_of(engine, after, config, first, last))
        made = {day: own for day, own in made.items() if not first <= day < last} | remade
    assert made == by_day(whole)


@given(logs.events, logs.events, logs.session_settings)
@each_log
def test_what_no_neighbour_can_see_leaves_the_edges_alone(
    engine: duckdb.DuckDBPyConnection, events: list[Row], more: list[Row], config: SessionConfig
) -> None:
    fill(engine, tables.EVENTS, events)
    edges = clean.edges(engine, config, "events")
    gap = timedelta(minutes=config.gap_minutes)
    known = {row["day"] for row in events}
    inner = [
        {**row, "source_row": 30 + number, "event_id": f"inner {number}", "session_id": None}
        for number, row in enumerate(more)
        if row["day"] in known and row["ts"].hour >= 12 and row["ts"] + gap < START + (row["day"] - FIRST + DAY)
    ]
    fill(engine, tables.EVENTS, events + inner)
    assert clean.edges(engine, config, "events") == edges


@pytest.mark.parametrize(("session", "reach"), [(None, timedelta(minutes=30)), ("s", timedelta(hours=12))])
def test_edges_reach_exactly_as_far_as_sessions(
    engine: duckdb.DuckDBPyConnection, session: str | None, reach: timedelta
) -> None:
    tick = timedelta(microseconds=1)
    moments = {
        -reach - tick: "none",
        -reach: "tail",
        -tick: "tail",
        timedelta(0): "head",
        reach - tick: "head",
        reach: "none",
    }
    for from_midnight, edge in moments.items():
        ts = START + DAY + from_midnight
        row = {"day": ts.date(), "user_id": "u", "event_type": "view", "ts": ts, "weight": 1.0, "session_id": session}
        fill(engine, tables.EVENTS, logs.numbered([{**row, "source_file": "log"}]))
        (found,) = clean.edges(engine, SessionConfig(gap_minutes=30), "events").values()
        # The edge on the other side of the day is not looked at.
        side = "tail" if from_midnight < timedelta(0) else "head"
        assert (found[side] != "none") == (edge == side), (from_midnight, edge)
