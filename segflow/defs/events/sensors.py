"""The sensor that brings late and corrected files into the days that they touch."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from segflow.defs import jobs
from segflow.defs.following import ended_days
from segflow.defs.materializes import PLANS
from segflow.defs.partitions import CONFIG, stretches
from segflow.defs.provenance import Provenance
from segflow.events import source

_RAW, _EVENTS, _SESSIONS = "raw_events", "events", "sessions"
_ALSO_DAYS = (jobs.LIST_FILES, jobs.ARRIVED_DAYS, jobs.REACHED_SESSIONS, jobs.INGEST_DAYS)


@dg.sensor(
    name="late_files",
    jobs=[jobs.LIST_FILES, jobs.ARRIVED_DAYS, jobs.REACHED_SESSIONS],
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING if CONFIG.automation.late_files else dg.DefaultSensorStatus.STOPPED,
    description="Brings new, late and corrected source files into exactly the days that they touch.",
)
def late_files(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """One thing after another, each told from what partitions were made of: the files, their days, the neighbours' sessions.

    Nothing is remembered between evaluations, so a sensor that was off, or killed, misses nothing.
    """
    provenance = Provenance(context.instance)
    if not provenance.made(_RAW):
        yield dg.SkipReason(
            "the log was never made; materialize its days once, then files that come later are followed"
        )
        return
    if busy := [job for job in _ALSO_DAYS if _running(context, job.name)]:
        yield dg.SkipReason(f"a run of {busy[0].name} is under way")
        return
    if provenance.stale(PLANS["source_files"], [""]):
        yield from _look(provenance.inputs(PLANS["source_files"], ""))
        return
    if arrived := _arrived(provenance):
        yield from _requests(jobs.ARRIVED_DAYS, arrived, provenance, _RAW)
        return
    if reached := _reached(provenance):
        yield from _requests(jobs.REACHED_SESSIONS, reached, provenance, _SESSIONS)
        return
    yield dg.SkipReason("no file is new or changed")


def _arrived(provenance: Provenance) -> list[str]:
    """Days whose source rows are not those that they were made of. Changed code is no arrival: that is for people to run."""
    made, code = provenance.made(_RAW), PLANS[_RAW].code_version
    listed = provenance.made("source_files")[""].aspects or {}
    # Rows of today, and of tomorrow by clocks that are ahead, wait for their partition.
    days = {str(day) for day in ended_days(datetime.now(UTC))} & {*listed, *made}
    followed = [day for day in sorted(days) if day not in made or made[day].code == code]
    return provenance.stale(PLANS[_RAW], followed)


def _reached(provenance: Provenance) -> list[str]:
    """Days whose sessions may reach into a day that was made after them, and differs where they can see it."""
    events, code = provenance.made(_EVENTS), PLANS[_SESSIONS].code_version
    followed = []
    for day, made in sorted(provenance.made(_SESSIONS).items()):
        beside = [(date.fromisoformat(day) + timedelta(days=step)).isoformat() for step in (-1, 1)]
        if made.code == code and any(one in events and events[one].order > made.order for one in beside):
            followed.append(day)
    return provenance.stale(PLANS[_SESSIONS], followed)


def growing(files: Iterable[source.SourceFile], now: float, settle_seconds: int) -> bool:
    """Whether a file may still be written. One that is dated well ahead has a wrong clock, and is not waited for."""
    return any(abs(now - file.modified / 1e9) < settle_seconds for file in files)


def _look(digest: str) -> Iterator[dg.RunRequest | dg.SkipReason]:
    events = CONFIG.source.events
    if growing(source.files(events.path, events.format), time.time(), events.settle_seconds):
        yield dg.SkipReason("a file is still being written")
        return
    yield dg.RunRequest(run_key=f"files-{digest}", job_name=jobs.LIST_FILES.name)


def _requests(
    job: dg.UnresolvedAssetJobDefinition, days: Sequence[str], provenance: Provenance, asset: str
) -> Iterator[dg.RunRequest]:
    """One run for each stretch of days.

    The run key holds what the days are and what they would be made of: the same is not asked twice, but a file that changes
    to and fro is followed each time.
    """
    made = provenance.made(asset)
    for part in stretches([str(day) for day in CONFIG.calendar.days()], set(days)):
        states = [
            f"{day}:{made[day].order if day in made else 0}:{provenance.inputs(PLANS[asset], day)}" for day in part
        ]
        key = f"{job.name}-{part[0]}-{hashlib.sha256('|'.join(states).encode()).hexdigest()[:16]}"
        if len(part) == 1:
            yield dg.RunRequest(run_key=key, job_name=job.name, partition_key=part[0])
        else:
            span = {"dagster/asset_partition_range_start": part[0], "dagster/asset_partition_range_end": part[-1]}
            yield dg.RunRequest(run_key=key, job_name=job.name, tags=span)


def _running(context: dg.SensorEvaluationContext, job: str) -> bool:
    ended = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    under_way = [status for status in dg.DagsterRunStatus if status not in ended]
    return bool(context.instance.get_runs(dg.RunsFilter(job_name=job, statuses=under_way), limit=1))
