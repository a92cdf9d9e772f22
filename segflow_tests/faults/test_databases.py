"""Databases that are locked for long, a tracking server that is down, and homes that many processes use first at once."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import yaml

from segflow_tests.faults.days import DAYS, INJECTIONS, SEED, Days, backfill
from segflow_tests.faults.nursery import nursery
from segflow_tests.servers import free_ports

pytestmark = pytest.mark.faults
DATABASES = ("history/runs.db", "history/runs/index.db", "data/mlflow/mlflow.db")


@contextmanager
def locked(database: Path, seconds: float) -> Iterator[threading.Event]:
    """Nobody else can write the database, for so long or until the event is set, also beyond the end of the block's work."""
    over, held = threading.Event(), threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            held.set()
            over.wait(seconds)
            holder.execute("ROLLBACK")

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    try:
        yield over
    finally:
        thread.join()


def test_a_database_is_locked_for_30_seconds(days: Days) -> None:
    """Another process holds Dagster's or MLflow's database, ten times, from a random moment of the command on, for 30
    seconds. Holds afterwards: the command has waited for Dagster's. MLflow waits for 20 seconds, and then one line says
    what is locked; what can be read is whole; a rerun completes.
    """
    chance, waited = random.Random(SEED), dict.fromkeys(DATABASES, 0.0)
    assert days.nursery.run(*backfill(DAYS[0], DAYS[0])).status == 0
    for turn in range(INJECTIONS):
        database = DATABASES[turn % len(DATABASES)]
        child = days.nursery.start(*backfill(chunk=4), "--force")
        child.ended.wait(chance.uniform(0.0, 1.0))
        with locked(days.project.folder / database, 30) as over:
            began = time.monotonic()
            status = child.wait()
            seconds = time.monotonic() - began
            if status == 0:
                over.set()
        told = f"seed {SEED}, turn {turn}, {database}: {status} after {seconds:.1f} s: {child.said}"
        waited[database] = max(waited[database], seconds)
        if status:
            assert database.startswith("data/mlflow"), told
            assert seconds > 15, told
            assert "is locked" in child.said.splitlines()[-1], told
            assert child.said.splitlines()[-1].startswith("segflow: "), told
        days.check_readable()
    print(f"seed {SEED}: the longest waits were {waited}")
    assert min(waited.values()) > 15, waited
    assert days.nursery.run(*backfill(chunk=4)).status == 0
    days.check()


def test_mlflow_is_down(days: Days) -> None:
    """The tracking server does not answer, ten times. Holds afterwards: one line names its address and how to mend it;
    no table was written; with a store that answers, all is made.
    """
    (port,) = free_ports(1)
    folder = days.project.folder
    settings = yaml.safe_load((folder / "segflow.yaml").read_text(encoding="utf-8"))
    settings["tracking"] |= {"uri": f"http://127.0.0.1:{port}"}
    (folder / "away.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    away = {"SEGFLOW_CONFIG": str(folder / "away.yaml"), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    with nursery(days.project, away) as running:
        for _ in range(INJECTIONS):
            child = running.run(*backfill(chunk=4))
            assert child.status in (1, 3), child.said
            last = child.said.splitlines()[-1]
            assert re.match(rf"segflow: 127.0.0.1:{port}: does not answer; .*tracking.uri", last), child.said
    assert not any(days.check_readable().values())
    assert days.nursery.run(*backfill(chunk=4)).status == 0
    days.check()


def first_use(project: str, number: str) -> None:
    """What the first command in a project does first, all of it: records, tracking store, tables."""
    from segflow.config import TrackingConfig
    from segflow.defs.instance import open_instance
    from segflow.defs.reconcile import tidy
    from segflow.tracking import Tracking

    os.environ["DAGSTER_HOME"] = project
    with open_instance() as instance:
        tracking = Tracking(TrackingConfig(root=f"{project}/data/mlflow", system_metrics=False))
        tidy(instance, tracking)
        with tracking.run("segflow events", number, {}) as run:
            run.metrics({"number": float(number)})
        instance.add_dynamic_partitions("segments", [number])


@pytest.mark.parametrize("seed", range(SEED, SEED + INJECTIONS))
def test_eight_processes_use_an_empty_home_first(days: Days, tmp_path: Path, seed: int) -> None:
    """Eight processes at once, where there is no database yet. Holds afterwards: all succeed, and what each recorded is
    there.
    """
    shutil.copy2(days.project.folder / "dagster.yaml", tmp_path)
    chance = random.Random(seed)
    children = []
    for number in range(8):
        children.append(days.nursery.start("call", __name__, "first_use", str(tmp_path), str(number)))
        time.sleep(chance.uniform(0.0, 0.05))
    for child in children:
        assert child.wait() == 0, f"seed {seed}: {child.said}"
    with closing(sqlite3.connect(tmp_path / "data" / "mlflow" / "mlflow.db")) as database:
        assert sorted(row[0] for row in database.execute("SELECT name FROM runs WHERE status = 'FINISHED'")) == list(
            "01234567"
        )
