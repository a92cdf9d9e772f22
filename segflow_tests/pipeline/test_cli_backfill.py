"""`segflow backfill` in a project: days in chunks, what a dry run tells, failures, going on after Ctrl-C; and facts as JSON."""

from __future__ import annotations

import json
import os
import signal
from datetime import date, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from segflow import tables
from segflow_tests.pipeline.conftest import Made
from segflow_tests.pipeline.project import Project
from segflow_tests.planted import PlantedLog, planted_log

FIRST, LAST = date(2024, 1, 2), date(2024, 1, 9)
SPAN = f"{FIRST}..{LAST}"
DAYS = [FIRST + timedelta(days=number) for number in range((LAST - FIRST).days + 1)]


def planted(folder: Path) -> tuple[Project, PlantedLog]:
    log = planted_log(folder, users=20, weeks=2)
    return Project.make(folder, log.start, log.end), log


@pytest.mark.slow
def test_days_in_chunks_are_made_once_and_only_those_asked_for(tmp_path: Path) -> None:
    project, _ = planted(tmp_path)
    # Nothing that is read is there: the run fails, and says what to make first.
    failed = project.segflow("backfill", SPAN, "--assets", "raw_events", "--json")
    assert failed.returncode == 3
    assert "materialize source_files first" in json.loads(failed.stdout)["error"]
    project.materialize("catalogue", "", only=["source_files", "items"])

    asked = ("backfill", SPAN, "--assets", "raw_events,events,sessions", "--chunk", "3", "--json")
    planned = project.segflow(*asked, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert plan["dry_run"]
    assert [(one["asset"], one["asked"], one["partitions"]) for one in plan["plan"]] == [
        (name, len(DAYS), [str(day) for day in DAYS]) for name in ("raw_events", "events", "sessions")
    ]
    assert project.versions()["sessions"] is None

    done = project.segflow(*asked)
    assert done.returncode == 0, done.stderr
    assert [line.split(" s] ")[1].split(":")[0] for line in done.stderr.splitlines() if " rows in " in line] == [
        f"{name} [{DAYS[start]} …]" for name in ("raw_events", "events", "sessions") for start in (0, 3, 6)
    ]
    for table in (tables.RAW_EVENTS, tables.EVENTS, tables.SESSIONS):
        assert project.storage.partitions(table) == [(day,) for day in DAYS]
    versions = project.versions()
    again = project.segflow(*asked)
    assert again.returncode == 0, again.stderr
    assert [one["partitions"] for one in json.loads(again.stdout)["plan"]] == [[], [], []]
    assert project.versions() == versions


def test_mistakes_in_a_backfill_are_told_before_anything_is_written(tmp_path: Path) -> None:
    project, log = planted(tmp_path)
    for arguments, expected in (
        (["2024-01-09..2024-01-02"], "the last day comes before the first; swap them"),
        ([f"2024-01-02..{log.end}"], f"reaches beyond the calendar from {log.start} to {log.end - timedelta(days=1)}"),
        ([SPAN, "--assets", "sesions"], "--assets sesions: no such asset or job (did you mean 'sessions'?)"),
    ):
        refused = project.segflow("backfill", *arguments)
        assert refused.returncode == 1
        assert expected in refused.stderr
    assert not any(project.versions().values())


def test_a_finished_project_tells_its_facts_as_json_and_has_nothing_to_backfill(made: Made, tmp_path: Path) -> None:
    first, second = map(str, made.weeks)
    versions = made.project.versions()
    filled = made.project.segflow("backfill", f"{first}..{second}", "--json")
    assert filled.returncode == 0, filled.stderr
    told = json.loads(filled.stdout)
    assert told["weeks"] == [first, second]
    assert {one["asset"] for one in told["plan"]} >= {"events", "segment_rankers", "pooled_verdict"}
    assert not any(one["partitions"] for one in told["plan"])
    assert made.project.versions() == versions

    trend = json.loads(made.project.segflow("report", "--trend", "--json").stdout)
    assert trend["weeks"] == told["verdicts"]
    assert Path(trend["page"]).is_file()
    latest = json.loads(made.project.segflow("report", "--json").stdout)
    (row,) = made.project.read(tables.EVALUATION_REPORT, {"week": made.weeks[1]}).to_pylist()
    assert (latest["week"], latest["outcome"], latest["sentence"]) == (second, row["outcome"], row["sentence"])
    assert set(latest["pages"]) == {"report", "segments", "trend"}
    names = made.project.read(tables.SEGMENT_PROFILES, {"week": made.weeks[1]})["name"].to_pylist()
    assert [one["name"] for one in latest["segments"]] == names
    out = tmp_path / "segments.csv"
    exported = json.loads(made.project.segflow("export", str(out), "--json").stdout)
    assert exported["week"] == second
    assert exported["rows"] == len(out.read_text(encoding="utf-8").splitlines()) - 1
    assert not exported["hashed"]


@pytest.mark.slow
def test_ctrl_c_keeps_what_had_finished_closes_all_runs_and_the_same_command_goes_on(tmp_path: Path) -> None:
    log = planted_log(tmp_path, users=120, weeks=6)
    project = Project.make(tmp_path, log.start, log.end)
    process = project.start("-m", "segflow.cli", "run", "--weeks", "2")
    assert process.stdout is not None
    # The weeks are in processes of their own by then.
    next(line for line in iter(process.stdout.readline, "") if "behavior_model [" in line)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().splitlines() == [
        "segflow: interrupted; everything that had finished is kept; the same command goes on from there"
    ]
    assert project.storage.partitions(tables.BEHAVIOR_MODEL)
    client = MlflowClient(f"sqlite:///{project.folder}/data/mlflow/mlflow.db")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED"}
    done = project.segflow("run", "--weeks", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["verdicts"]) == 2
    assert "events: up to date" in done.stderr
