"""Closing what killed processes left open: runs of Dagster and their slots, MLflow runs of steps, parents of backfills.

The sensor does so while a daemon runs; `segflow run` does so when it starts. What belongs to another Dagster instance or to
processes of another machine is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.execution.stats import StepEventStatus

from segflow.defs.partitions import CONFIG
from segflow.defs.processes import is_gone, worker_of
from segflow.defs.resources import Segflow
from segflow.tracking import Tracking
from segflow.tracking.backfills import end_parents
from segflow.tracking.orphans import PROCESS, close_orphans

_STEP_OVER = {StepEventStatus.SUCCESS, StepEventStatus.FAILURE, StepEventStatus.SKIPPED}
# A run of `segflow run` names its process when it is created, and may not come to more.
_UNDER_WAY = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
_BACKFILL_OVER = {
    BulkActionStatus.COMPLETED: "FINISHED",
    BulkActionStatus.COMPLETED_SUCCESS: "FINISHED",
    BulkActionStatus.COMPLETED_FAILED: "FAILED",
    BulkActionStatus.FAILED: "FAILED",
    BulkActionStatus.CANCELED: "KILLED",
}


@dg.sensor(
    name="reconcile",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING if CONFIG.automation.reconcile else dg.DefaultSensorStatus.STOPPED,
    description="Closes the runs that killed processes left open, and ends the MLflow parents of backfills. Launches nothing.",
)
def reconcile(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Says what was closed."""
    return dg.SkipReason(tidy(context.instance, Segflow().tracking) or "nothing was left open")


def tidy(instance: dg.DagsterInstance, tracking: Tracking) -> str:
    """Close what is over; returns a sentence on what was closed, empty if nothing was."""
    failed = _fail_dead_runs(instance)
    _free_slots(instance)
    closed = close_orphans(tracking, _over(instance))
    ended = end_parents(tracking, _backfill_status(instance))
    found = {"runs": failed, "MLflow runs": len(closed), "parents of backfills": len(ended)}
    return ", ".join(f"closed {count} {what}" for what, count in found.items() if count)


def _fail_dead_runs(instance: dg.DagsterInstance) -> int:
    """Fail the runs whose process was one of this host and is gone.

    The daemon may be on another host than the code: then its launcher cannot look for the process, but the sensor, which is
    evaluated by the code server, can.
    """
    under_way = instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY))
    dead = [run for run in under_way if is_gone(worker_of(run.run_id, run.tags))]
    for run in dead:
        # It may have come to its end since it was looked up.
        if (found := instance.get_run_by_id(run.run_id)) and not found.is_finished:
            instance.report_run_failed(found, "its process is gone")
    return len(dead)


def _free_slots(instance: dg.DagsterInstance) -> None:
    """Give back the places in the pool of steps that dead processes of this host hold.

    Where no daemon runs, nobody else does: the next steps would wait for them for ever.
    """
    held = instance.event_log_storage.get_concurrency_run_ids()
    for run in instance.get_runs(dg.RunsFilter(run_ids=list(held))) if held else ():
        if run.is_finished and is_gone(worker_of(run.run_id, run.tags)):
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _over(instance: dg.DagsterInstance) -> Callable[[Mapping[str, str]], str | None]:
    """For the tags of an MLflow run: why its step is over, or None if it may still be at work."""

    def over(tags: Mapping[str, str]) -> str | None:
        if is_gone(tags.get(PROCESS, "")):
            return "its process is gone"
        run = instance.get_run_by_id(tags.get("dagster.run_id", ""))
        if run is None:
            return None
        if run.is_finished:
            return f"its Dagster run is over: {run.status.value}"
        steps = instance.get_run_step_stats(run.run_id, [tags.get("dagster.step", "")])
        ends = [one.status.value for one in steps if one.status in _STEP_OVER]
        return f"its step is over: {ends[0]}" if ends else None

    return over


def _backfill_status(instance: dg.DagsterInstance) -> Callable[[str], str | None]:
    """For a backfill: how its parent run ends, or None while it goes on."""

    def status(backfill: str) -> str | None:
        found = instance.get_backfill(backfill)
        return _BACKFILL_OVER.get(found.status) if found else None

    return status
