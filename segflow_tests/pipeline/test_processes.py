"""Runs as the Dagster UI starts them: each step in a process of its own."""

from __future__ import annotations

import os
import re
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from segflow import tables
from segflow.defs.executor import KILLED_STEP_RETRIES
from segflow_tests.pipeline.project import Project
from segflow_tests.planted import PlantedLog, planted_log


def arrived_days(log: PlantedLog) -> list[str]:
    last = log.end - timedelta(days=1)
    span = f'{{"dagster/asset_partition_range_start": "{log.start}", "dagster/asset_partition_range_end": "{last}"}}'
    return ["-m", "dagster", "job", "execute", "-m", "segflow.definitions", "-j", "arrived_days", "--tags", span]


def killed(project: Project, log: PlantedLog, times: int) -> tuple[int, str]:
    """A run whose step `raw_events` is killed as it starts, so many times; its exit code, and what it said."""
    process = project.start(*arrived_days(log))
    assert process.stderr is not None
    said = ""
    for line in iter(process.stderr.readline, ""):
        said += line
        if times and (begun := re.search(r"- (\d+) - raw_events - STEP_WORKER_STARTED ", line)):
            os.kill(int(begun[1]), signal.SIGKILL)
            times -= 1
    return process.wait(60), said


@pytest.mark.slow
def test_a_step_whose_process_is_killed_is_begun_anew_until_the_run_fails(tmp_path: Path) -> None:
    # So many that the step lasts longer than the way of its first line to here.
    log = planted_log(tmp_path, users=200, weeks=2)
    project = Project.make(tmp_path, log.start, log.end)
    project.materialize("catalogue", "", only=["source_files", "items"])

    status, said = killed(project, log, KILLED_STEP_RETRIES + 1)
    assert status == 1
    assert "raw_events - STEP_FAILURE" in said
    assert "terminated by signal 9 (SIGKILL)" in said
    assert project.versions()["sessions"] is None

    status, said = killed(project, log, 1)
    assert status == 0
    assert "STEP_RESTARTED - Started re-execution (attempt # 2)" in said
    steps = dict(re.findall(r"- (\d+) - (\w+) - STEP_(?:RE)?START(?:ED)? ", said))
    assert sorted(steps.values()) == ["events", "raw_events", "sessions"], "each in a process of its own"
    assert sum(project.read(tables.SESSIONS)["events"].to_pylist()) == log.rows
