"""A snapshot week sees nothing after itself: another future gives the same models and segments."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from segflow import tables
from segflow_tests.pipeline.conftest import Made
from segflow_tests.pipeline.project import Project

pytestmark = pytest.mark.slow


def test_other_events_in_the_test_week_change_no_model_and_no_segment(made: Made, tmp_path: Path) -> None:
    week = made.weeks[1]
    test_week = week + timedelta(weeks=1)
    project = Project.make(tmp_path / "other", made.log.start, made.log.end)
    shutil.copytree(made.project.folder / "data" / "tables", project.folder / "data" / "tables")
    shutil.copy(made.log.items, project.folder)
    rows = pd.read_csv(made.log.events, dtype=str, keep_default_na=False)
    later = (rows["time"] >= str(test_week)) & (rows["time"] < str(made.log.end))
    # Everybody looks at one and the same thing.
    rows.loc[later, ["item", "type", "price"]] = ["p000", "view", "1.00"]
    rows.to_csv(project.folder / "events.csv", index=False)
    versions = made.project.versions()
    assert project.versions() == versions

    project.materialize("catalogue", "", only=["source_files"])
    project.materialize("days", str(made.log.start), str(made.log.end - timedelta(days=1)))
    changed = {key[0] for key in project.files(tables.EVENTS) if _differs(made.project, project, tables.EVENTS, key)}
    assert changed == {test_week + timedelta(days=day) for day in range(7)}
    project.materialize("models_week", str(week))
    project.materialize("segments_week", str(week))
    seen = {name for name, version in project.versions().items() if version != versions[name]} - {"source_files"}
    assert seen & {"events", "sessions"}
    assert {tables.ALL[name].partitions for name in seen} == {("day",)}


def _differs(one: Project, other: Project, table: tables.Table, key: tuple[object, ...]) -> bool:
    return one.files(table)[key] != other.files(table)[key]
