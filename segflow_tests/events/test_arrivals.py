"""Which files are read for which days: each once, with its late rows put aside for the days that they belong to."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from segflow.config import CalendarConfig, Config, SourceConfig
from segflow.datasets.generator import generate
from segflow.datasets.shop import Shop
from segflow.errors import UserError
from segflow.events import arrivals
from segflow.settings import load
from segflow.storage import connect
from segflow.tables import SOURCE_FILES
from segflow_tests.events.steps import CALENDAR, source, write

FIRST, DAYS = date(2024, 1, 1), 8
# Late rows, and rows without a date, in nearly every file.
_SHOP = Shop(events=20_000, users=400, items=100, days=DAYS, late=0.1, bad=0.05)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("log")
    generate(folder, _SHOP)
    return load(folder / "segflow.yaml")


def looked_into(connection: duckdb.DuckDBPyConnection, config: Config) -> None:
    """The view source_files, as the asset makes it."""
    empty = ", ".join(f"NULL::{column.type} AS {column.name}" for column in SOURCE_FILES.columns)
    connection.execute(f"CREATE TEMP VIEW {arrivals.KNOWN} AS SELECT {empty} LIMIT 0")
    connection.execute(f"CREATE TEMP TABLE source_files AS {arrivals.files_query(connection, config, 'one')}")


def read(config: Config, rows_at_once: int, first: date, last: date) -> tuple[list[Any], list[set[str] | None]]:
    """The raw rows of [first, last), read in spans of so many rows, and the files read for each span."""
    config = config.model_copy(update={"compute": config.compute.model_copy(update={"rows_at_once": rows_at_once})})
    rows, files = [], []
    with connect(config.compute) as connection:
        looked_into(connection, config)
        for days, only in arrivals.reading_plan(connection, config, first, last):
            query = arrivals.raw_query(connection, config, *days, only)
            rows += connection.execute(f"SELECT * FROM ({query}) ORDER BY source_file, source_row").fetchall()
            files.append(only)
    return sorted(rows, key=str), files


def test_spans_hold_the_same_rows_as_one_piece(log: Config) -> None:
    whole, pieces = read(log, 10**9, FIRST, FIRST + timedelta(DAYS))
    assert len(pieces) == 1
    assert len(whole) > 19_000
    in_spans, read_for = read(log, 6000, FIRST, FIRST + timedelta(DAYS))
    assert len(read_for) > 3
    assert in_spans == whole


def test_each_file_is_read_with_one_span(log: Config) -> None:
    _, read_for = read(log, 6000, FIRST, FIRST + timedelta(DAYS))
    named = [name for names in read_for for name in names or ()]
    assert len(named) == len(set(named)) == DAYS


def test_some_days_hold_the_rows_that_later_files_have_of_them(log: Config) -> None:
    whole, _ = read(log, 10**9, FIRST, FIRST + timedelta(DAYS))
    part, _ = read(log, 10**9, FIRST + timedelta(2), FIRST + timedelta(4))
    assert part == [row for row in whole if FIRST + timedelta(2) <= row[0] < FIRST + timedelta(4)]
    assert {row[-2] for row in part} > {"2024-01-03.parquet", "2024-01-04.parquet"}


def test_a_row_of_a_day_to_come_waits_for_it_and_is_never_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a phone is days ahead: its row lies with its file, refused, until its day is there."""
    write(
        tmp_path / "log" / "2024-01-03.csv", "user,item,type,time", *(f"u,i,view,2024-01-0{n} 10:00:00" for n in (3, 8))
    )
    write(tmp_path / "log" / "2024-01-04.csv", "user,item,type,time", "u,i,view,2024-01-04 10:00:00")
    events = source(tmp_path / "log")
    config = Config(source=SourceConfig(events=events), calendar=CalendarConfig(start=FIRST))
    early, due = date(2024, 1, 3), date(2024, 1, 8)

    def days(connection: duckdb.DuckDBPyConnection) -> list[date]:
        query = "SELECT day FROM raw WHERE source_file = '2024-01-03.csv' ORDER BY source_row"
        found = []
        for part, only in arrivals.reading_plan(connection, config, FIRST, date(2024, 1, 10)):
            rows = arrivals.raw_query(connection, config, *part, only)
            found += connection.execute(f"WITH raw AS ({rows}) {query}").fetchall()
        return [day for (day,) in found]

    def today(day: date) -> None:
        monkeypatch.setattr(CalendarConfig, "last_day", day)

    with connect(config.compute.model_copy(update={"spill": str(tmp_path / "spill")})) as connection:
        today(date(2024, 1, 4))
        looked_into(connection, config)
        assert days(connection) == [early, early]
        today(date(2024, 1, 9))
        # Nobody has looked again: the row lies where it lay.
        assert days(connection) == [early, early]
        connection.execute("CREATE OR REPLACE TEMP TABLE kept AS FROM source_files")
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {arrivals.KNOWN} AS FROM kept")
        query = arrivals.files_query(connection, config, "one")
        assert connection.execute("SELECT file FROM changed_files").fetchall() == [("2024-01-03.csv",)]
        connection.execute(f"CREATE OR REPLACE TEMP TABLE source_files AS {query}")
        assert days(connection) == [early, due]
        connection.execute("CREATE OR REPLACE TEMP TABLE kept AS FROM source_files")
        arrivals.files_query(connection, config, "one")
        assert connection.execute("SELECT file FROM changed_files").fetchall() == []


def test_what_was_changed_since_the_look_is_not_taken_for_what_was_listed(tmp_path: Path) -> None:
    file, first, second = tmp_path / "log.csv", "u,i,view,2024-01-02 10:00:00", "u,i,view,2024-01-03 10:00:00"
    config = Config(source=SourceConfig(events=source(file)), calendar=CALENDAR)
    day = (date(2024, 1, 2), date(2024, 1, 3))

    def read_after(*lines: str) -> None:
        """Look into the file as it was, and read a day of it as it is now."""
        write(file, "user,item,type,time", first, second)
        looked_into(connection, config)
        write(file, "user,item,type,time", *lines)
        ((_, only),) = arrivals.reading_plan(connection, config, *day)
        connection.execute(f"CREATE TEMP TABLE staged AS {arrivals.raw_query(connection, config, *day, only)}")
        arrivals.require_as_listed(connection, config, "staged", *day)

    for lines, refused in (
        ((first, second), False),
        ((first, second, second), False),  # a row more of another day
        ((first, second, first), True),
        ((second,), True),
        (("u,i,view,2024-01-02 10:00:01", second), True),
    ):
        with connect(config.compute.model_copy(update={"spill": str(tmp_path / "spill")})) as connection:
            if not refused:
                read_after(*lines)
                continue
            with pytest.raises(
                UserError, match=r"^log\.csv: was changed since source_files was made of it; .*run again"
            ):
                read_after(*lines)
