"""Whether the controls control: placebos that are centred, and such that are not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from segflow.config import EvaluationConfig
from segflow.evaluation.controls import ControlCheck, extra_sentence, order_sentence, placebo_sentence
from segflow.evaluation.summary import summarize

from .conftest import ROLES, MakeResults


def check_of(results: pd.DataFrame, config: EvaluationConfig) -> ControlCheck:
    found = summarize(results, {arm: ROLES[arm] for arm in results["arm"].unique()}, config, seed=0).controls
    assert [row.task for row in found] == ["all", "new"]
    return found[0]


def level(results: pd.DataFrame, prefix: str, gain: float) -> pd.DataFrame:
    """The arms of that name with the figures of global_extra and `gain` on top, beside noise of their own."""
    extra = results[results["arm"] == "global_extra"].set_index(["task", "user_id", "seed"])["ndcg_10"]
    results = results.copy()
    for arm in (one for one in results["arm"].unique() if one.startswith(prefix)):
        rows = results["arm"] == arm
        own = results[rows].set_index(["task", "user_id", "seed"])["ndcg_10"]
        noise = (own - own.mean()) - (extra - extra.mean())
        results.loc[rows, "ndcg_10"] = (extra.loc[own.index] + 0.05 * (noise - noise.mean()) + gain).to_numpy()
    return results


@pytest.mark.parametrize(
    ("gain", "told"),
    [(0.0, "centred, as they should be"), (0.004, "gain +0.00"), (-0.004, "lose −0.00")],
)
def test_it_is_told_whether_placebos_are_centred(
    make_results: MakeResults, config: EvaluationConfig, gain: float, told: str
) -> None:
    results = level(make_results(users=400), "placebo_", gain)
    check = check_of(results, config)
    found = check.placebos_over_extra
    assert found is not None
    assert check.placebos == 3
    means = results[results["task"] == "all"].groupby("arm")["ndcg_10"].mean()
    placebos = means[[arm for arm in means.index if arm.startswith("placebo_")]].mean()
    assert found.mean == pytest.approx(placebos - means["global_extra"])
    assert (found.low <= 0.0 <= found.high) == (gain == 0.0)
    sentence = placebo_sentence(check, config)
    assert told in sentence
    assert ("not centred on zero" in sentence) == (gain != 0.0)


def test_placebos_that_only_lose_less_than_the_extra_training_are_no_gain(
    make_results: MakeResults, config: EvaluationConfig
) -> None:
    results = make_results(users=400)
    ranker = results[results["arm"] == "global"]
    rest = results[~results["arm"].isin(["global_extra", "placebo_1"])]
    sway = np.where(ranker["user_id"].str[-1].astype(int) % 2, 0.05, -0.05)
    for gain, told in ((0.0, "at random gains is not shown"), (0.02, "Dividing users at random gains by itself")):
        extra = ranker.assign(arm="global_extra", ndcg_10=ranker["ndcg_10"] - 0.01 + gain / 2 + sway / 10)
        placebo = ranker.assign(arm="placebo_1", ndcg_10=ranker["ndcg_10"] + gain + sway / 20)
        others = rest[~rest["arm"].str.startswith("placebo_")]
        check = check_of(pd.concat([others, extra, placebo]), config)
        assert check.placebos_over_extra is not None
        assert check.placebos_over_extra.low > 0
        assert told in placebo_sentence(check, config)


@pytest.mark.parametrize(("gain", "told"), [(0.01, "gains by itself"), (-0.01, "loses by itself"), (0.0, "not proven")])
def test_it_is_told_whether_extra_training_gains_by_itself(
    make_results: MakeResults, config: EvaluationConfig, gain: float, told: str
) -> None:
    results = make_results(users=400)
    ranker = results[results["arm"] == "global"]
    rest = results[results["arm"] != "global_extra"]
    # Half of the users gain as much more as the others gain less.
    sway = np.where(ranker["user_id"].str[-1].astype(int) % 2, 0.05, -0.05)
    extra = ranker.assign(arm="global_extra", ndcg_10=ranker["ndcg_10"] + gain + sway)
    check = check_of(pd.concat([rest, extra]), config)
    assert told in extra_sentence(check, config)


def test_missing_arms_and_few_users_have_a_line_of_their_own(
    make_results: MakeResults, config: EvaluationConfig
) -> None:
    results = make_results(users=30)
    few = check_of(results, config)
    assert placebo_sentence(few, config).startswith("Too few users")
    assert extra_sentence(few, config).startswith("Too few users")
    bare = results[~results["arm"].isin(["global_extra", "placebo_1", "placebo_2", "placebo_3"])]
    check = check_of(bare, config)
    assert check == ControlCheck("all", 0, None, None)
    assert (
        placebo_sentence(check, config)
        == "There are no placebos to tell whether dividing users at random gains anything."
    )
    assert extra_sentence(check, config) == ""


def test_a_diagnostic_arm_is_compared_with_the_same_seed_and_decides_nothing(
    make_results: MakeResults, config: EvaluationConfig
) -> None:
    results = make_results(users=300)
    # Far above all others: if it counted as a control, it would be the best.
    shuffled = results["arm"] == "global_shuffled"
    results.loc[shuffled, "ndcg_10"] += 0.3
    # Another seed of the global ranker moves nothing here.
    results.loc[(results["arm"] == "global") & (results["seed"] == 1), "ndcg_10"] += 0.2
    summary = summarize(results, ROLES, config, seed=0)
    assert summary.verdict.best_control != "global_shuffled"
    assert all(row.against != "global_shuffled" for row in summary.comparisons + summary.global_comparisons)
    (found, _) = summary.diagnostics
    first = results[(results["task"] == "all") & (results["seed"] == 0)].groupby("arm")["ndcg_10"].mean()
    assert found.against == "global_shuffled"
    assert found.difference.mean == pytest.approx(first["global"] - first["global_shuffled"])
    assert "better without the order" in order_sentence(found.difference, config)
    results.loc[shuffled, "ndcg_10"] -= 0.6
    (found, _) = summarize(results, ROLES, config, seed=0).diagnostics
    assert order_sentence(found.difference, config).startswith("There is sequence")
    results.loc[shuffled, ["ranked", "ndcg_10"]] = [False, 0.0]
    assert summarize(results, ROLES, config, seed=0).verdict.unranked_users == {}
