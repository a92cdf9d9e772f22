"""Late rows: only the days they belong to are replaced."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from segflow import tables
from segflow_tests.pipeline.project import Project
from segflow_tests.planted import planted_log

DAYS = ["raw_events", "events", "quarantined_events", "sessions"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The days of a small log, without vectors."""
    log = planted_log(tmp_path, users=40, weeks=3, dirt=True)
    made = Project.make(tmp_path, log.start, log.end)
    made.materialize("days", str(log.start), str(log.end - timedelta(days=1)), DAYS)
    return made


def test_late_rows_replace_their_own_day_and_no_other(project: Project) -> None:
    chosen = [tables.RAW_EVENTS, tables.EVENTS, tables.SESSIONS]
    before = {table.name: project.files(table) for table in chosen}
    late = date(2024, 1, 10)
    count = project.read(tables.EVENTS, {"day": late}).num_rows
    with (project.folder / "events.csv").open("a", encoding="utf-8") as file:
        file.write(f"newcomer,p001,view,{late} 12:00:00,5.00\nnewcomer,p002,purchase,{late} 12:01:00,6.00\n")

    project.materialize("days", "2024-01-01", "2024-01-21", DAYS)

    assert project.read(tables.EVENTS, {"day": late}).num_rows == count + 2
    for table in chosen:
        after = project.files(table)
        assert {key for key in after if after[key] != before[table.name][key]} == {(late,)}, table.name
    sessions = project.read(tables.SESSIONS, {"day": late}).to_pylist()
    (own,) = [row for row in sessions if row["user_id"] == "newcomer"]
    assert own["items"] == ["p001", "p002"]
