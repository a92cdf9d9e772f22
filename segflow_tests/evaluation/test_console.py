"""What the command line tells of several weeks' reports, from the tables."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from segflow import tables
from segflow.config import ComputeConfig, Config
from segflow.console import compare_snapshots, write_trend
from segflow.errors import UserError
from segflow.evaluation.content import ReportInput
from segflow.storage import Storage, connect

from .conftest import NAMES, MakeResults
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


def _results(week: date, results: pd.DataFrame) -> list[dict[str, object]]:
    """The rows as the table wants them: every metric, and none outside of 0 to 1."""
    shares = [one.name for one in tables.RANKING_RESULTS.columns if one.maximum == 1.0]
    rows = results.reindex(columns=tables.RANKING_RESULTS.column_names).assign(week=week, relevant=1)
    rows[shares] = rows[shares].fillna(0.0).clip(0.0, 1.0)
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, report_input: ReportInput, make_results: MakeResults) -> Path:
    """Two weeks, the later with a verdict that names a segment and with rankers per segment that gained."""
    root = tmp_path_factory.mktemp("stored")
    summary = report_input.summary
    only = replace(summary, verdict=replace(summary.verdict, outcome="segment only", segments=("s003",)))
    for week, one in zip(WEEKS, (summary, only), strict=True):
        row = {"week": week, "outcome": one.verdict.outcome, "sentence": "-", "summary": one.to_json(), "html": "-"}
        _store(root, tables.EVALUATION_REPORT, week, [row])
        _store(root, tables.SEGMENT_LEDGER, week, [_segment(week, "s003")])
        results = make_results(users=80, seeds=1, gains=dict.fromkeys(NAMES, 0.05) if one is only else None)
        _store(root, tables.RANKING_RESULTS, week, _results(week, results))
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


def test_the_trend_tells_the_latest_pooled_verdict(stored: Path) -> None:
    assert "together" not in write_trend(_config(stored))
    for number, week in enumerate(WEEKS, start=1):
        row = {
            "week": week,
            "first_week": WEEKS[0],
            "weeks": number,
            "outcome": "segment",
            "sentence": f"Pooled {number}.",
        }
        _store(stored, tables.POOLED_VERDICT, week, [{**row, "summary": "-", "html": "-"}])
    said = write_trend(_config(stored))
    assert f"2 weeks to {WEEKS[1]} together: Pooled 2." in said
    assert "Pooled 1." not in said


def test_without_a_report_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no report yet; run `segflow run` first"):
        write_trend(_config(tmp_path))


def test_two_weeks_are_compared_as_text_and_as_json(stored: Path) -> None:
    first, second = ((_config(stored), week) for week in WEEKS)
    text = compare_snapshots(first, second, as_json=False)
    assert f"segments minus best control in s003 {NAMES['s003']}"[:35] in text
    assert "setting" not in text
    told = json.loads(compare_snapshots(first, (second[0].model_copy(update={"seed": 7}), second[1]), as_json=True))
    assert told["settings"] == {"seed": ["0", "7"]}
    changes = {(row["task"], row["what"]): row for row in told["changes"]}
    moved = changes["all", "segments"]["same_users"]
    assert moved["low"] > 0.0
    assert moved["users"] == 80
    assert changes["all", "popularity"]["same_users"]["change"] == 0.0


def test_a_week_without_a_report_is_named_with_those_that_have_one(stored: Path, tmp_path: Path) -> None:
    config = _config(stored)
    with pytest.raises(UserError, match="week 2017-11-27 has no report; there are 2017-11-13, 2017-11-20"):
        compare_snapshots((config, WEEKS[0]), (config, date(2017, 11, 27)), as_json=False)
    with pytest.raises(UserError, match="run `segflow run` first"):
        compare_snapshots((_config(tmp_path), WEEKS[0]), (config, WEEKS[0]), as_json=False)
