"""Sessions of the stored log are the same whether one process makes them or many machines do."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from segflow import tables
from segflow.compute import IN_PROCESS, Engine
from segflow.config import ComputeConfig, SessionConfig, StorageConfig
from segflow.events.days import Days
from segflow.events.shares import Bounds, StoredLog, stored_sessions
from segflow.storage import Storage, connect
from segflow_tests.compute.engines import sending

START, DAY, COUNT = date(2024, 1, 1), timedelta(days=1), 5
PARTS = [(START, START + DAY), (START + DAY, START + 3 * DAY), (START + 3 * DAY, START + COUNT * DAY)]
# Users who seldom pause, around midnight too; a few sessions are the source's own.
EVENTS = (
    "SELECT ts::DATE AS day, 'e' || i AS event_id, 'u' || i % 37 AS user_id, "
    "CASE WHEN i % 5 > 0 THEN 'i' || i % 11 END AS item_id, ['view', 'buy'][1 + i % 2] AS event_type, ts, "
    "i % 7 / 4 AS value, 1.0 AS quantity, 0.1 * (1 + i % 3) AS weight, CASE WHEN i % 37 < 4 THEN 's' || i % 4 END AS session_id, "
    "NULL AS text, NULL AS imputed, 'log' AS source_file, i AS source_row FROM (SELECT i, "
    f"TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_seconds((hash(i) % {COUNT * 86_400})::BIGINT) AS ts FROM range({{rows}}) AS t(i))"
)
ITEMS = (
    "SELECT 'i' || i AS item_id, 'title ' || i AS title, ['all'] AS category, NULL AS brand, NULL AS price, 'text' AS text, "
    "'hash' || i AS text_hash FROM range(10) AS t(i)"
)


@pytest.fixture
def compute(tmp_path: Path) -> ComputeConfig:
    return ComputeConfig(spill=str(tmp_path / "spill"), threads=2)


@pytest.fixture
def connection(compute: ComputeConfig) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(compute) as opened:
        yield opened


@pytest.fixture
def storage(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> Storage:
    made = Storage(str(tmp_path / "tables"))
    write(made, connection, 4_000)
    made.write(connection, tables.ITEMS, ITEMS)
    return made


def write(storage: Storage, connection: duckdb.DuckDBPyConnection, rows: int) -> None:
    days = [(START + number * DAY,) for number in range(COUNT)]
    storage.write(connection, tables.EVENTS, EVENTS.format(rows=rows), days)


def bounds(part: Days) -> Bounds:
    return {"day": (part[0] - DAY, part[1] + DAY)}


def made_by(engine: Engine, connection: duckdb.DuckDBPyConnection, log: StoredLog, shares: int) -> dict[Days, pa.Table]:
    """The sessions of each part, in the order of their key."""
    found = {}
    for part, rows in stored_sessions(engine, connection, log, SessionConfig(), PARTS, bounds, shares):
        if not isinstance(rows, str):
            connection.register("made", rows)
        ordered = (
            f"SELECT * FROM ({rows if isinstance(rows, str) else 'FROM made'}) ORDER BY day, user_id, start, session_id"
        )
        found[part] = connection.sql(ordered).to_arrow_table()
    return found


@pytest.mark.parametrize("shares", [1, 3])
def test_many_machines_make_the_same_sessions(
    tmp_path: Path, storage: Storage, connection: duckdb.DuckDBPyConnection, compute: ComputeConfig, shares: int
) -> None:
    log = StoredLog.of(StorageConfig(root=storage.root), compute)
    here = made_by(IN_PROCESS, connection, log, shares=1)
    with sending(tmp_path / "exchange") as engine:
        there = made_by(engine, connection, log, shares)
        assert len(engine.given) == len(PARTS) * shares
        assert max(engine.given) < 5_000
    assert list(here) == list(there) == PARTS
    assert sum(rows.num_rows for rows in here.values()) > 500
    for part, rows in here.items():
        assert set(rows["day"].to_pylist()) <= {part[0] + number * DAY for number in range((part[1] - part[0]).days)}
        assert there[part].equals(rows)


def test_all_machines_read_one_version(
    tmp_path: Path, storage: Storage, connection: duckdb.DuckDBPyConnection, compute: ComputeConfig
) -> None:
    log = StoredLog.of(StorageConfig(root=storage.root), compute)
    before = made_by(IN_PROCESS, connection, log, shares=1)
    write(storage, connection, 2_000)
    with sending(tmp_path / "exchange") as engine:
        assert made_by(engine, connection, log, shares=1) == before
        assert made_by(engine, connection, StoredLog.of(StorageConfig(root=storage.root), compute), shares=1) != before


def test_pieces_name_secrets_and_hold_none(
    storage: Storage, compute: ComputeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_SECRET", "as secret as can be")
    named = StorageConfig(root=storage.root, options={"aws_secret_access_key": "${STORE_SECRET}"})
    log = StoredLog.of(named, compute)
    assert log.versions["events"] is not None
    assert b"as secret as can be" not in pickle.dumps(log)
