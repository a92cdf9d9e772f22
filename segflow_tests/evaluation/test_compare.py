"""Two snapshots side by side: paired where users are the same, unpaired where not, and nothing where nothing moved."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from segflow.config import EvaluationConfig
from segflow.evaluation.compare import GAIN, Change, Snapshot, changes_of, compare, lines
from segflow.evaluation.statistics import estimate
from segflow.evaluation.summary import summarize

from .conftest import NAMES, ROLES, MakeResults
from .published import faults, published


@pytest.fixture(scope="module")
def base(make_results: MakeResults) -> pd.DataFrame:
    return make_results(users=400, seeds=2)


def snapshot(title: str, results: pd.DataFrame, config: EvaluationConfig) -> Snapshot:
    return Snapshot(
        "here", title, results, summarize(results, ROLES, config, seed=0), NAMES, {"seed": "0", "segments.k_min": "2"}
    )


def raised(results: pd.DataFrame, arm: str, by: float, seed: int = 3) -> pd.DataFrame:
    """The results with an arm that gained, for each user a little differently."""
    rng = np.random.default_rng(seed)
    own = dict(zip(sorted(set(results["user_id"])), rng.normal(by, 0.05, 400), strict=False))
    shift = results["user_id"].map(own).where(results["arm"] == arm, 0.0)
    return results.assign(ndcg_10=results["ndcg_10"] + shift)


def found(changes: list[Change], what: str, task: str = "all") -> Change:
    (one,) = (row for row in changes if (row.task, row.what) == (task, what))
    return one


def test_a_snapshot_compared_with_itself_has_not_moved(base: pd.DataFrame, config: EvaluationConfig) -> None:
    one = snapshot("a", base, config)
    differences = compare(one, one, config, seed=0)
    assert {row.what for row in differences.changes} >= {*ROLES, GAIN, f"{GAIN} in s003 {NAMES['s003']}"}
    for row in differences.changes:
        assert row.before == row.after
        for interval in (row.everybody, row.same_users):
            assert interval is None or interval.change == interval.low == interval.high == 0.0
    assert differences.lacking == []


def test_of_the_same_users_the_change_is_the_paired_one(base: pd.DataFrame, config: EvaluationConfig) -> None:
    later = raised(base, "segments", 0.02)
    differences = compare(snapshot("a", base, config), snapshot("b", later, config), config, seed=5)
    row = found(differences.changes, "segments")
    means = [
        one[(one["arm"] == "segments") & (one["task"] == "all")].groupby("user_id")["ndcg_10"].mean()
        for one in (base, later)
    ]
    (expected,) = estimate((means[1] - means[0]).to_numpy()[:, None], confidence=0.95, power=0.8, samples=1000, seed=5)
    assert row.everybody is not None
    assert row.same_users is not None
    assert row.same_users.users == row.everybody.users == 400
    for interval in (row.everybody, row.same_users):
        assert (interval.change, interval.low, interval.high) == pytest.approx(
            (expected.mean, expected.low, expected.high)
        )
    assert row.same_users.low > 0
    still = found(differences.changes, "global").same_users
    assert still is not None
    assert still.low == still.high == 0.0


def test_of_other_users_the_interval_is_that_of_two_samples(base: pd.DataFrame, config: EvaluationConfig) -> None:
    half = set(sorted(set(base["user_id"]))[:150])
    first, second = base[base["user_id"].isin(half)], raised(base[~base["user_id"].isin(half)], "global", 0.1)
    row = found(compare(snapshot("a", first, config), snapshot("b", second, config), config, seed=0).changes, "global")
    assert row.same_users is None
    assert row.everybody is not None
    samples = [
        one[(one["arm"] == "global") & (one["task"] == "all")].groupby("user_id")["ndcg_10"].mean()
        for one in (first, second)
    ]
    error = np.sqrt(sum(one.var() / len(one) for one in samples))
    assert row.everybody.change == pytest.approx(samples[1].mean() - samples[0].mean())
    assert row.everybody.high - row.everybody.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_shared_users_make_the_interval_narrower(base: pd.DataFrame, config: EvaluationConfig) -> None:
    ids = sorted(set(base["user_id"]))
    widths = []
    for shared in (0, 100, 200):
        first = base[base["user_id"].isin(ids[:200])]
        second = base[base["user_id"].isin(ids[200 - shared : 400 - shared])]
        row = found(
            compare(snapshot("a", first, config), snapshot("b", second, config), config, seed=0).changes, "global"
        )
        assert row.everybody is not None
        assert row.everybody.users == 400 - shared
        assert (row.same_users is None) == (shared == 0)
        widths.append(row.everybody.high - row.everybody.low)
    assert widths[0] > widths[1] > widths[2] == 0.0


def test_intervals_of_overlapping_users_hold_the_truth_as_often_as_they_say(config: EvaluationConfig) -> None:
    rng = np.random.default_rng(11)
    tries, truth, held = 200, 0.04, 0
    for seed in range(tries):
        # Users of 0 to 200 come before, of 80 to 300 after; what they are lasts from week to week, and most score nothing.
        skill = rng.exponential(0.2, 300) * (rng.random(300) < 0.6)
        before, after = (pd.DataFrame({"arm": skill + rng.normal(by, 0.1, 300)}) for by in (0.0, truth))
        (row,) = changes_of("all", before.iloc[:200], after.iloc[80:], config, seed)
        assert row.everybody is not None
        held += row.everybody.low <= truth <= row.everybody.high
    assert 0.91 <= held / tries <= 0.99


def test_the_order_of_rows_does_not_count(base: pd.DataFrame, config: EvaluationConfig) -> None:
    later = raised(base, "segments", 0.02)
    one = compare(snapshot("a", base, config), snapshot("b", later, config), config, seed=0)
    mixed = [frame.sample(frac=1.0, random_state=1) for frame in (base, later)]
    assert compare(snapshot("a", mixed[0], config), snapshot("b", mixed[1], config), config, seed=0) == one


def test_what_only_one_has_is_named(base: pd.DataFrame, config: EvaluationConfig) -> None:
    first = snapshot("a", base, config)
    roles = {arm: role for arm, role in ROLES.items() if arm != "placebo_2"}
    fewer = base[base["arm"] != "placebo_2"].assign(
        segment_id=lambda one: one["segment_id"].replace("s005", "unassigned")
    )
    second = Snapshot("here", "b", fewer, summarize(fewer, roles, config, seed=0), NAMES, {})
    differences = compare(first, second, config, seed=0)
    assert differences.lacking == ["All items: placebo_2", "Items new to the user: placebo_2", "segment s005"]
    assert "only in one of them: segment s005" in list(lines(differences))


def test_segments_of_another_project_are_others(base: pd.DataFrame, config: EvaluationConfig) -> None:
    one = snapshot("a", base, config)
    differences = compare(one, replace(one, project="there"), config, seed=0)
    assert {row.what for row in differences.changes} == {*ROLES, GAIN}
    assert differences.lacking == []


def test_a_snapshot_without_segments_has_no_gain_that_could_move(base: pd.DataFrame, config: EvaluationConfig) -> None:
    one = snapshot("a", base, config)
    none = replace(one, summary=replace(one.summary, verdict=replace(one.summary.verdict, segmented=False)))
    assert {row.what for row in compare(one, none, config, seed=0).changes} == set(ROLES)


def test_text_and_json_tell_every_change(base: pd.DataFrame, config: EvaluationConfig) -> None:
    before, after = snapshot("2017-11-13", base, config), snapshot("2017-11-20", raised(base, "global", 0.03), config)
    differences = compare(
        before, replace(after, names={}, settings={"seed": "1", "segments.k_min": "2"}), config, seed=0
    )
    text = list(lines(differences))
    assert text[0] == f"2017-11-13: {before.summary.verdict.sentence}"
    assert text[1] == f"2017-11-20: {after.summary.verdict.sentence}"
    assert text[-1] == "setting seed: 0 before, 1 after"
    told = json.loads(differences.to_json())
    assert faults(told, published("compare")) == []
    assert faults({**told, "changes": [{**told["changes"][0], "everybody": {}}]}, published("compare"))
    assert faults({**told, "settings": {"seed": ["0"]}}, published("compare"))
    assert len(told["changes"]) == len(differences.changes) == sum(line.startswith("  ") for line in text)
    for row, line in zip(differences.changes, [line for line in text if line.startswith("  ")], strict=False):
        if row.task == "new":
            break
        assert f"{row.before:.4f}" in line
        assert f"{row.after:.4f}" in line
    assert told["changes"][0]["everybody"]["users"] == 400
