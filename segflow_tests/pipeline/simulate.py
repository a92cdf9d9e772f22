"""`python -m segflow_tests.pipeline.simulate FIRST MORNINGS`: mornings of a project whose automation is on, and mishaps.

Schedules, the sensor of late files and the automation conditions are evaluated at simulated times, until nothing more is asked
for; what they ask for is executed in this process, as the daemon would execute it in others. Prints a line of JSON for each
chapter: what was made how often, what failed, what was asked for and why nothing was. The settings come from the environment.

The files of the log wait in `waiting/`, one a day; the file of a day is delivered the morning after.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import dagster as dg
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.definitions.automation_tick_evaluation_context import AutomationTickEvaluationContext
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._serdes import deserialize_value, serialize_value

from segflow.definitions import defs
from segflow.defs.following import followed_weeks
from segflow_tests.pipeline.follow import follow

DAY = timedelta(days=1)
_MOST = 20


@dataclass
class Chapter:
    """What happened: `asset partition` -> how often it was made, the steps that failed, runs asked for, reasons for none."""

    made: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class Daemon:
    """The part of Dagster's daemon that evaluates and launches, at times of our choosing."""

    def __init__(self, instance: dg.DagsterInstance):
        self.instance = instance
        self.chapter = Chapter()
        self._repository = defs.get_repository_def()
        self._cursor = serialize_value(AssetDaemonCursor.empty())

    def running(self) -> list[str]:
        """The schedules and sensors that are on in a new Dagster home."""
        every = [*self._repository.schedule_defs, *self._repository.sensor_defs]
        return sorted(one.name for one in every if one.default_status.value == "RUNNING")

    def schedule(self, name: str, now: datetime) -> None:
        """One tick of a schedule."""
        context = dg.build_schedule_context(
            instance=self.instance, scheduled_execution_time=now, repository_def=self._repository
        )
        found = self._repository.get_schedule_def(name).evaluate_tick(context)
        if found.skip_message:
            self.chapter.skipped.append(f"{name}: {found.skip_message}")
        job = str(self._repository.get_schedule_def(name).job_name)
        for one in found.run_requests or []:
            self._run(job, one.partition_key, one.tags, one.asset_selection)

    def late_files(self) -> None:
        """The sensor of late files, to its end."""
        for asset, partition in follow():
            self.chapter.made[f"{asset} {partition}"] += 1

    def downstream(self, now: datetime) -> None:
        """The automation conditions, to their end. Raises RuntimeError when they do not come to rest."""
        sensor = self._repository.get_sensor_def("downstream")
        assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
        for _ in range(_MOST):
            graph = self._repository.asset_graph
            cursor = deserialize_value(self._cursor, AssetDaemonCursor)
            asked, after, _ = AutomationTickEvaluationContext(
                evaluation_id=cursor.evaluation_id + 1,
                instance=self.instance,
                asset_graph=graph,
                cursor=cursor,
                materialize_run_tags=sensor.run_tags,
                observe_run_tags={},
                auto_observe_asset_keys=set(),
                asset_selection=sensor.asset_selection,
                emit_backfills=sensor.emit_backfills,
                evaluation_time=now,
                logger=logging.getLogger("downstream"),
            ).evaluate()
            self._cursor = serialize_value(after)
            if not asked:
                return
            for one in asked:
                self._launch(one)
        raise RuntimeError(f"the automation conditions still ask for runs after {_MOST} rounds")

    def _launch(self, request: dg.RunRequest) -> None:
        job = "__ASSET_JOB"
        if request.asset_graph_subset is None:
            self._run(job, request.partition_key, request.tags, request.asset_selection)
            return
        # A backfill: asset by asset, in order, what the assets' backfill policies make of it.
        graph = self._repository.asset_graph
        subset, done = request.asset_graph_subset, set[dg.AssetKey]()
        for key in graph.toposorted_asset_keys:
            if key not in subset.asset_keys or key in done:
                continue
            together = [one for one in graph.get(key).execution_set_asset_keys if one in subset.asset_keys]
            done.update(together)
            definition = graph.get(key).partitions_def
            if definition is None:
                self._run(job, None, {}, together)
                continue
            with partition_loading_context(dynamic_partitions_store=self.instance):
                parts = subset.get_partitions_subset(key).get_partition_key_ranges(definition)
                spans = [(part, definition.get_partition_keys_in_range(part)) for part in parts]
            for part, keys in spans:
                if len(keys) > 1 and graph.get(key).backfill_policy.max_partitions_per_run != 1:
                    tags = {
                        "dagster/asset_partition_range_start": part.start,
                        "dagster/asset_partition_range_end": part.end,
                    }
                    self._run(job, None, tags, together)
                else:
                    for one in keys:
                        self._run(job, one, {}, together)

    def _run(self, job: str, partition: str | None, tags: object, selection: Sequence[dg.AssetKey] | None) -> None:
        tags = {name: value for name, value in dict(tags or {}).items() if name != "dagster/partition"}  # type: ignore[call-overload]
        first, last = (tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
        names = ",".join(sorted(key.to_user_string() for key in selection or []))
        self.chapter.asked.append(f"{job} {partition or (f'{first}...{last}' if first else '')} {names}".strip())
        result = self._repository.get_job(job).execute_in_process(
            instance=self.instance,
            partition_key=partition,
            tags={
                name: value for name, value in tags.items() if not (partition and name.startswith("dagster/partition/"))
            },
            asset_selection=list(selection) if selection else None,
            raise_on_error=False,
        )
        for event in result.get_asset_materialization_events():
            made = event.materialization
            self.chapter.made[f"{made.asset_key.to_user_string()} {made.partition or ''}"] += 1
        self.chapter.failed.extend(event.step_key or "" for event in result.all_events if event.is_step_failure)


def deliver(day: date) -> None:
    """The file of `day`, written a while ago."""
    name = f"{day}.csv"
    write(name, Path("waiting", name).read_text(encoding="utf-8"))


def write(name: str, text: str) -> None:
    """A file of the log, written a while ago."""
    Path("log").mkdir(exist_ok=True)
    Path("log", name).write_text(text, encoding="utf-8")
    then = time.time() - 60
    os.utime(Path("log", name), (then, then))


def at(day: date, hour: int) -> datetime:
    """A time of `day`, UTC."""
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


def morning(daemon: Daemon, day: date) -> None:
    """The night's schedules and all that follows."""
    daemon.schedule("daily_ingest", at(day, 2))
    daemon.downstream(at(day, 3))
    daemon.schedule("weekly_snapshot", at(day, 4))
    daemon.downstream(at(day, 5))


@contextmanager
def broken_pages() -> Iterator[None]:
    """The pages of days cannot be made."""
    with patch("segflow.events.day_page.pages", side_effect=OSError("no space left on device")):
        yield


def one_more_member(rows: Callable[..., object]) -> Callable[..., object]:
    """`user_segment_rows` with a user of the second segment taken out of it."""
    import pyarrow as pa

    def changed(*arguments: object) -> pa.Table:
        found: pa.Table = rows(*arguments)  # type: ignore[assignment]
        own = found.to_pylist()
        segments = sorted({row["segment_id"] for row in own if row["distance"] is not None})
        row = next(row for row in own if row["segment_id"] == segments[1])
        row.update(segment_id="unassigned", probability=0.0, distance=None, outlier=False)
        return pa.Table.from_pylist(own, schema=found.schema)

    return changed


def story(daemon: Daemon, first: date, mornings: int) -> Iterator[str]:
    """Chapter after chapter: yields the name of each when it is over."""
    header = "user,item,type,time,price\n"
    for number in range(mornings):
        day = first + number * DAY
        for earlier in sorted(Path("waiting").iterdir()):
            if earlier.stem < str(day) and not Path("log", earlier.name).exists():
                deliver(date.fromisoformat(earlier.stem))
        morning(daemon, day)
        yield f"morning {day}"
    day = first + (mornings - 1) * DAY
    morning(daemon, day)
    daemon.late_files()
    yield "the same morning again"

    late = first - 3 * DAY
    write("late-1.csv", f"{header}u0000,p001,view,{late} 12:00:00,5.00\nu0000,p002,view,{late} 12:01:00,5.00\n")
    daemon.late_files()
    daemon.downstream(at(day, 6))
    yield "a late file"

    with broken_pages():
        write("late-2.csv", f"{header}u0001,p001,view,{late} 12:00:00,5.00\n")
        daemon.late_files()
        for hour in range(7, 10):
            daemon.downstream(at(day, hour))
        yield "a page that cannot be made"
    daemon.downstream(at(day, 12))
    yield "nothing was mended that is known of"
    write("late-3.csv", f"{header}u0002,p001,view,{late} 12:00:00,5.00\n")
    daemon.late_files()
    daemon.downstream(at(day, 13))
    yield "its inputs changed"

    next_day = day + DAY
    whole = Path("waiting", f"{day}.csv").read_text(encoding="utf-8")
    write(f"{day}.csv", whole.replace("user,", "customer,", 1))
    for _ in range(3):
        daemon.schedule("daily_ingest", at(next_day, 2))
        daemon.downstream(at(next_day, 3))
    yield "a file without its users"
    deliver(day)
    for _ in range(2):
        daemon.schedule("daily_ingest", at(next_day, 2))
        daemon.downstream(at(next_day, 3))
    yield "the file is mended"


def members(daemon: Daemon, week: date, now: datetime) -> Iterator[str]:
    """A user leaves a segment."""
    from segflow.segments import snapshots

    with patch("segflow.segments.snapshots.user_segment_rows", one_more_member(snapshots.user_segment_rows)):
        daemon._run("__ASSET_JOB", str(week), {}, [dg.AssetKey("user_segments")])
    yield "a user leaves a segment"
    daemon.downstream(now)
    yield "what follows the members"


def main(first: date, mornings: int) -> None:
    """Print every chapter. The last ones are of the newest week whose test week is over, if there is one."""
    with dg.DagsterInstance.get() as instance:
        daemon = Daemon(instance)
        print(json.dumps({"chapter": "turned on", **vars(Chapter(asked=daemon.running()))}), flush=True)
        chapters, after = [story(daemon, first, mornings)], at(first + mornings * DAY, 6)
        if len(weeks := followed_weeks(after)) > 1:
            chapters.append(members(daemon, weeks[-2], after))
        for part in chapters:
            for name in part:
                print(json.dumps({"chapter": name, **vars(daemon.chapter)}), flush=True)
                daemon.chapter = Chapter()


if __name__ == "__main__":
    shutil.rmtree("log", ignore_errors=True)
    main(date.fromisoformat(sys.argv[1]), int(sys.argv[2]))
