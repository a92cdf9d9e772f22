"""The ledger of a project: an old week that would change is refused until it is asked for; newcomers between snapshots; what
a run makes anew reaches what follows.
"""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest
import yaml

from segflow import tables
from segflow_tests.pipeline.conftest import Made
from segflow_tests.pipeline.project import Project

pytestmark = pytest.mark.slow

_SEGMENTS = """
import sys
from datetime import date
from segflow.definitions import defs
from segflow.defs.runner import open_runner
from segflow.errors import UserError
from segflow.watching import Watcher

class Printed(Watcher):
    def say(self, line):
        print(line)

_, rewrite, *weeks = sys.argv
with open_runner(defs, Printed(), rewrite_history=rewrite == "rewrite") as runner:
    try:
        for week in weeks:
            runner.segments(date.fromisoformat(week))
    except UserError as error:
        sys.exit(str(error))
"""


@pytest.fixture
def project(made: Made, tmp_path: Path) -> Project:
    """A copy of the project with all that it made and knows of it."""
    shutil.copytree(made.project.folder, tmp_path / "project")
    return Project(tmp_path / "project")


def segments(project: Project, *weeks: object, rewrite: bool = False) -> CompletedProcess[str]:
    """The part of `segflow run` that makes segments."""
    return project.python("-c", _SEGMENTS, "rewrite" if rewrite else "keep", *map(str, weeks))


def test_history_is_rewritten_only_if_asked_for_and_never_with_the_same_ids(made: Made, project: Project) -> None:
    first, second = made.weeks
    recorded = project.read(tables.SEGMENT_LEDGER)
    ids = set(recorded["segment_id"].to_pylist())
    file = project.folder / "segflow.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    values["users"]["min_events"] = 30
    file.write_text(yaml.safe_dump(values), encoding="utf-8")

    refused = segments(project, first, second)
    assert refused.returncode == 1
    assert f"segment_ledger: the segments of week {first} would change" in refused.stderr
    assert f"segflow run --rewrite-history --week {first} --week {second}" in refused.stderr
    assert project.read(tables.SEGMENT_LEDGER).equals(recorded)

    done = segments(project, first, second, rewrite=True)
    assert done.returncode == 0, done.stderr
    assert f"history of {first} is rewritten; make {second} again" in done.stdout
    rows = project.read(tables.SEGMENT_LEDGER).to_pylist()
    assert {row["revision"] for row in rows} == {1}
    kept = {row["segment_id"] for row in rows if row["week"] == first and row["cluster"] is not None}
    assert all(number > max(ids) for number in kept - ids)
    assert {row["segment_id"] for row in rows if row["week"] == second} == kept
    again = segments(project, first, second)
    assert again.returncode == 0, again.stderr
    assert project.read(tables.SEGMENT_LEDGER).to_pylist() == rows


def test_segments_are_made_of_models_that_other_processes_of_the_run_made_anew(made: Made, project: Project) -> None:
    week = made.weeks[1]
    file = project.folder / "segflow.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    values["behavior"]["epochs"] = 2
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    done = project.segflow("run", "--week", str(week))
    assert done.returncode == 0, done.stderr
    for asset in ("behavior_model", "global_ranker", "user_views", "evaluation_report"):
        assert f"{asset} [{week}]: " in done.stdout
    assert "session_embeddings: up to date" in done.stdout
    again = project.segflow("run", "--week", str(week))
    assert " rows in " not in again.stdout


def test_users_who_come_in_the_week_are_placed_by_the_models_of_the_snapshot(made: Made, project: Project) -> None:
    week = made.weeks[1]
    rows = pd.read_csv(made.log.events, dtype=str, keep_default_na=False)
    moments = pd.to_datetime(rows["time"], errors="coerce")
    recent = (moments >= str(week - timedelta(weeks=2))) & (moments < str(week))
    likes = sorted(made.log.truth)[:16]
    # What some did in the two weeks before the snapshot, strangers do in the week after it, on the same weekdays and hours.
    own = rows[recent & rows["user"].isin(likes)].copy()
    weeks = (pd.Timestamp(str(week)) - pd.to_datetime(own["time"])) // pd.Timedelta(weeks=1) + 1
    own["time"] = (pd.to_datetime(own["time"]) + weeks * pd.Timedelta(weeks=1)).dt.strftime("%Y-%m-%d %H:%M:%S")
    own["user"] = "like " + own["user"]
    pd.concat([rows, own]).to_csv(project.folder / "events.csv", index=False)
    before = project.storage.version(tables.USER_SEGMENTS)
    project.materialize("catalogue", "")
    project.materialize("days", str(week), str(week + timedelta(days=6)))
    project.materialize("newcomers_week", str(week))

    found = project.read(tables.NEWCOMER_SEGMENTS, {"week": week}).to_pylist()
    known = project.read(tables.USER_SEGMENTS, {"week": week}).to_pylist()
    assigned = {row["user_id"]: row["segment_id"] for row in known if row["segment_id"] != "unassigned"}
    assert not {row["user_id"] for row in found} & set(assigned)
    strangers = {row["user_id"]: row for row in found if row["user_id"].startswith("like ")}
    assert len(strangers) >= 8
    same = [row["segment_id"] == assigned.get(user.removeprefix("like ")) for user, row in strangers.items()]
    # One of four would be chance; a week is less to go by than ten.
    assert sum(same) >= 0.75 * len(same)
    assert {row["as_of"].date() for row in found} == {week + timedelta(days=6)}
    assert project.storage.version(tables.USER_SEGMENTS) == before
