"""The generated log is what its truth says: counts, planted segments, skew, late rows, bots; and it is the same every time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import duckdb
import pytest

from segflow import settings as reading
from segflow.datasets import generator, traffic
from segflow.datasets.generator import Truth, generate
from segflow.datasets.shop import Shop
from segflow.errors import UserError

SHOP = Shop(events=200_000, users=2_000, items=600, days=28, segments=4, seed=3, bots=0.05, bad=0.01, late=0.02)
SMALL = Shop(events=2_000, users=100, items=40, days=5, segments=3, seed=1)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    folder = tmp_path_factory.mktemp("generated") / "log"
    return folder, generate(folder, SHOP)


@pytest.fixture
def tables(log: tuple[Path, Truth]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Views events (with `file_day`, and `flaw` for bad rows), items and truth."""
    folder, _ = log
    with duckdb.connect() as connection:
        connection.execute(
            f"""
            CREATE VIEW events AS
            SELECT
                *, parse_filename(filename, true)::DATE AS file_day,
                CASE
                    WHEN user_id IS NULL THEN 'missing_user'
                    WHEN ts IS NULL THEN 'missing_time'
                    WHEN price <= 0 THEN 'non_positive_value'
                    WHEN ts NOT BETWEEN '{SHOP.start}' AND '2024-01-28 23:59:59.999999' THEN 'outside_calendar'
                    WHEN event_type IS NULL THEN 'missing_type'
                END AS flaw
            FROM read_parquet('{folder}/events/*.parquet', filename = true, file_row_number = true);
            CREATE VIEW items AS SELECT * FROM '{folder}/items.parquet';
            CREATE VIEW truth AS SELECT * FROM '{folder}/truth.parquet';
            """
        )
        yield connection


def test_counts_are_those_of_the_files(log: tuple[Path, Truth], tables: duckdb.DuckDBPyConnection) -> None:
    folder, truth = log
    rows, ids = tables.sql("SELECT count(*), count(DISTINCT event_id) FROM events").fetchall()[0]
    flaws = dict(tables.sql("SELECT flaw, count(*) FROM events WHERE flaw IS NOT NULL GROUP BY flaw").fetchall())
    bots = tables.sql(
        "SELECT count(*), count(DISTINCT user_id) FROM events JOIN truth USING (user_id) WHERE segment = -1"
    )
    assert (rows, rows - ids, flaws) == (truth.rows, truth.duplicates, truth.bad)
    assert bots.fetchall() == [(truth.bot_rows, truth.bots)]
    assert truth.rows == truth.clean + truth.duplicates + truth.bot_rows + sum(truth.bad.values())
    assert truth.rows == pytest.approx(SHOP.events, rel=0.02)
    shares = {name: getattr(truth, name) / rows for name in ("duplicates", "late")}
    assert shares == pytest.approx({"duplicates": SHOP.duplicates, "late": SHOP.late}, rel=0.1)
    assert json.loads((folder / "truth.json").read_text()) == json.loads(json.dumps(asdict(truth), default=str))


def test_duplicates_are_exact_copies_and_some_come_a_day_later(
    log: tuple[Path, Truth], tables: duckdb.DuckDBPyConnection
) -> None:
    tables.execute("CREATE VIEW copied AS SELECT * FROM events QUALIFY count(*) OVER (PARTITION BY event_id) > 1")
    fields = "event_id, user_id, item_id, event_type, ts, price"
    kinds, copies = tables.sql(
        f"SELECT (SELECT count(*) FROM (SELECT DISTINCT {fields} FROM copied)), count(*) FROM copied"
    ).fetchall()[0]
    later = tables.sql(
        "SELECT sum((last > first)::INT) FROM "
        "(SELECT min(file_day) AS first, max(file_day) AS last FROM copied GROUP BY event_id)"
    ).fetchall()[0][0]
    assert copies == 2 * kinds == 2 * log[1].duplicates
    assert later == log[1].duplicates_in_later_files > 0


def test_late_rows_lie_in_the_files_of_later_days(log: tuple[Path, Truth], tables: duckdb.DuckDBPyConnection) -> None:
    days_late = dict(
        tables.sql(
            "SELECT date_diff('day', ts::DATE, file_day) AS days_late, count(*) FROM events "
            "WHERE flaw IS NULL AND file_day > ts::DATE GROUP BY ALL"
        ).fetchall()
    )
    assert set(days_late) == {1, 2, 3}
    assert sum(days_late.values()) == log[1].late + log[1].duplicates_in_later_files
    assert (days_late[2] + days_late[3]) / log[1].late == pytest.approx(0.1, abs=0.03)
    early = "SELECT count(*) FROM events WHERE flaw IS DISTINCT FROM 'outside_calendar' AND file_day < ts::DATE"
    assert tables.sql(early).fetchall() == [(0,)]


def test_rows_that_are_not_late_stand_in_the_order_of_time(tables: duckdb.DuckDBPyConnection) -> None:
    disorder = tables.sql(
        """
        WITH prompt AS (
            SELECT file_day, file_row_number, ts FROM events
            -- What would arrive after the end lies in the last file.
            WHERE flaw IS NULL AND ts::DATE = file_day AND file_day < DATE '2024-01-28'
            QUALIFY count(*) OVER (PARTITION BY event_id) = 1
        )
        SELECT count(*) FROM
            (SELECT ts < lag(ts) OVER (PARTITION BY file_day ORDER BY file_row_number) AS back FROM prompt)
        WHERE back
        """
    ).fetchall()
    assert disorder == [(0,)]


def test_segments_differ_in_taste_hour_journey_and_price(tables: duckdb.DuckDBPyConnection) -> None:
    human = "FROM events JOIN truth USING (user_id) JOIN items USING (item_id) "
    human += "WHERE flaw IS NULL AND segment >= 0 AND later_segment IS NULL AND event_type = 'view'"
    favourites = tables.sql(
        "SELECT segment, list(department ORDER BY looks DESC)[:4], sum(looks) FILTER (place <= 4) / sum(looks) FROM "
        "(SELECT segment, department, count(*) AS looks, "
        f"row_number() OVER (PARTITION BY segment ORDER BY count(*) DESC) AS place {human} GROUP BY segment, department) "
        "GROUP BY segment"
    ).fetchall()
    departments = [name for _, own, _ in favourites for name in own]
    # With four segments each of the 16 departments is to the taste of one; a seventh of the looks is elsewhere.
    assert len(set(departments)) == len(departments) == 16
    assert [share for *_, share in favourites] == pytest.approx([6 / 7] * 4, abs=0.02)

    hours = dict(
        tables.sql(
            "SELECT segment, round(degrees(atan2(avg(sin(pi() * hour(ts) / 12)), avg(cos(pi() * hour(ts) / 12)))) / 15 "
            f"+ 24.5) % 24 {human} GROUP BY segment"
        ).fetchall()
    )
    assert hours == pytest.approx({0: 10, 1: 17, 2: 23, 3: 20}, abs=1)

    carts = [
        row[0]
        for row in tables.sql(
            "SELECT avg((event_type = 'cart')::INT) FROM events JOIN truth USING (user_id) "
            "WHERE flaw IS NULL AND segment >= 0 AND later_segment IS NULL GROUP BY segment ORDER BY segment"
        ).fetchall()
    ]
    prices = [
        row[0] for row in tables.sql(f"SELECT avg(events.price) {human} GROUP BY segment ORDER BY segment").fetchall()
    ]
    assert carts[2] < carts[1] < carts[3]
    assert prices[0] < prices[3] < prices[1] < prices[2]


def test_users_drift_to_their_later_segment_on_the_day_said(tables: duckdb.DuckDBPyConnection) -> None:
    own = tables.sql(
        """
        WITH tastes AS (
            SELECT segment, department FROM events JOIN truth USING (user_id) JOIN items USING (item_id)
            WHERE later_segment IS NULL AND segment >= 0
            GROUP BY segment, department
            QUALIFY row_number() OVER (PARTITION BY segment ORDER BY count(*) DESC) <= 4
        )
        SELECT ts::DATE >= drift_day, avg((segment = taste)::INT), avg((later_segment = taste)::INT)
        FROM events JOIN truth USING (user_id) JOIN items USING (item_id)
        JOIN (SELECT segment AS taste, department FROM tastes) USING (department)
        WHERE flaw IS NULL AND later_segment IS NOT NULL
        GROUP BY ALL ORDER BY 1
        """
    ).fetchall()
    # Sessions that begin on the eve of the day and off-taste looks leave a rest.
    (_, before_first, before_later), (_, after_first, after_later) = own
    assert min(before_first, after_later) > 0.8
    assert max(before_later, after_first) < 0.1


def test_activity_and_popularity_are_skewed(tables: duckdb.DuckDBPyConnection) -> None:
    for column, least in (("user_id", 0.3), ("item_id", 0.4)):
        share = tables.sql(
            f"""
            WITH counts AS (SELECT count(*) AS n FROM events JOIN truth USING (user_id) WHERE segment >= 0 GROUP BY {column})
            SELECT sum(n) FILTER (place <= 0.1) / sum(n)
            FROM (SELECT n, percent_rank() OVER (ORDER BY n DESC) AS place FROM counts)
            """
        ).fetchall()[0][0]
        assert share > least


def test_nobody_comes_and_nothing_is_seen_before_its_day(tables: duckdb.DuckDBPyConnection) -> None:
    early = tables.sql(
        "SELECT count(*) FROM events JOIN truth USING (user_id) JOIN items USING (item_id) "
        "WHERE flaw IS NULL AND (ts::DATE < first_day OR ts::DATE < introduced)"
    ).fetchall()
    late_comers, new_items = tables.sql(
        f"SELECT (SELECT count(*) FROM truth WHERE first_day > '{SHOP.start}'), "
        f"(SELECT count(*) FROM items WHERE introduced > '{SHOP.start}')"
    ).fetchall()[0]
    assert early == [(0,)]
    assert late_comers / SHOP.users == pytest.approx(SHOP.new_users, abs=0.02)
    assert new_items / SHOP.items == pytest.approx(SHOP.new_items, abs=0.04)


def test_sessions_pause_less_than_twenty_minutes_and_some_cross_midnight(tables: duckdb.DuckDBPyConnection) -> None:
    crossing = tables.sql(
        """
        SELECT count(*) FROM (
            SELECT ts, lag(ts) OVER (PARTITION BY user_id ORDER BY ts) AS previous
            FROM events JOIN truth USING (user_id) WHERE flaw IS NULL AND segment >= 0
        ) WHERE ts - previous < INTERVAL 20 MINUTE AND ts::DATE > previous::DATE
        """
    ).fetchall()[0][0]
    assert crossing > 50


def test_bots_look_every_two_seconds_thousands_of_times_a_day(
    log: tuple[Path, Truth], tables: duckdb.DuckDBPyConnection
) -> None:
    days = tables.sql(
        "SELECT count(*), epoch(max(ts) - min(ts)) / (count(*) - 1), count(DISTINCT event_type) FROM events "
        "JOIN truth USING (user_id) WHERE kind = 'bot' GROUP BY user_id, ts::DATE"
    ).fetchall()
    assert min(row[0] for row in days) >= 5000
    assert max(row[0] for row in days) == log[1].largest_bot_day
    assert {row[1:] for row in days} == {(2.0, 1)}
    people = tables.sql(
        "SELECT max(n) FROM (SELECT count(*) AS n FROM events JOIN truth USING (user_id) "
        "WHERE kind = 'user' GROUP BY user_id, ts::DATE)"
    ).fetchall()
    assert people[0][0] < 500


def test_the_same_shop_gives_the_same_bytes(tmp_path: Path) -> None:
    generate(tmp_path / "one", SMALL)
    generate(tmp_path / "two", SMALL)
    generate(tmp_path / "other", replace(SMALL, seed=2))
    one, two, other = (
        {
            file.relative_to(tmp_path / name): file.read_bytes()
            for file in (tmp_path / name).rglob("*")
            if file.is_file()
        }
        for name in ("one", "two", "other")
    )
    assert one == two
    assert one.keys() == other.keys()
    assert all(other[name] != content for name, content in one.items() if name.parent.name == "events")


def test_blocks_of_sessions_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "_BLOCK_SESSIONS", 7)
    truth = generate(tmp_path / "log", replace(SMALL, late=0))
    with duckdb.connect() as connection:
        rows, ids, back = connection.sql(
            f"""
            SELECT count(*), count(DISTINCT event_id), count(*) FILTER (ts < latest AND ts::DATE = day) FROM (
                SELECT *, lag(ts) OVER (PARTITION BY day ORDER BY file_row_number) AS latest FROM (
                    SELECT *, parse_filename(filename, true)::DATE AS day
                    FROM read_parquet('{tmp_path}/log/events/*.parquet', filename = true, file_row_number = true)
                    WHERE ts IS NOT NULL AND ts < '2100-01-01'
                ) WHERE ts::DATE = day QUALIFY count(*) OVER (PARTITION BY event_id) = 1
            )
            """
        ).fetchall()[0]
    assert back == 0
    assert rows == ids <= truth.rows


@pytest.mark.parametrize("events", [1_000, 5_431])
def test_small_logs_have_the_rows_that_were_asked_for(tmp_path: Path, events: int) -> None:
    assert generate(tmp_path / "log", replace(SMALL, events=events)).rows == pytest.approx(events, rel=0.02)


def test_a_clean_log_is_clean(tmp_path: Path) -> None:
    truth = generate(tmp_path / "log", replace(SMALL, duplicates=0, late=0, bad=0, bots=0))
    assert truth.rows == truth.clean
    assert (truth.late, truth.bots, truth.duplicates_in_later_files) == (0, 0, 0)


def test_the_settings_beside_the_log_load(log: tuple[Path, Truth]) -> None:
    settings = reading.load(log[0] / "segflow.yaml")
    assert settings.source.events.path == str(log[0] / "events")
    assert settings.calendar.start == SHOP.start
    assert settings.calendar.last_day == date(2024, 1, 28)


def test_a_folder_in_use_is_refused_and_an_empty_one_is_not(tmp_path: Path) -> None:
    generate(tmp_path, SMALL)
    kept = (tmp_path / "truth.json").read_bytes()
    with pytest.raises(UserError, match="not an empty folder"):
        generate(tmp_path, replace(SMALL, seed=9))
    with pytest.raises(UserError, match="not an empty folder"):
        generate(tmp_path / "truth.json", SMALL)
    assert (tmp_path / "truth.json").read_bytes() == kept


def test_nothing_is_left_behind_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("after the events were written")

    monkeypatch.setattr(generator, "_items_table", fail)
    with pytest.raises(RuntimeError, match="after the events"):
        generate(tmp_path / "log", SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*cannot be written"):
        generate(tmp_path / "file" / "log", SMALL)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"events": 10}, "events is 10; choose 1,000"),
        ({"segments": 40}, "segments is 40"),
        ({"items": 3}, "items is 3"),
        ({"late": float("nan")}, "late is nan"),
        ({"bots": -0.1}, "bots is -0.1"),
        ({"events": 1_000_000}, "at least 2,000 users"),
        ({"events": 20_000_000, "users": 1_000_000, "days": 3}, "add days"),
    ],
)
def test_settings_without_sense_are_refused(tmp_path: Path, change: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        generate(tmp_path / "log", replace(SMALL, **change))
    assert list(tmp_path.iterdir()) == []


def test_csv_holds_the_same_rows(tmp_path: Path) -> None:
    generate(tmp_path / "parquet", SMALL)
    generate(tmp_path / "csv", SMALL, kind="csv")
    with duckdb.connect() as connection:
        for files, key in (("events/*", "event_id"), ("items", "item_id")):
            whole = connection.sql(f"FROM '{tmp_path}/parquet/{files}.parquet' ORDER BY ALL")
            types = dict(zip(whole.columns, map(str, whole.types), strict=True))
            texts = connection.read_csv(f"{tmp_path}/csv/{files}.csv", dtype=types)
            assert texts.columns == whole.columns
            assert texts.order(key).fetchall() == whole.order(key).fetchall()
    assert str(reading.load(tmp_path / "csv" / "segflow.yaml").source.items).count("items.csv") == 1
