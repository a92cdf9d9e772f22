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
from dagster._core.utils import make_new_run_id

from segflow.defs.instance import open_instance
from segflow.defs.jobs import ASSETS
from segflow.defs.kept import Over
from segflow.defs.materializes import PLANS, Plan
from segflow.defs.partitions import CONFIG, stretches
from segflow.defs.processes import worker_tag
from segflow.defs.progress import PROGRESS
from segflow.defs.provenance import Provenance
from segflow.defs.reconcile import tidy
from segflow.defs.resources import Segflow
from segflow.defs.segments.assets import REWRITE_HISTORY
from segflow.errors import RunFailedError
from segflow.watching import Watcher

# The probe of a week then has to be over before the segments of the next one; else it can wait for the report.
_CHOOSES_VIEWS = CONFIG.users.fuse == "auto"
STAGES = {
    "catalogue": ["catalogue"],
    "days": ["days"],
    "models": ["models_week"],
    "segments": ["segments_week", "probe_week"] if _CHOOSES_VIEWS else ["segments_week"],
    "report": [*([] if _CHOOSES_VIEWS else ["probe_week"]), "segment_rankers_week", "report_week"],
    "pooled": ["pooled_week"],
}
"""Stage of a whole run -> its jobs, in their order."""


_STOPPED = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


class Runner:
    """Materializes what is stale on one Dagster instance."""

    def __init__(
        self,
        definitions: dg.Definitions,
        instance: dg.DagsterInstance,
        watcher: Watcher,
        force: bool = False,
        rewrite_history: bool = False,
    ):
        self._definitions = definitions
        self._instance = instance
        self._watcher = watcher
        self._force = force
        # Nobody but the caller could make its runs again.
        self._tags = {MAX_RETRIES_TAG: "0"}
        if rewrite_history:
            self._tags[REWRITE_HISTORY] = "true"
        self._provenance = Provenance(instance)
        self._stage = ""

    def tidy(self) -> None:
        """Close what killed processes left open, and say so: no sensor does it where no daemon runs."""
        if closed := tidy(self._instance, Segflow().tracking):
            self._watcher.say(closed)

    def catalogue(self) -> None:
        """Items, users and item vectors."""
        self._make("catalogue", lambda _: [""])

    def days(self, first: date, last: date, at_once: int | None = None) -> None:
        """Every day in [first, last). at_once: the most days of one run; None: one run for all neighbours."""
        keys = day_keys(first, last)
        if at_once is None or at_once >= len(keys):
            self._make("days", lambda _: keys)
            return
        self._stage = "days"
        # Asset after asset: a day also reads the edge of the next one, which a later run of all assets would change.
        for plan in plans_of("days"):
            self._one("days", plan, keys, at_once)

    def models(self, week: date) -> None:
        """What a week learns from everybody. Weeks do not depend on each other here."""
        self._make("models", lambda _: [week.isoformat()])

    def segments(self, week: date) -> None:
        """The segments of a week. Earlier weeks come first: they give the segments their ids, and may choose the views."""
        self._make("segments", lambda _: [week.isoformat()])

    def report(self, week: date) -> None:
        """The probe of what segments were made from, segment rankers, controls, repeats, recommendations, test and report."""
        self._make("report", lambda job: keys_of(job, week))

    def pooled(self, week: date) -> None:
        """The verdict over a week and those before it, whose reports come first."""
        self._make("pooled", lambda _: [week.isoformat()])

    def is_stale(self, stage: str, week: date) -> bool:
        """Whether a stage (`models` or `report`) of `week` would do anything."""
        if self._force:
            return True
        return any(self.stale(plan, keys_of(job, week)) for job in STAGES[stage] for plan in plans_of(job))

    def stale(self, plan: Plan, keys: Sequence[str]) -> list[str]:
        """Those of `keys` that would be made."""
        if not self._force:
            return self._provenance.stale(plan, keys)
        over = set(Over.read().among(plan, keys))
        return [key for key in keys if key not in over]

    def asset(self, job: str, plan: Plan, keys: Sequence[str], at_once: int | None = None) -> None:
        """One asset of `job`, a stage by itself: those of its partitions that are stale."""
        self._stage = plan.name
        self._one(job, plan, keys, at_once)

    def _one(self, job: str, plan: Plan, keys: Sequence[str], at_once: int | None = None) -> None:
        """Those partitions of one asset that are stale, neighbours in one run of at most `at_once`."""
        stale = self.stale(plan, keys)
        if not stale:
            self._watcher.say(f"{plan.name}: up to date")
        self._watcher.advance(self._stage, weight_of(job, keys) - weight_of(job, stale))
        for part in stretches(keys, stale):
            for start in range(0, len(part), at_once or len(part)):
                self._run(job, [plan], part[start : start + (at_once or len(part))])

    def refresh(self) -> None:
        """Forget what is known of the assets: other processes have made some meanwhile."""
        self._provenance = Provenance(self._instance)

    def _make(self, stage: str, keys: Callable[[str], Sequence[str]]) -> None:
        """The jobs of a stage; `keys` gives those of a job when its turn comes."""
        self._stage = stage
        for job in STAGES[stage]:
            if chosen := keys(job):
                self._group(job, chosen)
            else:
                self._watcher.advance(stage, len(plans_of(job)))

    def _group(self, job: str, keys: Sequence[str]) -> None:
        plans = plans_of(job)
        if self._force or not any(key in self._provenance.made(plan.tables[0].name) for plan in plans for key in keys):
            self._run(job, plans, keys)
            return
        for plan in plans:
            self._one(job, plan, keys)

    def _run(self, job: str, plans: Sequence[Plan], keys: Sequence[str]) -> None:
        run_id = make_new_run_id()
        partition: dict[str, Any] = {"run_id": run_id, "tags": self._tags | worker_tag(run_id)}
        if len(keys) > 1:
            partition["tags"] |= {
                "dagster/asset_partition_range_start": keys[0],
                "dagster/asset_partition_range_end": keys[-1],
            }
        elif keys[0]:
            partition["partition_key"] = keys[0]
        tables = [table.name for plan in plans for table in plan.tables]
        handler = _Events(self._watcher, self._stage, weight_of(job, keys))
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
            raise RunFailedError(_reason(result))


def weight_of(job: str, keys: Sequence[str]) -> int:
    """The steps that partitions of one asset count: a day is one, and so is a week, whatever its segments."""
    return len(keys) if job == "days" else min(len(keys), 1)


def steps_of(stage: str, days: int = 1) -> int:
    """How many steps a stage counts: its assets, times the days that they are made for."""
    return days * sum(len(plans_of(job)) for job in STAGES[stage])


def day_keys(first: date, last: date) -> list[str]:
    """The partition keys of the days in [first, last)."""
    return [(first + timedelta(days=number)).isoformat() for number in range((last - first).days)]


def keys_of(job: str, week: date) -> list[str]:
    """The partition keys of a week in one of its jobs: the week, or its segments."""
    return segment_keys(week) if job == "segment_rankers_week" else [week.isoformat()]


@contextmanager
def open_runner(
    definitions: dg.Definitions, watcher: Watcher, force: bool = False, rewrite_history: bool = False
) -> Iterator[Runner]:
    """A runner on the instance of `$DAGSTER_HOME`."""
    with open_instance() as instance:
        yield Runner(definitions, instance, watcher, force, rewrite_history)


def plans_of(job: str) -> list[Plan]:
    """What a job of `jobs.ASSETS` runs, in that order; an asset that another one's pass writes has no plan of its own."""
    return [PLANS[name] for name in ASSETS[job] if name in PLANS]


class _Events(logging.Handler):
    """Passes on what steps say to people and which of them are over, and nothing else of Dagster's own bookkeeping."""

    def __init__(self, watcher: Watcher, stage: str, weight: int):
        super().__init__(logging.DEBUG)
        self._watcher, self._stage, self._weight = watcher, stage, weight

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        if event is None:
            if record.levelno >= logging.INFO:
                self._watcher.say(meta.get("orig_message") or record.getMessage())
        elif event.event_type is dg.DagsterEventType.STEP_START:
            self._watcher.working(self._stage, str(event.step_key))
        elif event.event_type is dg.DagsterEventType.STEP_SUCCESS:
            self._watcher.advance(self._stage, self._weight)


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
    """Why a run failed, in one line. Raises KeyboardInterrupt when somebody stopped it, which Dagster records as a failure."""
    ends = (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE)
    errors = [
        getattr(event.event_specific_data, "error", None) for event in result.all_events if event.event_type in ends
    ]
    if any(error is not None and error.cls_name in _STOPPED for error in errors):
        raise KeyboardInterrupt
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                return data.user_failure_data.description
            error = data.error.cause or data.error if data.error else None
            return f"{event.step_key}: {error.message.strip() if error else 'failed'}"
    return "the run failed; see its log in the Dagster UI"
