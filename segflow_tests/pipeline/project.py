"""A project folder as a user has one: a log, `segflow.yaml`, `dagster.yaml`, and the `segflow` command run in it.

The only thing asserted here is that a job succeeded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from segflow import tables
from segflow.config import ComputeConfig
from segflow.storage import Storage, connect
from segflow.tables import Table

ROOT = Path(__file__).parents[2]

SOURCE: Mapping[str, Any] = {
    "events": {
        "path": "events.csv",
        "columns": {"user_id": "user", "item_id": "item", "event_type": "type", "ts": "time", "value": "price"},
    },
    "items": {
        "path": "items.csv",
        "columns": {"item_id": "product", "title": "name", "category": ["department"], "price": "price"},
    },
}
"""How the planted log maps to the event schema."""

SMALL: Mapping[str, Any] = {
    "cleaning": {"require_positive": ["value"]},
    "behavior": {"width": 32, "layers": 1, "context": 24, "epochs": 1},
    "text": {"adaptation": {"method": "contrastive", "steps": 2, "check_every": 2}},
    "users": {
        "views": ["text", "behavior", "engagement", "journey", "adapted"],
        "fuse": ["text", "behavior", "engagement"],
    },
    "probe": {"bootstrap_samples": 100, "autoencoder_epochs": 1},
    "segments": {"k_max": 6, "bootstraps": 10},
    "rankers": {"steps": 40, "check_every": 20, "delta_steps": 10, "training_weeks": 3, "placebos": 1, "repeats": 1},
    "compute": {"memory_limit": "1GB"},
    # A run for each of many days takes longer than the few rows of the day.
    "tracking": {"partition_runs": False},
}
"""Settings with which a week takes seconds; what is learned is still good enough to find planted segments."""


@dataclass(frozen=True)
class Deployment:
    """Where records and tables are kept: by default, in files in the project's folder.

    dagster: the instance's settings; environment: variables that these name; mlflow: address of an MLflow server; storage: the
    section of that name.
    """

    dagster: Path = ROOT / "dagster.yaml"
    environment: Mapping[str, str] = field(default_factory=dict)
    mlflow: str | None = None
    storage: Mapping[str, Any] | None = None


EMBEDDED = Deployment()


@dataclass(frozen=True)
class Project:
    """A folder with settings and, after a run, everything that segflow made."""

    folder: Path
    deployment: Deployment = EMBEDDED

    @classmethod
    def make(cls, folder: Path, start: date, end: date, deployment: Deployment = EMBEDDED, **settings: Any) -> Project:
        """Write the settings files to `folder`; `settings` replace whole sections of the small ones."""
        folder.mkdir(parents=True, exist_ok=True)
        calendar = {"start": start, "end": end}
        values = {"source": SOURCE, "calendar": calendar, **SMALL, **settings}
        if deployment.mlflow:
            values["tracking"] = {**values["tracking"], "uri": deployment.mlflow, "ui": deployment.mlflow}
        if deployment.storage:
            values["storage"] = deployment.storage
        (folder / "segflow.yaml").write_text(yaml.safe_dump(_plain(values), sort_keys=False), encoding="utf-8")
        shutil.copy(deployment.dagster, folder / "dagster.yaml")
        return cls(folder, deployment)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a user's shell in this folder."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SEGFLOW_", "DAGSTER_"))}
        # The tests themselves need not be installed to be run as modules.
        kept["PYTHONPATH"] = str(ROOT)
        own = {"DAGSTER_HOME": str(self.folder), "SEGFLOW_CONFIG": str(self.folder / "segflow.yaml")}
        return {**kept, **own, **self.deployment.environment}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`python arguments` in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python arguments`, to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=1500)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def segflow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`segflow arguments`, to its end."""
        return self.python("-m", "segflow.cli", *arguments)

    def materialize(self, job: str, first: str, last: str | None = None, only: Sequence[str] = ()) -> None:
        """The partitions `first` to `last` of a Dagster job, or `only` some of its tables, whether up to date or not."""
        done = self.python(*run_job(job, first, last or first, only))
        assert done.returncode == 0, done.stderr

    @property
    def mlflow(self) -> str:
        """The address of the MLflow store."""
        return self.deployment.mlflow or f"sqlite:///{self.folder}/data/mlflow/mlflow.db"

    @cached_property
    def storage(self) -> Storage:
        """The tables."""
        chosen = self.deployment.storage or {"root": str(self.folder / "data" / "tables")}
        return Storage(chosen["root"], chosen.get("options"))

    def read(self, table: Table, where: Mapping[str, Any] | None = None, version: int | None = None) -> pa.Table:
        """Rows of a table, ordered by its key."""
        with connect(ComputeConfig(spill=str(self.folder / "spill"), threads=1)) as connection:
            return self.storage.read(connection, table, where=where, version=version)

    def versions(self) -> dict[str, int | None]:
        """Table name -> version."""
        return {name: self.storage.version(table) for name, table in tables.ALL.items()}

    def files(self, table: Table) -> dict[tuple[Any, ...], set[str]]:
        """Partition -> the files that hold its rows now."""
        opened = self.storage.open(table)
        assert opened is not None
        found: dict[tuple[Any, ...], set[str]] = {}
        for action in pa.table(opened.get_add_actions(flatten=True)).to_pylist():
            key = tuple(action[f"partition.{name}"] for name in table.partitions)
            found.setdefault(key, set()).add(action["path"])
        return found


def run_job(job: str, first: str, last: str, only: Sequence[str] = ()) -> list[str]:
    """The arguments of python that `Project.materialize` starts."""
    return ["-m", "segflow_tests.pipeline.run_job", job, first, last, *only]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return value
