"""The benchmark itself: both versions of the job agree, and what is damaged is noticed."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segflow.datasets.generator import generate
from segflow.datasets.shop import Shop
from segflow_tests.benchmarks import full_job, polars_job
from segflow_tests.benchmarks.bench_events import LARGE, MIDDLE, SMALL, Found, days, memory, speed, steadiness
from segflow_tests.benchmarks.checksums import compare
from segflow_tests.benchmarks.days_job import Arrival
from segflow_tests.benchmarks.measure import Measurement, measure

# Bots dense enough to be taken for such, sessions over midnight, and dirt of every kind.
_SHOP = Shop(events=30_000, users=600, items=200, days=12, duplicates=0.05, bad=0.05, bots=0.1)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    generate(folder / "log", _SHOP)
    _add_sleepless_user(folder / "log" / "events" / "2024-01-08.parquet")
    # Ours in several spans of days.
    full_job.run(folder / "log", folder / "ours", rows_at_once=10_000)
    polars_job.run(folder / "log", folder / "polars")
    return folder


def _add_sleepless_user(file: Path) -> None:
    """Add a user who never pauses for half an hour in three days: those sessions are cut at noon."""
    before = pq.read_table(file)
    moments = [datetime(2024, 1, 5) + number * timedelta(minutes=20) for number in range(3 * 72)]
    number = range(10**9, 10**9 + len(moments))
    ids = {"event_id": list(number), "user_id": ["sleepless"] * len(moments), "item_id": ["p00001"] * len(moments)}
    more = pa.table(ids | {"event_type": ["view"] * len(moments), "ts": moments, "price": [1.5] * len(moments)})
    pq.write_table(pa.concat_tables([before, more.cast(before.schema)]).unify_dictionaries(), file)


def _rows(query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(query).fetchall()


def _changed(outputs: Path, folder: Path, table: str, query: str) -> Path:
    """A copy of our output in which `query` over the view `rows` stands in place of a table."""
    copy = folder / "changed"
    shutil.copytree(outputs / "ours", copy)
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE rows AS FROM read_parquet('{copy / table}/*.parquet')")
        shutil.rmtree(copy / table)
        (copy / table).mkdir()
        connection.execute(f"COPY ({query}) TO '{copy / table}/all.parquet'")
    return copy


def test_both_engines_write_the_same(outputs: Path) -> None:
    compared = compare(outputs / "ours", outputs / "polars", outputs / "spill")
    assert compared.different == []
    assert compared.rows["sessions"] > 1000
    assert compared.rows["quarantine"] > 5000


def test_the_log_has_what_the_engines_could_disagree_about(outputs: Path) -> None:
    reasons = _rows(f"SELECT DISTINCT reason FROM read_parquet('{outputs}/ours/quarantine/*.parquet')")
    expected = {"bot_pattern", "duplicate", "missing_time", "outside_calendar", "non_positive_value"}
    assert expected <= {row[0] for row in reasons}
    sessions = f"read_parquet('{outputs}/ours/sessions/*.parquet')"
    crossing = _rows(f"""FROM {sessions} WHERE start::DATE < "end"::DATE AND user_id <> 'sleepless'""")
    assert len(crossing) > 10
    cut = _rows(f"SELECT strftime(start, '%d %H:%M') FROM {sessions} WHERE user_id = 'sleepless' ORDER BY start")
    assert [row[0] for row in cut] == ["05 00:00", "06 12:00", "07 12:00"]


@pytest.mark.parametrize(
    ("table", "query"),
    [
        ("sessions", "FROM rows LIMIT (SELECT count(*) - 1 FROM rows)"),
        ("sessions", "SELECT * REPLACE (list_reverse(items) AS items) FROM rows"),
        (
            "sessions",
            "SELECT * REPLACE (CASE WHEN rowid = 0 THEN value + 0.01 ELSE value END AS value) FROM rows",
        ),
        ("sessions", "FROM rows UNION ALL (FROM rows LIMIT 1)"),
        ("quarantine", "SELECT * REPLACE (source_row + 1 AS source_row) FROM rows"),
        ("quarantine", "SELECT * REPLACE (replace(reason, 'bot_pattern', 'bot_rate') AS reason) FROM rows"),
    ],
)
def test_a_damaged_output_is_noticed(outputs: Path, tmp_path: Path, table: str, query: str) -> None:
    compared = compare(_changed(outputs, tmp_path, table, query), outputs / "polars", tmp_path / "spill")
    assert not compared.same
    assert all(one.startswith(table) for one in compared.different)


def test_a_job_is_measured_in_a_process_of_its_own(outputs: Path, tmp_path: Path) -> None:
    one = measure("floor", 30_000, outputs / "log", tmp_path / "floor")
    assert one.died is None
    assert one.peak > 10_000_000
    assert (tmp_path / "floor" / "sorted.parquet").is_file()


def test_a_job_that_dies_is_reported_with_its_reason(tmp_path: Path) -> None:
    one = measure("polars", 1, tmp_path / "none", tmp_path / "out")
    assert one.died is not None
    assert "FileNotFoundError" in one.died


def _found(ours: float, polars: float, floor: float) -> Found:
    """Measurements of three sizes, in seconds a million rows; memory is a hundredth of it, in GB."""
    seconds = {"ours": ours, "polars": polars, "floor": floor}
    return {
        (job, events): Measurement(job, events, each * events / 1e6, 1.0, int(each * events * 10))
        for job, each in seconds.items()
        for events in (SMALL, MIDDLE, LARGE)
    }


def test_targets_hold_or_not_by_what_was_measured() -> None:
    good, bad = _found(1.0, 3.5, 0.7), _found(3.5, 1.0, 0.7)
    assert all(target.held for target in [*speed(good), *memory(good), *steadiness(good)])
    assert not any(target.held for target in [*speed(bad), *memory(bad)])


def test_a_day_is_compared_with_its_share_of_the_month() -> None:
    cheap, dear = Arrival(30.0, 3.0, 30, 2), Arrival(30.0, 3.1, 30, 4)
    assert [target.held for one in (cheap, dear) for target in days({}, {1_000_000: one})] == [True, False]
