"""`segflow init`: what is proposed loads, passes the check and maps the right columns, and what is guessed says so."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from segflow.config import Config
from segflow.errors import UserError
from segflow.events.preflight import preflight
from segflow.events.propose import propose, write
from segflow.settings import load
from segflow_tests.events.public_samples import CLICKSTREAM, MOVIELENS, SAMPLES, Sample
from segflow_tests.events.steps import mapped
from segflow_tests.events.steps import write as lines_of


def proposed(path: Path, preset: str | None = None) -> tuple[str, Config]:
    """The text for `path`, and the settings that it makes in another folder; the check passes."""
    text = propose(path, preset)
    folder = path.parent / "settings"
    folder.mkdir()
    config = load(write(folder, text))
    assert preflight(config)[0].startswith("events: ")
    return text, config


def guessed(text: str) -> list[str]:
    """The keys that are marked as guesses."""
    return re.findall(r"^ *(\w+):[^#\n]*# guessed", text, re.MULTILINE)


def opaque_rows(count: int = 400) -> str:
    """A query of rows whose column names say nothing: when, who, what, which kind, how much."""
    return (
        "SELECT TIMESTAMP '2024-02-01' + to_minutes(i * 7) AS c1, 'v' || (i * 37 % 101) AS c2, i * 53 % 211 AS c3, "
        "CASE WHEN i % 9 = 0 THEN 'Buy' ELSE 'Look' END AS c4, (i % 50) / 4 + 0.25 AS c5, 'x' AS c6 "
        f"FROM range({count}) AS rows(i)"
    )


def test_columns_with_usual_names(tmp_path: Path) -> None:
    path = lines_of(
        tmp_path / "log.csv",
        "event_time;event_type;product_id;price;user_id;user_session;colour",
        *(f"2024-01-{day:02d} 10:00:00 UTC;{kind};{day};9.5;u{day % 3};s{day};red" for day in range(1, 20) for kind in
          ("view", "cart", "purchase", "remove_from_cart")),
    )  # fmt: skip
    text, config = proposed(path)
    assert config.source.events.columns == {
        "user_id": "user_id",
        "item_id": "product_id",
        "event_type": "event_type",
        "ts": "event_time",
        "value": "price",
        "session_id": "user_session",
    }
    assert config.source.events.path == str(path)
    assert "# not mapped: colour\n" in text
    assert guessed(text) == ["value", "type_weights"]
    assert config.cleaning.type_weights == {"view": 1, "cart": 3, "purchase": 5, "remove_from_cart": 1}
    assert (config.calendar.start, config.calendar.end) == (date(2024, 1, 1), date(2024, 1, 20))


def test_columns_whose_names_say_nothing_are_told_by_content(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    duckdb.execute(f"COPY ({opaque_rows()}) TO '{path}' (FORMAT parquet)")
    text, config = proposed(path)
    assert config.source.events.columns == {
        "user_id": "c2",
        "item_id": "c3",
        "event_type": "c4",
        "ts": "c1",
        "value": "c5",
    }
    assert {"user_id", "item_id", "event_type", "ts", "value", "timezone"} <= set(guessed(text))
    assert "user_id: c2  # guessed: 101 distinct values" in text
    assert config.cleaning.type_weights == {"buy": 5, "look": 1}


def test_a_file_without_a_header_gets_numbered_columns(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    duckdb.execute(f"COPY ({opaque_rows()}) TO '{path}' (HEADER false)")
    text, config = proposed(path)
    assert config.source.events.csv.columns == [f"column_{number}" for number in range(1, 7)]
    assert config.source.events.columns["user_id"] == "column_2"
    assert config.source.events.columns["ts"] == "column_1"
    assert "no header" in text


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_the_unit_of_times_is_told_from_their_size(tmp_path: Path, unit: str, factor: int) -> None:
    start = int(datetime(2023, 5, 1, 12, tzinfo=UTC).timestamp())
    rows = (
        {"visitor": f"v{i % 9}", "sku": i % 40, "action": "view", "t": (start + i * 60) * factor} for i in range(99)
    )
    path = lines_of(tmp_path / "log.jsonl", *(json.dumps(row) for row in rows))
    text, config = proposed(path)
    assert config.source.events.unit == unit
    assert config.source.events.columns["ts"] == "t"
    assert "timezone" not in text
    assert config.calendar.start == date(2023, 5, 1)


@pytest.mark.parametrize("sample", [one for one in SAMPLES if one is not CLICKSTREAM], ids=lambda one: one.preset)
@pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
def test_the_layout_of_a_preset_is_recognised(tmp_path: Path, sample: Sample, whole: bool) -> None:
    folder = sample.write(tmp_path / "data")
    events = Path(load(folder / "segflow.yaml").source.events.path)
    path = folder if whole else next(iter(sorted(folder.glob(events.name))))
    text, config = proposed(path)
    assert config.preset == sample.preset
    # Where the list of suppressed users would lie depends on where the settings do; it is no part of what is dumped.
    assert config.source.model_dump() == load(folder / "segflow.yaml").source.model_dump()
    assert text.startswith("# Recognised by its files and columns: ")


def test_files_of_a_presets_names_with_other_columns_are_another_layout(tmp_path: Path) -> None:
    folder = MOVIELENS.write(tmp_path / "data")
    (folder / "segflow.yaml").unlink()
    lines_of(folder / "ratings.csv", "user,item,when", "u1,10,2024-01-02", "u2,20,2024-01-03")
    _, config = proposed(folder)
    assert config.preset is None
    assert config.source.events.columns["ts"] == "when"
    assert config.source.items is not None
    assert config.source.items.path == str(folder / "movies.csv")


def test_a_named_preset_takes_a_file_of_any_name_and_the_log_s_own_dates(tmp_path: Path) -> None:
    path = lines_of(tmp_path / "mine.csv", "user_id,item_id,event_type,timestamp", "u,i,view,2021-06-07 08:00:00")
    _, config = proposed(path, "clickstream")
    assert (config.preset, config.source.events.path) == ("clickstream", str(path))
    assert (config.calendar.start, config.calendar.end) == (date(2021, 6, 7), date(2021, 6, 8))
    with pytest.raises(UserError, match=r"unknown preset 'clickstreem' \(did you mean 'clickstream'\?\); known: "):
        propose(path, "clickstreem")


def test_a_folder_of_events_catalogue_and_users(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for day in (1, 2):
        rows = (f"u{i % 5},p{i % 7},view,2024-03-{day:02d} {i:02d}:00:00" for i in range(20))
        lines_of(folder / f"events-{day}.csv", "user_id,item_id,event_type,time", *rows)
    lines_of(folder / "items.csv", "id,name,department,category,introduced",
             *(f"p{i},Thing {i},D{i % 2},C{i % 4},2023-01-01" for i in range(7)))  # fmt: skip
    lines_of(folder / "users.csv", "user_id,country,name", *(f"u{i},{'AB'[i % 2]},Person {i}" for i in range(40)))
    lines_of(folder / "README.txt", "not a part of the log")
    _, config = proposed(folder)
    assert config.source.events.path == str(folder / "events-*.csv")
    assert config.source.items is not None
    assert config.source.items.columns == {"item_id": "id", "title": "name", "category": ["department", "category"]}
    assert config.source.users is not None
    assert (config.source.users.user_id, config.source.users.attributes) == ("user_id", ["country"])
    assert preflight(config)[0].startswith("events: 40 rows from 2024-03-01 to 2024-03-02")


def test_titles_that_stand_in_the_events_make_the_catalogue(tmp_path: Path) -> None:
    rows = (f"u{i % 5},p{i % 7},Thing {i % 7},D{i % 2},2024-03-01 {i:02d}:00:00" for i in range(20))
    path = lines_of(tmp_path / "log.csv", "user_id,item_id,title,category,time", *rows)
    text, config = proposed(path)
    assert config.source.items is not None
    assert config.source.items.path is None
    assert config.source.items.columns == {"item_id": "item_id", "title": "title", "category": ["category"]}
    assert config.source.events.event_type == "event"
    assert "event_type" in guessed(text)


def test_a_session_column_that_is_shared_or_mostly_empty_is_left_out(tmp_path: Path) -> None:
    rows = [f"u{i % 5},p{i % 7},s1,{'b' + str(i) if i % 9 == 0 else ''},2024-03-01 {i:02d}:00:00" for i in range(20)]
    path = lines_of(tmp_path / "log.csv", "user_id,item_id,session_id,order_id,time", *rows)
    text, config = proposed(path)
    assert "session_id" not in config.source.events.columns
    assert "# not mapped: session_id, order_id\n" in text


def test_a_log_that_goes_on_has_no_end_and_stray_dates_do_not_stretch_it(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=i % 30) for i in range(3000)]
    path = lines_of(tmp_path / "log.csv", "user_id,item_id,date", *(f"u{i % 50},p{i % 70},{day}" for i, day in enumerate(days)),
                    "u1,p1,1970-01-01", "u1,p2,1970-01-01")  # fmt: skip
    text, config = proposed(path)
    assert config.calendar.start == today - timedelta(days=29)
    assert config.calendar.end is None
    assert "# 2 events lie years apart from the rest" in text
    assert "only days are given" in text


def test_other_encodings_and_delimiters(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = tmp_path / "log.dat"
    rows = (f"u{i % 5}::Café {i % 7}::view::2024-03-01 {i:02d}:00:00\n" for i in range(20))
    path.write_bytes("".join(("user::item::type::time\n", *rows)).encode("latin-1"))
    _, config = proposed(path)
    dialect = config.source.events.csv
    assert (config.source.events.format, dialect.delimiter, dialect.encoding) == ("csv", "::", "latin-1")
    assert mapped(connection, config.source.events)[3]["item_id"] == "Café 3"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "data: the folder holds no Parquet, CSV or JSON file with a row; put the log there"),
        ({"log.csv": "a,b\n"}, "data: the folder holds no Parquet, CSV or JSON file with a row; put the log there"),
        ({"log.csv": "user,item\nu,i\nv,j\n"}, r"log.csv: no column looks like a time \(its columns: user, item\); map "),
        (
            {"log.csv": "weight,date\n1.5,2024-01-02\n2.5,2024-01-02\n"},
            r"log.csv: no column looks like a user or an item \(its columns: weight, date\); map them by hand in ",
        ),
        (
            {"a.csv": "user,item,time\nu,i,2024-01-02\nv,j,2024-01-02\n", "ab.csv": "id,name\ni,I\nj,J\n",
             "abb.csv": "user,item,time\nu,i,2024-01-02\nv,j,2024-01-02\n"},
            "data: a.csv, abb.csv and others have the same columns but no name that tells them from the rest",
        ),
        ({"log.parquet": "no Parquet at all"}, r"log.parquet: cannot be read as parquet"),
    ],
)  # fmt: skip
def test_what_cannot_be_described_is_said_in_one_line(tmp_path: Path, files: dict[str, str], message: str) -> None:
    (tmp_path / "data").mkdir()
    for name, content in files.items():
        (tmp_path / "data" / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        propose(tmp_path / "data")
    assert "\n" not in str(error.value)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"log.csv: no such file or folder"):
        propose(tmp_path / "log.csv")
    with pytest.raises(UserError, match=r"nowhere: no such folder; create it first"):
        write(tmp_path / "nowhere", "x")
    assert write(tmp_path, "one") == tmp_path / "segflow.yaml"
    with pytest.raises(UserError, match=r"segflow.yaml: exists already; add --force to overwrite it"):
        write(tmp_path, "two")
    assert (tmp_path / "segflow.yaml").read_text() == "one"
    write(tmp_path, "two", force=True)
    assert (tmp_path / "segflow.yaml").read_text() == "two"


def test_ids_of_events_are_known_even_where_some_are_delivered_twice(tmp_path: Path) -> None:
    def log(name: str, header: str, ids: list[int]) -> Path:
        lines = (f"{one},u{one % 7},p{one % 11},2024-01-0{1 + one % 5} 10:00:00" for one in ids)
        return lines_of(tmp_path / name / "log.csv", f"{header},user_id,item_id,time", *lines)

    ids = [*range(200), 3, 4, 5]
    assert proposed(log("sent", "event_id", ids))[1].source.events.columns["event_id"] == "event_id"
    assert proposed(log("plain", "id", ids[:200]))[1].source.events.columns["event_id"] == "id"
    assert "event_id" not in proposed(log("other", "id", ids))[1].source.events.columns, "an id of something else"
