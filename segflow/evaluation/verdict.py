"""Whether segmenting paid: rules fixed before any result is seen.

What lives here: the roles of arms, the choice of the control to beat, the decision for all users and for each
segment, and the sentence that states it. What does not: computing the numbers (statistics.py, summary.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from segflow.config import EvaluationConfig
from segflow.evaluation.statistics import Estimate, same_mean_p_value, together
from segflow.segments.statistics import benjamini_hochberg

Role = Literal["baseline", "global", "control", "segments", "diagnostic"]
"""baseline: popularity and other simple scorers. global: one ranker for everyone. control: global with the same
extra training, each placebo segmentation, and one model told the segment. segments: the rankers per real segment.
diagnostic: a ranker that was spoiled on purpose, to see what it lives by; nothing is decided by it."""

Outcome = Literal["segment", "segment only", "do not segment", "not enough data to say"]
Decision = Literal["gain", "gain below threshold", "loss", "no proven difference"]


@dataclass(frozen=True)
class SegmentDecision:
    """What the data say about one segment; the p-value is adjusted over all segments tested."""

    segment_id: str
    decision: Decision
    adjusted_p_value: float


@dataclass(frozen=True)
class Verdict:
    """The answer, with the numbers it rests on (differences are segments arm minus best control).

    untested: segments that no test user belongs to. unranked_users: how many users the segments arm or a control had no
    finite scores for, of arms with any.
    """

    outcome: Outcome
    segments: tuple[str, ...]
    sentence: str
    best_control: str
    segments_mean: float
    control_mean: float
    difference: float
    interval: tuple[float, float]
    minimum_detectable_effect: float
    threshold: float
    users: int
    segmented: bool
    decisions: tuple[SegmentDecision, ...]
    untested: tuple[str, ...]
    unranked_users: Mapping[str, int]


def signed(value: float) -> str:
    """A difference with its sign and four decimals, with a true minus sign."""
    return f"{value:+.4f}".replace("-", "−")


def signed_percent(value: float) -> str:
    """A relative difference as a percentage with its sign."""
    return f"{value:+.1%}".replace("-", "−").replace("%", " %")


_SPELLED = {"tifu_knn": "TIFU-KNN", "ease": "EASE"}


def plain_name(arm: str) -> str:
    """The name of an arm as words."""
    return _SPELLED.get(arm, arm.replace("_", " "))


def segments_arm(roles: Mapping[str, Role]) -> str:
    """The one arm under test. Raises ValueError unless exactly one arm has the role `segments`."""
    names = [arm for arm, role in roles.items() if role == "segments"]
    if len(names) != 1:
        raise ValueError(f"exactly one arm must have the role 'segments', got {names}")
    return names[0]


def best_control(means: Mapping[str, float], roles: Mapping[str, Role]) -> str:
    """The arm with the highest mean among those of role `global` and `control`; equal means by name.

    Picking the best after seeing the data favours the control: the highest of several noisy means is on average
    too high, so the comparison is conservative, and more so the more placebos there are.
    Raises ValueError when there is no such arm.
    """
    controls = sorted(arm for arm, role in roles.items() if role in ("global", "control"))
    if not controls:
        raise ValueError("no arm has the role 'global' or 'control': there is nothing to compare the segments with")
    return max(controls, key=lambda arm: means[arm])


def judge_segments(
    differences: Mapping[str, Estimate], threshold: float, config: EvaluationConfig
) -> tuple[SegmentDecision, ...]:
    """Decide for each segment alone, holding the false-discovery rate over all of them at 1 - confidence.

    differences: segment id -> segments arm minus best control over the users of that segment.
    """
    adjusted = benjamini_hochberg([difference.p_value for difference in differences.values()])
    decisions = []
    for (segment_id, difference), p_value in zip(differences.items(), adjusted.tolist(), strict=True):
        decision: Decision = "no proven difference"
        if p_value <= 1.0 - config.confidence:
            decision = "loss" if difference.mean < 0 else "gain below threshold"
            if difference.mean >= threshold:
                decision = "gain"
        decisions.append(SegmentDecision(segment_id, decision, p_value))
    return tuple(decisions)


def decide(
    difference: Estimate,
    segment_differences: Mapping[str, Estimate],
    *,
    control: str,
    control_mean: float,
    config: EvaluationConfig,
    segmented: bool = True,
    untested: Sequence[str] = (),
    unranked_users: Mapping[str, int] | None = None,
) -> Verdict:
    """The verdict from the paired differences between the segments arm and the best control.

    A gain must be proven (interval above 0) *and* worth having (mean at least the threshold, `minimum_relative_gain` of the
    control's mean). In this order:

    1. proven and worth having over all users: `segment`, if segments are not proven to differ from one another, or all gain
       by themselves, or those that are proven neither way gain taken together: what everybody shares need not show in each
       small segment. Where some segments are proven to lose, `segment only` the others;
    2. proven and worth having in some segments by themselves (corrected for testing many): `segment only` those;
    3. too few users, or an interval that holds both 0 and the threshold while the minimum detectable effect
       exceeds the threshold: `not enough data to say`. So it is without any test when the segments arm or a control could
       not rank some users;
    4. otherwise: `do not segment`. So it is without any test when nobody is `segmented`, since no segments were found.
    """
    threshold = config.minimum_relative_gain * control_mean
    decisions = judge_segments(segment_differences, threshold, config)
    outcome: Outcome = "not enough data to say" if segmented and unranked_users else "do not segment"
    segments: tuple[str, ...] = ()
    if segmented and not unranked_users:
        outcome, segments = _outcome(difference, segment_differences, decisions, threshold, config)
    verdict = Verdict(
        outcome=outcome,
        segments=segments,
        sentence="",
        best_control=control,
        segments_mean=control_mean + difference.mean,
        control_mean=control_mean,
        difference=difference.mean,
        interval=(difference.low, difference.high),
        minimum_detectable_effect=difference.minimum_detectable_effect,
        threshold=threshold,
        users=difference.users,
        segmented=segmented,
        decisions=decisions,
        untested=tuple(untested),
        unranked_users=dict(unranked_users or {}),
    )
    return replace(verdict, sentence=_sentence(verdict, segment_differences, config))


def _outcome(
    difference: Estimate,
    segment_differences: Mapping[str, Estimate],
    decisions: Sequence[SegmentDecision],
    threshold: float,
    config: EvaluationConfig,
) -> tuple[Outcome, tuple[str, ...]]:
    """The answer and the segments it is for, by the rules of `decide`."""
    if difference.users < config.minimum_users:
        return "not enough data to say", ()
    gains = difference.low > 0.0 and difference.mean >= threshold
    kept = {one.segment_id for one in decisions if one.decision == "gain"}
    unproven = [one.segment_id for one in decisions if one.decision not in ("gain", "loss")]
    if gains and unproven:
        alike = same_mean_p_value(list(segment_differences.values())) > 1.0 - config.confidence
        mean, low = together([segment_differences[segment_id] for segment_id in unproven], config.confidence)
        if alike or (low > 0.0 and mean >= threshold):
            kept.update(unproven)
    segments = tuple(one.segment_id for one in decisions if one.segment_id in kept)
    if gains and len(segments) == len(decisions):
        return "segment", segments
    if segments:
        return "segment only", segments
    undecided = (
        difference.low <= 0.0 <= difference.high
        and difference.low <= threshold <= difference.high
        and difference.minimum_detectable_effect > threshold
    )
    return ("not enough data to say" if undecided else "do not segment"), ()


def _sentence(verdict: Verdict, segment_differences: Mapping[str, Estimate], config: EvaluationConfig) -> str:
    """The verdict with its numbers and what could not be tested, for a reader who knows nothing of the code."""
    sentence = _answer(verdict, segment_differences, config)
    return f"{sentence} No test user belongs to {listed(verdict.untested)}." if verdict.untested else sentence


def _answer(verdict: Verdict, segment_differences: Mapping[str, Estimate], config: EvaluationConfig) -> str:
    """The verdict with its numbers."""
    needed = f"{signed(verdict.threshold)} ({signed_percent(config.minimum_relative_gain)}) fixed beforehand"
    relative = f"{signed_percent(verdict.difference / verdict.control_mean)}, " if verdict.control_mean else ""
    low, high = verdict.interval
    numbers = (
        f"rankers per segment score {verdict.segments_mean:.4f} NDCG@10 against {verdict.control_mean:.4f} for the "
        f"best control ({plain_name(verdict.best_control)}): {signed(verdict.difference)} ({relative}"
        f"{round(100 * config.confidence, 1):g} % interval {signed(low)} to {signed(high)}, "
        f"{verdict.users:,} test users)"
    )
    if not verdict.segmented:
        return (
            "Do not segment: the users show no segments that chance would not draw as well, so the global ranker "
            f"serves everybody ({verdict.control_mean:.4f} NDCG@10, {verdict.users:,} test users)."
        )
    if verdict.outcome == "segment":
        return f"Segment: {numbers}, at least the {needed}."
    if verdict.outcome == "segment only":
        return (
            f"Segment only {listed(verdict.segments)}: {_why_only(verdict, segment_differences)}; over all, {numbers}."
        )
    if verdict.outcome == "not enough data to say":
        if verdict.unranked_users:
            broken = listed([f"{plain_name(arm)} for {count:,}" for arm, count in verdict.unranked_users.items()])
            return (
                f"Not enough data to say: the scores of {broken} of {verdict.users:,} test users are no numbers, so nothing "
                "can be compared; train the rankers of this week again."
            )
        if verdict.users < config.minimum_users:
            return f"Not enough data to say: {numbers}, fewer than the {config.minimum_users:,} users needed."
        return (
            f"Not enough data to say: {numbers}; both no gain and the {needed} remain possible, and this test can "
            f"reliably detect only differences of {verdict.minimum_detectable_effect:.4f} or more."
        )
    if low > 0.0 and verdict.difference >= verdict.threshold:
        if all(one.decision == "loss" for one in verdict.decisions):
            return f"Do not segment: {numbers}; yet every segment large enough to test is proven to lose."
        return f"Do not segment: {numbers}; yet no segments are proven to gain, neither alone nor together."
    if low > 0.0:
        return f"Do not segment: {numbers}; the gain is real but below the {needed}."
    if high < 0.0:
        return f"Do not segment: {numbers}; users are served worse than without segments."
    if high < verdict.threshold:
        return f"Do not segment: {numbers}; a gain of the {needed} is ruled out."
    return f"Do not segment: {numbers}; no gain is proven, though the {needed} would have been found reliably."


def _why_only(verdict: Verdict, segment_differences: Mapping[str, Estimate]) -> str:
    """What narrows the verdict to some segments."""
    by_decision: dict[str, list[str]] = {"gain": [], "loss": [], "unproven": []}
    for one in verdict.decisions:
        decision = one.decision if one.decision in by_decision else "unproven"
        by_decision[decision].append(one.segment_id)
    unproven_kept = not set(by_decision["unproven"]).isdisjoint(verdict.segments)
    kind = "loss" if unproven_kept else "gain"
    numbers = listed([f"{name} ({signed(segment_differences[name].mean)})" for name in by_decision[kind]])
    others = "" if unproven_kept or not by_decision["unproven"] else " and none worth having for the rest"
    return f"a {kind} is proven for {numbers}{others}, corrected for testing {len(verdict.decisions)} segments"


def listed(words: Sequence[str]) -> str:
    """Words as an English list: a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
