"""`python -m segflow_tests.ui.leave WEEK`: makes `user_segments` of a week again, with one user taken out of the second segment.

Prints that segment. The settings come from the environment.
"""

from __future__ import annotations

import sys
from datetime import date
from unittest.mock import patch

import dagster as dg

from segflow import tables
from segflow.config import ComputeConfig
from segflow.definitions import defs
from segflow.defs.resources import Segflow
from segflow.segments import snapshots
from segflow.storage import connect
from segflow_tests.pipeline.simulate import one_more_member


def leave(week: str) -> str:
    """The segment that a user left."""
    with connect(ComputeConfig(spill="spill", threads=1)) as connection:
        rows = Segflow().storage.read(connection, tables.USER_SEGMENTS, where={"week": date.fromisoformat(week)})
    segments = sorted(set(rows["segment_id"].to_pylist()) - {snapshots.UNASSIGNED})
    changed = one_more_member(snapshots.user_segment_rows)
    with patch("segflow.segments.snapshots.user_segment_rows", changed), dg.DagsterInstance.get() as instance:
        done = defs.resolve_job_def("segments_week").execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey("user_segments")], partition_key=week
        )
    assert done.success
    return str(segments[1])


if __name__ == "__main__":
    print(leave(sys.argv[1]))
