"""Clocks: an hour that does not exist or exists twice, the 29th of February, and events of days to come.

The source tells the time of New York. What a moment is in UTC is told by the zone database of the standard library; where it
leaves a choice, an hour that is skipped goes on with the offset before it, and one that comes twice is the second.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from segflow import tables
from segflow.config import WEEKDAYS, CalendarConfig
from segflow_tests.faults.delivered import SETTINGS, Delivery, Row, delivery, written

pytestmark = pytest.mark.faults
NEW_YORK = ZoneInfo("America/New_York")
FILES = 12


def opened(folder: Path, start: date) -> Iterator[Delivery]:
    """A project in New York whose log goes on."""
    events = {**SETTINGS["source"]["events"], "timezone": "America/New_York"}
    with delivery(folder, source={"events": events}, calendar={"start": start}) as project:
        project.begin()
        yield project


@pytest.fixture(scope="module")
def spring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    yield from opened(tmp_path_factory.mktemp("spring"), date(2024, 2, 28))


@pytest.fixture(scope="module")
def autumn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    yield from opened(tmp_path_factory.mktemp("autumn"), date(2024, 11, 1))


@pytest.fixture(scope="module")
def set_back(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    yield from opened(tmp_path_factory.mktemp("back"), date(2024, 11, 4))


def rows_at(moments: list[datetime], kind: str) -> list[Row]:
    """A row at each moment. kind: names its items, since rows that are alike in all are one event."""
    return [
        {"user": "u", "item": f"{kind}-{number}", "type": "view", "time": f"{moment:%Y-%m-%d %H:%M:%S}", "price": "1.5"}
        for number, moment in enumerate(moments)
    ]


def put(project: Delivery, name: str, moments: list[datetime]) -> None:
    rows = rows_at(moments, name)
    project.put(name, written(rows, "csv"), rows)


def found(project: Delivery, table: tables.Table, name: str) -> list[Row]:
    return [row for row in project.read(table) if row["source_file"] == name]


def assert_in_utc(project: Delivery, files: dict[str, list[datetime]], fold: int) -> None:
    """Every row is an event, on its UTC day, at the moment that the zone database names."""
    for name, moments in files.items():
        rows = sorted(found(project, tables.EVENTS, name), key=lambda row: row["source_row"])
        expected = [moment.replace(tzinfo=NEW_YORK, fold=fold).astimezone(UTC) for moment in moments]
        assert [row["ts"] for row in rows] == expected, name
        assert [row["day"] for row in rows] == [one.date() for one in expected], name


@pytest.mark.parametrize("hour", ["skipped", "twice"])
def test_hours_that_clocks_skip_or_show_twice(hour: str, request: pytest.FixtureRequest) -> None:
    project: Delivery = request.getfixturevalue("spring" if hour == "skipped" else "autumn")
    night = datetime(2024, 3, 10, 2) if hour == "skipped" else datetime(2024, 11, 3, 1)
    files = {}
    for seed in range(FILES):
        chance = random.Random(f"{hour} {seed}")
        moments = [night + timedelta(seconds=chance.randrange(3600)) for _ in range(5)]
        # The hour itself, and those around it, in which there is no choice.
        moments += [night + timedelta(hours=hours, seconds=seed) for hours in (-2, 2, 23)]
        files[f"{hour}-{seed}.csv"] = moments
        put(project, f"{hour}-{seed}.csv", moments)
    project.today(night.date() + timedelta(days=3))
    assert project.make(night.date() + timedelta(days=2)) is None
    assert_in_utc(project, files, fold=0 if hour == "skipped" else 1)


def test_the_29th_of_february_is_a_day_as_any_other(spring: Delivery) -> None:
    files = {}
    for seed in range(FILES):
        chance = random.Random(f"leap {seed}")
        moments = [datetime(2024, 2, 29) + timedelta(seconds=chance.randrange(-3600, 90_000)) for _ in range(6)]
        files[f"leap-{seed}.csv"] = moments
        put(spring, f"leap-{seed}.csv", moments)
    spring.today(date(2024, 3, 13))
    assert spring.make(date(2024, 3, 12)) is None
    assert_in_utc(spring, files, fold=0)
    assert date(2024, 2, 29) in {row["day"] for row in spring.read(tables.EVENTS)}


@pytest.mark.parametrize("year", range(1972, 2025, 4))
def test_the_29th_of_february_may_start_a_week(year: int) -> None:
    leap = date(year, 2, 29)
    calendar = CalendarConfig(
        start=leap - timedelta(days=20), end=leap + timedelta(days=30), week_starts=WEEKDAYS[leap.weekday()]
    )
    assert calendar.week(leap + timedelta(days=6)) == calendar.week(leap) == leap
    assert leap in calendar.testable([leap])
    weeks = dg.WeeklyPartitionsDefinition(
        start_date=calendar.first_week.isoformat(),
        end_date=str(calendar.end),
        day_offset=(leap.weekday() + 1) % 7,
    )
    assert leap.isoformat() in weeks.get_partition_keys()
    window = weeks.time_window_for_partition_key(leap.isoformat())
    assert (window.start.date(), window.end.date()) == (leap, leap + timedelta(days=7))
    assert leap in list(calendar.days())


@pytest.mark.parametrize("seed", range(10))
def test_events_of_days_to_come_wait_and_are_never_lost(autumn: Delivery, seed: int) -> None:
    """A clock is hours or days ahead. A row of tomorrow waits; one of later is refused until its day is there."""
    chance = random.Random(f"ahead {seed}")
    today = date(2024, 11, 5) + timedelta(days=11 * seed)
    noon = datetime(today.year, today.month, today.day, 12)
    ahead = [noon + timedelta(hours=chance.randrange(1, 24 * 9)) for _ in range(4)]
    name = f"ahead-{seed}.csv"
    autumn.today(today)
    put(autumn, name, [noon - timedelta(hours=30), *ahead])
    assert autumn.make(today) is None
    events, refused = found(autumn, tables.EVENTS, name), found(autumn, tables.QUARANTINED_EVENTS, name)
    waiting = [row for row in autumn.read(tables.SOURCE_FILES) if row["file"] == name and row["day"] > today]
    assert len(events) + len(refused) + sum(row["rows"] for row in waiting) == 5
    assert {row["reason"] for row in refused} <= {"outside_calendar"}
    assert all(row["day"] <= today + timedelta(days=1) for row in waiting)

    # Ten days later all these days are there. Another file arrives, and they are looked for.
    later = today + timedelta(days=10)
    autumn.today(later)
    put(autumn, f"later-{seed}.csv", [noon + timedelta(days=9)])
    assert autumn.make(later) is None
    assert_in_utc(autumn, {name: [noon - timedelta(hours=30), *ahead]}, fold=1)


@pytest.mark.parametrize("seed", range(10))
def test_a_clock_that_is_set_back_loses_no_row(set_back: Delivery, seed: int) -> None:
    """In a project that was made up to December the clock is set back by days, twice, and files go on arriving. Some of
    their rows are then of days to come, and some of days that were made already. When it is right again, all are found.
    """
    chance = random.Random(f"back {seed}")
    right, first = date(2024, 12, 5), datetime(2024, 11, 5)
    files: dict[str, list[datetime]] = {}

    def deliver(name: str) -> None:
        files[name] = [first + timedelta(minutes=chance.randrange(60 * 24 * 29)) for _ in range(5)]
        put(set_back, name, files[name])

    for turn in range(2):
        clock = date(2024, 11, 6) + timedelta(days=chance.randrange(27))
        set_back.today(clock)
        deliver(f"back-{seed}-{turn}.csv")
        assert set_back.make(clock) is None
        for name, moments in files.items():
            kept, refused = (found(set_back, one, name) for one in (tables.EVENTS, tables.QUARANTINED_EVENTS))
            assert {row["reason"] for row in refused} <= {"outside_calendar"}
            # What is not there yet is known of, and waits.
            waiting = [row for row in set_back.read(tables.SOURCE_FILES) if row["file"] == name and row["day"] > clock]
            assert len(kept) + len(refused) + sum(row["rows"] for row in waiting) >= len(moments)
    set_back.today(right)
    deliver(f"right-{seed}.csv")
    assert set_back.make(right) is None
    assert_in_utc(set_back, files, fold=1)
