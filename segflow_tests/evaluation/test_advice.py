"""What to do next follows from the outcome, with the figures of the test."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from segflow.evaluation.advice import next_step, users_needed
from segflow.evaluation.content import ReportInput
from segflow.evaluation.report import render
from segflow.evaluation.summary import EvaluationSummary
from segflow.evaluation.verdict import Outcome, signed

from .conftest import NAMES
from .test_report import Page


def judged(report_input: ReportInput, **changes: object) -> EvaluationSummary:
    summary = report_input.summary
    return replace(summary, verdict=replace(summary.verdict, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_each_outcome_has_its_own_advice_on_the_first_screen(report_input: ReportInput, outcome: Outcome) -> None:
    texts = {one: next_step(judged(report_input, outcome=one, segments=("s003",)), NAMES) for one in get_args(Outcome)}
    assert len(set(texts.values())) == len(texts)
    summary = judged(report_input, outcome=outcome, segments=("s003",))
    text = Page(render(replace(report_input, summary=summary))).text
    first = text[text.index("Do rankers per segment") : text.index("Test users")]
    assert f"What to do next: {texts[outcome]}" in first
    assert "Dots right of zero favour the segments" in first


def test_advice_carries_the_figures_of_the_test(report_input: ReportInput) -> None:
    verdict = report_input.summary.verdict
    assert signed(verdict.difference) in next_step(judged(report_input, outcome="segment"), NAMES)
    only = next_step(judged(report_input, outcome="segment only", segments=("s003", "s005")), NAMES)
    assert f"{NAMES['s003']}, {NAMES['s005']}" in only


def test_users_needed_grow_with_the_square_of_the_detectable_effect(report_input: ReportInput) -> None:
    coarse = judged(
        report_input, outcome="not enough data to say", users=500, threshold=0.004, minimum_detectable_effect=0.012
    )
    assert users_needed(coarse) == 4500
    assert "about 4,500 test users, 500 are there" in next_step(coarse, NAMES)
    few = judged(report_input, users=5, threshold=0.1, minimum_detectable_effect=0.01)
    assert users_needed(few) == few.settings.minimum_users
    assert users_needed(judged(report_input, threshold=0.0)) is None


def test_rankers_without_numbers_are_to_be_trained_again(report_input: ReportInput) -> None:
    summary = judged(report_input, outcome="not enough data to say", unranked_users={"segments": 2})
    assert next_step(summary, NAMES).startswith("Train the rankers of this week again")


def test_a_baseline_that_beats_the_ranker_is_named(report_input: ReportInput) -> None:
    summary = judged(report_input, outcome="do not segment")
    assert "proven better" not in next_step(summary, NAMES)
    losing = [
        replace(row, difference=replace(row.difference, mean=-0.02, low=-0.03, high=-0.01))
        if (row.task, row.against) == ("all", "personal_frequency")
        else row
        for row in summary.global_comparisons
    ]
    assert "personal frequency is proven better than the global ranker (+0.0200 NDCG@10)" in next_step(
        replace(summary, global_comparisons=losing), NAMES
    )


def test_a_week_without_segments_shows_whether_a_ranker_is_worth_having(report_input: ReportInput) -> None:
    summary = judged(report_input, outcome="do not segment", segmented=False)
    text = Page(render(replace(report_input, summary=summary))).text
    assert "until some are found" in text
    assert "The global ranker minus each simple baseline" in text
    assert (
        "The global ranker minus"
        not in Page(render(replace(report_input, summary=replace(summary, global_comparisons=[])))).text
    )
