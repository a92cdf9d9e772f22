"""Two snapshots side by side: what moved between their tests, by how much, and how sure that is.

What lives here: the changes from one snapshot's results to another's, as values and as text. What does not: either verdict
(verdict.py), and where results come from. The snapshots may be two weeks, or one week under two settings or two versions of the
code: all that counts is who was tested and what they scored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from segflow.config import EvaluationConfig
from segflow.evaluation.charts import shortened
from segflow.evaluation.content import TASK_TITLES
from segflow.evaluation.statistics import Estimate, estimate
from segflow.evaluation.summary import PRIMARY_METRIC, PRIMARY_TASK, EvaluationSummary
from segflow.evaluation.verdict import plain_name, segments_arm, signed

GAIN = "segments minus best control"


@dataclass(frozen=True)
class Snapshot:
    """One test.

    project: where its tables lie; a segment's id means the same within one. results: rows of `ranking_results`;
    names: segment id -> name; settings: by dotted key, as text.
    """

    project: str
    title: str
    results: pd.DataFrame
    summary: EvaluationSummary
    names: dict[str, str]
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Shift:
    """A change in NDCG@10, after minus before, with its interval and the number of users it rests on."""

    change: float
    low: float
    high: float
    users: int


@dataclass(frozen=True)
class Change:
    """What became of one figure.

    before, after: means over each snapshot's own users; everybody: their difference over the users of either, None where
    they are fewer than `minimum_users`; same_users: over those tested in both, None where they are too few.
    """

    task: str
    what: str
    before: float
    after: float
    everybody: Shift | None
    same_users: Shift | None


@dataclass(frozen=True)
class Differences:
    """All changes from `before` to `after`.

    lacking: the arms and segments that only one of them has; settings: key -> before and after, where they differ.
    `schema_version` changes when a reader of the JSON has to.
    """

    before: str
    after: str
    verdicts: tuple[str, str]
    changes: list[Change]
    lacking: list[str]
    settings: dict[str, tuple[str, str]]
    schema_version: Literal[1] = field(default=1, kw_only=True)

    def to_json(self) -> str:
        """Strict JSON text (no NaN), by the schema in `record.py`."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)


def compare(before: Snapshot, after: Snapshot, config: EvaluationConfig, seed: int) -> Differences:
    """Every arm by task, the gain of the segments over each snapshot's best control, and that gain by segment in one project.

    Users tested in both are paired, others are not: the change is that of two means whose users overlap, with the error that
    linearization gives for it (Särndal, Swensson and Wretman 1992, ch. 5), resampled over the users of either. There is no gain
    to speak of where one of the snapshots has no segments.
    """
    changes: list[Change] = []
    lacking: list[str] = []
    tables = [_by_arm(one) for one in (before, after)]
    for task in (one for one in before.summary.users_by_task if one in after.summary.users_by_task):
        first, second = (table[task] for table in tables)
        arms = [arm for arm in first.columns if arm in second.columns]
        lacking += [f"{TASK_TITLES.get(task, task)}: {arm}" for arm in sorted({*map(str, first)} ^ {*map(str, second)})]
        changes += changes_of(task, first[arms], second[arms], config, seed)
    if before.summary.verdict.segmented and after.summary.verdict.segmented:
        gains = [_gain(snapshot, table[PRIMARY_TASK]) for snapshot, table in zip((before, after), tables, strict=True)]
        changes += changes_of(PRIMARY_TASK, gains[0][[GAIN]], gains[1][[GAIN]], config, seed)
        if before.project == after.project:
            found, missing = _by_segment(gains[0], gains[1], before.names | after.names, config, seed)
            changes, lacking = changes + found, lacking + missing
    verdicts = (before.summary.verdict.sentence, after.summary.verdict.sentence)
    return Differences(before.title, after.title, verdicts, changes, lacking, _settings(before, after))


def _by_segment(
    before: pd.DataFrame, after: pd.DataFrame, names: Mapping[str, str], config: EvaluationConfig, seed: int
) -> tuple[list[Change], list[str]]:
    """The change of the gain in each segment of both, and the segments that only one of them has."""
    changes: list[Change] = []
    lacking: list[str] = []
    for segment_id in sorted({*before["segment_id"].dropna(), *after["segment_id"].dropna()}):
        first, second = (gain.loc[gain["segment_id"] == segment_id, [GAIN]] for gain in (before, after))
        if first.empty or second.empty:
            lacking.append(f"segment {segment_id}")
            continue
        titles = {GAIN: f"{GAIN} in {segment_id} {names.get(segment_id, '')}".rstrip()}
        changes += changes_of(PRIMARY_TASK, first.rename(columns=titles), second.rename(columns=titles), config, seed)
    return changes, lacking


def _settings(before: Snapshot, after: Snapshot) -> dict[str, tuple[str, str]]:
    old, new = before.settings, after.settings
    pairs = {key: (old.get(key, "unset"), new.get(key, "unset")) for key in sorted({*old, *new})}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _by_arm(snapshot: Snapshot) -> dict[str, pd.DataFrame]:
    """Task -> NDCG@10 of each user (rows, in order) by each arm, averaged over seeds."""
    known = snapshot.results.dropna(subset=[PRIMARY_METRIC])
    return {
        str(task): rows.pivot_table(index="user_id", columns="arm", values=PRIMARY_METRIC, aggfunc="mean").sort_index()
        for task, rows in known.groupby("task")
    }


def _gain(snapshot: Snapshot, values: pd.DataFrame) -> pd.DataFrame:
    """For each user the segments arm minus the snapshot's own best control, with the user's segment."""
    arm = segments_arm({row.arm: row.role for row in snapshot.summary.arms})
    segments = snapshot.results.drop_duplicates("user_id").set_index("user_id")["segment_id"]
    gain = values[arm] - values[snapshot.summary.verdict.best_control]
    placed = segments.where(segments != "unassigned", None).reindex(values.index)
    return pd.DataFrame({GAIN: gain, "segment_id": placed})


def changes_of(
    task: str, before: pd.DataFrame, after: pd.DataFrame, config: EvaluationConfig, seed: int
) -> list[Change]:
    """One change for each column; both frames have the same columns, and a row for each of their users."""
    users = before.index.union(after.index)
    # Each user's share in the difference of the two means: the mean of these is the difference, their spread its error.
    old, new = (
        ((values - values.mean()) * len(users) / len(values)).reindex(users).fillna(0.0) for values in (before, after)
    )
    everybody = _intervals(new - old + after.mean() - before.mean(), config, seed)
    both = before.index.intersection(after.index)
    same = _intervals(after.loc[both] - before.loc[both], config, seed)
    return [
        Change(task, str(column), float(before[column].mean()), float(after[column].mean()), *found)
        for column, *found in zip(before.columns, everybody, same, strict=True)
    ]


def _intervals(values: pd.DataFrame, config: EvaluationConfig, seed: int) -> list[Shift | None]:
    if len(values) < config.minimum_users:
        return [None] * values.shape[1]
    found: list[Estimate] = estimate(
        values.to_numpy(np.float64),
        confidence=config.confidence,
        power=config.power,
        samples=config.bootstrap_samples,
        seed=seed,
    )
    return [Shift(one.mean, one.low, one.high, one.users) for one in found]


def lines(differences: Differences) -> Iterator[str]:
    """The changes as a table of plain text."""
    yield f"{differences.before}: {differences.verdicts[0]}"
    yield f"{differences.after}: {differences.verdicts[1]}"
    for task in dict.fromkeys(row.task for row in differences.changes):
        title = f"NDCG@10, {TASK_TITLES.get(task, task).lower()}"
        yield ""
        yield _columns(title, "before", "after", "change, users of either", "users of both")
        yield from (_line(row) for row in differences.changes if row.task == task)
    for one in differences.lacking:
        yield f"only in one of them: {plain_name(one)}"
    for key, (old, new) in differences.settings.items():
        yield f"setting {key}: {old} before, {new} after"


def _line(row: Change) -> str:
    is_gain = row.what.startswith(GAIN)
    before, after = ((signed(one) if is_gain else f"{one:.4f}") for one in (row.before, row.after))
    return _columns(f"  {plain_name(row.what)}", before, after, _spelled(row.everybody), _spelled(row.same_users))


def _columns(what: str, before: str, after: str, either: str, both: str) -> str:
    return f"{shortened(what, 43):44}{before:>9}{after:>9}   {either:33}{both}"


def _spelled(found: Shift | None) -> str:
    return f"{signed(found.change)} [{signed(found.low)}, {signed(found.high)}] {found.users:,}" if found else "too few"
