"""The report in short: Markdown that says what the page says, and a chart that stands on its own."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

from markdown_it import MarkdownIt

from segflow.evaluation.advice import next_step
from segflow.evaluation.charts import standalone
from segflow.evaluation.content import ReportInput
from segflow.evaluation.drawings import first_chart
from segflow.evaluation.markdown import markdown
from segflow.pages import light_colours

from .conftest import NAMES, ROLES
from .test_report import HOSTILE, Page

IMAGE = "summary.svg"


def shown(report: ReportInput, image: str | None = IMAGE) -> Page:
    """The Markdown as a browser would get it."""
    return Page(MarkdownIt("commonmark").enable("table").render(markdown(report, image)))


def only_s003(report: ReportInput) -> ReportInput:
    """The same with a verdict that names a segment."""
    verdict = replace(report.summary.verdict, outcome="segment only", segments=("s003",))
    return replace(report, summary=replace(report.summary, verdict=verdict))


def test_verdict_advice_chart_and_arms(report_input: ReportInput) -> None:
    report = only_s003(report_input)
    page, summary = shown(report), report.summary
    assert summary.verdict.sentence.partition(": ")[2][1:] in page.text
    assert NAMES["s003"] in page.text
    assert f"What to do next: {next_step(summary, NAMES)}" in page.text
    assert "the 3 placebos" in page.text
    assert "with the order of histories" in page.text or "the order of a user's history" in page.text
    assert [attributes["src"] for tag, attributes in page.tags if tag == "img"] == [IMAGE]
    assert sum(tag == "tr" for tag, _ in page.tags) == 1 + len(set(ROLES) - {"global_shuffled"})
    for row in (row for row in summary.arms if row.role != "diagnostic"):
        assert f"{row.primary.mean:.4f} [{row.primary.low:.4f}, {row.primary.high:.4f}]" in page.text
    best = max((row for row in summary.arms if row.task == "all"), key=lambda row: row.primary.mean)
    assert page.text.split("users")[-1].split("Segments of")[0].split()[0] == best.arm.split("_")[0]


def test_without_a_chart_there_is_no_image(report_input: ReportInput) -> None:
    assert not [tag for tag, _ in shown(report_input, None).tags if tag == "img"]


def test_names_from_data_are_text(report_input: ReportInput) -> None:
    cards = [replace(card, name=HOSTILE + " [x](http://y) **z** |\n\n# `w`") for card in report_input.segments]
    page = shown(replace(only_s003(report_input), segments=cards))
    assert not {tag for tag, _ in page.tags} & {"script", "a", "code", "h1"}
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert HOSTILE + " [x](http://y) **z** | # `w`" in page.text


def test_the_chart_stands_on_its_own(report_input: ReportInput) -> None:
    svg = standalone(first_chart(report_input.summary))
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    style = root.findtext("{http://www.w3.org/2000/svg}style") or ""
    used, given = set(re.findall(r"var\((--[\w-]+)\)", style)), set(re.findall(r"(--[\w-]+):", style))
    assert used
    assert used <= given
    assert "dark)" not in style
    assert float(root.attrib["width"]) > float(root.attrib["height"]) > 0
    assert "svg.chart text" in style


def test_light_colours_are_one_rule() -> None:
    colours = light_colours()
    assert colours.startswith(":root {")
    assert colours.count("{") == colours.count("}") == 1
    assert "--segments: #" in colours
