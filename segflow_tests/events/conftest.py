"""One engine and one folder for all drawn logs of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from segflow import tables
from segflow.config import ComputeConfig
from segflow.storage import connect
from segflow_tests.events import logs


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


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command sets is as it was once the test is over."""
    for name in ("SEGFLOW_CONFIG", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "replaced by the command, and restored after it")
