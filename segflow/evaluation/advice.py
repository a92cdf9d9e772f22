"""What to do next, in one or two sentences that follow from the verdict.

What lives here: one text for each outcome, filled with the figures of the test. What does not: the verdict (verdict.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from segflow.evaluation.summary import PRIMARY_TASK, EvaluationSummary
from segflow.evaluation.verdict import plain_name, signed, signed_percent


def next_step(summary: EvaluationSummary, names: Mapping[str, str]) -> str:
    """What the verdict asks for. names: segment id -> name."""
    verdict = summary.verdict
    if verdict.outcome == "segment":
        return (
            f"Serve each segment its own ranker. The gain to expect is {_gain(summary)}; "
            "the report of the next week tells whether it stays."
        )
    if verdict.outcome == "segment only":
        chosen = ", ".join(names.get(one, one) for one in verdict.segments)
        return (
            f"Serve own rankers to {chosen}, and one ranker for everyone to all others. "
            "The report of the next week tells whether the same segments gain again."
        )
    if verdict.unranked_users:
        return "Train the rankers of this week again before anything is served: some have no numbers as scores."
    if verdict.outcome == "not enough data to say":
        return f"Keep one ranker for everyone for now. {_what_it_takes(summary)}{_simpler(summary)}"
    if not verdict.segmented:
        return (
            "Serve everybody with one ranker. Segments are looked for again in each new snapshot; nothing is to be done "
            f"until some are found.{_simpler(summary)}"
        )
    return (
        "Serve everybody with one ranker, and spare the effort of one for each segment. The segments may still tell who the "
        f"users are.{_simpler(summary)}"
    )


def users_needed(summary: EvaluationSummary) -> int | None:
    """Test users with which a gain that is worth having would be found; None where no number would do.

    The detectable effect shrinks with the square root of the users (Bloom 1995), all else equal.
    """
    verdict = summary.verdict
    if verdict.threshold <= 0.0:
        return None
    ratio = verdict.minimum_detectable_effect / verdict.threshold
    return max(math.ceil(verdict.users * ratio**2), summary.settings.minimum_users)


def _gain(summary: EvaluationSummary) -> str:
    verdict = summary.verdict
    relative = f", {signed_percent(verdict.difference / verdict.control_mean)}" if verdict.control_mean else ""
    low, high = verdict.interval
    return f"{signed(verdict.difference)} NDCG@10 ({signed(low)} to {signed(high)}{relative})"


def _what_it_takes(summary: EvaluationSummary) -> str:
    needed = users_needed(summary)
    if needed is None:
        return "Any gain at all would be worth having by the settings, and no number of users rules out all of them."
    return (
        f"To find a gain of {signed(summary.verdict.threshold)} reliably takes about {needed:,} test users, "
        f"{summary.verdict.users:,} are there: wait for a week with more of them, or let more users be tested."
    )


def _simpler(summary: EvaluationSummary) -> str:
    """A word on simple baselines that are proven better than the global ranker, which then is not the one to serve."""
    better = [row for row in summary.global_comparisons if row.task == PRIMARY_TASK and row.difference.high < 0.0]
    if not better:
        return ""
    best = min(better, key=lambda row: (row.difference.mean, row.against))
    return (
        f" Note that {plain_name(best.against)} is proven better than the global ranker "
        f"({signed(-best.difference.mean)} NDCG@10): serve that."
    )
