"""Dagster's own records: whether anything is under way, and where they lie. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage

from segflow.defs.instance import open_instance
from segflow.defs.provenance import Provenance
from segflow.defs.reconcile import tidy
from segflow.defs.resources import Segflow

_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def under_way() -> list[str]:
    """Runs and backfills that write or soon will, in words; those of processes that are gone are closed first."""
    with open_instance() as instance:
        tidy(instance, Segflow().tracking)
        runs = instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY))
        found = [f"run {one.run_id[:8]} ({one.job_name}, {one.status.value.lower()})" for one in runs]
        asked = (BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING)
        found += [f"backfill {one.backfill_id}" for status in asked for one in instance.get_backfills(status=status)]
    return found


def latest_run() -> str:
    """The id of the run that was created last; empty if there is none."""
    with open_instance() as instance:
        return next((one.run_id for one in instance.get_runs(limit=1)), "")


@contextmanager
def open_provenance() -> Iterator[Provenance]:
    """What was made from what, by the records of `$DAGSTER_HOME`."""
    with open_instance() as instance:
        yield Provenance(instance)


def places() -> tuple[list[Path], list[str]]:
    """The folders that hold Dagster's records, and in words those records that lie elsewhere."""
    with open_instance() as instance:
        home = Path(instance.root_directory)
        kept = {
            "runs": isinstance(instance.run_storage, SqliteRunStorage),
            "event log": isinstance(instance.event_log_storage, SqliteEventLogStorage),
            "schedules": isinstance(instance.schedule_storage, SqliteScheduleStorage),
            "logs of steps": isinstance(instance.compute_log_manager, LocalComputeLogManager),
        }
    elsewhere = [f"Dagster's {what}, which are in no file below {home}" for what, here in kept.items() if not here]
    return [home / name for name in ("history", "schedules", "storage", "logs")], elsewhere
