"""A user's mistake: one line that says what, where and how to mend it, an exit code, and nothing written."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from segflow.cli import main
from segflow_tests.pipeline.project import Project
from segflow_tests.planted import PlantedLog, planted_log


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> PlantedLog:
    """Six weeks; the first untestable week is 2024-01-29."""
    return planted_log(tmp_path_factory.mktemp("log"), users=20, weeks=6)


@pytest.fixture
def project(log: PlantedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project without mistakes, before its first run."""
    for file in (log.events, log.items):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name in ("SEGFLOW_CONFIG", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "replaced by the command, and restored after it")
    return Project.make(tmp_path, log.start, log.end)


def edit(project: Project, key: str, value: object) -> None:
    """Set one key of segflow.yaml."""
    file = project.folder / "segflow.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    *sections, last = key.split(".")
    place = values
    for section in sections:
        place = place[section]
    place[last] = value
    file.write_text(yaml.safe_dump(values), encoding="utf-8")


def refused(project: Project, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run and expect to be refused; the line on standard error."""
    before = set(project.folder.rglob("*"))
    code = main(["--config", str(project.folder / "segflow.yaml"), "run", *arguments])
    captured = capsys.readouterr()
    assert code == 1, captured
    assert captured.out == ""
    assert re.fullmatch(r"segflow: [^\n]+\n", captured.err), captured.err
    assert set(project.folder.rglob("*")) == before, "something was written"
    return captured.err


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("source.events.path", "absent.csv", r"absent\.csv: no such file"),
        ("source.events.columns.user_id", "usr", r"columns\.user_id: no column 'usr' \(did you mean 'user'\?\)"),
        ("source.events.timezone", "Europe/Pariss", r"unknown time zone 'Europe/Pariss' \(did you mean 'Europe/Paris'"),
        ("behavior.epoch", 1, r"behavior\.epoch: unknown key \(did you mean 'epochs'\?\)"),
        ("preset", "complete_journey_type", r"unknown preset .* \(did you mean 'complete_journey_types'\?\)"),
        ("calendar.end", "2023-01-01", r"calendar\.end \(2023-01-01\) must come after"),
    ],
    ids=["file", "column", "time zone", "misspelled key", "preset", "calendar"],
)
def test_a_mistake_in_the_settings(
    project: Project, capsys: pytest.CaptureFixture[str], key: str, value: object, expected: str
) -> None:
    edit(project, key, value)
    assert re.search(expected, refused(project, capsys))


def test_an_empty_log(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.folder / "events.csv").write_text("user,item,type,time,price\n", encoding="utf-8")
    assert re.search(r"events\.csv: the log is empty", refused(project, capsys))


@pytest.mark.parametrize(
    ("week", "expected"),
    [
        ("2024-01-16", "the snapshot week around it is 2024-01-15"),
        ("2024-01-01", "no two weeks of history before it"),
        ("2024-02-05", "no whole test week after it"),
        ("2030-01-07", "choose another week"),
    ],
    ids=["not a Monday", "no history", "no test week", "outside"],
)
def test_a_week_that_cannot_be_tested(
    project: Project, capsys: pytest.CaptureFixture[str], week: str, expected: str
) -> None:
    message = refused(project, capsys, "--week", week)
    assert f"week {week}" in message
    assert expected in message


@pytest.mark.parametrize("empty", ["2024-01-15", "2024-01-22"], ids=["the week itself", "its test week"])
def test_a_week_without_events(project: Project, capsys: pytest.CaptureFixture[str], empty: str) -> None:
    rows = pd.read_csv(project.folder / "events.csv")
    end = str(pd.Timestamp(empty) + pd.Timedelta(weeks=1))
    rows[(rows["time"] < empty) | (rows["time"] >= end)].to_csv(project.folder / "events.csv", index=False)
    message = refused(project, capsys, "--week", "2024-01-15")
    assert "week 2024-01-15" in message
    assert f"from {empty} has no events" in message


def test_the_command_exits_with_one_and_without_a_traceback(project: Project) -> None:
    (project.folder / "events.csv").unlink()
    done = project.segflow("run")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"segflow: [^\n]+\n", done.stderr)
    assert not (project.folder / "data").exists()
