"""What runs by the clock: the days that ended, and the snapshot of a week that is complete.

Both look at what was never made, so a day on which nobody was there is caught up. What follows from what they make is asked for
by automation conditions (``automation``); late files are a sensor's (``events/sensors``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from segflow.defs import jobs
from segflow.defs.following import Following, ended_days
from segflow.defs.materializes import PLANS, Plan
from segflow.defs.partitions import CONFIG, DAYS_AT_ONCE, stretches
from segflow.defs.provenance import Provenance
from segflow.defs.runner import plans_of

Asked = Iterator[dg.RunRequest | dg.SkipReason]

ASKED = "segflow/asked"
"""Tag of a run: for what, and with which inputs, it was asked. Run keys of schedules only tell requests of one tick apart."""

_ENDED_BADLY = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
UNDER_WAY = [one for one in dg.DagsterRunStatus if one not in (dg.DagsterRunStatus.SUCCESS, *_ENDED_BADLY)]
"""Statuses of runs that have not ended."""

_DAILY = ("raw_events", "events", "sessions")
_SOURCES = ("source_files", "items", "users", "user_edges")
_LATEST_RUNS = 100


def _cron(time_of_day: str) -> str:
    hour, minute = time_of_day.split(":")
    return f"{int(minute)} {int(hour)} * * *"


def status(on: bool) -> dg.DefaultScheduleStatus:
    """How a schedule starts in a new Dagster home; the UI turns it on and off too."""
    return dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED


@dg.schedule(
    name="daily_ingest",
    job=jobs.INGEST_DAYS,
    cron_schedule=_cron(CONFIG.automation.ingest_at),
    execution_timezone="UTC",
    default_status=status(CONFIG.automation.daily_ingest),
    description="The days that ended and were never made, from source files to sessions.",
)
def daily_ingest(context: dg.ScheduleEvaluationContext) -> Asked:
    """A run for each stretch of days, with the day before and after it if they are made: sessions reach over midnight.

    A day that failed is asked for alone, so that it holds up no other, and again only when a source file has changed.
    """
    provenance = Provenance(context.instance)
    days = [str(day) for day in ended_days(_now(context))]
    made = set.intersection(*(set(provenance.keys(name)) for name in _DAILY))
    wanted = set(days) - made - days_of_runs(context.instance, UNDER_WAY)
    if not wanted:
        yield dg.SkipReason("every day that ended is made, or under way")
        return
    failed = wanted & days_of_runs(context.instance, _ENDED_BADLY)
    sources = _sources(provenance)
    again = []
    for part in [*_chunks(days, wanted - failed), *([day] for day in sorted(failed))]:
        asked = f"{part[0]} {part[-1]} {sources}"
        if _was_asked(context.instance, asked):
            again.extend(part)
            continue
        first, last = _with_neighbours(part, made)
        yield dg.RunRequest(run_key=asked, tags={ASKED: asked, **span(first, last)})
    if len(again) == len(wanted):
        yield dg.SkipReason(f"{', '.join(again)} failed, and no source file has changed since")


@dg.schedule(
    name="weekly_snapshot",
    job=jobs.SNAPSHOT_WEEK,
    cron_schedule=_cron(CONFIG.automation.snapshot_at),
    execution_timezone="UTC",
    default_status=status(CONFIG.automation.weekly_snapshot),
    description="Models and segments of the newest complete week, and of followed weeks that were missed, in order.",
)
def weekly_snapshot(context: dg.ScheduleEvaluationContext) -> Asked:
    """One week at a time: a segment's identity comes from the latest snapshot before."""
    following = Following(Provenance(context.instance), _now(context))
    plans = [plan for job in ("models_week", "segments_week") for plan in plans_of(job)]
    for week in map(str, following.weeks):
        missing = [plan for plan in plans if following.made(plan, week) is None]
        if not missing:
            continue
        if context.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": week}, statuses=UNDER_WAY), limit=1):
            yield dg.SkipReason(f"a run of week {week} is under way")
            return
        own = {(table.name, week) for plan in missing for table in plan.tables}
        if lacking := next((one for plan in missing if (one := following.waits_for(plan, week, own))), None):
            yield dg.SkipReason(f"week {week} waits for {lacking}")
            return
        asked = f"{week} {_read_outside(following, plans, week)}"
        if _was_asked(context.instance, asked):
            yield dg.SkipReason(f"week {week} failed, and what it reads has not changed since; run it again by hand")
            return
        selected = [dg.AssetKey(name) for name, _ in sorted(own)]
        yield dg.RunRequest(run_key=asked, partition_key=week, asset_selection=selected, tags={ASKED: asked})
        return
    yield dg.SkipReason("the followed weeks are made" if following.weeks else "no week is complete yet")


def days_of_runs(instance: dg.DagsterInstance, statuses: Collection[dg.DagsterRunStatus]) -> set[str]:
    """The days that the latest runs of these statuses were asked to bring from source files to sessions."""
    found: set[str] = set()
    for job in (jobs.INGEST_DAYS.name, jobs.ARRIVED_DAYS.name):
        for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=list(statuses)), limit=_LATEST_RUNS):
            first = run.tags.get("dagster/asset_partition_range_start") or run.tags.get("dagster/partition")
            last = run.tags.get("dagster/asset_partition_range_end") or first
            if first and last:
                days = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
                found.update(str(date.fromisoformat(first) + timedelta(days=number)) for number in range(days))
    return found


def span(first: str, last: str) -> dict[str, str]:
    """The tags of a run of a range of days."""
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def _now(context: dg.ScheduleEvaluationContext) -> datetime:
    return context.scheduled_execution_time.astimezone(UTC)


def _chunks(days: Sequence[str], wanted: Collection[str]) -> Iterator[list[str]]:
    for part in stretches(days, wanted):
        for start in range(0, len(part), DAYS_AT_ONCE):
            yield part[start : start + DAYS_AT_ONCE]


def _was_asked(instance: dg.DagsterInstance, asked: str) -> bool:
    return bool(instance.get_runs(dg.RunsFilter(tags={ASKED: asked}), limit=1))


def _sources(provenance: Provenance) -> str:
    """Digest of all source files, by names, sizes and times, and of the code that reads them."""
    digests = [provenance.inputs(PLANS[name], "") for name in _SOURCES]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]


def _with_neighbours(part: Sequence[str], made: Collection[str]) -> tuple[str, str]:
    first, last = (date.fromisoformat(day) for day in (part[0], part[-1]))
    before, after = str(first - timedelta(days=1)), str(last + timedelta(days=1))
    return before if before in made else part[0], after if after in made else part[-1]


def _read_outside(following: Following, plans: Sequence[Plan], week: str) -> str:
    """Digest of what `plans` read and do not make: the same however much of the week was made before a step failed."""
    digest, own = hashlib.sha256(), {table.name for plan in plans for table in plan.tables}
    for plan in plans:
        read = following.provenance.contents(plan, week)
        kept = {name: one for name, one in sorted(read.items()) if name not in own}
        digest.update(f"{plan.code_version} {kept}".encode())
    return digest.hexdigest()[:16]
