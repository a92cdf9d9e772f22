"""Whether a ranker may serve everybody: the gate before the alias `champion`.

Lives here: the rule, and the sentence that says how it came out. Does not live here: moving the alias (``segflow.tracking``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from segflow.config import EvaluationConfig
from segflow.evaluation.page import roles_of
from segflow.evaluation.statistics import Estimate, estimate
from segflow.evaluation.summary import PRIMARY_METRIC, PRIMARY_TASK
from segflow.evaluation.verdict import plain_name, signed


@dataclass(frozen=True)
class Promotion:
    """The decision, why, and the ranker minus each simple baseline over all items, paired over users."""

    promoted: bool
    sentence: str
    differences: dict[str, Estimate]


def promotion(results: pd.DataFrame, arm: str, config: EvaluationConfig, seed: int) -> Promotion:
    """`arm` may serve unless a simple baseline is proven better on the test week, too few users tested it, or it could not
    rank some of them.

    Proven: the paired bootstrap interval of the difference lies below zero. Baselines are not corrected for their number: a
    ranker that ties with all of them is held back a little too often, which costs a week with the champion before it.

    Args:
        results: rows of `ranking_results` of one week.
    """
    chosen = results[results["task"] == PRIMARY_TASK]
    # Seeds of one user are no independent observations.
    values = chosen.pivot_table(index="user_id", columns="arm", values=PRIMARY_METRIC, aggfunc="mean")
    roles = roles_of(values.columns)
    if arm not in roles:
        raise ValueError(f"the week's results have no arm {arm!r}, only {sorted(roles)}")
    users, name = len(values), plain_name(arm)
    if users < config.minimum_users:
        return Promotion(
            False, f"Not promoted: {users:,} users tested it, fewer than the {config.minimum_users:,} needed.", {}
        )
    unranked = chosen.loc[(chosen["arm"] == arm) & ~chosen["ranked"].astype(bool), "user_id"].nunique()
    if unranked:
        return Promotion(
            False, f"Not promoted: {name} gave no numbers as scores for {unranked:,} of {users:,} users.", {}
        )
    baselines = [one for one, role in roles.items() if role == "baseline"]
    columns = values[arm].to_numpy(np.float64)[:, None] - values[baselines].to_numpy(np.float64)
    found = estimate(
        columns, confidence=config.confidence, power=config.power, samples=config.bootstrap_samples, seed=seed
    )
    differences = dict(zip(baselines, found, strict=True))
    closest = min(baselines, key=lambda one: differences[one].mean)
    worst = differences[closest]
    figures = (
        f"{name} {signed(worst.mean)} [{signed(worst.low)}, {signed(worst.high)}] NDCG@10 against "
        f"{plain_name(closest)}, the best simple baseline ({users:,} users)"
    )
    if any(one.high < 0 for one in found):
        return Promotion(False, f"Not promoted: {figures}, proven worse.", differences)
    return Promotion(True, f"Promoted: {figures}.", differences)
