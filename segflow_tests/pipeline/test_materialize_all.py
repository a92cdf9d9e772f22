"""*Materialize all* where nothing was ever made: what one press makes, what a second one, and what says why not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from segflow import tables
from segflow_tests.faults.daemon import daemon, opened
from segflow_tests.pipeline.project import Project
from segflow_tests.planted import planted_log

pytestmark = pytest.mark.slow
TESTED = {
    *("ranking_results", "leave_one_out", "list_quality", "arm_tuning"),
    *("evaluation_report", "pooled_verdict", "champion"),
}
"""What is made of the week after the snapshot week."""
SEGMENTED = {"recommendations", "served_ranker", *TESTED}
"""What is made with the rankers of segments."""
FIRST_OF_SEGMENTED = {"recommendations", "served_ranker", "ranking_results"}
DAYS = {"raw_events", "events", "quarantined_events", "sessions", "user_days", "day_reports", "session_embeddings"}


def test_everything_is_made_in_two_presses(tmp_path: Path) -> None:
    """The first press finds the segments; their rankers, and what is tested with them, are of the second.

    Segments are partitions that nobody knows before they are found, and Dagster asks for the partitions there are at the press.
    """
    log = planted_log(tmp_path, users=120, weeks=5)
    project = Project.make(tmp_path, log.start, log.end)
    names = set(tables.ALL)
    weeks = [str(log.start + timedelta(weeks=number)) for number in (2, 3, 4)]
    snapshots = {"source_files", "items", "users", "user_edges", "item_embeddings"}
    weekly = names - DAYS - snapshots - SEGMENTED - {"segment_rankers"}
    with opened(project) as instance, daemon(project) as running:
        first = running.backfill(sorted(names))
        assert running.wait(instance, first, 1800) == BulkActionStatus.COMPLETED_FAILED
        made = partitions(instance, names)
        days = {str(log.start + timedelta(days=number)) for number in range(5 * 7)}
        assert {name: made[name] for name in DAYS} == dict.fromkeys(DAYS, days)
        assert {name: made[name] for name in weekly} == {name: set(weeks) for name in weekly}
        # Nothing else failed than what is made with the rankers of segments, each week of it, and it says what to make.
        said = failures(instance, first)
        assert {name: len(lines) for name, lines in said.items()} == dict.fromkeys(FIRST_OF_SEGMENTED, 3)
        for line in [line for lines in said.values() for line in lines]:
            assert re.search("segment_rankers has no rows for .*; materialize those partitions first", line), line

        segments = project.read(tables.SEGMENT_LEDGER).to_pylist()
        second = running.backfill(["segment_rankers", *sorted(SEGMENTED)])
        assert running.wait(instance, second, 1800) == BulkActionStatus.COMPLETED_FAILED
        made = partitions(instance, names)
        assert made["segment_rankers"] >= {f"{row['segment_id']}|{row['week']}" for row in segments}
        assert {name: made[name] for name in SEGMENTED} == {
            name: set(weeks[:-1] if name in TESTED else weeks) for name in SEGMENTED
        }
        ((line,),) = failures(instance, second).values()
        assert "the week after the snapshot week has no event with a candidate item; ingest that week's days" in line
    for week in weeks[:-1]:
        (report,) = [row for row in project.read(tables.EVALUATION_REPORT).to_pylist() if str(row["week"]) == week]
        assert report["summary"]


def partitions(instance: dg.DagsterInstance, names: Iterable[str]) -> Mapping[str, set[str]]:
    """Asset -> its partitions that were made."""
    return {name: instance.get_materialized_partitions(dg.AssetKey(name)) for name in names}


def failures(instance: dg.DagsterInstance, backfill: str) -> dict[str, list[str]]:
    """Step -> what it said in each run of the backfill in which it failed."""
    found: dict[str, list[str]] = {}
    for run in instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill})):
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
            event = entry.dagster_event
            if event is not None and event.step_key is not None:
                failed = event.step_failure_data
                said = failed.user_failure_data.description if failed.user_failure_data else failed.error
                found.setdefault(event.step_key, []).append(str(said))
    return found
