"""`segflow erase`: a person leaves a finished project, everyone else stays, and the project goes on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from segflow import tables
from segflow.erasure import audit
from segflow.segments.privacy import hashed, key_from
from segflow_tests.pipeline.conftest import Made, open_instance
from segflow_tests.pipeline.project import Project
from segflow_tests.pipeline.searched import files_with
from segflow_tests.planted import planted_log

ODD = {"u0001": "x' OR '1'='1", "u0002": "person", "u0003": "person2", "u0004": "person-2", "u0005": "7", "u0006": "71"}
FIRST, LAST = "2024-01-01", "2024-01-14"
OWN = {"events.csv", "items.csv"}
"""The source files."""


def rows_by_user(project: Project) -> dict[str, Counter[str]]:
    """Table -> user -> rows, of tables whose rows belong to one user."""
    found = {}
    for table in tables.ALL.values():
        if any(column.name == "user_id" for column in table.columns):
            found[table.name] = Counter(project.read(table)["user_id"].to_pylist())
    return found


def exemplar_in_quarantine(project: Project) -> str:
    """A user whom a profile shows as an exemplar, and of whom a page shows a row in quarantine."""
    shown = {
        one
        for row in project.read(tables.SEGMENT_PROFILES)["details"].to_pylist()
        for one in json.loads(row)["exemplars"]
    }
    key = key_from({}, "SEGFLOW_SALT", 0)
    users = Counter(project.read(tables.QUARANTINED_EVENTS)["user_id"].to_pylist())
    # The chart script of the page has letters such as `\u0000`, which look like an id.
    html = "".join(project.read(tables.EVALUATION_REPORT)["html"].to_pylist())
    wanted = (user for user, _ in users.most_common() if user and f"\\{user}" not in html)
    return next(user for user in wanted if hashed(user, key) in shown)


def test_a_person_leaves_a_finished_project_and_nobody_else_does(made: Made, tmp_path: Path) -> None:
    project = Project(tmp_path / "copy")
    shutil.copytree(made.project.folder, project.folder)
    user = exemplar_in_quarantine(project)
    pseudonym = hashed(user, key_from({}, "SEGFLOW_SALT", 0)).encode()
    assert any("segment_profiles" in name for name in files_with(project.folder / "data" / "tables", pseudonym))
    rows, rejected = rows_by_user(project), project.read(tables.QUARANTINED_EVENTS).to_pandas()
    shown = rejected[rejected["user_id"] == user]["day"].iloc[0]
    listed = tmp_path / "ids.txt"
    listed.write_text(f"{user}\n\nnobody-of-this-name\n", encoding="utf-8")

    done = project.segflow("erase", "--users", str(listed), "--yes", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["outcome"], told["left"], told["unknown_users"]) == ("erased", [], 1)
    assert {name: count for name, count in told["rows"].items() if name in rows} == {
        name: held[user] for name, held in rows.items() if held[user]
    }
    assert set(told["rows"]) >= {"control_rankers", "repeated_rankers", "segment_ledger", "segment_profiles"}
    assert list(told["source_files"]) == ["events.csv"]
    assert told["weeks_that_learned_from_them"] == [str(week) for week in made.weeks]

    assert files_with(project.folder, user.encode(), pseudonym, leaving_out=OWN) == []
    after = rows_by_user(project)
    for name, held in rows.items():
        del held[user]
        assert after[name] == held, name
    page = project.folder / "data" / "reports" / "days" / f"{shown}.html"
    (row,) = project.read(tables.DAY_REPORTS, {"day": shown}).to_pylist()
    assert page.read_text(encoding="utf-8") == row["html"]
    assert row["raw_rows"] == len(project.read(tables.RAW_EVENTS, {"day": shown}))

    (line,) = (project.folder / "data" / "erasures.jsonl").read_text(encoding="utf-8").splitlines()
    assert audit.fingerprint(user, bytes.fromhex(json.loads(line)["salt"])) in json.loads(line)["users"]


@pytest.fixture
def days(tmp_path: Path) -> tuple[Project, pd.DataFrame]:
    """Two weeks of days of users with odd ids; and the rows of the source."""
    log = planted_log(tmp_path, users=30, weeks=2, dirt=True)
    rows = pd.read_csv(log.events, dtype=str, keep_default_na=False)
    rows["user"] = rows["user"].replace(ODD)
    rows.to_csv(log.events, index=False)
    project = Project.make(tmp_path, log.start, log.end)
    project.materialize("catalogue", "", only=["source_files", "items"])
    project.materialize("days", FIRST, LAST)
    return project, rows


@pytest.mark.slow
def test_it_refuses_while_a_run_is_under_way_and_for_whom_it_does_not_know(days: tuple[Project, pd.DataFrame]) -> None:
    project, _ = days
    versions = project.versions()
    for arguments, expected in (
        ((), "nobody is named; give --user ID, or --users FILE with an id on each line"),
        (("--users", "no.txt"), "no.txt: No such file or directory; name a file with an id on each line"),
        (("--user", "perso"), "nothing is known of this user; check the id"),
        (("--user", "person%"), "nothing is known of this user; check the id"),
        (("--user", "person", "--json"), "--json asks nothing; add --yes to erase, or --dry-run to look"),
    ):
        refused = project.segflow("erase", *arguments)
        assert refused.returncode == 1
        assert expected in refused.stderr
    with open_instance(project) as instance:
        run = create_run_for_test(instance, "days", status=DagsterRunStatus.STARTED)
        refused = project.segflow("erase", "--user", "person", "--yes")
        assert refused.returncode == 1
        assert f"run {run.run_id[:8]} (days, started) is under way" in refused.stderr
        instance.report_run_canceled(run)
    look = project.segflow("erase", "--user", "person", "--dry-run", "--json")
    assert look.returncode == 0, look.stderr
    assert json.loads(look.stdout)["rows"]["events"] == rows_by_user(project)["events"]["person"]
    assert project.versions() == versions


@pytest.mark.slow
def test_odd_ids_and_what_is_up_to_date_after_an_erasure(days: tuple[Project, pd.DataFrame]) -> None:
    project, rows = days
    before = rows_by_user(project)
    gone = ("x' OR '1'='1", "person", "7")
    done = project.segflow("erase", *(word for one in gone for word in ("--user", one)), "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["users_not_searched_in_texts"] == 1
    after = rows_by_user(project)
    for name, held in before.items():
        for one in gone:
            del held[one]
        assert after[name] == held, name
    assert {"person2", "person-2", "71"} <= set(after["events"])
    assert files_with(project.folder / "data", b"x' OR") == []
    # In no table any more, but the source goes on holding them.
    again = project.segflow("erase", "--user", "person", "--yes", "--json")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert (told["rows"], told["users_newly_suppressed"], list(told["source_files"])) == ({}, 0, ["events.csv"])

    # What was recorded holds: nothing is out of date, so nothing brings them back.
    asked = ("backfill", f"{FIRST}..{LAST}", "--assets", "days", "--json")
    filled = project.segflow(*asked)
    assert filled.returncode == 0, filled.stderr
    plan = {one["asset"]: one["partitions"] for one in json.loads(filled.stdout)["plan"]}
    assert len(plan) >= 5
    assert not any(plan.values())
    assert rows_by_user(project) == after
    # Nor does anything else: the source still has them when its days are read again, here since a row was added.
    source = project.folder / "events.csv"
    # Dirt stands at the end; the last of the views that are events.
    sound = rows["time"].between(FIRST, LAST) & (rows["type"] == "view") & rows["price"].str.fullmatch(r"\d+\.\d+")
    last = rows[sound & ~rows["user"].isin([*gone, ""])].tail(1)
    pd.concat([rows, last.assign(price="77.5")]).to_csv(source, index=False)
    filled = project.segflow("backfill", f"{FIRST}..{LAST}", "--assets", "source_files,days", "--json")
    assert filled.returncode == 0, filled.stderr
    plan = {one["asset"]: one["partitions"] for one in json.loads(filled.stdout)["plan"]}
    assert plan["source_files"] == [""]
    after["events"][last["user"].iloc[0]] += 1
    after["raw_events"][last["user"].iloc[0]] += 1
    found = rows_by_user(project)
    assert {name: found[name] for name in ("raw_events", "events", "quarantined_events")} == {
        name: after[name] for name in ("raw_events", "events", "quarantined_events")
    }
    assert files_with(project.folder / "data", b"x' OR") == []
    with open_instance(project) as instance:
        (made,) = instance.fetch_materializations(dg.AssetKey("source_files"), limit=1).records
    assert made.asset_materialization is not None
    said = made.asset_materialization.metadata["suppressed_rows"].value
    assert said == sum(rows["user"].isin(gone))
