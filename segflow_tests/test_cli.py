"""The commands that need no run: init, generate, check."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from segflow import cli


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
    with pytest.raises(SystemExit):
        cli.main(["generate", str(tmp_path / "new"), "--events", "1.5"])


def test_snapshots_to_compare_are_weeks_of_this_or_another_project(capsys: pytest.CaptureFixture[str]) -> None:
    options = cli._parser().parse_args(["compare", "2024-03-04", "other@home/segflow.yaml@2024-03-11"])
    assert options.before == (None, date(2024, 3, 4))
    assert options.after == (Path("other@home/segflow.yaml"), date(2024, 3, 11))
    with pytest.raises(SystemExit):
        cli.main(["compare", "2024-03-04", "monday"])
    assert "'monday' is not a week such as 2024-03-04" in capsys.readouterr().err
