"""One engine and one folder for all cases of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from segflow.config import ComputeConfig
from segflow.storage import connect


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(ComputeConfig(spill=str(tmp_path_factory.mktemp("spill")), threads=1)) as connection:
        connection.execute("CREATE TEMP TABLE items (item_id VARCHAR, category VARCHAR[], price DOUBLE)")
        yield connection


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log")
