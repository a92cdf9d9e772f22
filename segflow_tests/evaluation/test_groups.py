"""Who gains: groups by activity and by attribute, what is hidden of them, and gain by size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from segflow.config import EvaluationConfig
from segflow.evaluation.content import ReportInput
from segflow.evaluation.groups import Background, Dimension, GainBySize, gain_by_size, size_sentence
from segflow.evaluation.report import render
from segflow.evaluation.statistics import Estimate
from segflow.evaluation.summary import EvaluationSummary, summarize
from segflow.segments.statistics import benjamini_hochberg

from .conftest import NAMES, ROLES, MakeResults, background


@pytest.fixture(scope="module")
def results(make_results: MakeResults) -> pd.DataFrame:
    return make_results(users=600)


@pytest.fixture(scope="module")
def summary(results: pd.DataFrame, config: EvaluationConfig) -> EvaluationSummary:
    return summarize(results, ROLES, config, 0, list(NAMES), background(600))


def named(summary: EvaluationSummary, name: str) -> Dimension:
    return next(one for one in summary.dimensions if one.name == name)


def wide(results: pd.DataFrame) -> pd.DataFrame:
    """(users, arms) NDCG@10 over all items, averaged over seeds, and the active days."""
    of_all = results[results["task"] == "all"]
    return of_all.pivot_table(index=["user_id", "active_days"], columns="arm", values="ndcg_10").reset_index()


def test_tiers_are_thirds_of_the_active_days(results: pd.DataFrame, summary: EvaluationSummary) -> None:
    found, users = named(summary, "activity"), wide(results)
    assert found.kind == "activity"
    assert [row.group.partition(" ")[0] for row in found.groups] == ["few", "some", "many"]
    assert sum(row.users for row in found.groups) == 600
    assert all(190 <= row.users <= 210 for row in found.groups)
    tier = users[users["active_days"] <= np.quantile(users["active_days"], 1 / 3, method="inverted_cdf")]
    few = found.groups[0]
    assert few.group == f"few (0 to {tier['active_days'].max()} days)"
    assert few.users == len(tier)
    control = summary.verdict.best_control
    difference = tier["segments"] - tier[control]
    assert (few.global_mean, few.segments_mean) == pytest.approx((tier["global"].mean(), tier["segments"].mean()))
    assert few.difference is not None
    assert few.difference.mean == pytest.approx(difference.mean())
    assert few.difference.standard_error == pytest.approx(difference.sem())
    means = [row.segments_mean for row in found.groups]
    assert found.segments_gap == pytest.approx(max(means) - min(means))


def test_p_values_are_corrected_over_the_groups_of_a_dimension(summary: EvaluationSummary) -> None:
    for one in summary.dimensions:
        tested = [row for row in one.groups if row.difference is not None]
        raw = [row.difference.p_value for row in tested if row.difference is not None]
        assert [row.adjusted_p_value for row in tested] == pytest.approx(benjamini_hochberg(raw).tolist())


def test_attributes_make_groups_and_small_ones_are_not_shown(summary: EvaluationSummary) -> None:
    # An attribute with a value for each user makes no groups.
    assert [one.name for one in summary.dimensions] == ["activity", "income"]
    income = named(summary, "income")
    sizes = {row.group: row.users for row in income.groups}
    assert list(sizes) == ["high", "low", "middle"]
    # Three users have a very high income, fewer than may be shown; 27 a high one, too few to test.
    assert sizes == {"high": 27, "low": 135, "middle": 135}
    assert income.hidden == 1
    assert {row.group: row.difference is None for row in income.groups} == {"high": True, "low": False, "middle": False}
    tested = [row for row in income.groups if row.difference is not None]
    assert income.global_gap == pytest.approx(abs(tested[0].global_mean - tested[1].global_mean))


def test_ranges_of_numbers_stand_in_their_order(results: pd.DataFrame, config: EvaluationConfig) -> None:
    ages = ["100-124", "15-24", "Under 15", "65+"]
    rows = [(f"u{user:05d}", "age", ages[user % 4]) for user in range(600)]
    known = Background(10, pd.DataFrame(rows, columns=["user_id", "attribute", "value"]))
    found = named(summarize(results, ROLES, config, 0, list(NAMES), known), "age")
    assert [row.group for row in found.groups] == ["15-24", "65+", "100-124", "Under 15"]


def test_nothing_known_of_users_is_an_answer(results: pd.DataFrame, config: EvaluationConfig) -> None:
    # Nobody said how small a group may be shown.
    assert summarize(results, ROLES, config, seed=0).dimensions == []
    assert summarize(results.drop(columns="active_days"), ROLES, config, 0, None, Background(10)).dimensions == []
    alike = summarize(results.assign(active_days=4), ROLES, config, 0, None, Background(10))
    (tier,) = named(alike, "activity").groups
    assert (tier.group, tier.users) == ("few (4 to 4 days)", 600)
    assert named(alike, "activity").global_gap is None


def test_three_users_and_hidden_tiers(make_results: MakeResults, config: EvaluationConfig) -> None:
    few = summarize(make_results(users=3), ROLES, config, 0, list(NAMES), Background(minimum_cell=2))
    assert few.dimensions == []
    shown = summarize(make_results(users=3), ROLES, config, 0, list(NAMES), Background(minimum_cell=1))
    assert [row.difference for row in named(shown, "activity").groups] == [None] * 3
    few.to_json()


def gains(users: list[int], means: list[float]) -> dict[str, Estimate]:
    return {
        f"s{number:03d}": Estimate(mean, mean - 1, mean + 1, 0.5, 0.5, 1.0, size)
        for number, (size, mean) in enumerate(zip(users, means, strict=True))
    }


def test_gain_by_size_is_a_rank_correlation_or_says_why_not() -> None:
    users, means = [50, 80, 120, 300, 310, 900], [0.01, 0.03, 0.02, 0.05, 0.04, 0.06]
    found = gain_by_size(gains(users, means))
    assert found.correlation == pytest.approx(spearmanr(users, means).statistic)
    assert "is +0.89 over 6 segments" in size_sentence(found)
    assert "within about ±0.88" in size_sentence(found)
    assert "Too few segments to say whether larger ones gain more: 4 could be tested, 5 are needed" in size_sentence(
        gain_by_size(gains(users[:4], means[:4]))
    )
    same = gain_by_size(gains(users, [0.0] * 6))
    assert same == GainBySize(6, None)
    assert "the same gain" in size_sentence(same)
    assert gain_by_size({}) == GainBySize(0, None)


def test_the_page_shows_groups_gaps_stability_and_size(report_input: ReportInput) -> None:
    html = render(report_input)
    part = html.partition('<section id="who-gains"')[2].partition("</section>")[0]
    assert part.index("By how active they were") < part.index("Fairness: by what users are")
    assert "few (0 to " in part
    assert "Income; 1 group with too few users to be shown" in part
    assert "very high" not in html
    income = named(report_input.summary, "income")
    assert f"{income.global_gap:.4f} with the global ranker and {income.segments_gap:.4f}" in part
    by_segment = html.partition('<section id="by-segment"')[2].partition("</section>")[0]
    for value in ("0.91", "0.88", "0.84"):
        assert f'<td class="number">{value}</td>' in by_segment
    assert "Too few segments to say whether larger ones gain more: 4 could be tested" in by_segment
    sizes = by_segment.partition("Gain and size")[2]
    places = [sizes.index(NAMES[segment][:8]) for segment in ("s001", "s002", "s003", "s005")]
    assert places == sorted(places)
    nothing = replace(report_input.summary, dimensions=[])
    page = render(replace(report_input, summary=nothing))
    assert "No static attribute of the test users makes groups that may be shown." in page
    assert "How active the test users were is not known, or no third of them is large enough to be shown." in page


def test_means_over_weeks_count_each_week_of_a_user(results: pd.DataFrame, config: EvaluationConfig) -> None:
    later = results.assign(week=results["week"].max() + pd.Timedelta(days=7), active_days=results["active_days"] + 5)
    both = summarize(pd.concat([results, later]), ROLES, config, 0, list(NAMES), background(600))
    assert sum(row.users for row in named(both, "activity").groups) >= 600
    once = named(summarize(results, ROLES, config, 0, list(NAMES), background(600)), "income")
    twice = named(both, "income")
    assert [row.users for row in twice.groups] == [row.users for row in once.groups]
    np.testing.assert_allclose([row.global_mean for row in twice.groups], [row.global_mean for row in once.groups])
