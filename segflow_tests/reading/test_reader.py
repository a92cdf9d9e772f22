"""A reader reads what its step declared, at one version of each table, in whatever process it is opened."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pytest

from segflow.config import Config
from segflow.errors import UserError
from segflow.events.days import Days
from segflow.reading import Reader, ReaderSpec, opened
from segflow.reading.reader import Bounds
from segflow.storage import Storage, connect
from segflow.tables import Table
from segflow_tests.storage.samples import NAMES, VISITS, day, visits

DAYS = {"day": (day(2), day(4))}


class OfDays(Reader):
    """A step whose window is two days of `visits`; it may read `names` too."""

    week = date(2024, 1, 1)

    def bounds(self, table: Table, days: Days | None = None) -> Bounds:
        return {VISITS: DAYS, NAMES: {}}[table]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    config = Config.model_validate(
        {
            "source": {
                "events": {"path": "none.csv", "columns": {"user_id": "user", "event_type": "type", "ts": "time"}}
            },
            "calendar": {"start": "2024-01-01"},
            "storage": {"root": str(tmp_path / "tables")},
            "compute": {"spill": str(tmp_path / "spill"), "threads": 1},
        }
    )
    with connect(config.compute) as connection:
        found = OfDays("sample", config, Storage(config.storage.root), connection)
        _write(found, 1)
        yield found


def _write(reader: Reader, number: int) -> None:
    reader.storage.write(
        reader.connection, VISITS, visits(1, 2, 3, 4, number=number), [(day(one),) for one in (1, 2, 3, 4)]
    )


def _numbers(reader: Reader) -> set[tuple[date, int]]:
    rows = reader.read(VISITS, ["day", "number"])
    reader.view(VISITS)
    assert reader.query("SELECT count(*) AS rows FROM visits")["rows"][0].as_py() == rows.num_rows
    return {(row["day"], row["number"]) for row in rows.to_pylist()}


def _numbers_of(spec: ReaderSpec) -> set[tuple[date, int]]:
    with opened(spec) as reader:
        return _numbers(reader)


def test_a_reader_stays_with_the_version_that_it_read_first(reader: Reader) -> None:
    before = _numbers(reader)
    assert before == {(day(2), 1), (day(3), 1)}
    _write(reader, 2)
    assert _numbers(reader) == before
    other = OfDays("sample", reader.config, reader.storage, reader.connection)
    assert _numbers(other) == {(day(2), 2), (day(3), 2)}


def test_another_process_reads_the_same_rows_without_a_settings_file(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = reader.spec([VISITS])
    _write(reader, 2)
    monkeypatch.delenv("SEGFLOW_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(_numbers_of, spec).result() == {(day(2), 1), (day(3), 1)}
    assert len(pickle.dumps(spec)) < 20_000


def test_what_was_not_declared_cannot_be_read(reader: Reader) -> None:
    with opened(reader.spec([VISITS])) as other, pytest.raises(KeyError, match="names"):
        other.read(NAMES)


def test_a_day_after_the_other_is_what_is_read_at_once(reader: Reader) -> None:
    parts = list(reader.days_of(VISITS, ["user_id", "day", "number"]))
    assert len(parts) == 2
    assert pa.concat_tables(parts).equals(reader.read(VISITS, ["user_id", "day", "number"]))
    _write(reader, 2)
    assert set(pa.concat_tables(reader.days_of(VISITS, ["number"]))["number"].to_pylist()) == {1}


def test_days_without_rows_are_named_with_the_step(tmp_path: Path, reader: Reader) -> None:
    empty = OfDays("sample", reader.config, Storage(str(tmp_path / "nothing")), reader.connection)
    with pytest.raises(UserError, match=r"sample: visits has no rows for day"):
        next(empty.days_of(VISITS, ["number"]))


def test_a_table_without_rows_in_the_window_is_named_with_the_step(reader: Reader) -> None:
    with opened(reader.spec([VISITS])) as other, pytest.raises(UserError, match=r"sample: visits has no rows for day"):
        other.read(VISITS, day=day(9))


def test_a_table_that_was_never_written_is_empty(reader: Reader) -> None:
    with opened(reader.spec([NAMES])) as other:
        assert other.read(NAMES).num_rows == 0
