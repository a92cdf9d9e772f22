"""Which ranker of a week may serve everybody: the gate before the alias `champion`.

Rankers per segment serve where the verdict says so and no segment that gets its own is harmed; else the global ranker does.
Either serves only if no simple baseline is proven better. Lives here: the rules, and the sentence that says how they came out.
Does not live here: the verdict (verdict.py), and moving the alias (``segflow.tracking``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from segflow.config import EvaluationConfig
from segflow.evaluation.content import TASK_TITLES
from segflow.evaluation.statistics import Estimate, estimate
from segflow.evaluation.summary import PRIMARY_METRIC, PRIMARY_TASK, EvaluationSummary
from segflow.evaluation.verdict import Role, judge_segments, listed, plain_name, segments_arm, signed, signed_percent

Served = Literal["global", "segments"]


@dataclass(frozen=True)
class Harm:
    """A segment that is proven to lose by more than is tolerated in a task; `loss` is a share of the best control's NDCG@10."""

    segment_id: str
    task: str
    loss: float

    def __str__(self) -> str:
        return f"{self.segment_id} ({signed_percent(-self.loss)}, {TASK_TITLES.get(self.task, self.task).lower()})"


@dataclass(frozen=True)
class Promotion:
    """The decision and why.

    arm: what serves, or was tried last; segments: those whose own rankers serve, none with the global ranker.
    cleared: whether the verdict is for rankers per segment, in all or some segments.
    harmed: all segments that are, whether their rankers would have served or not.
    differences: what serves minus each simple baseline over all items, paired over users.
    """

    promoted: bool
    arm: Served
    segments: tuple[str, ...]
    sentence: str
    cleared: bool
    harmed: tuple[Harm, ...]
    differences: Mapping[str, Estimate]


@dataclass(frozen=True)
class _Comparison:
    """A ranker against the simple baselines: whether it may serve, and the figures in words."""

    passed: bool
    words: str
    differences: Mapping[str, Estimate]


def promotion(
    results: pd.DataFrame, summary: EvaluationSummary, segments: Collection[str], config: EvaluationConfig, seed: int
) -> Promotion:
    """What may serve from a week on.

    Rankers per segment: if the verdict is `segment`, or `segment only`, then in these segments alone, and none of the segments
    they serve is harmed. Otherwise, or where that ranker is held back by a baseline, the global ranker.

    Args:
        results: rows of `ranking_results` of one week. What serves was trained with `seed`, so only that training counts here,
            while the verdict is over all of them.
        summary: of the same rows.
        segments: those that the week has rankers of.
    """
    roles = {row.arm: row.role for row in summary.arms}
    verdict = summary.verdict
    cleared = bool(segments) and verdict.outcome in ("segment", "segment only")
    # A segment too small to be tested has its part in a gain that is everybody's.
    proven = tuple(sorted(segments if verdict.outcome == "segment" else verdict.segments)) if cleared else ()
    harmed = harmed_segments(summary, config)
    harm = [str(one) for one in harmed if one.segment_id in proven]
    reason = f"the verdict is '{verdict.outcome}'"
    if not segments:
        reason = "the week has no rankers per segment"
    elif harm:
        reason = f"rankers per segment are proven to harm {listed(harm)}"
    elif cleared:
        found = _against_baselines(_served(results, roles, proven, seed), roles, "segments", config, seed)
        who = "everybody in a segment" if verdict.outcome == "segment" else f"only {listed(proven)}"
        if found.passed:
            sentence = f"Rankers per segment serve {who}, as the verdict says: {found.words}."
            return Promotion(True, "segments", proven, sentence, cleared, harmed, found.differences)
        reason = f"rankers per segment are held back ({found.words})"
    found = _against_baselines(_served(results, roles, (), seed), roles, "global", config, seed)
    sentence = f"The global ranker serves everybody, since {reason}: {found.words}."
    if not found.passed:
        sentence = f"Nothing of this week serves: {found.words}{f'; {reason}' if cleared else ''}."
    return Promotion(found.passed, "global", (), sentence, cleared, harmed, found.differences)


def harmed_segments(summary: EvaluationSummary, config: EvaluationConfig) -> tuple[Harm, ...]:
    """The segments that lose more than `harm_tolerance` of the best control's NDCG@10, in any task.

    That a segment loses has to be proven, at the false-discovery rate over the segments of the task. How much it loses is the
    mean: with an end of the interval instead, small segments would be harmed by nothing, or by anything.
    """
    found = []
    for task in summary.users_by_task:
        rows = {row.segment_id: row for row in summary.segments if row.task == task}
        differences = {name: row.difference for name, row in rows.items() if row.difference is not None}
        for one in judge_segments(differences, 0.0, config):
            control = rows[one.segment_id].control_mean
            if one.decision == "loss" and -differences[one.segment_id].mean > config.harm_tolerance * control:
                found.append(Harm(one.segment_id, task, -differences[one.segment_id].mean / control))
    return tuple(found)


def _served(results: pd.DataFrame, roles: Mapping[str, Role], segments: Sequence[str], seed: int) -> pd.DataFrame:
    """Rows of the primary task, a user's by each baseline, and as arm `served` by what would have served the user."""
    rows = results[results["task"] == PRIMARY_TASK]
    baselines = rows[rows["arm"].map(roles) == "baseline"]
    own = rows["segment_id"].isin(segments) & (rows["arm"] == segments_arm(roles))
    rest = ~rows["segment_id"].isin(segments) & (rows["arm"].map(roles) == "global")
    served = rows[(own | rest) & (rows["seed"] == seed)].assign(arm="served")
    return pd.concat([served, baselines])


def _against_baselines(
    rows: pd.DataFrame, roles: Mapping[str, Role], name: str, config: EvaluationConfig, seed: int
) -> _Comparison:
    """A ranker may serve unless a simple baseline is proven better on the test week, too few users tested it, or it could not
    rank some of them.

    Proven: the paired interval of the difference lies below zero. Baselines are not corrected for their number: a
    ranker that ties with all of them is held back a little too often, which costs a week with the champion before it.
    """
    values = rows.pivot_table(index="user_id", columns="arm", values=PRIMARY_METRIC, aggfunc="mean")
    users = len(values)
    if users < config.minimum_users:
        return _Comparison(False, f"{users:,} users tested it, fewer than the {config.minimum_users:,} needed", {})
    unranked = rows.loc[(rows["arm"] == "served") & ~rows["ranked"].astype(bool), "user_id"].nunique()
    if unranked:
        return _Comparison(False, f"{name} gave no numbers as scores for {unranked:,} of {users:,} users", {})
    baselines = sorted(arm for arm, role in roles.items() if role == "baseline")
    found = estimate(
        values["served"].to_numpy(np.float64)[:, None] - values[baselines].to_numpy(np.float64),
        confidence=config.confidence,
        power=config.power,
        samples=config.bootstrap_samples,
        seed=seed,
    )
    differences = dict(zip(baselines, found, strict=True))
    closest = min(baselines, key=lambda one: differences[one].mean)
    worst = differences[closest]
    words = (
        f"{name} {signed(worst.mean)} [{signed(worst.low)}, {signed(worst.high)}] NDCG@10 against "
        f"{plain_name(closest)}, the best simple baseline ({users:,} users)"
    )
    passed = not any(one.high < 0 for one in found)
    return _Comparison(passed, words if passed else f"{words}, proven worse", differences)
