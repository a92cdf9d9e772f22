"""`segflow retain`: what the settings let go is gone, what was made of it stays, and nothing brings it back or makes it empty."""

from __future__ import annotations

import json
import os
import time
from datetime import date
from pathlib import Path

import pytest
import yaml

from segflow import tables
from segflow_tests.pipeline.project import Project
from segflow_tests.planted import planted_log

pytestmark = pytest.mark.slow

FIRST, LAST = "2024-01-01", "2024-01-14"


def test_raw_rows_runs_and_pages_go_and_events_stay(tmp_path: Path) -> None:
    log = planted_log(tmp_path, users=30, weeks=2, dirt=True)
    project = Project.make(tmp_path, log.start, log.end)
    project.materialize("catalogue", "", only=["source_files", "items"])
    project.materialize("days", FIRST, LAST)
    events, sessions = project.read(tables.EVENTS), project.read(tables.SESSIONS)
    nothing = project.segflow("retain", "--yes")
    assert (nothing.returncode, nothing.stdout) == (0, "nothing is due\n")

    # Of a log of years ago all days are over; one of them is still to be made, so that it and later ones are kept.
    keep = (date.today() - date(2024, 1, 9)).days
    _set(project, retention={"raw_days": keep, "runs_days": 1, "pages_days": 1, "checkpoints_days": 1})
    page = next((tmp_path / "data" / "reports").rglob("*.html"))
    os.utime(page, (time.time() - 3 * 86_400,) * 2)
    versions = project.versions()
    look = project.segflow("retain", "--dry-run", "--json")
    assert look.returncode == 0, look.stderr
    found = json.loads(look.stdout)
    assert project.versions() == versions
    old = [row for row in project.read(tables.RAW_EVENTS).to_pylist() if str(row["day"]) < "2024-01-09"]
    assert found["rows"]["raw_events"] == len(old)
    assert (found["raw_before"], found["files"], found["runs"]) == ("2024-01-09", {"pages": 1}, 0)
    assert not (tmp_path / "data" / "retained.jsonl").exists()

    done = project.segflow("retain", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert {str(key[0]) for key in project.storage.partitions(tables.RAW_EVENTS)} == {
        f"2024-01-{day:02}" for day in range(9, 15)
    }
    assert all(str(key[0]) >= "2024-01-09" for key in project.storage.partitions(tables.QUARANTINED_EVENTS))
    for table in ("raw_events", "quarantined_events"):
        days = {file.parent.name for file in (tmp_path / "data" / "tables" / table).rglob("day=*/*.parquet")}
        assert days, table
        assert min(days) >= "day=2024-01-09", "a file of an older version is left"
    assert not page.exists()
    assert project.read(tables.EVENTS).equals(events)
    (line,) = (tmp_path / "data" / "retained.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["rows"] == found["rows"]

    # The old days of the source change, and all settings of cleaning too: events that cannot be made again stay as they are.
    rows = log.events.read_text(encoding="utf-8").splitlines()
    log.events.write_text("\n".join([*rows, rows[1]]) + "\n", encoding="utf-8")
    _set(project, cleaning={"bots": {"events_per_day": 9}})
    again = project.segflow("backfill", f"{FIRST}..{LAST}", "--assets", "source_files,days", "--json")
    assert again.returncode == 0, again.stderr
    plan = {one["asset"]: one["partitions"] for one in json.loads(again.stdout)["plan"]}
    assert plan["events"]
    assert min(plan["events"]) >= "2024-01-09"
    after = project.read(tables.EVENTS, {"day": (date(2024, 1, 1), date(2024, 1, 9))})
    assert after.equals(events.filter([day < date(2024, 1, 9) for day in events["day"].to_pylist()]))
    assert project.read(tables.SESSIONS).num_rows >= 0.5 * sessions.num_rows
    forced = project.segflow("backfill", f"{FIRST}..{LAST}", "--assets", "events", "--force")
    assert forced.returncode == 0, forced.stderr
    assert project.read(tables.EVENTS, {"day": (date(2024, 1, 1), date(2024, 1, 9))}).equals(after)
    asked = project.python(*_run_job("days", FIRST, FIRST, ["events", "quarantined_events"]))
    assert asked.returncode != 0
    assert "what it is made from was removed by `segflow retain`" in asked.stderr
    assert project.read(tables.EVENTS, {"day": (date(2024, 1, 1), date(2024, 1, 9))}).equals(after)


def _set(project: Project, **sections: object) -> None:
    file = project.folder / "segflow.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8")) | sections
    file.write_text(yaml.safe_dump(values), encoding="utf-8")


def _run_job(job: str, first: str, last: str, only: list[str]) -> list[str]:
    return ["-m", "segflow_tests.pipeline.run_job", job, first, last, *only]
