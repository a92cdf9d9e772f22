"""Fuzzed settings: whatever stands in `segflow.yaml`, `segflow check` passes, or says in one line what is wrong and where.

What it passes, the pipeline can work with.
"""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import duckdb
import pytest
from hypothesis import given

from segflow.cli import main
from segflow.events import catalogue, clean, mapping, source
from segflow.events.sessions import sessions
from segflow.settings import load
from segflow_tests.events import steps
from segflow_tests.fuzz.judging import assert_clear, cases
from segflow_tests.fuzz.settings_files import settings_files


@pytest.fixture(scope="module")
def project(folder: Path) -> Path:
    rows = [f"u{n % 3},i{n % 2},view,2024-01-0{n % 9 + 1} 10:00:00,{n}" for n in range(12)]
    steps.write(folder / "log.csv", "user,item,type,time,price", *rows)
    return folder


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEGFLOW_CONFIG", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "replaced by the command, and restored after it")


@given(settings_files())
@cases(0.7)
def test_settings_are_read_or_refused_in_one_line(
    engine: duckdb.DuckDBPyConnection, project: Path, content: bytes
) -> None:
    file = project / "segflow.yaml"
    file.write_bytes(content)
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["--config", str(file), "check"])
    said = err.getvalue()
    if code:
        assert (code, out.getvalue(), said.count("\n")) == (1, "", 1), said
        assert_clear(said.removesuffix("\n"), "segflow: ")
        return
    assert said == ""
    config = load(file)
    assert json.loads(config.model_dump_json())
    with source.reading(config.source.events.path):
        items = catalogue.items_query(engine, config.source, config.text)
        engine.execute(f"CREATE OR REPLACE TEMP TABLE items AS {items}")
        rows = mapping.with_day(mapping.mapped_events(engine, config.source), config.calendar)
        engine.execute(f"CREATE OR REPLACE TEMP TABLE raw_events AS {rows}")
        clean.judge(engine, config.cleaning)
        engine.execute(f"CREATE OR REPLACE TEMP TABLE events AS {clean.events_query(config.cleaning)}")
        engine.execute("CREATE OR REPLACE TEMP TABLE quarantined_events AS FROM rejected")
    assert clean.row_account(engine, "events", "quarantined_events").balanced
    list(sessions(engine, config.sessions, config.calendar.start, config.calendar.last_day))
