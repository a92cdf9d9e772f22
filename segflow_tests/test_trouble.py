"""What a machine does to a program is told in one line; a bug of our own keeps its traceback."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from segflow import cli, trouble
from segflow.errors import UserError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"), "/data/x: no room is left on the disk; "),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/x"),
            "/data/x: may not be used by this user; ",
        ),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/data/x"), "/data/x: is on a read-only file system; "),
        (sqlite3.OperationalError("database or disk is full"), "a database of Dagster (in DAGSTER_HOME) or of MLflow"),
        (sqlite3.OperationalError("database is locked"), "a database of Dagster (in DAGSTER_HOME) or of MLflow"),
        (sqlite3.OperationalError("locking protocol"), "a database of Dagster (in DAGSTER_HOME) or of MLflow"),
        (sqlite3.OperationalError("disk I/O error"), "a database of Dagster (in DAGSTER_HOME) or of MLflow"),
        (RuntimeError('IO Error: Could not write file "/s/a.tmp": No space left on device'), "/s/a.tmp: no room"),
        (RuntimeError("Unable to open file /t/part-0.parquet#1: Permission denied"), "/t/part-0.parquet: may not be"),
        (
            RuntimeError("Failed to parse parquet: External: Generic LocalFileSystem error: No space left on device"),
            "the disk: no room",
        ),
        (
            RuntimeError("HTTPConnectionPool(host='127.0.0.1', port=5000): Max retries exceeded"),
            "127.0.0.1:5000: does not answer; ",
        ),
        (
            RuntimeError(
                "API request to http://127.0.0.1:5000/api/2.0/mlflow/runs/search failed with exception ('Connection "
                "broken: IncompleteRead(0 bytes read, 2 more expected)', IncompleteRead(0 bytes read, 2 more expected))"
            ),
            "127.0.0.1:5000: does not answer; ",
        ),
        (
            RuntimeError("API request to https://mlflow.example/api failed with timeout exception x."),
            "mlflow.example: does not answer; ",
        ),
        (ValueError("something else"), ""),
    ],
)
def test_what_is_wrong_and_where(error: Exception, expected: str) -> None:
    said = trouble.line(error)
    assert said.startswith(expected)
    assert bool(said) == bool(expected)
    assert "\n" not in said


def test_an_error_that_led_to_another_is_looked_at() -> None:
    error = RuntimeError("a step failed")
    error.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")
    assert trouble.line(error).startswith("/data/x: no room")


def test_a_place_is_named_and_bugs_are_not_hidden() -> None:
    with pytest.raises(UserError, match=r"^tables/events: no room"), trouble.at("tables/events"):
        raise RuntimeError("No space left on device")
    with pytest.raises(ZeroDivisionError), trouble.at("tables/events"):
        raise ZeroDivisionError


def test_a_command_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")

    monkeypatch.setattr("segflow.settings.load", full)
    (tmp_path / "segflow.yaml").write_text("", encoding="utf-8")
    assert cli.main(["--config", str(tmp_path / "segflow.yaml"), "check"]) == 3
    assert capsys.readouterr().err.startswith("segflow: /data/x: no room is left on the disk; ")
