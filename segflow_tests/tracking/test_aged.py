"""Runs that are older than they are to be kept go for good, with their artifacts; registered ones and those at work stay."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from segflow.config import TrackingConfig
from segflow.tracking import Tracking
from segflow.tracking.aged import aged_runs, remove_runs

DAY_MS = 86_400_000


@pytest.mark.slow
def test_old_runs_go_with_their_artifacts(tmp_path: Path) -> None:
    tracking = Tracking(TrackingConfig(root=str(tmp_path), system_metrics=False))
    ids = {}
    for name in ("old", "registered", "young"):
        with tracking.run("segflow events", name, {"name": name}) as run:
            run.text(f"secret of {name}", "page.html")
            ids[name] = run.run_id
    open_run = tracking.client.create_run(tracking.experiment("segflow events")).info.run_id
    tracking.client.create_registered_model("segflow")
    tracking.client.create_model_version("segflow", str(tmp_path / "model"), ids["registered"])
    ended = int(time.time() * 1000) - 5 * DAY_MS
    for name in ("old", "registered"):
        tracking.client.set_terminated(ids[name], "FINISHED", end_time=ended)
    assert aged_runs(tracking, 6) == []
    assert aged_runs(tracking, 4) == [ids["old"]]
    remove_runs(tracking, [ids["old"]])
    left = tracking.client.search_runs([tracking.experiment("segflow events")], run_view_type=3)
    assert {run.info.run_id for run in left} == {ids["registered"], ids["young"], open_run}
    pages = {file.read_text(encoding="utf-8") for file in tmp_path.rglob("page.html")}
    assert pages == {"secret of registered", "secret of young"}
