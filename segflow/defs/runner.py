"""Running jobs in this process: only what is not up to date, with a line per finished asset.

The Dagster UI and daemon run the same jobs in processes of their own; this is for the command line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import dagster as dg
from dagster._core.storage.tags import MAX_RETRIES_TAG

from segflow.defs.jobs import ASSETS
from segflow.defs.materializes import PLANS, Plan
from segflow.defs.partitions import CONFIG, stretches
from segflow.defs.processes import PROCESS_TAG, this_process
from segflow.defs.progress import PROGRESS
from segflow.defs.provenance import Provenance
from segflow.defs.reconcile import tidy
from segflow.defs.resources import Segflow
from segflow.defs.segments.assets import REWRITE_HISTORY
from segflow.errors import UserError

Say = Callable[[str], None]

# The probe of a week then has to be over before the segments of the next one; else it can wait for the report.
_CHOOSES_VIEWS = CONFIG.users.fuse == "auto"
_STAGES = {
    "models": ["models_week"],
    "report": ["probe_week", "segment_rankers_week", "report_week"],
}


class Runner:
    """Materializes what is stale on one Dagster instance."""

    def __init__(
        self,
        definitions: dg.Definitions,
        instance: dg.DagsterInstance,
        say: Say,
        force: bool = False,
        rewrite_history: bool = False,
    ):
        self._definitions = definitions
        self._instance = instance
        self._say = say
        self._force = force
        # Named, so that it can be told later whether its runs are still worked on; nobody else could make them again.
        self._tags = {PROCESS_TAG: this_process(), MAX_RETRIES_TAG: "0"}
        if rewrite_history:
            self._tags[REWRITE_HISTORY] = "true"
        self._provenance = Provenance(instance)

    def tidy(self) -> None:
        """Close what killed processes left open, and say so: no sensor does it where no daemon runs."""
        if closed := tidy(self._instance, Segflow().tracking):
            self._say(closed)

    def catalogue(self) -> None:
        """Items, users and item vectors."""
        self._group("catalogue", [""])

    def days(self, first: date, last: date) -> None:
        """Every day in [first, last)."""
        count = (last - first).days
        self._group("days", [(first + timedelta(days=number)).isoformat() for number in range(count)])

    def models(self, week: date) -> None:
        """What a week learns from everybody. Weeks do not depend on each other here."""
        self._group("models_week", [week.isoformat()])

    def segments(self, week: date) -> None:
        """The segments of a week. Earlier weeks come first: they give the segments their ids, and may choose the views."""
        self._group("segments_week", [week.isoformat()])
        if _CHOOSES_VIEWS:
            self._group("probe_week", [week.isoformat()])

    def report(self, week: date) -> None:
        """The probe of what segments were made from, segment rankers, controls, repeats, recommendations, test and report."""
        if not _CHOOSES_VIEWS:
            self._group("probe_week", [week.isoformat()])
        if keys := segment_keys(week):
            self._group("segment_rankers_week", keys)
        self._group("report_week", [week.isoformat()])

    def pooled(self, week: date) -> None:
        """The verdict over a week and those before it, whose reports come first."""
        self._group("pooled_week", [week.isoformat()])

    def is_stale(self, stage: str, week: date) -> bool:
        """Whether a stage (`models` or `report`) of `week` would do anything."""
        keys = {job: [week.isoformat()] for job in _STAGES[stage]}
        if "segment_rankers_week" in keys:
            keys["segment_rankers_week"] = segment_keys(week)
        return self._force or any(self._provenance.stale(plan, keys[job]) for job in keys for plan in plans_of(job))

    def refresh(self) -> None:
        """Forget what is known of the assets: other processes have made some meanwhile."""
        self._provenance = Provenance(self._instance)

    def _group(self, job: str, keys: Sequence[str]) -> None:
        plans = plans_of(job)
        if self._force or not any(key in self._provenance.made(plan.tables[0].name) for plan in plans for key in keys):
            self._run(job, plans, keys)
            return
        for plan in plans:
            stale = self._provenance.stale(plan, keys)
            if not stale:
                self._say(f"{plan.name}: up to date")
            for part in stretches(keys, stale):
                self._run(job, [plan], part)

    def _run(self, job: str, plans: Sequence[Plan], keys: Sequence[str]) -> None:
        partition: dict[str, Any] = {"tags": dict(self._tags)}
        if len(keys) > 1:
            partition["tags"] |= {
                "dagster/asset_partition_range_start": keys[0],
                "dagster/asset_partition_range_end": keys[-1],
            }
        elif keys[0]:
            partition["partition_key"] = keys[0]
        tables = [table.name for plan in plans for table in plan.tables]
        handler = _Lines(self._say)
        PROGRESS.addHandler(handler)
        try:
            result = self._definitions.resolve_job_def(job).execute_in_process(
                instance=self._instance,
                asset_selection=[dg.AssetKey(name) for name in tables],
                raise_on_error=False,
                run_config={"loggers": {"progress": {}}},
                **partition,
            )
        finally:
            PROGRESS.removeHandler(handler)
        for name in tables:
            self._provenance.forget(name)
        if not result.success:
            raise UserError(_reason(result))


@contextmanager
def open_runner(
    definitions: dg.Definitions, say: Say, force: bool = False, rewrite_history: bool = False
) -> Iterator[Runner]:
    """A runner on the instance of `$DAGSTER_HOME`."""
    with dg.DagsterInstance.get() as instance:
        yield Runner(definitions, instance, say, force, rewrite_history)


def plans_of(job: str) -> list[Plan]:
    """What a job of `jobs.ASSETS` runs, in that order; an asset that another one's pass writes has no plan of its own."""
    return [PLANS[name] for name in ASSETS[job] if name in PLANS]


class _Lines(logging.Handler):
    """Passes on what steps say to people, and nothing of Dagster's own bookkeeping."""

    def __init__(self, say: Say):
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        if not meta.get("dagster_event"):
            self._say(meta.get("orig_message") or record.getMessage())


def segment_keys(week: date) -> list[str]:
    """The partition keys of the segments that live in `week`, by its ledger."""
    from segflow import tables
    from segflow.storage import connect

    segflow = Segflow()
    with connect(segflow.config.compute) as connection:
        rows = segflow.storage.read(connection, tables.SEGMENT_LEDGER, where={"week": week}).to_pylist()
    return [
        str(dg.MultiPartitionKey({"week": week.isoformat(), "segment": row["segment_id"]}))
        for row in rows
        if row["cluster"] is not None
    ]


def _reason(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                return data.user_failure_data.description
            error = data.error.cause or data.error if data.error else None
            return f"{event.step_key}: {error.message.strip() if error else 'failed'}"
    return "the run failed; see its log in the Dagster UI"
