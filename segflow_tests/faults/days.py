"""A small project whose days are made again and again while something is broken, and what must hold when all is mended."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from segflow import tables
from segflow_tests.faults.daemon import opened
from segflow_tests.faults.nursery import Nursery, nursery
from segflow_tests.faults.places import mount, unmount
from segflow_tests.pipeline.project import Project
from segflow_tests.planted import planted_log

SEED = int(os.environ.get("SEGFLOW_TEST_SEED", "1"))
INJECTIONS = int(os.environ.get("SEGFLOW_TEST_INJECTIONS", "10"))
"""How often each fault is injected, at moments that the seed decides."""
DAILY = ("raw_events", "events", "quarantined_events", "sessions")
DAYS = tuple(f"2024-01-{number:02}" for number in range(1, 5))


@dataclass(frozen=True, eq=False)
class Days:
    """The project, its state before any day was made, the nursery that works on it, and the rows that are to come out.

    own_disk: whether it is on a small disk of its own.
    """

    project: Project
    prepared: Path
    nursery: Nursery
    expected: Mapping[str, list[dict[str, Any]]]
    own_disk: bool

    def restore(self) -> None:
        """The project as it was before any day was made."""
        # The folder itself stays: the nursery is in it.
        for one in self.project.folder.iterdir():
            shutil.rmtree(one) if one.is_dir() else one.unlink()
        shutil.copytree(self.prepared, self.project.folder, dirs_exist_ok=True)

    def check_readable(self) -> dict[str, set[str]]:
        """Table -> the days that it holds. Each is there once and whole, as it would have been undisturbed."""
        held = {}
        for name in DAILY:
            table = tables.ALL[name]
            held[name] = set(map(str, self.project.read(table)["day"].to_pylist()))
            expected = [row for row in self.expected[name] if str(row["day"]) in held[name]]
            assert self.project.read(table).to_pylist() == expected, f"{name}: other rows than of an undisturbed run"
            written = commits(self.project, name)
            assert set(written.values()) <= {1}, f"{name}: written again: {written}"
        return held

    def check(self, days: Sequence[str] = DAYS) -> None:
        """Each day is there once, as it would have been, and recorded; nothing is open, and nothing is left behind."""
        assert set.union(*self.check_readable().values()) == set(days)
        with opened(self.project) as instance:
            for name in DAILY:
                assert set(self.recorded(instance, name)) == set(days), f"{name}: records"
            assert [run.status for run in instance.get_runs() if not run.is_finished] == []
        assert self.open_runs() == []
        assert list((self.project.folder / "data" / "spill").iterdir()) == []

    def recorded(self, instance: dg.DagsterInstance, name: str) -> set[str]:
        """The days of which Dagster has a materialization."""
        return {key for key in instance.get_materialized_partitions(dg.AssetKey(name)) if key}

    def open_runs(self) -> list[str]:
        """MLflow runs that are RUNNING."""
        file = self.project.folder / "data" / "mlflow" / "mlflow.db"
        if not file.is_file():
            return []
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=30)) as database:
            try:
                return [row[0] for row in database.execute("SELECT name FROM runs WHERE status = 'RUNNING'")]
            except sqlite3.OperationalError:
                return []


def backfill(first: str = DAYS[0], last: str = DAYS[-1], chunk: int = 1) -> list[str]:
    """The arguments of `segflow` that make the daily tables of a span in runs of so many days."""
    return ["backfill", f"{first}..{last}", "--chunk", str(chunk), "--assets", ",".join(DAILY)]


@contextmanager
def made_days(folder: Path) -> Iterator[Days]:
    """A project with its catalogue and no day, which was made undisturbed once and taken back."""
    project = folder / "project"
    own_disk = mount(project, "128m")
    log = planted_log(project, users=20, weeks=2, dirt=True)
    made = Project.make(project, log.start, log.end, compute={"memory_limit": "1GB", "threads": 1})
    with nursery(made) as running:
        catalogue = running.run("backfill", f"{DAYS[0]}..{DAYS[0]}", "--assets", "source_files,items")
        assert catalogue.status == 0, catalogue.said
        shutil.copytree(project, folder / "prepared")
        undisturbed = running.run("backfill", f"{DAYS[0]}..{DAYS[-1]}", "--assets", ",".join(DAILY))
        assert undisturbed.status == 0, undisturbed.said
        expected = {name: made.read(tables.ALL[name]).to_pylist() for name in DAILY}
        yield Days(made, folder / "prepared", running, expected, own_disk)
    if own_disk:
        unmount(project)


def commits(project: Project, table: str) -> Counter[str]:
    """Partition -> in how many commits its files were written."""
    found: Counter[str] = Counter()
    for file in sorted((project.folder / "data" / "tables" / table / "_delta_log").glob("*.json")):
        added = {
            tuple(action["add"]["partitionValues"].values())
            for line in file.read_text(encoding="utf-8").splitlines()
            if "add" in (action := json.loads(line))
        }
        found.update(str(key[0]) for key in added)
    return found
