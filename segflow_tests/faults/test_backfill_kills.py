"""A backfill through the real daemon while processes are killed at random: it ends complete, and nothing is left behind."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.execution.backfill import BulkActionStatus

from segflow import tables
from segflow.config import TrackingConfig
from segflow.tracking import Tracking
from segflow.tracking.backfills import BACKFILL, PARENT, search
from segflow.tracking.orphans import CLOSED
from segflow_tests.faults.daemon import KINDS, Daemon, daemon, opened
from segflow_tests.faults.days import commits
from segflow_tests.pipeline.project import Project
from segflow_tests.planted import PlantedLog, planted_log

DAILY = ["raw_events", "events", "quarantined_events", "sessions", "user_days", "day_reports"]


def days_of(log: PlantedLog) -> list[str]:
    return [str(log.start + timedelta(days=number)) for number in range((log.end - log.start).days)]


def make(folder: Path, weeks: int, days_per_run: int) -> tuple[Project, PlantedLog]:
    """A project with its catalogue, watched more often than `dagster.yaml` says: a test should not wait."""
    log = planted_log(folder, users=20, weeks=weeks, dirt=True)
    project = Project.make(
        folder, log.start, log.end, compute={"memory_limit": "1GB", "threads": 1, "days_per_run": days_per_run}
    )
    settings = yaml.safe_load((folder / "dagster.yaml").read_text())
    settings["run_monitoring"] |= {"poll_interval_seconds": 5, "start_timeout_seconds": 60}
    settings["run_launcher"]["config"]["grace_seconds"] = 10
    (folder / "dagster.yaml").write_text(yaml.safe_dump(settings))
    project.materialize("catalogue", "", only=["source_files", "items"])
    return project, log


def kill_at_random(running: Daemon, instance: dg.DagsterInstance, backfill: str, seed: int, wanted: int) -> None:
    """A kind, a moment and one of that kind by chance, again and again, until so many were killed or the backfill is over."""
    chance = random.Random(seed)
    while len(running.kills) < wanted:
        kind = chance.choices(KINDS, weights=(5, 5, 1, 2))[0]
        # Most of a process's life is spent importing; some kills should find it at work, or in the middle of a write.
        moment = time.monotonic() + chance.uniform(2, 20)
        while time.monotonic() < moment:
            running.keep_alive()
            time.sleep(0.1)
        found = instance.get_backfill(backfill)
        if found is None or found.status != BulkActionStatus.REQUESTED:
            return
        running.kill(kind, chance.randrange(100))


def records(instance: dg.DagsterInstance, table: str) -> Counter[tuple[str, str]]:
    """(partition, digest of its inputs) -> how often it was recorded."""
    found: Counter[tuple[str, str]] = Counter()
    cursor = None
    while True:
        page = instance.fetch_materializations(dg.AssetKey(table), limit=1000, cursor=cursor)
        for record in page.records:
            event = record.asset_materialization
            assert event is not None
            found[(event.partition or "", str(event.metadata["segflow/inputs"].value))] += 1
        if not page.has_more:
            return found
        cursor = page.cursor


def rows_of(project: Project, table: str) -> list[dict[str, Any]]:
    return project.read(tables.ALL[table]).to_pylist()


def check_nothing_is_left(project: Project, instance: dg.DagsterInstance, running: Daemon, backfill: str) -> None:
    """No run, MLflow run, parent or slot is open; given a minute for those who tidy up."""
    tracking = Tracking(TrackingConfig(root=str(project.folder / "data" / "mlflow")))
    end = time.monotonic() + 120
    while True:
        running.keep_alive()
        slots = instance.event_log_storage.get_concurrency_info("segflow")
        left = {
            "runs": [run.status.value for run in instance.get_runs() if not run.is_finished],
            "MLflow runs": [run.info.run_name for run in search(tracking, "attributes.status = 'RUNNING'")],
            "slots": [*slots.claimed_slots, *slots.pending_steps],
        }
        if not any(left.values()):
            break
        assert time.monotonic() < end, left
        time.sleep(1)
    (parent,) = search(tracking, f"tags.`{BACKFILL}` = '{backfill}'")
    assert parent.info.status == "FINISHED"
    steps = [run for run in search(tracking, "attributes.run_id != ''") if "dagster.step" in run.data.tags]
    here = {
        run.info.run_id: run.data.tags.get(PARENT) for run in steps if run.data.tags["dagster.job"] == "__ASSET_JOB"
    }
    # The run of a range is below the backfill's, the runs of its days are below that.
    assert {here.get(str(above), above) for above in here.values()} == {parent.info.run_id}
    closed = [run.data.tags[CLOSED] for run in steps if CLOSED in run.data.tags]
    assert sum(run.info.status == "KILLED" for run in steps) == len(closed)
    print(f"MLflow: {len(steps)} runs, {len(closed)} closed for dead processes: {dict(Counter(closed))}")


def check_content(project: Project, undisturbed: Project, instance: dg.DagsterInstance, days: list[str]) -> None:
    """Each partition is there, as it would have been, and no equal one was written again."""
    for table in DAILY:
        recorded = records(instance, table)
        assert sorted({day for day, _ in recorded}) == days, table
        assert len(recorded) == len(days), f"{table}: a day was made from two states of its inputs"
        again = {day: count - 1 for (day, _), count in recorded.items() if count > 1}
        assert rows_of(project, table) == rows_of(undisturbed, table), table
        written = commits(project, table)
        assert set(written.values()) <= {1}, f"{table}: written again {[day for day in written if written[day] > 1]}"
        print(f"{table}: {len(days)} days, {sum(again.values())} second records of an equal day, 0 written again")


@pytest.mark.faults
@pytest.mark.parametrize("seed", [int(os.environ.get("SEGFLOW_TEST_SEED", "1"))])
def test_a_year_of_days_survives_kills_of_everything(tmp_path: Path, seed: int) -> None:
    project, log = make(tmp_path / "killed", weeks=53, days_per_run=61)
    days = days_of(log)
    undisturbed, _ = make(tmp_path / "undisturbed", weeks=53, days_per_run=61)
    undisturbed.materialize("days", days[0], days[-1], DAILY)
    with daemon(project) as running, opened(project) as instance:
        backfill = running.backfill(DAILY, days)
        kill_at_random(running, instance, backfill, seed, wanted=14)
        print(f"seed {seed}, killed: {', '.join(running.kills)}", flush=True)
        status = running.wait(instance, backfill, 2400)
        runs = Counter(run.status.value for run in instance.get_runs())
        print(f"runs: {dict(runs)}")
        assert len(running.kills) >= 10
        assert status == BulkActionStatus.COMPLETED_SUCCESS, running.log()[-4000:]
        check_nothing_is_left(project, instance, running, backfill)
        check_content(project, undisturbed, instance, days)
