"""The command line without a run: help, options, exit codes, JSON, completion, and the commands that need no tables."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import click
import pytest
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from segflow import cli
from segflow.cli import app, bars, make, start
from segflow.cli.options import Snapshot, Span
from segflow.errors import RunFailedError, UserError

ROOT = Path(__file__).parents[1]


def test_a_generated_log_can_be_checked_and_described_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    shop = tmp_path / "shop"
    assert cli.main(["generate", str(shop), "--events", "2e4", "--days", "14", "--users", "400", "--seed", "3"]) == 0
    truth = json.loads((shop / "truth.json").read_text(encoding="utf-8"))
    monkeypatch.setenv("SEGFLOW_CONFIG", str(shop / "segflow.yaml"))
    assert cli.main(["check"]) == 0
    said = capsys.readouterr().out
    assert f"events: {truth['rows']:,} rows" in said
    assert cli.main(["check", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == str(shop / "segflow.yaml")
    assert found["found"][0]["about"] == "events"
    assert found["found"][0]["says"].startswith(f"{truth['rows']:,} rows")
    assert (shop / "dagster.yaml").read_bytes() == (ROOT / "dagster.yaml").read_bytes()

    assert cli.main(["init", str(shop / "events"), "--folder", str(tmp_path)]) == 0
    assert "segflow check" in capsys.readouterr().out
    assert cli.main(["--config", str(tmp_path / "segflow.yaml"), "check"]) == 0
    assert cli.main(["init", str(shop / "events"), "--folder", str(tmp_path)]) == 1
    assert "--force" in capsys.readouterr().err
    assert cli.main(["init", str(shop / "events"), "--folder", str(tmp_path), "--force"]) == 0


def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv("SEGFLOW_CONFIG", raising=False)
    (tmp_path / "there.txt").write_text("mine", encoding="utf-8")
    for arguments in (
        ["generate", str(tmp_path)],
        ["generate", str(tmp_path / "new"), "--events", "10"],
        ["init", str(tmp_path / "missing.csv")],
        ["--config", str(tmp_path / "missing.yaml"), "check"],
    ):
        assert cli.main(arguments) == 1
        said = capsys.readouterr().err
        assert said.startswith("segflow: ")
        assert said.count("\n") == 1
    assert (tmp_path / "there.txt").read_text(encoding="utf-8") == "mine"
    assert cli.main(["generate", str(tmp_path / "new"), "--events", "1.5"]) == 2
    assert "1.5 is not a whole number" in capsys.readouterr().err


def test_snapshots_to_compare_are_weeks_of_this_or_another_project() -> None:
    kind = Snapshot()
    assert kind.convert("2024-03-04", None, None) == (None, date(2024, 3, 4))
    there = kind.convert("other@home/segflow.yaml@2024-03-11", None, None)
    assert there == (Path("other@home/segflow.yaml"), date(2024, 3, 11))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["compare", "2024-03-04", "monday"], "'monday' is not a week such as 2024-03-04"),
        (["run", "--week", "4.3.2024"], "'4.3.2024' is no date; write it as 2024-03-04"),
        (["backfill", "2024"], "'2024' is no span of days; write it as 2024-03-04..2024-03-31"),
        (["run", "--weeks", "0"], "0 is not in the range x>=1"),
        (["run", "--weks", "1"], "No such option"),
        (["ran"], "No such command"),
        (["generate", "shop", "--events", "many"], "'many' is no number; write it as 1000000 or 1e6"),
    ],
)
def test_what_cannot_be_read_exits_with_two_and_says_what_could(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert "--help" in said.err
    assert said.out == ""


def test_a_span_is_two_days_or_one() -> None:
    assert Span().convert("2024-03-04..2024-03-31", None, None) == (date(2024, 3, 4), date(2024, 3, 31))
    assert Span().convert("2024-03-04...2024-03-31", None, None) == (date(2024, 3, 4), date(2024, 3, 31))
    assert Span().convert("2024-03-04", None, None) == (date(2024, 3, 4), date(2024, 3, 4))


def test_errors_are_objects_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", str(tmp_path / "missing.yaml"), "check", "--json"]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["exit_code"] == 1
    assert said.err == f"segflow: {found['error']}\n"


@pytest.mark.parametrize(
    ("raised", "code"),
    [(UserError("a mistake"), 1), (RunFailedError("sessions: failed"), 3), (KeyboardInterrupt(), 130), (None, 0)],
)
def test_exit_codes(
    raised: BaseException | None, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(*_: object, **__: object) -> None:
        if raised:
            raise raised

    monkeypatch.setattr(app.segflow.commands["sessions"], "callback", body)
    assert cli.main(["sessions", "out"]) == code
    # After ^C the terminal stands in the middle of a line.
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_every_command_is_listed_once_and_explains_itself() -> None:
    listed = [name for names in app.GROUPS.values() for name in names]
    assert sorted(listed) == sorted(app.segflow.commands)
    for name, command in app.segflow.commands.items():
        with click.Context(command, info_name=f"segflow {name}") as ctx:
            text = command.get_help(ctx)
        assert f"Example: {'source <(' if name == 'completion' else ''}segflow {name}" in text
        assert "..." not in command.get_short_help_str(90), f"{name}: its first sentence is too long"
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{name} {option.name}"
                assert option.help[0].isupper(), f"{name} {option.name}"
                assert option.help.endswith((".", "]")), f"{name} {option.name}"
            elif name != "completion":
                body = text.split("\n", 1)[1]
                assert all(part in body for part in option.human_readable_name.strip("[]").split("..")), name


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["completion", "bash"]])
def test_what_makes_nothing_loads_nothing_heavy(arguments: list[str]) -> None:
    heavy = {"dagster", "torch", "mlflow", "pandas", "pyarrow", "duckdb", "sklearn", "transformers", "rich", "pydantic"}
    code = f"import sys; from segflow.cli import main; main({arguments}); print(set(sys.modules) & {heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("shell", "registers"),
    [
        ("bash", r"^ *complete -o nosort -F \w+ segflow$"),
        ("zsh", r"^ *compdef \w+ segflow$"),
        ("fish", r"^complete --no-files --command segflow "),
    ],
)
def test_a_completion_script_registers_itself_for_the_command(
    shell: str, registers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_SEGFLOW_COMPLETE={shell}_complete" in script
    assert re.search(registers, script, re.MULTILINE), script


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_can_be_sourced(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The Makefile needs bash; the others are optional on a machine.
    if shell != "bash" and shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    assert cli.main(["completion", shell]) == 0
    file = tmp_path / "completion"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    known = f"source {file} && complete -p segflow" if shell == "bash" else f"source {file}"
    subprocess.run([shell, "-c", known], check=True, capture_output=True)


def test_commands_and_options_are_completed() -> None:
    def completed(words: str) -> list[str]:
        asked = {"_SEGFLOW_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        command = [sys.executable, "-m", "segflow.cli"]
        return subprocess.run(
            command, env={**os.environ, **asked}, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()

    assert completed("segflow ex") == ["plain,export"]
    assert set(completed("segflow run --re")) == {"plain,--rewrite-history"}


def test_the_demo_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(start, "_DEMO_MODULES", {"no_such_module": "the log"})
    assert cli.main(["demo", str(tmp_path / "demo")]) == 1
    assert "the demo lacks the log; install them with `pip install 'segflow[demo]'`" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_the_demo_runs_in_a_folder_of_its_own_and_leaves_settings_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, str, str]] = []
    for name in ("SEGFLOW_CONFIG", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "another project's")
    monkeypatch.setattr(
        make,
        "whole_run",
        lambda weeks, *_: seen.append((weeks, os.environ["SEGFLOW_CONFIG"], os.environ["DAGSTER_HOME"])),
    )
    folder = tmp_path / "demo"
    assert cli.main(["demo", str(folder), "--weeks", "1"]) == 0
    assert seen == [(1, str(folder / "segflow.yaml"), str(folder))]
    for name in ("segflow.yaml", "dagster.yaml"):
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    (folder / "segflow.yaml").write_text("preset: complete_journey_types\n", encoding="utf-8")
    assert cli.main(["demo", str(folder)]) == 0
    assert (folder / "segflow.yaml").read_text(encoding="utf-8") == "preset: complete_journey_types\n"


def test_lines_go_where_json_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        with bars.watching(as_json) as watcher:
            watcher.begin("days", 3)
            watcher.advance("days")
            watcher.say("events: 3 rows")
        said = capsys.readouterr()
        lines, empty = (said.err, said.out) if as_json else (said.out, said.err)
        assert re.fullmatch(r"\[ +0\.\d s\] events: 3 rows\n", lines)
        assert empty == ""


def test_a_terminal_gets_a_bar_for_each_stage_under_the_lines() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TextColumn("{task.fields[on]}"))
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        watcher = bars.Bars(progress, shown)
        watcher.begin("days", 4)
        watcher.begin("days", 6)
        watcher.working("days", "sessions")
        watcher.advance("days", 3)
        watcher.advance("another stage")
        watcher.say("[not] markup")
        progress.refresh()
        assert "[not] markup" in shown.getvalue()
        assert re.search(r"days +3/10 sessions", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue()))
        watcher.advance("days", 7)
        progress.refresh()
    assert re.search(r"days +10/10 *\n", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue()))
