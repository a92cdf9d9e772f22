"""Files of a log as they should not be, and what `segflow check` says of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from segflow.cli import main
from segflow_tests.events.steps import COLUMNS

HEADER = "user,item,type,time"
GOOD = "u,i,view,2024-01-02 10:00:00"


def check(folder: Path, capsys: pytest.CaptureFixture[str], path: str = "log", **events: Any) -> list[str]:
    """The lines of `segflow check` on the files in `folder/log`, or its one line of error."""
    values = {
        "source": {"events": {"path": path, "columns": COLUMNS, **events}},
        "calendar": {"start": "2024-01-01", "end": "2024-04-01"},
    }
    (folder / "segflow.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    before = sorted(folder.rglob("*"))
    code = main(["--config", str(folder / "segflow.yaml"), "check"])
    captured = capsys.readouterr()
    assert sorted(folder.rglob("*")) == before, "something was written"
    if code == 0:
        assert captured.err == ""
        return captured.out.splitlines()
    assert (code, captured.out) == (1, "")
    assert re.fullmatch(r"segflow: [^\n]+\n", captured.err), captured.err
    return [captured.err]


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path
