"""The page: complete, self-contained, escaped, and saying what the summary says."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any, get_args

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segflow.config import EvaluationConfig
from segflow.evaluation.charts import axis_ticks, sparkline
from segflow.evaluation.content import Accounting, LedgerRow, ReportInput, SegmentCard
from segflow.evaluation.report import render
from segflow.evaluation.summary import summarize
from segflow.evaluation.verdict import Outcome
from segflow.pages.vega import vega
from segflow.segments.drawing import Picture

from .conftest import NAMES, ROLES, MakeResults

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Collects tags, attributes, text and apart from it scripts; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.programs: list[str] = []
        self.data: list[Any] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["script"]:
            self.text += data
        elif self.tags[-1][1].get("type") == "application/json":
            self.data.append(json.loads(data))
        else:
            self.programs.append(data)

    def runs_only_its_own(self) -> bool:
        """Whether the policy names the page's scripts, which are those of the charts, and nothing else may run or be loaded."""
        policy = next(
            attributes["content"] for tag, attributes in self.tags if tag == "meta" and "http-equiv" in attributes
        )
        hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in self.programs]
        script = "; script-src" + "".join(f" 'sha256-{one}'" for one in hashes)
        own = [vega(), files("segflow.evaluation").joinpath("charts.js").read_text(encoding="utf-8")]
        return self.programs in ([], own) and policy == "default-src 'none'; style-src 'unsafe-inline'" + (
            script if hashes else ""
        )


def shown(html: str) -> str:
    """The page without its scripts, to look for what must not be in it."""
    return re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)


def test_the_page_says_what_the_summary_says(report_input: ReportInput) -> None:
    page = Page(render(report_input))
    summary = report_input.summary
    assert summary.verdict.sentence.partition(": ")[2][1:] in page.text
    for row in summary.arms:
        assert (f"{row.primary.mean:.4f}" if row.role != "diagnostic" else f"{row.primary.mean:.6g}") in page.text
    for card in report_input.segments:
        assert card.name in page.text
    for reason, count in report_input.accounting.quarantined.items():
        assert reason.replace("_", " ") in page.text
        assert f"{count:,}" in page.text
    assert "All 1,469,307 raw rows are accounted for" in page.text


def test_the_verdict_comes_first(report_input: ReportInput) -> None:
    text = Page(render(report_input)).text
    order = ["Do rankers per segment", "How sure", "All arms", "Segment by segment", "Who the segments are"]
    body = text[text.index("Do rankers per segment") :]
    places = [body.index(part) for part in order]
    assert places == sorted(places)


def test_nothing_is_loaded_from_elsewhere(report_input: ReportInput) -> None:
    html = render(report_input)
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "embed", "base"}
    assert not [attributes for tag, attributes in page.tags if tag == "script" and "src" in attributes]
    assert not re.search(r"url\(|@import|https?://", shown(html))
    assert page.runs_only_its_own()
    assert len(html.encode()) < 3_000_000
    links = [attributes for tag, attributes in page.tags if tag == "a"]
    targets = [str(link["href"]) for link in links if "download" not in link]
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert targets
    assert all(target.startswith("#") and target[1:] in ids for target in targets)
    assert all(str(link["href"]).startswith("data:") for link in links if "download" in link)


def test_charts_and_tables_can_be_read_aloud(report_input: ReportInput) -> None:
    page = Page(render(report_input))
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) >= 4
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in drawings)
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.tags if tag == "th")
    assert ("html", {"lang": "en"}) in page.tags


def test_hostile_names_and_titles_are_text(report_input: ReportInput) -> None:
    card = SegmentCard(
        "s001", HOSTILE, 5, 0.4, 0.6, [(HOSTILE, HOSTILE)], [HOSTILE], [HOSTILE], [HOSTILE], [(HOSTILE, HOSTILE)]
    )
    html = render(
        replace(
            report_input,
            title=HOSTILE,
            segments=[card],
            ledger=[
                LedgerRow(week, "s001", HOSTILE, HOSTILE, 5, 5, [HOSTILE]) for week in ("2017-11-13", "2017-11-20")
            ],
            pictures={"map": Picture("map", HOSTILE, HOSTILE, "<svg></svg>")},
            accounting=Accounting(7, 5, 0, {HOSTILE: 2}),
            versions={HOSTILE: HOSTILE},
            config_excerpt=HOSTILE,
        )
    )
    page = Page(html)
    assert "img" not in {tag for tag, _ in page.tags}
    assert page.runs_only_its_own()
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 10


def test_rows_that_went_missing_are_called_out(report_input: ReportInput) -> None:
    text = Page(render(replace(report_input, accounting=Accounting(100, 90, 2, {"unknown_item": 5})))).text
    assert "3 raw rows are unaccounted for" in text
    assert "are accounted for:" not in text


def test_a_week_without_segments_says_so_and_shows_no_comparison(
    report_input: ReportInput, make_results: MakeResults, config: EvaluationConfig
) -> None:
    results = make_results(users=200).assign(segment_id=None)
    summary = summarize(results, ROLES, config, seed=0, published=[])
    page = Page(render(replace(report_input, summary=summary, segments=(), ledger=(), pictures={})))
    assert "show no segments that chance would not draw" in page.text
    assert "Difference to the best control" not in page.text
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    targets = [str(attributes["href"]) for tag, attributes in page.tags if tag == "a" and "download" not in attributes]
    assert {target[1:] for target in targets} <= ids


def test_a_first_week_without_history_renders(report_input: ReportInput) -> None:
    bare = replace(report_input, segments=(), ledger=(), pictures={}, sweep=(), probe=(), attributes=())
    bare = replace(bare, lists=(), versions={})
    text = Page(render(bare)).text
    for words in (
        "No segments were published",
        "no week before",
        "No static attributes",
        "No other numbers",
        "were not probed",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (0.0, "foretells more than plainly aggregated features"),
        (-0.017, "nothing is decided"),
        (-0.1, "plainly aggregated features foretell more"),
    ],
)
def test_the_probe_says_what_its_interval_says(report_input: ReportInput, shift: float, words: str) -> None:
    probe = [
        replace(
            row,
            difference=row.difference + shift,
            difference_low=row.difference_low + shift,
            difference_high=row.difference_high + shift,
        )
        if row.difference is not None and row.difference_low is not None and row.difference_high is not None
        else row
        for row in report_input.probe
    ]
    text = Page(render(replace(report_input, probe=probe))).text
    assert words in text
    assert "is behavior + text:" in text
    for row in probe:
        assert f"{row.score:.3f}" in text


def test_rendering_is_deterministic(report_input: ReportInput) -> None:
    assert render(report_input) == render(report_input)


@given(st.floats(-1e3, 1e3), st.floats(0, 1e3))
def test_axis_ticks_enclose_the_data(low: float, span: float) -> None:
    ticks = axis_ticks(low, low + span)
    step = ticks[1] - ticks[0]
    assert 2 <= len(ticks) <= 9
    assert ticks[0] <= low + 1e-6 * step
    assert ticks[-1] >= low + span - 1e-6 * step


def test_a_single_week_has_no_line() -> None:
    assert sparkline([3], "one") == ""
    assert "polyline" in sparkline([3, 4], "two")


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_each_outcome_has_its_colour(report_input: ReportInput, outcome: Outcome) -> None:
    summary = report_input.summary
    verdict = replace(summary.verdict, outcome=outcome, segments=("s003",))
    html = render(replace(report_input, summary=replace(summary, verdict=verdict)))
    name = outcome.replace(" ", "-")
    assert f'class="answer {name}"' in html
    assert f"background: var(--{name})" in html


def three_users(make_results: MakeResults) -> pd.DataFrame:
    return make_results(users=3)


def identical_arms(make_results: MakeResults) -> pd.DataFrame:
    results = make_results(users=120)
    return pd.concat([results[results["arm"] == "global"].assign(arm=arm) for arm in ROLES])


def nothing_found(make_results: MakeResults) -> pd.DataFrame:
    return make_results(users=120).assign(ndcg_10=0.0)


def scores_without_numbers(make_results: MakeResults) -> pd.DataFrame:
    results = make_results(users=120)
    results.loc[results["arm"] == "placebo_2", ["ranked", "ndcg_10"]] = [False, 0.0]
    return results


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (
            three_users,
            ["fewer than the 50 users needed", "too few users to conclude", "No test user belongs to", "s006."],
        ),
        (identical_arms, ["is ruled out", "+0.0000 to +0.0000"]),
        (nothing_found, ["Do not segment"]),
        (scores_without_numbers, ["placebo 2 for 120 of 120 test users are no numbers", "(no scores for 120 users"]),
    ],
)
def test_odd_tests_have_a_page_that_says_so(
    report_input: ReportInput,
    make_results: MakeResults,
    config: EvaluationConfig,
    odd: Callable[[MakeResults], pd.DataFrame],
    words: list[str],
) -> None:
    summary = summarize(odd(make_results), ROLES, config, seed=0, published=[*NAMES, "s006"])
    text = Page(render(replace(report_input, summary=summary))).text
    for one in words:
        assert one in text
    assert "nan" not in text.split()
