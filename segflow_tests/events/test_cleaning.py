"""Cleaning: every reason, in its order, and no row lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import duckdb

from segflow import tables
from segflow.config import BotConfig, CalendarConfig, CleaningConfig, EventSource, ItemSource
from segflow.events import clean
from segflow_tests.events.steps import COLUMNS, classified, mapped, records, source, write
from segflow_tests.planted import PlantedLog

HEADER = "id,user,item,type,time,price,count"
FULL: dict[str, str | list[str]] = {**COLUMNS, "event_id": "id", "value": "price", "quantity": "count"}
STRICT = CleaningConfig(
    require_positive=["quantity", "value"],
    require_known_item=True,
    exclude_categories=["fuel"],
    require_known_type=True,
    type_weights={"buy": 5},
    bots=BotConfig(events_per_day=1, user_pattern="^spider"),
)


def catalogue(folder: Path) -> ItemSource:
    path = write(folder / "items.csv", "product,name,group", "milk,Milk,food", "petrol,Petrol,fuel")
    return ItemSource(path=str(path), columns={"item_id": "product", "title": "name", "category": ["group"]})


def test_every_reason_and_the_first_that_applies(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    # Each row has every flaw from its own on, so the reason shows the order of the tests as well.
    rows = {
        "1,,petrol,,2024-02-30,free,0": "unreadable_field",
        "2,,petrol,,,0,0": "missing_user",
        "3,u,petrol,,,0,0": "missing_time",
        "4,u,petrol,,2024-04-01,0,0": "outside_calendar",
        "5,u,petrol,,2024-01-02,0,1e16": "absurd_number",
        "5,u,petrol,,2024-01-02,0,0": "missing_type",
        "6,v,milk,buy,2024-01-02,1,1": None,
        "6,v,mulk,buy,2024-01-02,0,0": "duplicate",
        "7,u,mulk,buy,2024-01-02,0,0": "unknown_item",
        "8,u,,buy,2024-01-02,0,0": "unknown_item",
        "9,u,petrol,buy,2024-01-02,0,0": "excluded_item",
        "10,bot,milk,buy,2024-01-02,0,0": "non_positive_quantity",
        "11,bot,milk,buy,2024-01-02,-1,1": "non_positive_value",
        "12,spider,milk,gaze,2024-01-02,1,1": "unknown_type",
        "13,bot,milk,buy,2024-01-02,1,1": "bot_rate",
        "14,spider,milk,buy,2024-01-03,1,1": "bot_pattern",
        "15,bot,milk,buy,2024-01-03,,": None,
    }
    path = write(tmp_path / "log.csv", HEADER, *rows)
    mapped(connection, source(path, FULL), catalogue(tmp_path))
    assert classified(connection, STRICT) == list(rows.values())
    assert set(rows.values()) == {None, *tables.REASONS}
    no_bots = STRICT.model_copy(update={"bots": BotConfig(enabled=False)})
    assert classified(connection, no_bots) == [None if one and one.startswith("bot") else one for one in rows.values()]


def test_rules_are_off_by_default(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", HEADER, "1,u,mulk,buy,2024-01-02,-1,0", "2,u,petrol,buy,2024-01-02,0,")
    mapped(connection, source(path, FULL), catalogue(tmp_path))
    assert classified(connection) == [None, None]


def test_duplicates_keep_the_earliest_row(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    write(folder / "b.csv", "user,item,type,time", "u,i,view,2024-01-02 10:00:00", "u,i,view,2024-01-02 10:00:00")
    write(folder / "a.csv", "user,item,type,time", "u,j,view,2024-01-02 10:00:00", "u,i,VIEW,2024-01-02T10:00:00Z")
    mapped(connection, source(folder))
    assert classified(connection) == [None, None, "duplicate", "duplicate"]


def test_fields_do_not_run_into_each_other(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    columns = {**COLUMNS, "session_id": "session", "text": "text"}
    path = write(
        tmp_path / "log.csv",
        "user,item,type,time,session,text",
        "u,i,view,2024-01-02,s,",
        "u,i,view,2024-01-02,,s",
        "u|i,view,x,2024-01-02,,",
        "u,i|view,x,2024-01-02,,",
    )
    mapped(connection, source(path, columns))
    assert classified(connection) == [None] * 4


def test_a_broken_row_does_not_turn_the_sound_one_into_a_duplicate(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    sound = "1,u,milk,buy,2024-01-02,1,1"
    path = write(tmp_path / "log.csv", HEADER, "1,,milk,buy,2024-01-02,1,1", sound, sound)
    mapped(connection, source(path, FULL))
    assert classified(connection) == ["missing_user", None, "duplicate"]


def test_an_id_may_return_on_another_day(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", HEADER, "1,u,milk,buy,2024-01-02,1,1", "1,u,milk,buy,2024-01-03,1,1")
    mapped(connection, source(path, FULL))
    assert classified(connection) == [None, None]


def planted_source(log: PlantedLog) -> tuple[EventSource, ItemSource]:
    items = ItemSource(
        path=str(log.items),
        columns={"item_id": "product", "title": "name", "category": ["department"], "price": "price"},
    )
    return source(log.events, {**COLUMNS, "value": "price"}), items


def test_the_account_of_a_dirty_log_is_exact(connection: duckdb.DuckDBPyConnection, dirty_log: PlantedLog) -> None:
    calendar = CalendarConfig(start=dirty_log.start, end=dirty_log.end)
    raw = mapped(connection, *planted_source(dirty_log), calendar)
    cleaning = CleaningConfig(require_positive=["value"], require_known_item=True)
    reasons = Counter(classified(connection, cleaning, calendar))
    assert len(raw) == dirty_log.rows + sum(dirty_log.dirt.values())
    assert reasons.pop(None) == dirty_log.rows
    assert reasons == dirty_log.dirt

    account = clean.row_account(connection, "events", "quarantined_events")
    assert account.balanced
    assert (account.raw, account.events) == (len(raw), dirty_log.rows)
    assert account.duplicates == dirty_log.dirt["duplicate"]
    assert account.quarantined == sum(dirty_log.dirt.values()) - account.duplicates
    assert account.days == (dirty_log.end - dirty_log.start).days
    kept = records(connection, "FROM rejected")
    assert sorted((row["source_file"], row["source_row"]) for row in kept) == [
        ("events.csv", row) for row in range(dirty_log.rows, len(raw))
    ]


def test_the_account_notices_lost_and_multiplied_rows(
    connection: duckdb.DuckDBPyConnection, dirty_log: PlantedLog
) -> None:
    calendar = CalendarConfig(start=dirty_log.start, end=dirty_log.end)
    mapped(connection, *planted_source(dirty_log), calendar)
    classified(connection, calendar=calendar)
    connection.execute("DELETE FROM events WHERE source_row = 17")
    assert clean.row_account(connection, "events", "quarantined_events").unbalanced_days == 1
    assert "broken on 1 of 28 days" in clean.row_account(connection, "events", "quarantined_events").sentence
    # One lost and one doubled on another day: the totals agree, the days do not.
    connection.execute(
        "INSERT INTO events SELECT * FROM events WHERE source_row = (SELECT max(source_row) FROM events)"
    )
    account = clean.row_account(connection, "events", "quarantined_events")
    assert account.raw == account.events + account.quarantined + account.duplicates
    assert account.unbalanced_days == 2
