"""The data of interactive charts: the same as in the drawings, safe in a page, and drawn by scripts whose licences are there."""

from __future__ import annotations

import re
from typing import Any

import pytest
from markupsafe import Markup

from segflow.evaluation.charts import Interval, Line, Point, curve_plot, interval_plot
from segflow.evaluation.content import ReportInput
from segflow.evaluation.interactive import page_scripts
from segflow.evaluation.report import render
from segflow.pages.vega import scripts, vega

from .test_report import HOSTILE, Page

END = "</script><script>alert(1)</script><!--"


def plots(html: str) -> list[str]:
    return re.findall(r'<div class="plot">.*?</div>', html, re.DOTALL)


def titled(charts: list[str], part: str) -> list[dict[str, Any]]:
    """The rows of the first chart in whose title this stands."""
    rows = next(data["rows"] for chart in charts for data in Page(chart).data if part in data["title"])
    assert isinstance(rows, list)
    return rows


def test_data_and_drawing_say_the_same(report_input: ReportInput) -> None:
    html = render(report_input)
    charts = plots(html)
    assert len(charts) == html.count('<svg class="chart"') >= 5
    for chart in charts:
        page = Page(chart)
        (data,) = page.data
        rows = data.get("rows") or data["points"]
        (label,) = (attributes["aria-label"] for tag, attributes in page.tags if tag == "svg")
        assert str(label).startswith(data["title"])
        assert [Page(one).text for one in re.findall(r"<title>.*?</title>", chart)] == [row["aloud"] for row in rows]
        dots = [float(attributes["cx"] or "") for tag, attributes in page.tags if tag == "circle"]
        values = [row.get("mean", row.get("x")) for row in rows]
        # Where a dot stands is a linear function of its value, by the axis that the data name.
        low, high = data.get("axis") or data["across"]
        ticks = [float(x) for x in re.findall(r'class="grid" x1="([\d.]+)" x2="\1"', chart)]
        for dot, value in zip(dots, values, strict=True):
            place = ticks[0] + (value - low) / (high - low) * (ticks[-1] - ticks[0])
            assert dot == pytest.approx(place, abs=0.1)
        for row in rows:
            assert row["text"] in label


def test_tooltips_hold_every_figure_of_the_summary(report_input: ReportInput) -> None:
    summary = report_input.summary
    charts = plots(render(report_input))
    first, arms = titled(charts, "each control"), titled(charts, "each arm, all items")
    assert [dict(row["facts"])["users"] for row in first] == ["1,900"] * len(first)
    for row in (one for one in summary.arms if one.task == "all" and one.role != "diagnostic"):
        facts = next(one["facts"] for one in arms if one["label"] == row.arm.replace("_", " "))
        assert ["Hit@10", f"{row.metrics['hit_10']:.3f}"] in facts
        assert ["seeds", str(row.seeds)] in facts
    decisions = [one.decision for one in summary.verdict.decisions]
    assert sorted(dict(row["facts"])["finding"] for row in titled(charts, "in each segment")) == sorted(decisions)


@pytest.mark.parametrize("text", [HOSTILE, END, "\u2028 & ' \" \\"])
def test_no_name_leaves_the_data(text: str) -> None:
    rows = [Interval(text, 0.1, 0.0, 0.2, "segments", text, ((text, text),)), Interval("b", 0, 0, 0, "control", "b")]
    drawn = interval_plot(rows, [Line(0.0, text, "zero")], text)
    curve = curve_plot([Point(0, 0, text, text), Point(1, 1, text, text)], (text, text), text)
    for chart in (drawn, curve):
        page = Page(chart)
        (data,) = page.data
        assert data["title"] == text
        assert [tag for tag, _ in page.tags].count("script") == 1
        assert not page.programs
        assert not [tag for tag, _ in page.tags if tag == "img"]
    assert Page(drawn).data[0]["rows"][0]["facts"] == [[text, text]]


def test_a_figure_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        interval_plot([Interval("a", float("nan"), 0.0, 1.0, "segments", "a")], [], "title")


def test_rows_of_one_kind_have_no_legend() -> None:
    one, other = (Interval("a", 0.1, 0.0, 0.2, kind, "a") for kind in ("segments", "something"))
    assert "legend" not in interval_plot([one, one], [], "title")
    legend = interval_plot([one, other], [], "title").partition('<ul class="legend">')[2].partition("</ul>")[0]
    assert Page(legend).text == "rankers per segmentsomething"


def test_a_page_without_charts_runs_nothing() -> None:
    none = page_scripts(Markup(""))
    assert (none.policy, none.markup) == ("default-src 'none'; style-src 'unsafe-inline'", "")


@pytest.mark.parametrize("program", ["a = '</script>'", "a = '</SCRIPT >'", "a = '<!-- '"])
def test_a_program_that_would_end_its_script_is_refused(program: str) -> None:
    with pytest.raises(ValueError, match="end of a script"):
        scripts([program])


def test_licences_are_those_of_what_is_bundled() -> None:
    import vl_convert

    licences = vega().partition("*/")[0]
    for name in (
        f"vega@{vl_convert.get_vega_version()}",
        f"vega-embed@{vl_convert.get_vega_embed_version()}",
        f"vega-lite@{vl_convert.get_vegalite_versions()[-1]}.",
        "University of Washington Interactive Data Lab",
        "Mike Bostock",
    ):
        assert name in licences
