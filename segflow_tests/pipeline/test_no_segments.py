"""A log without segments goes through to its verdict: there is nothing to train by segment, and the report says so."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from segflow import tables
from segflow_tests.pipeline.project import Project
from segflow_tests.planted import planted_log

pytestmark = pytest.mark.slow


def test_a_whole_run_without_segments_ends_with_a_verdict(tmp_path: Path) -> None:
    # So few users that nothing stands out from chance.
    log = planted_log(tmp_path, users=60, weeks=8)
    project = Project.make(tmp_path, log.start, log.end)
    done = project.segflow("run", "--weeks", "1", "--json")
    assert done.returncode == 0, done.stderr
    week = log.end - timedelta(weeks=2)
    assert {*project.read(tables.USER_SEGMENTS, {"week": week})["segment_id"].to_pylist()} == {"unassigned"}
    assert project.read(tables.SEGMENT_RANKERS).num_rows == 0
    (pooled,) = project.read(tables.POOLED_VERDICT).to_pylist()
    (report,) = project.read(tables.EVALUATION_REPORT).to_pylist()
    assert pooled["outcome"] == json.loads(report["summary"])["verdict"]["outcome"] != "segment"
    assert project.read(tables.RECOMMENDATIONS, {"week": week})["arm"].to_pylist()
    assert set(project.read(tables.RECOMMENDATIONS)["arm"].to_pylist()) == {"global"}
