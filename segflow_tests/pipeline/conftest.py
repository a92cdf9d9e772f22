"""One whole run, shared by the tests that look at what it made."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from segflow_tests.pipeline.project import EMBEDDED, Deployment, Project
from segflow_tests.planted import PlantedLog, planted_log


@dataclass(frozen=True)
class Made:
    """A project after `segflow run --weeks 2`. Tests may run it again, but must leave its content as it was."""

    project: Project
    log: PlantedLog
    weeks: tuple[date, date]
    run: subprocess.CompletedProcess[str]


def run_two_weeks(folder: Path, deployment: Deployment = EMBEDDED, **settings: Any) -> Made:
    """The planted log, with dirt, taken from its rows to the report by the command that users type."""
    log = planted_log(folder, users=120, weeks=10, dirt=True)
    project = Project.make(folder, log.start, log.end, deployment, tracking={"partition_runs": True}, **settings)
    last = log.end - timedelta(weeks=2)
    done = project.segflow("run", "--weeks", "2")
    assert done.returncode == 0, done.stderr
    return Made(project, log, (last - timedelta(weeks=1), last), done)


@contextmanager
def open_instance(project: Project) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a project's runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"DAGSTER_HOME": str(project.folder), **project.deployment.environment}.items():
            patch.setenv(name, value)
        with dg.DagsterInstance.from_config(str(project.folder)) as opened:
            yield opened


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return run_two_weeks(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def instance(made: Made) -> Iterator[dg.DagsterInstance]:
    with open_instance(made.project) as opened:
        yield opened
