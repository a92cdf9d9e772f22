"""Fixtures that several stages share: an engine, a place for tables, and a planted log."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, settings

from segflow.config import ComputeConfig
from segflow.storage import Storage, connect
from segflow_tests.object_store import CREDENTIALS, ObjectStore, object_store
from segflow_tests.planted import PlantedLog, planted_log

# Tests talk to nobody.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# No test asserts a time.
settings.register_profile("segflow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("segflow")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The engine of one step, as the pipeline opens it."""
    with connect(ComputeConfig(spill=str(tmp_path / "spill"), threads=1)) as opened:
        yield opened


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """An empty place for tables."""
    return Storage(str(tmp_path / "tables"))


@pytest.fixture(scope="session")
def object_store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A running object store. Tests take a prefix of their own."""
    with object_store(tmp_path_factory.mktemp("object_store")) as running:
        yield running


@pytest.fixture
def objects(object_store_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A running object store, with its credentials in the environment."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return object_store_server


@pytest.fixture(scope="session")
def dirty_log(tmp_path_factory: pytest.TempPathFactory) -> PlantedLog:
    """A small planted log with dirt."""
    return planted_log(tmp_path_factory.mktemp("planted"), users=60, weeks=4, dirt=True)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers: a file stays with one, and so do all tests that look at the same whole run, which takes a minute.

    Tests with faults share little, and the longest would be the last to start: groups of many tests come first.
    """
    for item in items:
        if item.get_closest_marker("faults"):
            continue
        shared = "made" in getattr(item, "fixturenames", ()) and item.get_closest_marker("postgres") is None
        item.add_marker(pytest.mark.xdist_group("made" if shared else item.location[0]))
