"""The champion follows the verdict: other results of the same week's test, and other rankers serve."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml

from segflow import tables
from segflow.config import ComputeConfig, TrackingConfig
from segflow.rankers.segment_rankers import read_deltas
from segflow.rankers.served import ServedRanker
from segflow.storage import connect
from segflow.tracking import Tracking
from segflow.tracking.serving import CHAMPION, bundle_of
from segflow_tests.pipeline.conftest import Made
from segflow_tests.pipeline.project import Project

pytestmark = pytest.mark.slow


@pytest.fixture
def project(made: Made, tmp_path: Path) -> Project:
    """A copy that concludes from few users: the small log has no more."""
    shutil.copytree(made.project.folder, tmp_path / "project")
    copied = Project(tmp_path / "project")
    file = copied.folder / "segflow.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    values["evaluation"] = {"minimum_users": 10}
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    _open_gates(copied, made.weeks[1])
    return copied


def _open_gates(project: Project, week: date) -> None:
    """So little is learned in the small log that gates may all be shut; then all versions would be the same one."""
    for row in project.read(tables.SEGMENT_RANKERS, {"week": week}).to_pylist():
        deltas = read_deltas([row["model"]])
        row["model"] = replace(deltas, gate=torch.ones(1)).to_bytes()
        _replace(project, tables.SEGMENT_RANKERS, [row], (week, row["segment_id"]))
    project.materialize("report_week", str(week), only=["served_ranker"])


def _replace(
    project: Project, table: tables.Table, rows: list[dict[str, Any]], partition: tuple[date | str, ...]
) -> None:
    with connect(ComputeConfig(spill=str(project.folder / "spill"), threads=1)) as connection:
        connection.register("rows", pa.Table.from_pylist(rows, schema=table.arrow))
        project.storage.write(connection, table, "SELECT * FROM rows", [partition])


def told(project: Project, made: Made, gains: Mapping[str, float]) -> dict[str, object]:
    """The row of `champion` where the segments arm has NDCG@10 0.5 plus its gain in a segment, and all others 0.5."""
    week = made.weeks[1]
    rows = project.read(tables.RANKING_RESULTS, {"week": week}).to_pandas()
    weak = rows["arm"].isin(["popularity", "personal_frequency", "cooccurrence"])
    # A little noise, the same for all arms, so that the pairs are exact and the means are not.
    noise = rows["user_id"].map({user: 0.01 * (row % 7) for row, user in enumerate(sorted(set(rows["user_id"])))})
    gain = rows["segment_id"].map(gains).fillna(0.0).where(rows["arm"] == "segments", 0.0)
    rows["ndcg_10"] = (0.5 + noise * (1 + gain) + gain).where(~weak, 0.1)
    _replace(project, tables.RANKING_RESULTS, rows.to_dict("records"), (week,))
    project.materialize("report_week", str(week), only=["evaluation_report"])
    project.materialize("report_week", str(week), only=["champion"])
    (row,) = project.read(tables.CHAMPION, {"week": week}).to_pylist()
    return row


def test_a_verdict_for_some_segments_registers_and_serves_just_their_rankers(
    project: Project, made: Made, tmp_path: Path
) -> None:
    week = made.weeks[1]
    offered = {row["arm"]: row for row in project.read(tables.SERVED_RANKER, {"week": week}).to_pylist()}
    segments = offered["segments"]["segments"]
    tracking = Tracking(TrackingConfig(root=str(project.folder / "data" / "mlflow")))

    row = told(project, made, {segments[0]: 0.2})
    assert (row["promoted"], row["arm"], row["segments"]) == (True, "segments", segments[:1])
    assert row["digest"] not in {one["digest"] for one in offered.values()}
    version = tracking.client.get_model_version_by_alias(tracking.config.model, CHAMPION)
    assert version.tags["segflow.digest"] == row["digest"]
    assert version.tags["segflow.segments"] == segments[0]
    own, whole = (
        ServedRanker.load(bundle_of(tracking, digest, tmp_path / name))
        for name, digest in (("own", row["digest"]), ("whole", offered["segments"]["digest"]))
    )
    assert own.segments == whole.segments
    assert own.deltas is not None
    assert whole.deltas is not None
    assert own.deltas.gate.tolist() == [1.0, *[0.0] * (len(segments) - 1)]

    assert told(project, made, dict.fromkeys(segments, 0.2))["digest"] == offered["segments"]["digest"]
    assert told(project, made, dict.fromkeys(segments, -0.2))["digest"] == offered["global"]["digest"]
    version = tracking.client.get_model_version_by_alias(tracking.config.model, CHAMPION)
    assert version.tags["segflow.digest"] == offered["global"]["digest"]
