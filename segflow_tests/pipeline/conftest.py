"""One whole run, shared by the tests that look at what it made."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import dagster as dg
import pytest

from segflow_tests.pipeline.project import Project
from segflow_tests.planted import PlantedLog, planted_log


@dataclass(frozen=True)
class Made:
    """A project after `segflow run --weeks 2`. Tests may run it again, but must leave its content as it was."""

    project: Project
    log: PlantedLog
    weeks: tuple[date, date]
    run: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The planted log, with dirt, taken from its rows to the report by the command that users type."""
    folder = tmp_path_factory.mktemp("project")
    log = planted_log(folder, users=120, weeks=10, dirt=True)
    project = Project.make(folder, log.start, log.end)
    last = log.end - timedelta(weeks=2)
    done = project.segflow("run", "--weeks", "2")
    assert done.returncode == 0, done.stderr
    return Made(project, log, (last - timedelta(weeks=1), last), done)


@pytest.fixture(scope="session")
def instance(made: Made) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of the run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(made.project.folder))
        with dg.DagsterInstance.from_config(str(made.project.folder)) as opened:
            yield opened
