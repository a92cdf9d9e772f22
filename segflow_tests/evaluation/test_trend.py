"""The trend over snapshots: each week as its own report has it, in order, as rows, text and page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segflow.config import EvaluationConfig
from segflow.evaluation.content import ReportInput
from segflow.evaluation.summary import EvaluationSummary, summarize
from segflow.evaluation.trend import TrendRow, render_trend, trend, trend_lines
from segflow.evaluation.verdict import signed

from .conftest import NAMES, ROLES, MakeResults
from .test_report import HOSTILE, Page

Weeks = dict[str, EvaluationSummary]


@pytest.fixture(scope="module")
def weeks(report_input: ReportInput, make_results: MakeResults, config: EvaluationConfig) -> Weeks:
    """A week that says segment, one that names a segment, one without segments; not in their order."""
    summary, only = (
        replace(
            report_input.summary, verdict=replace(report_input.summary.verdict, outcome=outcome, segments=("s003",))
        )
        for outcome in ("segment", "segment only")
    )
    none = summarize(make_results(users=80).assign(segment_id=None), ROLES, config, seed=0, published=[])
    return {"2017-11-20": only, "2017-11-13": summary, "2017-11-27": none}


@pytest.fixture(scope="module")
def rows(weeks: Weeks) -> list[TrendRow]:
    return trend(weeks, NAMES)


def test_each_week_says_what_its_report_says(rows: list[TrendRow], weeks: Weeks) -> None:
    assert [row.week for row in rows] == sorted(weeks)
    for row in rows:
        summary = weeks[row.week]
        best = max((one for one in summary.arms if one.task == "all"), key=lambda one: one.primary.mean)
        assert (row.best_arm, row.best) == (best.arm, best.primary)
        assert row.against == summary.verdict.best_control
        if summary.verdict.segmented:
            assert row.difference is not None
            assert row.difference.mean == summary.verdict.difference
            assert (row.difference.low, row.difference.high) == summary.verdict.interval
    assert [row.verdict for row in rows] == ["Segment", f"Segment only {NAMES['s003']}", "Do not segment"]
    assert rows[-1].difference is None


def test_page_and_text_tell_every_row(rows: list[TrendRow]) -> None:
    page, lines = Page(render_trend(rows, "Does segmenting pay?")), list(trend_lines(rows))
    assert len(lines) == len(rows) + 1
    for row, line in zip(rows, lines[1:], strict=True):
        for text in (page.text, line):
            assert row.week in text
            assert row.verdict in text
            assert f"{row.best.mean:.4f}" in text
            if row.difference:
                assert all(
                    signed(one) in text for one in (row.difference.mean, row.difference.low, row.difference.high)
                )
    assert "no segments were found" in page.text
    (chart,) = (str(attributes["aria-label"]) for tag, attributes in page.tags if tag == "svg")
    assert "2017-11-13" in chart
    assert "2017-11-27" not in chart


def test_the_page_is_self_contained_and_names_are_text(weeks: Weeks) -> None:
    page = Page(render_trend(trend(weeks, {"s003": HOSTILE}), HOSTILE))
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe"}
    assert page.runs_only_its_own()
    assert len(page.programs) == 2
    assert page.text.count(HOSTILE) >= 2


def test_without_any_segments_there_is_no_chart(weeks: Weeks) -> None:
    page = Page(render_trend(trend({"2017-11-27": weeks["2017-11-27"]}, {}), "One week"))
    assert "No week had segments to test" in page.text
    assert not [tag for tag, _ in page.tags if tag in ("svg", "script")]
    assert page.runs_only_its_own()
