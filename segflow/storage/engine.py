"""The DuckDB connection of one step: in memory, bounded by the settings, spilling to a folder of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from segflow.config import ComputeConfig


@contextmanager
def connect(compute: ComputeConfig) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory connection in UTC that keeps to `compute`; its spill folder goes away with it.

    DuckDB's own defaults are 80 % of the machine and the working directory for each process, which two parallel steps
    cannot both have.
    """
    Path(compute.spill).mkdir(parents=True, exist_ok=True)
    spill = tempfile.mkdtemp(prefix="step-", dir=compute.spill)
    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET threads = {compute.threads}")
        connection.execute(f"SET memory_limit = '{compute.memory_limit}'")
        connection.execute("SET temp_directory = $1", [spill])
        connection.execute(f"SET max_temp_directory_size = '{compute.spill_limit}'")
        connection.execute("SET enable_progress_bar = false")
        yield connection
    finally:
        connection.close()
        shutil.rmtree(spill, ignore_errors=True)
