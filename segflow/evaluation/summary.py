"""From one row per test user, arm and seed to everything the report and the verdict need.

What lives here: the summary's shape and its computation. What does not: ranking (metrics.py), resampling
(statistics.py), the decision rules (verdict.py) and how it looks (report.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from segflow.config import EvaluationConfig
from segflow.evaluation.controls import ControlCheck, control_check
from segflow.evaluation.groups import Background, Dimension, GainBySize, dimensions, gain_by_size
from segflow.evaluation.results import PRIMARY_METRIC as PRIMARY_METRIC
from segflow.evaluation.results import PRIMARY_TASK, Task, estimates, tasks_of
from segflow.evaluation.statistics import Estimate, seed_share
from segflow.evaluation.verdict import Role, Verdict, best_control, decide, segments_arm


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
    """One segment in one task; `difference` is segments arm minus best control, None below `minimum_users`. `stability`: how
    much of the segment comes back when users are drawn again (bootstrap Jaccard), None where it is not known."""

    task: str
    segment_id: str
    users: int
    segments_mean: float
    control_mean: float
    difference: Estimate | None
    stability: float | None = None


@dataclass(frozen=True)
class EvaluationSummary:
    """All figures of one evaluation.

    `comparisons` are the segments arm minus every other arm but diagnostic ones, `global_comparisons` the global ranker minus
    every baseline: whether a trained ranker is worth having at all. `diagnostics` are the global ranker minus every
    diagnostic arm, over the seeds that both have. `controls` tell whether the placebos are centred, by task; `dimensions` who
    gains, and `gain_by_size` whether large segments gain more, both in the primary task.
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
    diagnostics: list[Comparison] = field(default_factory=list, kw_only=True)
    controls: list[ControlCheck] = field(default_factory=list, kw_only=True)
    dimensions: list[Dimension] = field(default_factory=list, kw_only=True)
    gain_by_size: GainBySize | None = field(default=None, kw_only=True)
    schema_version: Literal[1] = field(default=1, kw_only=True)

    def to_json(self) -> str:
        """The summary as strict JSON text (no NaN), by the schema in `record.py`."""
        values = {**asdict(self), "settings": self.settings.model_dump()}
        return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)


def summarize(
    results: pd.DataFrame,
    roles: Mapping[str, Role],
    config: EvaluationConfig,
    seed: int,
    published: Collection[str] | None = None,
    background: Background | None = None,
) -> EvaluationSummary:
    """Average over seeds per user, estimate, compare and decide.

    Results of several test weeks are one test: each user's week counts alike, and a user's weeks are drawn together.

    results: columns `week`, `user_id`, `arm`, `seed`, `task` ('all', 'new', ...), `segment_id` (the user's *real* segment in
    every row, null for users without one), `ranked` (whether the arm's scores were numbers) and metrics named as in
    metrics.py, among them `ndcg_10`; optionally `active_days`; other columns are ignored. NaN marks users without a relevant
    item in the task, who are left out. roles: role of each arm. background: what else is known of users and
    segments; without it there are no `dimensions`, for it says how small a group may be shown.
    The verdict rests on task 'all'; the other tasks are reported the same way without one. `published` are the segments
    that there are, by default those of the test users: without any the verdict needs no test.
    Raises UserError when no user can be tested, ValueError when arms do not hold the same users.
    """
    under_test = segments_arm(roles)
    tasks = tasks_of(results, list(roles))
    stability = background.stability if background else {}
    arms = [row for task in tasks for row in _arm_rows(task, roles, config, seed)]
    means = {(row.task, row.arm): row.primary.mean for row in arms}
    best = {task.name: best_control({arm: means[task.name, arm] for arm in roles}, roles) for task in tasks}
    comparisons = [
        row for task in tasks for row in _comparisons(task, under_test, best[task.name], roles, config, seed)
    ]
    segments = [
        row for task in tasks for row in _segment_rows(task, under_test, best[task.name], stability, config, seed)
    ]
    primary = [row for row in segments if row.task == PRIMARY_TASK]
    tested = {row.segment_id: row.difference for row in primary if row.difference is not None}
    verdict = _verdict(tasks[0], arms, comparisons, tested, published, config)
    ranker = next((arm for arm, role in roles.items() if role == "global"), None)
    compared = (ranker or verdict.best_control, under_test, verdict.best_control)
    return EvaluationSummary(
        verdict=verdict,
        arms=arms,
        comparisons=comparisons,
        global_comparisons=_global_comparisons(tasks, "baseline", roles, config, seed),
        segments=segments,
        worst_segment=min(tested, key=lambda segment_id: tested[segment_id].mean, default=None),
        users_by_task={task.name: int(task.users.max()) + 1 for task in tasks},
        users_without_segment=len(set(tasks[0].users[pd.isna(tasks[0].segment_ids)])),
        settings=config,
        diagnostics=_global_comparisons(tasks, "diagnostic", roles, config, seed),
        controls=[control_check(task, ranker, config, seed) for task in tasks],
        dimensions=dimensions(tasks[0], compared, background, config, seed) if background else [],
        gain_by_size=gain_by_size(tested) if verdict.segmented else None,
    )


def _verdict(
    task: Task,
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
            arm: row.unranked_users
            for arm, row in of_task.items()
            if row.role not in ("baseline", "diagnostic") and row.unranked_users
        },
    )


def _arm_rows(task: Task, roles: Mapping[str, Role], config: EvaluationConfig, seed: int) -> list[ArmRow]:
    found = estimates([task.primary(arm) for arm in task.arms], task.users, config, seed)
    rows = []
    for arm, primary, values in zip(task.arms, found, task.values, strict=True):
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
    task: Task, under_test: str, control: str, roles: Mapping[str, Role], config: EvaluationConfig, seed: int
) -> list[Comparison]:
    """The segments arm against every other arm but diagnostic ones, the best control first."""
    compared = [arm for arm in task.arms if arm != under_test and roles[arm] != "diagnostic"]
    others = sorted(compared, key=lambda arm: arm != control)
    return _compared(task, under_test, others, control, roles, config, seed)


def _global_comparisons(
    tasks: Sequence[Task], role: Role, roles: Mapping[str, Role], config: EvaluationConfig, seed: int
) -> list[Comparison]:
    """The global ranker against every arm of a role in each task; nothing where one of them is missing."""
    others = [arm for arm, one in roles.items() if one == role]
    rankers = [arm for arm, one in roles.items() if one == "global"]
    if not others or not rankers:
        return []
    return [row for task in tasks for row in _compared(task, rankers[0], others, None, roles, config, seed)]


def _compared(
    task: Task,
    arm: str,
    others: list[str],
    control: str | None,
    roles: Mapping[str, Role],
    config: EvaluationConfig,
    seed: int,
) -> list[Comparison]:
    """`arm` minus each of the others."""
    # The noise of seeds is taken out of a spoiled ranker by comparing it with itself; other arms count with all seeds.
    columns = [
        task.paired(arm, other) if roles[other] == "diagnostic" else task.primary(arm) - task.primary(other)
        for other in others
    ]
    found = estimates(columns, task.users, config, seed)
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


def _segment_rows(
    task: Task, under_test: str, control: str, stability: Mapping[str, float], config: EvaluationConfig, seed: int
) -> list[SegmentRow]:
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
                difference=estimates([ours - theirs], task.users[members], config, seed)[0]
                if users >= config.minimum_users
                else None,
                stability=stability.get(str(segment_id)),
            )
        )
    return rows
