"""A run killed between two table writes: what was written is whole, and the next run finishes the rest."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from segflow import tables
from segflow_tests.pipeline.project import Project, run_job
from segflow_tests.planted import planted_log

DAYS = ["raw_events", "events", "quarantined_events", "sessions"]


def test_a_killed_run_leaves_whole_tables_and_the_next_one_finishes(tmp_path: Path) -> None:
    log = planted_log(tmp_path, users=40, weeks=3, dirt=True)
    project = Project.make(tmp_path, log.start, log.end)
    days = (str(log.start), str(log.end - timedelta(days=1)))

    project.materialize("catalogue", "", only=["source_files", "items"])
    process = project.start(*run_job("days", *days, DAYS))
    # Version 0 is the empty table, version 1 the first rows.
    committed = tmp_path / "data" / "tables" / "events" / "_delta_log" / f"{1:020}.json"
    deadline = time.monotonic() + 120
    while not committed.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.0005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert project.versions()["events"] == 1
    assert project.versions()["sessions"] in (None, 0), "the kill came too late"

    raw = Counter(project.read(tables.RAW_EVENTS)["day"].to_pylist())
    events = Counter(project.read(tables.EVENTS)["day"].to_pylist())
    assert raw.total() == log.rows + sum(log.dirt.values())
    assert events.total() == log.rows
    assert events <= raw
    files = project.files(tables.EVENTS)

    project.materialize("days", *days, DAYS)
    # What was there is not written again; what was missing is.
    assert project.files(tables.EVENTS) == files
    quarantined = Counter(project.read(tables.QUARANTINED_EVENTS)["day"].to_pylist())
    assert raw == events + quarantined
    assert sum(project.read(tables.SESSIONS)["events"].to_pylist()) == log.rows
