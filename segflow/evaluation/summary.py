"""From one row per test user, arm and seed to everything the report and the verdict need.

What lives here: the summary's shape and its computation. What does not: ranking (metrics.py), resampling
(statistics.py), the decision rules (verdict.py) and how it looks (report.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from segflow.config import EvaluationConfig
from segflow.errors import UserError
from segflow.evaluation.metrics import METRICS
from segflow.evaluation.statistics import Estimate, estimate, seed_share
from segflow.evaluation.verdict import Role, Verdict, best_control, decide, segments_arm

PRIMARY_METRIC = "ndcg_10"
PRIMARY_TASK = "all"


@dataclass(frozen=True)
class ArmRow:
    """One arm in one task. `metrics` are means over users; `seed_spread` is the standard deviation of the primary
    metric's mean between seeds, None with one seed. `unranked_users` got nothing, since their scores were no numbers."""

    task: str
    arm: str
    role: Role
    primary: Estimate
    metrics: dict[str, float]
    seeds: int
    seed_spread: float | None
    unranked_users: int


@dataclass(frozen=True)
class Comparison:
    """One arm minus another, paired over users.

    What the seeds of training do, apart from what users do: `seed_spread` is the standard deviation of the mean difference
    between seeds, which no interval holds; `seed_share` is how much of the squared standard error is noise of single users
    between seeds. None where an arm has one seed, or the two have different ones.
    """

    task: str
    against: str
    role: Role
    is_best_control: bool
    difference: Estimate
    seed_spread: float | None
    seed_share: float | None


@dataclass(frozen=True)
class SegmentRow:
    """One segment in one task; `difference` is segments arm minus best control, None below `minimum_users`."""

    task: str
    segment_id: str
    users: int
    segments_mean: float
    control_mean: float
    difference: Estimate | None


@dataclass(frozen=True)
class EvaluationSummary:
    """All figures of one evaluation.

    `comparisons` are the segments arm minus every other arm, `global_comparisons` the global ranker minus every baseline:
    whether a trained ranker is worth having at all.
    `worst_segment` is the one with the lowest difference in the primary task. `schema_version` changes when a reader of the
    JSON has to.
    """

    verdict: Verdict
    arms: list[ArmRow]
    comparisons: list[Comparison]
    global_comparisons: list[Comparison]
    segments: list[SegmentRow]
    worst_segment: str | None
    users_by_task: dict[str, int]
    users_without_segment: int
    settings: EvaluationConfig
    schema_version: Literal[1] = field(default=1, kw_only=True)

    def to_json(self) -> str:
        """The summary as strict JSON text (no NaN), by the schema in `record.py`."""
        values = {**asdict(self), "settings": self.settings.model_dump()}
        return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class _Task:
    """The results of one task, a row for each user and week, in fixed order.

    values: (arms, rows, metrics), averaged over seeds. by_seed: of each arm the primary metric (seeds, rows).
    unranked_users: of each arm. users: (rows,) codes 0..U-1.
    """

    name: str
    arms: list[str]
    metrics: list[str]
    values: npt.NDArray[np.float64]
    by_seed: dict[str, pd.DataFrame]
    unranked_users: dict[str, int]
    users: npt.NDArray[np.int64]
    segment_ids: npt.NDArray[np.object_]

    def primary(self, arm: str) -> npt.NDArray[np.float64]:
        return self.values[self.arms.index(arm), :, self.metrics.index(PRIMARY_METRIC)]


def summarize(
    results: pd.DataFrame,
    roles: Mapping[str, Role],
    config: EvaluationConfig,
    seed: int,
    published: Collection[str] | None = None,
) -> EvaluationSummary:
    """Average over seeds per user, estimate, compare and decide.

    Results of several test weeks are one test: each user's week counts alike, and a user's weeks are drawn together.

    results: columns `week`, `user_id`, `arm`, `seed`, `task` ('all', 'new', ...), `segment_id` (the user's *real* segment in
    every row, null for users without one), `ranked` (whether the arm's scores were numbers) and metrics named as in
    metrics.py, among them `ndcg_10`; other columns are ignored. NaN marks users without a relevant item in the task, who
    are left out. roles: role of each arm.
    The verdict rests on task 'all'; the other tasks are reported the same way without one. `published` are the segments
    that there are, by default those of the test users: without any the verdict needs no test.
    Raises UserError when no user can be tested, ValueError when arms do not hold the same users.
    """
    under_test = segments_arm(roles)
    if set(results["arm"]) != set(roles):
        raise ValueError(f"arms in the results {sorted(set(results['arm']))} differ from the roles {sorted(roles)}")
    # Sums depend on their order in the last digits, so the order of the rows is fixed first.
    results = results.dropna(subset=[PRIMARY_METRIC]).sort_values(["task", "arm", "week", "user_id", "seed"])
    tasks = _tasks(results, list(roles))
    arms: list[ArmRow] = []
    comparisons: list[Comparison] = []
    segments: list[SegmentRow] = []
    overall_ranker: list[Comparison] = []
    for task in tasks:
        arms += _arm_rows(task, roles, config, seed)
        control = best_control({row.arm: row.primary.mean for row in arms if row.task == task.name}, roles)
        comparisons += _comparisons(task, under_test, control, roles, config, seed)
        segments += _segment_rows(task, under_test, control, config, seed)
        overall_ranker += _global_comparisons(task, roles, config, seed)

    primary = [row for row in segments if row.task == PRIMARY_TASK]
    tested = {row.segment_id: row.difference for row in primary if row.difference is not None}
    return EvaluationSummary(
        verdict=_verdict(tasks[0], arms, comparisons, tested, published, config),
        arms=arms,
        comparisons=comparisons,
        global_comparisons=overall_ranker,
        segments=segments,
        worst_segment=min(tested, key=lambda segment_id: tested[segment_id].mean, default=None),
        users_by_task={task.name: int(task.users.max()) + 1 for task in tasks},
        users_without_segment=len(set(tasks[0].users[pd.isna(tasks[0].segment_ids)])),
        settings=config,
    )


def _verdict(
    task: _Task,
    arms: list[ArmRow],
    comparisons: list[Comparison],
    tested: Mapping[str, Estimate],
    published: Collection[str] | None,
    config: EvaluationConfig,
) -> Verdict:
    """What the primary task says; `tested` are the differences of the segments with enough users."""
    overall = next(row for row in comparisons if row.task == task.name and row.is_best_control)
    of_task = {row.arm: row for row in arms if row.task == task.name}
    return decide(
        overall.difference,
        tested,
        control=overall.against,
        control_mean=of_task[overall.against].primary.mean,
        config=config,
        segmented=published is None or bool(published),
        untested=sorted(set(published or ()) - set(task.segment_ids)),
        unranked_users={
            arm: row.unranked_users for arm, row in of_task.items() if row.role != "baseline" and row.unranked_users
        },
    )


def _tasks(results: pd.DataFrame, arms: list[str]) -> list[_Task]:
    """The tasks that two users at least were tested in, the primary one first. Raises UserError without that one."""
    names = sorted(results["task"].unique(), key=lambda name: (name != PRIMARY_TASK, name))
    tasks = [_task(results[results["task"] == name], name, arms) for name in names]
    tasks = [task for task in tasks if task.users.max() >= 1]
    if not tasks or tasks[0].name != PRIMARY_TASK:
        raise UserError(
            "the test week holds fewer than 2 users who interact with a candidate item, so nothing can be compared: "
            "pick a week with more events, or lower the ranker's candidate thresholds in segflow.yaml"
        )
    return tasks


def _task(results: pd.DataFrame, name: str, arms: list[str]) -> _Task:
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
    return _Task(
        name=name,
        arms=arms,
        metrics=metrics,
        values=np.stack(values),
        by_seed=by_seed,
        unranked_users={arm: int(unranked.get(arm, 0)) for arm in arms},
        users=np.unique(first.index.get_level_values("user_id"), return_inverse=True)[1],
        segment_ids=first["segment_id"].to_numpy(dtype=object),
    )


def _estimate(
    columns: list[npt.NDArray[np.float64]], users: npt.NDArray[np.int64], config: EvaluationConfig, seed: int
) -> list[Estimate]:
    return estimate(
        np.stack(columns, axis=1),
        users=np.unique(users, return_inverse=True)[1],
        confidence=config.confidence,
        power=config.power,
        samples=config.bootstrap_samples,
        seed=seed,
    )


def _arm_rows(task: _Task, roles: Mapping[str, Role], config: EvaluationConfig, seed: int) -> list[ArmRow]:
    estimates = _estimate([task.primary(arm) for arm in task.arms], task.users, config, seed)
    rows = []
    for arm, primary, values in zip(task.arms, estimates, task.values, strict=True):
        seed_means = task.by_seed[arm].mean(axis=1).to_numpy(dtype=np.float64)
        rows.append(
            ArmRow(
                task=task.name,
                arm=arm,
                role=roles[arm],
                primary=primary,
                metrics=dict(zip(task.metrics, map(float, values.mean(axis=0)), strict=True)),
                seeds=len(seed_means),
                seed_spread=float(seed_means.std(ddof=1)) if len(seed_means) > 1 else None,
                unranked_users=task.unranked_users[arm],
            )
        )
    return rows


def _comparisons(
    task: _Task, under_test: str, control: str, roles: Mapping[str, Role], config: EvaluationConfig, seed: int
) -> list[Comparison]:
    """The segments arm against every other arm, the best control first."""
    others = sorted((arm for arm in task.arms if arm != under_test), key=lambda arm: arm != control)
    return _compared(task, under_test, others, control, roles, config, seed)


def _global_comparisons(
    task: _Task, roles: Mapping[str, Role], config: EvaluationConfig, seed: int
) -> list[Comparison]:
    """The global ranker against every baseline; nothing where one of them is missing."""
    baselines = [arm for arm in task.arms if roles[arm] == "baseline"]
    rankers = [arm for arm in task.arms if roles[arm] == "global"]
    return _compared(task, rankers[0], baselines, None, roles, config, seed) if baselines and rankers else []


def _compared(
    task: _Task,
    arm: str,
    others: list[str],
    control: str | None,
    roles: Mapping[str, Role],
    config: EvaluationConfig,
    seed: int,
) -> list[Comparison]:
    """`arm` minus each of the others."""
    columns = [task.primary(arm) - task.primary(other) for other in others]
    found = _estimate(columns, task.users, config, seed)
    return [
        Comparison(
            task.name,
            other,
            roles[other],
            other == control,
            difference,
            *_seed_noise(task.by_seed[arm], task.by_seed[other], difference),
        )
        for other, difference in zip(others, found, strict=True)
    ]


def _seed_noise(ours: pd.DataFrame, theirs: pd.DataFrame, difference: Estimate) -> tuple[float | None, float | None]:
    """`seed_spread` and `seed_share` of a comparison, from the primary metric (seeds, rows) of both arms."""
    if len(ours) < 2 or not ours.index.equals(theirs.index):
        return None, None
    values = ours.to_numpy(np.float64) - theirs.to_numpy(np.float64)
    return float(values.mean(axis=1).std(ddof=1)), seed_share(values, difference.standard_error)


def _segment_rows(task: _Task, under_test: str, control: str, config: EvaluationConfig, seed: int) -> list[SegmentRow]:
    known = ~pd.isna(task.segment_ids)
    rows = []
    for segment_id in sorted(set(task.segment_ids[known])):
        members = task.segment_ids == segment_id
        ours, theirs = task.primary(under_test)[members], task.primary(control)[members]
        users = len(set(task.users[members]))
        rows.append(
            SegmentRow(
                task=task.name,
                segment_id=str(segment_id),
                users=users,
                segments_mean=float(ours.mean()),
                control_mean=float(theirs.mean()),
                difference=_estimate([ours - theirs], task.users[members], config, seed)[0]
                if users >= config.minimum_users
                else None,
            )
        )
    return rows
