"""The appendix: every link is read back from the page and holds what the summary holds."""

from __future__ import annotations

import base64
import csv
import io
import json
from dataclasses import asdict, replace

import pytest

from segflow.evaluation.appendix import sheets
from segflow.evaluation.content import ReportInput
from segflow.evaluation.record import read_summary
from segflow.evaluation.report import render

from .test_report import HOSTILE, Page

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def downloads(report_input: ReportInput) -> dict[str, str]:
    """File name -> content of every download link of the page."""
    html = render(report_input)
    assert len(html.encode()) < 3_000_000
    links = [attributes for tag, attributes in Page(html).tags if tag == "a" and "download" in attributes]
    return {
        str(link["download"]): base64.b64decode(str(link["href"]).partition(";base64,")[2]).decode() for link in links
    }


def rows_of(downloads: dict[str, str], name: str) -> Rows:
    return list(csv.DictReader(io.StringIO(downloads[f"2017-11-20-{name}.csv"])))


def test_every_table_has_a_link_and_every_link_a_table(downloads: dict[str, str], report_input: ReportInput) -> None:
    found = {sheet.name: sheet for sheet in sheets(report_input)}
    assert set(downloads) == {"2017-11-20.json", *(f"2017-11-20-{name}.csv" for name in found)}
    for name, sheet in found.items():
        rows = list(csv.reader(io.StringIO(downloads[f"2017-11-20-{name}.csv"])))
        assert tuple(rows[0]) == sheet.columns
        assert len(rows) == len(sheet.rows) + 1
        assert {len(row) for row in rows} == {len(sheet.columns)}


def test_the_json_is_the_summary(downloads: dict[str, str], report_input: ReportInput) -> None:
    assert read_summary(downloads["2017-11-20.json"], "download") == report_input.summary


def test_arms_are_told_in_full(downloads: dict[str, str], report_input: ReportInput) -> None:
    rows = rows_of(downloads, "arms")
    for row, arm in zip(rows, report_input.summary.arms, strict=True):
        assert (row["task"], row["arm"], row["role"]) == (arm.task, arm.arm, arm.role)
        assert float(row["ndcg_10_low"]) == arm.primary.low
        assert float(row["ndcg_10_high"]) == arm.primary.high
        assert {name: float(row[name]) for name in arm.metrics} == {**arm.metrics, "ndcg_10": arm.primary.mean}
        assert (row["seed_spread"] == "") == (arm.seed_spread is None)
        assert int(row["unranked_users"]) == arm.unranked_users


def test_differences_are_told_in_full(downloads: dict[str, str], report_input: ReportInput) -> None:
    rows = rows_of(downloads, "differences")
    summary = report_input.summary
    expected = [("segments", one) for one in summary.comparisons] + [
        ("global", one) for one in (*summary.global_comparisons, *summary.diagnostics)
    ]
    for row, (arm, one) in zip(rows, expected, strict=True):
        assert (row["arm"], row["against"], row["is_best_control"]) == (arm, one.against, str(one.is_best_control))
        assert {name: float(row[name]) for name in asdict(one.difference)} == asdict(one.difference)
        for name, value in (("seed_spread", one.seed_spread), ("seed_share", one.seed_share)):
            assert row[name] == "" if value is None else float(row[name]) == value


def test_segments_stand_with_their_names_and_decisions(downloads: dict[str, str], report_input: ReportInput) -> None:
    rows, verdict = rows_of(downloads, "segments"), report_input.summary.verdict
    names = report_input.segment_names()
    for row, one in zip(rows, report_input.summary.segments, strict=True):
        assert one.difference is not None
        assert (row["segment_id"], row["name"]) == (one.segment_id, names[one.segment_id])
        assert float(row["difference_mean"]) == one.difference.mean
    decided = {row["segment_id"]: row["decision"] for row in rows if row["task"] == "all"}
    assert decided == {one.segment_id: one.decision for one in verdict.decisions}
    assert {row["decision"] for row in rows if row["task"] == "new"} == {""}


def test_the_other_tables_hold_what_the_page_was_told(downloads: dict[str, str], report_input: ReportInput) -> None:
    counts = {row["rows"]: int(row["count"]) for row in rows_of(downloads, "rows")}
    assert counts.pop("raw") == report_input.accounting.raw == sum(counts.values())
    assert [float(row["coverage"]) for row in rows_of(downloads, "lists")] == [
        one.coverage for one in report_input.lists
    ]
    assert [row["parents"] for row in rows_of(downloads, "ledger")][-1] == "s003"
    assert json.loads(rows_of(downloads, "settings")[0]["confidence"]) == report_input.summary.settings.confidence
    assert {row["table"]: row["digest"] for row in rows_of(downloads, "inputs")} == report_input.versions
    top = rows_of(downloads, "profiles")[0]["top_items"].split("; ")
    assert top == list(report_input.segments[0].top_items)


def test_a_segment_too_small_to_test_has_empty_fields(report_input: ReportInput) -> None:
    small = replace(report_input.summary.segments[0], difference=None)
    verdict = replace(report_input.summary.verdict, decisions=())
    summary = replace(report_input.summary, segments=[small], verdict=verdict)
    (sheet,) = (one for one in sheets(replace(report_input, summary=summary)) if one.name == "segments")
    row = dict(zip(sheet.columns, sheet.rows[0], strict=True))
    assert row["difference_mean"] is row["decision"] is None
    assert row["users"] == small.users


def test_names_from_data_are_neither_markup_nor_formulas(report_input: ReportInput) -> None:
    for name in (HOSTILE, "=1+1", "@SUM(A1)", "-2", 'a "quoted", line\nbreak'):
        card = replace(report_input.segments[0], name=name)
        (sheet,) = (one for one in sheets(replace(report_input, segments=[card])) if one.name == "profiles")
        (row,) = csv.DictReader(io.StringIO(sheet.csv, newline=""))
        assert row["name"] == (f"'{name}" if name[0] in "=@-" else name)
        page = Page(render(replace(report_input, segments=[card])))
        assert "img" not in {tag for tag, _ in page.tags}
        assert page.runs_only_its_own()
