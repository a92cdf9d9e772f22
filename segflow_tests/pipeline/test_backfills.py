"""How a backfill is cut into runs, and in which order it makes what depends on itself."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from segflow import tables
from segflow.definitions import defs
from segflow.defs.partitions import CONFIG, DAILY, WEEKLY
from segflow_tests.faults.daemon import daemon, opened
from segflow_tests.pipeline.conftest import Made
from segflow_tests.pipeline.project import Project, run_job
from segflow_tests.planted import planted_log


def test_days_come_in_chunks_and_weeks_one_by_one() -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        if node.partitions_def == DAILY:
            assert node.backfill_policy == dg.BackfillPolicy.multi_run(CONFIG.compute.days_per_run), key
        elif node.partitions_def == WEEKLY:
            assert node.backfill_policy == dg.BackfillPolicy.multi_run(1), key


def test_one_segment_over_weeks_is_made_as_with_all_others(made: Made) -> None:
    first, second = made.weeks
    storage = made.project.storage
    lives = {
        week: set(made.project.read(tables.SEGMENT_RANKERS, {"week": week})["segment_id"].to_pylist())
        for week in made.weeks
    }
    segment = sorted(lives[first] & lives[second])[0]
    before = made.project.read(tables.SEGMENT_RANKERS)
    version = storage.version(tables.SEGMENT_RANKERS)
    made.project.materialize("segment_rankers_week", f"{segment}|{first}", f"{segment}|{second}")
    assert made.project.read(tables.SEGMENT_RANKERS).equals(before)
    assert storage.version(tables.SEGMENT_RANKERS) == version


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["../../../outside", "s001') OR ('1' = '1", "$(touch outside)", "s001\nX", "<img src=x>"]
)
def test_a_partition_that_somebody_added_by_hand_is_no_segment(
    made: Made, instance: dg.DagsterInstance, name: str
) -> None:
    """Whoever may use the UI may add partitions of any name."""
    week, before = made.weeks[-1], made.project.versions()
    files = set(made.project.folder.rglob("outside*"))
    instance.add_dynamic_partitions("segment", [name])
    try:
        done = made.project.python(*run_job("segment_rankers_week", f"{name}|{week}", f"{name}|{week}"))
    finally:
        instance.delete_dynamic_partition("segment", name)
    assert done.returncode != 0
    assert f"week {week} has no segment" in done.stderr
    assert made.project.versions() == before
    assert set(made.project.folder.rglob("outside*")) == files


SNAPSHOT = ["user_views", "user_embeddings", "segmentation", "segment_ledger", "user_segments"]


@pytest.mark.slow
def test_weeks_of_one_backfill_come_in_order_where_they_read_each_other(tmp_path: Path) -> None:
    log = planted_log(tmp_path, users=80, weeks=9)
    project = Project.make(
        tmp_path,
        log.start,
        log.end,
        users={"views": ["engagement", "behavior"], "fuse": ["engagement", "behavior"]},
        compute={"memory_limit": "1GB", "threads": 1, "days_per_run": 63},
    )
    weeks = [str(log.end - timedelta(weeks=count)) for count in (4, 3, 2)]
    project.materialize("catalogue", "")
    project.materialize("days", str(log.start), str(log.end - timedelta(days=1)))
    for week in weeks:
        project.materialize("models_week", week, only=["behavior_model"])
    with daemon(project) as running, opened(project) as instance:
        # The newest first: the order in which they are asked for must not matter.
        backfill = running.backfill(SNAPSHOT, weeks[::-1])
        assert running.wait(instance, backfill, 1200) == BulkActionStatus.COMPLETED_SUCCESS, running.log()[-4000:]
        made = instance.fetch_materializations(dg.AssetKey("segment_ledger"), limit=10, ascending=True).records
        assert [record.partition_key for record in made] == weeks
