"""The role of each arm, and whether the controls control: placebos centred on zero, and what extra training gains by itself.

What lives here: roles by the arms' names, gains of the control arms over one another, and the sentences that say what
follows. What does not: the comparison that the verdict rests on (summary.py, verdict.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from segflow.config import EvaluationConfig
from segflow.evaluation.results import Task, estimates
from segflow.evaluation.statistics import Estimate
from segflow.evaluation.verdict import Role, signed
from segflow.pages import percent

EXTRA = "global_extra"
"""The arm with the same extra training on everybody as one group."""
PLACEBO = "placebo_"
"""What the names of random segmentations begin with."""
SHUFFLED = "global_shuffled"
"""The diagnostic arm: the global ranker without the order of histories."""
_ROLES: dict[str, Role] = {
    "global": "global",
    EXTRA: "control",
    "segment_feature": "control",
    "segments": "segments",
    SHUFFLED: "diagnostic",
}


def roles_of(arms: Iterable[str]) -> dict[str, Role]:
    """The role of each arm by its name: placebos are controls, what is no ranker of ours is a baseline."""
    return {arm: "control" if arm.startswith(PLACEBO) else _ROLES.get(arm, "baseline") for arm in sorted(arms)}


@dataclass(frozen=True)
class ControlCheck:
    """What control arms gain in one task, paired over users.

    placebos_over_extra: each user's mean over all `placebos` arms minus the same extra training of everybody as one group:
    dividing users at random should gain nothing. extra_over_global: that training minus the global ranker.
    placebos_over_global: the placebos minus the global ranker. None where an arm is missing.
    """

    task: str
    placebos: int
    placebos_over_extra: Estimate | None
    extra_over_global: Estimate | None
    placebos_over_global: Estimate | None = None


def control_check(task: Task, ranker: str | None, config: EvaluationConfig, seed: int) -> ControlCheck:
    """The check of one task; `ranker` is the global one's arm."""
    placebos = [arm for arm in task.arms if arm.startswith(PLACEBO)]
    extra = EXTRA if EXTRA in task.arms else None
    pairs = [(placebos, extra), ([EXTRA], ranker), (placebos, ranker)]
    asked = [bool(arms) and against is not None and extra is not None for arms, against in pairs]
    differences = [
        np.mean([task.paired(arm, str(against)) for arm in arms], axis=0)
        for (arms, against), wanted in zip(pairs, asked, strict=True)
        if wanted
    ]
    found = iter(estimates(differences, task.users, config, seed) if differences else [])
    return ControlCheck(task.name, len(placebos), *(next(found) if wanted else None for wanted in asked))


def placebo_sentence(check: ControlCheck, config: EvaluationConfig) -> str:
    """Whether the placebos are centred on zero, in one sentence."""
    found = check.placebos_over_extra
    if found is None:
        return "There are no placebos to tell whether dividing users at random gains anything."
    figures = _figures(found, config)
    if found.users < config.minimum_users:
        return f"Too few users tell whether the placebos are centred on zero: {figures}."
    what = f"Minus the same extra training of everybody as one group, the {check.placebos} placebos"
    if check.placebos == 1:
        what = "Minus the same extra training of everybody as one group, the placebo"
    if found.low > 0.0:
        return f"{what} gain {figures}: they are not centred on zero. {_why_placebos_gain(check, config)}"
    if found.high < 0.0:
        return (
            f"{what} lose {figures}: they are not centred on zero. Dividing users costs by itself, so a comparison with "
            "the placebos alone would flatter the segments."
        )
    return f"{what} differ by {figures}, which holds zero: the placebos are centred, as they should be."


def _why_placebos_gain(check: ControlCheck, config: EvaluationConfig) -> str:
    """What follows when the placebos are above the extra training: whether they gain, or it only loses more than they do."""
    over_global = check.placebos_over_global
    if over_global is None or over_global.low > 0.0:
        return "Dividing users at random gains by itself, so only what exceeds the placebos can be credited to the segments."
    return (
        f"Over the global ranker they are not proven to gain ({_figures(over_global, config)}): the extra training of everybody "
        "as one group falls behind them, and that dividing users at random gains is not shown."
    )


def extra_sentence(check: ControlCheck, config: EvaluationConfig) -> str:
    """Whether the extra training gains by itself, in one sentence; empty where it was not tested."""
    found = check.extra_over_global
    if found is None:
        return ""
    figures = _figures(found, config)
    if found.users < config.minimum_users:
        return f"Too few users tell whether the extra training gains by itself: {figures} over the global ranker."
    if found.low > 0.0:
        return f"The extra training gains by itself, without any segments: {figures} over the global ranker."
    if found.high < 0.0:
        return f"The extra training loses by itself, without any segments: {figures} against the global ranker."
    return f"The extra training by itself is not proven to gain or lose: {figures} over the global ranker."


def control_sentences(checks: Sequence[ControlCheck], task: str, config: EvaluationConfig) -> list[str]:
    """Whether the controls control, in one task."""
    found = [row for row in checks if row.task == task]
    texts = [text(row, config) for row in found for text in (placebo_sentence, extra_sentence)]
    return [text for text in texts if text]


def _figures(found: Estimate, config: EvaluationConfig) -> str:
    interval = f"{percent(config.confidence, 0)} interval {signed(found.low)} to {signed(found.high)}"
    p_value = "p < 0.001" if found.p_value < 0.001 else f"p {found.p_value:.3f}"
    return f"{signed(found.mean)} NDCG@10 ({interval}, {p_value})"


def order_sentence(difference: Estimate, config: EvaluationConfig) -> str:
    """Whether the order of a history is worth anything to the global ranker, in one sentence.

    difference: the ranker minus the same one with shuffled histories.
    """
    figures = _figures(difference, config)
    if difference.users < config.minimum_users:
        return f"Too few users tell what the order of a history is worth: {figures}."
    if difference.low > 0.0:
        return f"There is sequence: the order of a user's history is worth {figures} to the global ranker."
    if difference.high < 0.0:
        return f"The global ranker is better without the order of histories ({figures}): it learned an order that does not last."
    return (
        f"No sequence is proven: with the order of histories the global ranker differs by {figures} from without. Beside counts "
        "and recency, which it knows either way, order told it nothing that this test could find."
    )
