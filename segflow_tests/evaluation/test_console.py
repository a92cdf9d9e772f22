"""What the command line tells of several weeks' reports, from the tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from segflow import tables
from segflow.config import ComputeConfig, Config
from segflow.console import write_trend
from segflow.errors import UserError
from segflow.evaluation.content import ReportInput
from segflow.storage import Storage, connect

from .conftest import NAMES
from .test_report import Page

WEEKS = [date(2017, 11, 13), date(2017, 11, 20)]


def _config(root: Path) -> Config:
    columns = {"user_id": "user", "event_type": "type", "ts": "time"}
    return Config.model_validate(
        {
            "source": {"events": {"path": "events.csv", "columns": columns}},
            "calendar": {"start": "2017-01-01", "end": "2017-12-31"},
            "storage": {"root": str(root / "tables")},
            "compute": {"spill": str(root / "spill")},
            "report": {"folder": str(root / "reports")},
        }
    )


def _store(root: Path, table: tables.Table, week: date, rows: list[dict[str, object]]) -> None:
    with connect(ComputeConfig(spill=str(root / "spill"))) as connection:
        connection.register("rows", pa.Table.from_pylist(rows, schema=table.arrow))
        Storage(str(root / "tables"), {}).write(connection, table, "SELECT * FROM rows", [(week,)])


def _segment(week: date, one: str) -> dict[str, object]:
    empty = {"former_name": None, "overlap": None, "parents": [], "migration": "{}", "centre": {}, "members": []}
    return {"week": week, "segment_id": one, "name": NAMES[one], "event": "survive", "cluster": 0, "users": 25,
            "previous_users": 25, "revision": 0, **empty}  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, report_input: ReportInput) -> Path:
    """Two weeks, the later with a verdict that names a segment."""
    root = tmp_path_factory.mktemp("stored")
    summary = report_input.summary
    only = replace(summary, verdict=replace(summary.verdict, outcome="segment only", segments=("s003",)))
    for week, one in zip(WEEKS, (summary, only), strict=True):
        row = {"week": week, "outcome": one.verdict.outcome, "sentence": "-", "summary": one.to_json(), "html": "-"}
        _store(root, tables.EVALUATION_REPORT, week, [row])
        _store(root, tables.SEGMENT_LEDGER, week, [_segment(week, "s003")])
    return root


def test_the_trend_is_printed_and_written_beside_the_reports(stored: Path) -> None:
    said = write_trend(_config(stored))
    file = stored / "reports" / "trend.html"
    assert said.endswith(str(file))
    page = Page(file.read_text(encoding="utf-8"))
    for week in WEEKS:
        assert str(week) in said
        assert str(week) in page.text
    assert said.index(str(WEEKS[0])) < said.index(str(WEEKS[1]))
    assert f"Segment only {NAMES['s003']}" in said


def test_without_a_report_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no report yet; run `segflow run` first"):
        write_trend(_config(tmp_path))
