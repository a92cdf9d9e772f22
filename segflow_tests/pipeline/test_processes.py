"""Runs as the Dagster UI starts them: each step in a process of its own."""

from __future__ import annotations

import os
import re
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from segflow import tables
from segflow_tests.pipeline.project import Project
from segflow_tests.planted import PlantedLog, planted_log


def arrived_days(log: PlantedLog) -> list[str]:
    last = log.end - timedelta(days=1)
    span = f'{{"dagster/asset_partition_range_start": "{log.start}", "dagster/asset_partition_range_end": "{last}"}}'
    return ["-m", "dagster", "job", "execute", "-m", "segflow.definitions", "-j", "arrived_days", "--tags", span]


@pytest.mark.slow
def test_a_step_whose_process_is_killed_fails_the_run_and_the_next_run_makes_everything(tmp_path: Path) -> None:
    log = planted_log(tmp_path, users=20, weeks=2)
    project = Project.make(tmp_path, log.start, log.end)
    project.materialize("catalogue", "", only=["source_files", "items"])

    process = project.start(*arrived_days(log))
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    begun = next(found for line in lines if (found := re.search(r"- (\d+) - raw_events - STEP_START ", line)))
    os.kill(int(begun[1]), signal.SIGKILL)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "terminated by signal 9 (SIGKILL)" in said
    assert project.versions()["sessions"] is None

    done = project.python(*arrived_days(log))
    assert done.returncode == 0, done.stderr
    steps = dict(re.findall(r"- (\d+) - (\w+) - STEP_START ", done.stderr))
    assert sorted(steps.values()) == ["events", "raw_events", "sessions"]
    assert sum(project.read(tables.SESSIONS)["events"].to_pylist()) == log.rows
