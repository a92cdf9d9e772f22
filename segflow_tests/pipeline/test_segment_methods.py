"""Another `rankers.segment_method` goes through the same assets: one setting, and the week is made anew with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from segflow import tables
from segflow.representation.checkpoints import unpack
from segflow.tables.rankers import CONTROL_RANKERS, SEGMENT_RANKERS
from segflow_tests.pipeline.conftest import Made
from segflow_tests.pipeline.project import Project

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("method", ["full", "feature", "ease"])
def test_a_method_is_trained_controlled_tested_listed_and_served(made: Made, tmp_path: Path, method: str) -> None:
    shutil.copytree(made.project.folder, tmp_path / "project")
    project, week = Project(tmp_path / "project"), made.weeks[1]
    file = project.folder / "segflow.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    values["rankers"]["segment_method"] = method
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    done = project.segflow("run", "--week", str(week))
    assert done.returncode == 0, done.stderr

    # Whatever the segments get, one control is told the segment.
    for table, kinds in ((SEGMENT_RANKERS, {method}), (CONTROL_RANKERS, {method, "feature"})):
        models = project.read(table, {"week": week})["model"]
        assert len(models) > 1
        assert {unpack(model.as_py())[1]["kind"] for model in models} == kinds
    arms = set(project.read(tables.RANKING_RESULTS, {"week": week})["arm"].to_pylist())
    assert {"global", "global_extra", "placebo_1", "segments"} <= arms
    assert ("segment_feature" in arms) == (method != "feature")
    assert project.read(tables.SERVED_RANKER, {"week": week})["arm"].to_pylist() == ["global", "segments"]
    gates = [json.loads(row)["gate"] for row in project.read(SEGMENT_RANKERS, {"week": week})["metrics"].to_pylist()]
    own = "segment" in set(project.read(tables.RECOMMENDATIONS, {"week": week})["arm"].to_pylist())
    assert own == (max(gates) > 0)

    segment = project.read(SEGMENT_RANKERS, {"week": week})["segment_id"][0].as_py()
    version = project.storage.version(SEGMENT_RANKERS)
    project.materialize("segment_rankers_week", f"{segment}|{week}")
    assert project.storage.version(SEGMENT_RANKERS) == version, "trained alone, the model differs"
