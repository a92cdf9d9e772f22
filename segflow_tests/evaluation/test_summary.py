"""From result rows to the summary."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from segflow.config import EvaluationConfig
from segflow.errors import UserError
from segflow.evaluation.summary import summarize

from .conftest import NAMES, ROLES, MakeResults


def test_seeds_are_averaged_per_user_before_users_are(make_results: MakeResults, config: EvaluationConfig) -> None:
    results = make_results(users=120)
    summary = summarize(results, ROLES, config, seed=0)
    rows = results[(results["task"] == "all") & (results["arm"] == "segments")]
    arm = next(row for row in summary.arms if row.arm == "segments" and row.task == "all")
    per_user = rows.groupby("user_id")["ndcg_10"].mean()
    assert arm.primary.mean == pytest.approx(per_user.mean())
    assert arm.primary.standard_error == pytest.approx(per_user.sem())
    assert (arm.primary.users, arm.seeds) == (120, 3)
    assert arm.seed_spread == pytest.approx(rows.groupby("seed")["ndcg_10"].mean().std())
    assert next(row for row in summary.arms if row.arm == "popularity").seed_spread is None


def test_comparisons_are_paired_and_start_with_the_best_control(
    make_results: MakeResults, config: EvaluationConfig
) -> None:
    results = make_results(users=300)
    summary = summarize(results, ROLES, config, seed=0)
    of_all = [row for row in summary.comparisons if row.task == "all"]
    assert {row.against for row in of_all} == set(ROLES) - {"segments", "global_shuffled"}
    means = {row.arm: row.primary.mean for row in summary.arms if row.task == "all"}
    controls = [arm for arm, role in ROLES.items() if role in ("global", "control")]
    assert of_all[0].against == max(controls, key=lambda arm: means[arm]) == summary.verdict.best_control
    wide = results[results["task"] == "all"].pivot_table(index="user_id", columns="arm", values="ndcg_10")
    paired = wide["segments"] - wide["personal_frequency"]
    against_frequency = next(row for row in of_all if row.against == "personal_frequency").difference
    assert against_frequency.mean == pytest.approx(paired.mean())
    assert against_frequency.standard_error == pytest.approx(paired.sem())


def test_a_planted_gain_is_found_where_it_was_planted(make_results: MakeResults, config: EvaluationConfig) -> None:
    gained = summarize(make_results(gains={"s003": 0.05, "s001": -0.02}), ROLES, config, seed=0).verdict
    assert (gained.outcome, gained.segments) == ("segment only", ("s003",))
    everywhere = dict.fromkeys(("s001", "s002", "s003", "s005"), 0.02)
    assert summarize(make_results(gains=everywhere), ROLES, config, seed=0).verdict.outcome == "segment"


def test_placebos_as_good_as_segments_mean_do_not_segment(make_results: MakeResults, config: EvaluationConfig) -> None:
    assert summarize(make_results(), ROLES, config, seed=0).verdict.outcome == "do not segment"


def test_a_week_without_segments_is_not_segmented_and_says_why(
    make_results: MakeResults, config: EvaluationConfig
) -> None:
    results = make_results(users=200).assign(segment_id=None)
    verdict = summarize(results, ROLES, config, seed=0, published=[]).verdict
    assert (verdict.outcome, verdict.segments, verdict.decisions) == ("do not segment", (), ())
    assert "no segments that chance would not draw" in verdict.sentence


def test_few_noisy_users_are_not_enough(make_results: MakeResults, config: EvaluationConfig) -> None:
    verdict = summarize(make_results(users=80, noise=0.2), ROLES, config, seed=0).verdict
    assert verdict.outcome == "not enough data to say"


def test_small_segments_and_users_without_one_are_told_apart(
    make_results: MakeResults, config: EvaluationConfig
) -> None:
    results = make_results(users=300)
    results.loc[results["user_id"].isin([f"u{number:05d}" for number in range(10)]), "segment_id"] = None
    summary = summarize(results, ROLES, config, seed=0)
    assert summary.users_without_segment == 10
    rows = [row for row in summary.segments if row.task == "all"]
    assert sum(row.users for row in rows) == 290
    assert {row.segment_id for row in rows if row.difference is None} == {
        row.segment_id for row in rows if row.users < config.minimum_users
    }
    assert len(summary.verdict.decisions) == sum(row.difference is not None for row in rows) < len(rows)


def test_row_order_does_not_matter_and_json_is_strict(make_results: MakeResults, config: EvaluationConfig) -> None:
    results = make_results(users=100)
    text = summarize(results, ROLES, config, seed=0).to_json()
    assert summarize(results.sample(frac=1.0, random_state=4), ROLES, config, seed=0).to_json() == text
    values = json.loads(text)
    assert values["verdict"]["users"] == 100
    assert values["users_by_task"] == {"all": 100, "new": 100}
    assert values["settings"]["minimum_relative_gain"] == config.minimum_relative_gain


def test_several_weeks_are_one_test_in_which_a_user_counts_once(
    make_results: MakeResults, config: EvaluationConfig
) -> None:
    first = make_results(users=400)
    second = first[~first["user_id"].isin(["u00001", "u00002"])].assign(week=first["week"].max() + pd.Timedelta(days=7))
    both = summarize(pd.concat([first, second]), ROLES, config, seed=0)
    alone = summarize(first, ROLES, config, seed=0)
    assert both.users_by_task == {"all": 400, "new": 400}
    assert (both.verdict.users, both.verdict.best_control) == (400, alone.verdict.best_control)
    once, twice = alone.comparisons[0].difference, both.comparisons[0].difference
    # The same users did the same again, so the second week tells nothing new.
    assert twice.standard_error == pytest.approx(once.standard_error, rel=0.02)
    assert twice.high - twice.low == pytest.approx(once.high - once.low, rel=0.1)
    rows = pd.concat([first, second]).query("task == 'all'").groupby("arm")["ndcg_10"].mean()
    assert twice.mean == pytest.approx(rows["segments"] - rows[both.verdict.best_control])
    segments = {row.segment_id: row.users for row in both.segments if row.task == "all"}
    assert segments == {row.segment_id: row.users for row in alone.segments if row.task == "all"}


def test_what_seeds_do_to_all_users_stands_apart_from_what_users_do(
    make_results: MakeResults, config: EvaluationConfig
) -> None:
    results = make_results(users=400)
    lucky = (results["arm"] == "segments") & (results["seed"] == 1)
    results.loc[lucky, "ndcg_10"] += 0.3
    found, before = (summarize(one, ROLES, config, seed=0) for one in (results, make_results(users=400)))
    for one, plain in zip(found.comparisons, before.comparisons, strict=True):
        if one.role == "baseline":
            assert one.seed_spread is one.seed_share is None
        elif one.task == "all":
            # One of three seeds is 0.3 higher.
            assert one.seed_spread == pytest.approx(0.3 / 3**0.5, rel=0.02)
            assert one.difference.standard_error == pytest.approx(plain.difference.standard_error)
            # Noise between seeds has a third of the deviation of what an arm does to a user, and three seeds are averaged.
            assert one.seed_share == pytest.approx((1 / 9 / 3) / (1 + 1 / 9 / 3), rel=0.15)


def test_users_without_relevant_items_and_other_columns_are_left_out(
    make_results: MakeResults, config: EvaluationConfig
) -> None:
    results = make_results(users=100)
    results["relevant"] = 3
    absent = (results["task"] == "new") & (results["user_id"] == "u00003")
    results.loc[absent, ["ndcg_10", "recall_10", "hit_10", "mrr_10"]] = np.nan
    summary = summarize(results, ROLES, config, seed=0)
    assert summary.users_by_task == {"all": 100, "new": 99}
    assert set(summary.arms[0].metrics) == {"ndcg_10", "recall_10", "hit_10", "mrr_10"}


def test_results_that_do_not_fit_together_are_refused(make_results: MakeResults, config: EvaluationConfig) -> None:
    results = make_results(users=100)
    one_user = (results["arm"] == "placebo_1") & (results["user_id"] == "u00003")
    with pytest.raises(ValueError, match="arm 'placebo_1' has 99 users"):
        summarize(results[~one_user], ROLES, config, seed=0)
    with pytest.raises(ValueError, match="lack some seeds"):
        summarize(results[~(one_user & (results["seed"] == 1))], ROLES, config, seed=0)
    with pytest.raises(ValueError, match="differ from the roles"):
        summarize(results[results["arm"] != "global"], ROLES, config, seed=0)


def test_nobody_to_test_is_the_users_mistake(make_results: MakeResults, config: EvaluationConfig) -> None:
    results: pd.DataFrame = make_results(users=60).assign(ndcg_10=np.nan)
    with pytest.raises(UserError, match="pick a week with more events"):
        summarize(results, ROLES, config, seed=0)


def test_three_test_users_are_not_enough(make_results: MakeResults, config: EvaluationConfig) -> None:
    summary = summarize(make_results(users=3, gains=dict.fromkeys(NAMES, 0.3)), ROLES, config, seed=0)
    assert (summary.verdict.outcome, summary.verdict.segments) == ("not enough data to say", ())
    assert "3 test users), fewer than the 50 users needed" in summary.verdict.sentence
    assert all(row.difference is None for row in summary.segments)
    summary.to_json()


def test_identical_arms_rule_a_gain_out(make_results: MakeResults, config: EvaluationConfig) -> None:
    results = make_results(users=300)
    same = results[results["arm"] == "global"]
    results = pd.concat([same.assign(arm=arm) for arm in ROLES])
    summary = summarize(results, ROLES, config, seed=0)
    assert summary.verdict.outcome == "do not segment"
    assert "is ruled out" in summary.verdict.sentence
    assert summary.verdict.interval == (0.0, 0.0)
    assert {one.adjusted_p_value for one in summary.verdict.decisions} == {1.0}
    assert {one.seed_share for one in summary.comparisons} == {0.0}
    summary.to_json()


def test_arms_that_find_nothing_rule_a_gain_out(make_results: MakeResults, config: EvaluationConfig) -> None:
    verdict = summarize(make_results(users=300).assign(ndcg_10=0.0), ROLES, config, seed=0).verdict
    assert (verdict.outcome, verdict.control_mean, verdict.threshold) == ("do not segment", 0.0, 0.0)


def test_a_segment_without_a_test_user_is_named(make_results: MakeResults, config: EvaluationConfig) -> None:
    verdict = summarize(make_results(users=300), ROLES, config, seed=0, published=[*NAMES, "s006"]).verdict
    assert verdict.untested == ("s006",)
    assert verdict.sentence.endswith("No test user belongs to s006.")
    assert summarize(make_results(users=300), ROLES, config, seed=0, published=list(NAMES)).verdict.untested == ()


@pytest.mark.parametrize(
    ("arm", "outcome"), [("segments", "not enough"), ("placebo_2", "not enough"), ("popularity", "segment")]
)
def test_a_ranker_without_numbers_for_some_users_proves_nothing(
    make_results: MakeResults, config: EvaluationConfig, arm: str, outcome: str
) -> None:
    results = make_results(users=300, gains=dict.fromkeys(NAMES, 0.05))
    broken = (results["arm"] == arm) & results["user_id"].isin(["u00003", "u00007"])
    results.loc[broken, ["ranked", "ndcg_10"]] = [False, 0.0]
    summary = summarize(results, ROLES, config, seed=0)
    assert summary.verdict.outcome.startswith(outcome)
    assert {row.arm: row.unranked_users for row in summary.arms if row.unranked_users} == {arm: 2}
    assert (arm.replace("_", " ") + " for 2 of 300 test users are no numbers" in summary.verdict.sentence) == (
        outcome == "not enough"
    )
    summary.to_json()
