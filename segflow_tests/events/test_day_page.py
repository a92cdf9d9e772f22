"""The page of a day: exact figures, escaped and shortened texts, a page for every day, and a range in one go."""

from __future__ import annotations

import html
import re
from collections import Counter, defaultdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from segflow import tables
from segflow.config import BotConfig, CalendarConfig, CleaningConfig, Config, ImputeConfig, SourceConfig
from segflow.events import day_page
from segflow_tests.evaluation.test_report import Page
from segflow_tests.events.steps import CALENDAR, COLUMNS, classified, mapped, records, sessions, source, write
from segflow_tests.planted import PlantedLog

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&"
FULL: dict[str, str | list[str]] = {**COLUMNS, "value": "price", "quantity": "count"}
MONDAY = date(2024, 1, 29)


def made(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    cleaning: CleaningConfig | None = None,
    calendar: CalendarConfig = CALENDAR,
    columns: dict[str, str | list[str]] = FULL,
) -> Config:
    """Leave on the connection all that a page is made of; return the settings it was made by."""
    events = source(path, columns)
    mapped(connection, events, calendar=calendar)
    classified(connection, cleaning, calendar)
    assert calendar.end is not None
    found = sessions(connection, first=calendar.start, last=calendar.end)
    connection.register("found_sessions", pa.Table.from_pylist(found, schema=tables.SESSIONS.arrow))
    connection.execute("CREATE OR REPLACE TEMP TABLE sessions AS SELECT * FROM found_sessions")
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE source_files AS "
        "SELECT source_file AS file, day, count(*) AS rows, NULL::VARCHAR AS drift FROM raw_events GROUP BY ALL"
    )
    return Config(source=SourceConfig(events=events), calendar=calendar, cleaning=cleaning or CleaningConfig())


def pages(connection: duckdb.DuckDBPyConnection, config: Config, first: date, days: int = 1) -> list[dict[str, Any]]:
    """The rows of day_reports, with the page's tags as `page`, its text as `words`, and each line of its tables as `cells`."""
    table = day_page.pages(connection, (first, first + timedelta(days=days)), config)
    assert table.schema == tables.DAY_REPORTS.arrow
    rows = table.to_pylist()
    assert [row["day"] for row in rows] == [first + timedelta(days=number) for number in range(days)]
    for row in rows:
        row["page"] = Page(row["html"])
        body = row["html"].partition("<body>")[2]
        row["words"] = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())
        row["cells"] = cells(row["html"])
    return rows


def cells(page: str) -> list[list[str]]:
    """The texts of each table row."""
    found = []
    for line in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL):
        parts = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL)
        found.append([html.unescape(re.sub(r"<(small|code)>.*?</\1>|<[^>]*>", "", part)).strip() for part in parts])
    return [[text.replace("\N{NO-BREAK SPACE}", " ") for text in line] for line in found]


def test_planted_dirt_is_counted_day_by_day(connection: duckdb.DuckDBPyConnection, dirty_log: PlantedLog) -> None:
    rows = pd.read_csv(dirty_log.events, dtype=str)
    rows["reason"] = ["event"] * dirty_log.rows + [
        reason for reason, count in dirty_log.dirt.items() for _ in range(count)
    ]
    times = pd.to_datetime(rows["time"], errors="coerce").dt.date
    rows["day"] = [time if str(time) < "2100" else dirty_log.start for time in times]
    truth: dict[date, Counter[str]] = defaultdict(Counter)
    for day, reason in zip(rows["day"], rows["reason"], strict=True):
        truth[day][reason] += 1

    calendar = CalendarConfig(start=dirty_log.start, end=dirty_log.end)
    cleaning = CleaningConfig(require_positive=["value"], bots=BotConfig(enabled=False))
    config = made(connection, dirty_log.events, cleaning, calendar, {**COLUMNS, "value": "price"})
    found = pages(connection, config, dirty_log.start, (dirty_log.end - dirty_log.start).days)
    for one in found:
        counts = truth[one["day"]]
        events, duplicates, raw = counts.pop("event"), counts["duplicate"], sum(truth[one["day"]].values())
        raw += events
        assert (one["raw_rows"], one["event_rows"], dict(one["reasons"])) == (raw, events, dict(+counts))
        quarantined = raw - events - duplicates
        duplicate = "1 duplicate" if duplicates == 1 else f"{duplicates} duplicates"
        assert f"{raw:,} raw rows = {events:,} events + {quarantined} quarantined + {duplicate}." in one["words"]
        for reason, count in (+counts).items():
            lines = [line for line in one["cells"] if line[0] == reason.replace("_", " ") and len(line) == 4]
            assert [line[1] for line in lines] == [str(count)]
            assert lines[0][2] == f"{count / raw:.2%}".replace("%", " %")
        governed = 'cleaning.require_positive: ["value"]' in one["words"]
        assert governed == (counts["non_positive_value"] > 0)
    assert sum((Counter(dict(one["reasons"])) for one in found), Counter()) == dirty_log.dirt


def test_the_first_rows_of_a_reason_are_shown(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    bad = [f"customer{number},i{number},view,2024-01-29 10:00:0{number},n/a,1234.5" for number in range(4)]
    path = write(tmp_path / "log.csv", "user,item,type,time,price,count", *bad, ",i,view,2024-01-29 11:00:00.5,2,")
    (one,) = pages(connection, made(connection, path), MONDAY)
    start = one["cells"].index(["unreadable field"])
    assert one["cells"][start + 1 : start + 6] == [
        *(
            [
                "log.csv",
                str(number),
                "cust…",
                f"i{number}",
                "view",
                f"2024-01-29 10:00:0{number}",
                "",
                "1,234.5",
                "value=n/a",
            ]
            for number in range(3)
        ),
        ["missing user"],
        ["log.csv", "4", "", "i", "view", "2024-01-29 11:00:00.5", "2", "", ""],
    ]
    assert "customer" not in one["html"]
    assert ["unreadable field", "4", "80.00 %", "4"] in one["cells"]
    assert ["missing user", "1", "20.00 %", "0"] in one["cells"]
    assert "No event on this day." in one["words"]


@pytest.mark.parametrize(
    ("user", "shown"), [("u0001", "u000…"), ("2469", "246…"), ("a", "…"), (None, ""), ("😀😀", "😀…")]
)
def test_no_user_id_is_spelled_out(user: str | None, shown: str) -> None:
    assert day_page.shortened(user) == shown


def test_bots_and_imputed_fields(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    machine = [f"robot,i,view,2024-01-29 10:{minute:02d}:00,1," for minute in range(12)]
    crawler = [f"spider{number},i,view,2024-01-29 11:00:00,1,1" for number in range(2)]
    people = [
        "anna,i,view,2024-01-29 12:00:00,,",
        "anna,i,buy,2024-01-29 23:10:00,2,",
        "bert,j,view,2024-01-29 12:30:00,1,2",
    ]
    path = write(tmp_path / "log.csv", "user,item,type,time,price,count", *machine, *crawler, *people)
    cleaning = CleaningConfig(
        bots=BotConfig(events_per_day=10, user_pattern="^spider"), impute=ImputeConfig(quantity=1, value=5)
    )
    (one,) = pages(connection, made(connection, path, cleaning), MONDAY)
    assert "3 users acted like a machine: 14 rows taken out." in one["words"]
    assert ["bot rate", "12", "70.59 %", "1"] in one["cells"]
    assert ["bot pattern", "2", "11.76 %", "2"] in one["cells"]
    assert "cleaning.bots.events_per_day: 10" in one["words"]
    assert [line[:3] for line in one["cells"] if line[0] in ("quantity", "value")] == [
        ["quantity", "2", "66.67 %"],
        ["value", "1", "33.33 %"],
    ]
    assert [line[:3] for line in one["cells"] if line[0] in ("view", "buy")] == [
        ["view", "2", "66.67 %"],
        ["buy", "1", "33.33 %"],
    ]
    assert "Users 2 Items 2 Sessions that start 3 median length 0 s" in one["words"]
    hours = next(attributes["aria-label"] for _, attributes in one["page"].tags if attributes.get("class") == "hours")
    assert hours is not None
    counts = [int(part.partition(": ")[2]) for part in hours.removeprefix("Events by hour: ").split(", ")]
    assert counts == [{12: 2, 23: 1}.get(hour, 0) for hour in range(24)]

    off = cleaning.model_copy(update={"bots": BotConfig(enabled=False)})
    (one,) = pages(connection, made(connection, path, off), MONDAY)
    assert "Machines were not looked for" in one["words"]
    assert one["event_rows"] == 17


def test_hostile_and_endless_texts(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    endless = "猫" * 10_000
    path = write(
        tmp_path / "<b>log.csv",
        "user,item,type,time,price,count",
        f"{quoted},{quoted},{quoted},2024-01-29 10:00:00,{quoted},1",
        f"{endless},{endless},{endless},2024-01-29 10:00:00,{endless},1",
        f"u1,😀\u202ex\x07,{quoted},2024-01-29 10:00:00,n/a,1",
        f"u2,i,{quoted},2024-01-29 10:00:00,1,1",
        f"u2,i,{endless},2024-01-29 10:00:00,1,1",
    )
    (one,) = pages(connection, made(connection, path), MONDAY)
    assert not {tag for tag, _ in one["page"].tags} & {"script", "img"}
    assert "<b>log" not in one["html"]
    assert "<script" not in one["html"]
    assert not [name for _, attributes in one["page"].tags for name in attributes if name.startswith("on")]
    shown = next(line for line in one["cells"] if line[0] == "<b>log.csv" and line[1] == "0")
    assert shown[2:5] == ["<scr…", HOSTILE, HOSTILE]
    assert "😀�x�" in one["words"]
    assert max(map(len, re.findall("猫+", one["html"]))) < 60
    assert len(one["html"]) < 30_000


def test_the_page_loads_nothing_and_can_be_read_aloud(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user,item,type,time,price,count", "u,i,view,2024-01-29 10:00:00,n/a,1")
    (one,) = pages(connection, made(connection, path), MONDAY)
    tags = one["page"].tags
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "embed", "base"}
    assert not re.search(r"url\(|@import|https?://", one["html"])
    assert all(attributes.get("scope") in ("col", "row", "rowgroup") for tag, attributes in tags if tag == "th")
    assert ("html", {"lang": "en"}) in tags


def test_a_day_without_a_row(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user,item,type,time,price,count", "u,i,view,2024-01-29 10:00:00,1,1")
    config = made(connection, path)
    before, here, after = pages(connection, config, MONDAY - timedelta(days=1), 3)
    for empty in (before, after):
        assert (empty["raw_rows"], empty["event_rows"], empty["reasons"]) == (0, 0, [])
        assert "No row came for this day." in empty["words"]
        assert "No event on this day." in empty["words"]
        assert "No file holds a row of this day." in empty["words"]
    assert "1 raw row = 1 event + 0 quarantined + 0 duplicates." in here["words"]
    assert "Every row is an event." in here["words"]
    assert "No event on this day." not in here["words"]
    (late,) = pages(connection, config, MONDAY + timedelta(weeks=1))
    assert "Usual for a Monday 1 row −100.0 % today; median of 1 Monday before" in late["words"]


def test_a_broken_sum_is_called_out(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    lines = [f"u,i,view,2024-01-29 10:00:0{second},1,1" for second in range(3)]
    config = made(connection, write(tmp_path / "log.csv", "user,item,type,time,price,count", *lines))
    connection.execute("DELETE FROM events WHERE source_row = 1")
    (one,) = pages(connection, config, MONDAY)
    assert "3 raw rows = 2 events + 0 quarantined + 0 duplicates The sum does not hold: it is off by 1." in one["words"]


def test_files_and_how_they_differ(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user,item,type,time,price,count", "u,i,view,2024-01-29 10:00:00,1,1")
    config = made(connection, path)
    connection.execute("DELETE FROM source_files")
    connection.execute(
        "INSERT INTO source_files SELECT printf('f%03d.csv', n), $1, 1000 + n, CASE WHEN n = 24 THEN 'extra: <i>' END "
        "FROM range(25) AS t(n)",
        [MONDAY],
    )
    (one,) = pages(connection, config, MONDAY)
    files = [line for line in one["cells"] if re.match(r"f\d\d\d.csv|\d+ more file", line[0])]
    assert files[0] == ["f024.csv", "1,024", "extra: <i>"]
    assert files[1] == ["f000.csv", "1,000", "they do not"]
    assert files[-1] == ["5 more files", "5,105", "0 of them differ"]
    assert len(files) == 21


@pytest.mark.parametrize(
    ("earlier", "said"),
    [
        ([], "Usual for a Monday – no Monday with rows in the four weeks before"),
        ([8], "8 rows −87.5 % today; median of 1 Monday before"),
        ([1, None, 2], "1.5 rows −33.3 % today; median of 2 Mondays before"),
        ([1, 1, 1, 1, 9999], "1 row +0.0 % today; median of 4 Mondays before"),
    ],
)
def test_what_is_usual(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, earlier: list[int | None], said: str
) -> None:
    path = write(tmp_path / "log.csv", "user,item,type,time,price,count", "u,i,view,2024-01-29 10:00:00,1,1")
    config = made(connection, path)
    # Yesterday is another weekday and does not count.
    connection.execute("INSERT INTO source_files VALUES ('log.csv', $1, 77, NULL)", [MONDAY - timedelta(days=1)])
    for weeks, rows in enumerate(earlier, start=1):
        if rows is not None:
            # Spread over two files.
            connection.executemany(
                "INSERT INTO source_files VALUES ($1, $2, $3, NULL)",
                [("a.csv", MONDAY - timedelta(weeks=weeks), rows - 1), ("b.csv", MONDAY - timedelta(weeks=weeks), 1)],
            )
    (one,) = pages(connection, config, MONDAY)
    assert said in one["words"]


class Counting:
    """A connection that counts its statements."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.statements = 0

    def execute(self, *arguments: Any) -> duckdb.DuckDBPyConnection:
        self.statements += 1
        return self.connection.execute(*arguments)


def test_sixty_days_in_one_go(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    first = CALENDAR.start
    lines = [
        f"u{number % 7},i{number % 11},view,{first + timedelta(days=number % 60)} {number % 24:02d}:00:00,"
        f"{'n/a' if number % 13 == 0 else number},1"
        for number in range(3_000)
        # One day in ten is empty.
        if number % 10
    ]
    config = made(connection, write(tmp_path / "log.csv", "user,item,type,time,price,count", *lines))
    whole = pages(connection, config, first, 60)
    truth = {
        one["day"]: one["n"] for one in records(connection, "SELECT day, count(*) AS n FROM raw_events GROUP BY day")
    }
    assert {one["day"]: one["raw_rows"] for one in whole if one["raw_rows"]} == truth
    assert len(truth) == 54
    for one in whole[::7]:
        (alone,) = pages(connection, config, one["day"])
        assert {key: alone[key] for key in tables.DAY_REPORTS.column_names} == {
            key: one[key] for key in tables.DAY_REPORTS.column_names
        }
    counted = []
    for days in (1, 60):
        counting = Counting(connection)
        day_page.facts_of(counting, (first, first + timedelta(days=days)))  # type: ignore[arg-type]
        counted.append(counting.statements)
    assert counted[0] == counted[1]


def test_every_reason_is_explained_by_a_setting(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    assert set(day_page.REASONS) == set(tables.REASONS)
    path = write(tmp_path / "log.csv", "user,item,type,time,price,count", "u,i,view,2024-01-29 10:00:00,1,1")
    config = made(connection, path)
    for reason, number in zip(tables.REASONS, range(1, 100), strict=False):
        connection.execute(
            f"INSERT INTO quarantined_events BY NAME SELECT * EXCLUDE (source_row), source_row + {number} AS source_row, "
            f"'{reason}' AS reason FROM raw_events"
        )
    (one,) = pages(connection, config, MONDAY)
    for reason, explained in day_page.REASONS.items():
        assert explained.meaning in one["words"]
        assert reason.replace("_", " ") in one["words"]
        assert all(key in one["words"] for key in explained.settings)


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, "–"), (0.4, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (7384, "2 h 3 min 4 s")]
)
def test_lengths_as_a_person_says_them(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, seconds: float | None, said: str
) -> None:
    path = write(tmp_path / "log.csv", "user,item,type,time,price,count", "u,i,view,2024-01-29 10:00:00,1,1")
    config = made(connection, path)
    connection.execute("DELETE FROM sessions" if seconds is None else f"UPDATE sessions SET duration = {seconds}")
    (one,) = pages(connection, config, MONDAY)
    assert f"median length {said}" in one["words"]
