"""Rows of results as arrays: of each task, the metrics of every arm for the same users in the same order.

What lives here: that shape, and estimates of columns over its users. What does not: which columns are compared
(summary.py, controls.py, groups.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from segflow.config import EvaluationConfig
from segflow.errors import UserError
from segflow.evaluation.metrics import METRICS
from segflow.evaluation.statistics import Estimate, estimate

PRIMARY_METRIC = "ndcg_10"
PRIMARY_TASK = "all"
_ORDER = (PRIMARY_TASK, "new")


@dataclass(frozen=True)
class Task:
    """The results of one task, a row for each user and week, in fixed order.

    values: (arms, rows, metrics), averaged over seeds. by_seed: of each arm the primary metric (seeds, rows).
    unranked_users: of each arm. users: (rows,) codes 0..U-1. user_ids, segment_ids: (rows,). active_days: (rows,), None
    where the results do not tell.
    """

    name: str
    arms: list[str]
    metrics: list[str]
    values: npt.NDArray[np.float64]
    by_seed: dict[str, pd.DataFrame]
    unranked_users: dict[str, int]
    users: npt.NDArray[np.int64]
    user_ids: npt.NDArray[np.object_]
    segment_ids: npt.NDArray[np.object_]
    active_days: npt.NDArray[np.int64] | None

    def primary(self, arm: str) -> npt.NDArray[np.float64]:
        """(rows,) the primary metric of an arm, averaged over its seeds."""
        return self.values[self.arms.index(arm), :, self.metrics.index(PRIMARY_METRIC)]

    def paired(self, arm: str, other: str) -> npt.NDArray[np.float64]:
        """(rows,) `arm` minus `other`; over the seeds that both have, where they have any in common."""
        ours, theirs = self.by_seed[arm], self.by_seed[other]
        common = ours.index.intersection(theirs.index)
        if not len(common):
            return self.primary(arm) - self.primary(other)
        difference: npt.NDArray[np.float64] = (
            ours.loc[common].to_numpy(np.float64) - theirs.loc[common].to_numpy(np.float64)
        ).mean(axis=0)
        return difference


def tasks_of(results: pd.DataFrame, arms: list[str]) -> list[Task]:
    """The tasks that two users at least were tested in, the primary one first.

    Raises UserError without that one, ValueError when the arms are not those of the results, or hold different users.
    """
    if set(results["arm"]) != set(arms):
        raise ValueError(f"arms in the results {sorted(set(results['arm']))} differ from the roles {sorted(arms)}")
    # Sums depend on their order in the last digits, so the order of the rows is fixed first.
    results = results.dropna(subset=[PRIMARY_METRIC]).sort_values(["task", "arm", "week", "user_id", "seed"])
    names = sorted(results["task"].unique(), key=lambda name: (*(name != first for first in _ORDER), name))
    tasks = [_task(results[results["task"] == name], name, arms) for name in names]
    tasks = [task for task in tasks if task.users.max() >= 1]
    if not tasks or tasks[0].name != PRIMARY_TASK:
        raise UserError(
            "the test week holds fewer than 2 users who interact with a candidate item, so nothing can be compared: "
            "pick a week with more events, or lower the ranker's candidate thresholds in segflow.yaml"
        )
    return tasks


def _task(results: pd.DataFrame, name: str, arms: list[str]) -> Task:
    """Average over seeds per user and week, and put every arm's rows in the same order."""
    metrics = [column for column in results.columns if column.rpartition("_")[0] in METRICS]
    first = results.drop_duplicates(["week", "user_id"]).set_index(["week", "user_id"]).sort_index()
    by_seed, values = {}, []
    unranked = results[~results["ranked"].astype(bool)].groupby("arm")["user_id"].nunique()
    for arm in arms:
        of_arm = results[results["arm"] == arm]
        means = of_arm.groupby(["week", "user_id"])[metrics].mean()
        if not means.index.equals(first.index):
            raise ValueError(f"task '{name}': arm '{arm}' has {len(means)} users, other arms {len(first)}")
        by_seed[arm] = of_arm.pivot(index="seed", columns=["week", "user_id"], values=PRIMARY_METRIC)
        if by_seed[arm].isna().any(axis=None):
            raise ValueError(f"task '{name}': some users of arm '{arm}' lack some seeds")
        values.append(means.to_numpy(dtype=np.float64))
    return Task(
        name=name,
        arms=arms,
        metrics=metrics,
        values=np.stack(values),
        by_seed=by_seed,
        unranked_users={arm: int(unranked.get(arm, 0)) for arm in arms},
        users=np.unique(first.index.get_level_values("user_id"), return_inverse=True)[1],
        user_ids=first.index.get_level_values("user_id").to_numpy(dtype=object),
        segment_ids=first["segment_id"].to_numpy(dtype=object),
        active_days=first["active_days"].to_numpy(dtype=np.int64) if "active_days" in first else None,
    )


def estimates(
    columns: list[npt.NDArray[np.float64]], users: npt.NDArray[np.int64], config: EvaluationConfig, seed: int
) -> list[Estimate]:
    """One for each column (rows,), over the rows' users."""
    return estimate(
        np.stack(columns, axis=1),
        users=np.unique(users, return_inverse=True)[1],
        confidence=config.confidence,
        power=config.power,
        samples=config.bootstrap_samples,
        seed=seed,
    )
