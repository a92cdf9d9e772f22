"""Who gains: the same comparison by how active users are, by their static attributes, and by the size of their segment.

What lives here: groups of test users other than segments, with what each arm is worth to them, and how far apart the best and
the worst served are (fairness). What does not: segments (summary.py), and who is in a group (tables).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr

from segflow.config import EvaluationConfig
from segflow.evaluation.results import Task, estimates
from segflow.evaluation.statistics import Estimate
from segflow.segments.statistics import benjamini_hochberg

MOST_VALUES = 12
"""Values of an attribute above which it makes no groups."""
FEWEST_SEGMENTS = 5
"""Segments below which no rank correlation with their sizes can be told from chance."""


@dataclass(frozen=True)
class Background:
    """What is known beside the results.

    minimum_cell: users below which a group is not shown. attributes: rows of user_id, attribute and value. stability: segment
    -> bootstrap Jaccard.
    """

    minimum_cell: int
    attributes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["user_id", "attribute", "value"]))
    stability: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupRow:
    """One group in the primary task: means of NDCG@10 by the global ranker and by the rankers per segment.

    difference: rankers per segment minus best control; None below `minimum_users`. adjusted_p_value: corrected over the
    groups of the dimension that were tested.
    """

    group: str
    users: int
    global_mean: float
    segments_mean: float
    difference: Estimate | None
    adjusted_p_value: float | None


@dataclass(frozen=True)
class Dimension:
    """Users divided by one thing that is known of them.

    hidden: groups too small to be shown. global_gap, segments_gap: mean of the best served group minus that of the worst, of
    groups with at least `minimum_users`; None for less than two.
    """

    name: str
    kind: Literal["activity", "attribute"]
    groups: list[GroupRow]
    hidden: int
    global_gap: float | None
    segments_gap: float | None


@dataclass(frozen=True)
class GainBySize:
    """Spearman's rank correlation between users and gain of the segments tested; None for too few, or where nothing varies."""

    segments: int
    correlation: float | None


def dimensions(
    task: Task, arms: tuple[str, str, str], background: Background, config: EvaluationConfig, seed: int
) -> list[Dimension]:
    """Activity first, where the results tell it, then every attribute that makes groups, by name.

    arms: the global ranker, the rankers per segment, and the best control.
    """
    found = [
        _dimension(task, arms, *labelled, background.minimum_cell, config, seed)
        for labelled in (*_activity(task), *_attributes(task, background.attributes))
    ]
    return [one for one in found if one.groups]


def gain_by_size(tested: Mapping[str, Estimate]) -> GainBySize:
    """tested: segment -> difference to the best control, with the users it rests on."""
    users, gains = [one.users for one in tested.values()], [one.mean for one in tested.values()]
    if len(tested) < FEWEST_SEGMENTS or len(set(users)) == 1 or len(set(gains)) == 1:
        return GainBySize(len(tested), None)
    return GainBySize(len(tested), float(spearmanr(users, gains).statistic))


def size_sentence(found: GainBySize) -> str:
    """Whether large segments gain more, in one sentence."""
    if found.correlation is None:
        if found.segments >= FEWEST_SEGMENTS:
            return "Whether larger segments gain more cannot be told: all have the same size or the same gain."
        return (
            f"Too few segments to say whether larger ones gain more: {found.segments} could be tested, "
            f"{FEWEST_SEGMENTS} are needed."
        )
    correlation = f"{found.correlation:+.2f}".replace("-", "−")
    # Without any relation the coefficient has the variance 1 / (n - 1) (Kendall 1948, Rank Correlation Methods).
    reach = min(1.0, 1.96 / math.sqrt(found.segments - 1))
    return (
        f"Spearman's rank correlation between the number of test users and the gain is {correlation} over {found.segments} "
        f"segments: above 0 the larger ones gain more. Chance alone stays within about ±{reach:.2f} in 19 of 20 such weeks."
    )


_Labelled = tuple[str, Literal["activity", "attribute"], Sequence[str], npt.NDArray[np.object_]]


def _activity(task: Task) -> Iterator[_Labelled]:
    """Thirds of the days with events before the test week. Equal days stay together, so a tier may be small or empty."""
    if task.active_days is None:
        return
    days = task.active_days
    low, high = np.quantile(days, [1 / 3, 2 / 3], method="inverted_cdf")
    tiers = {"few": days <= low, "some": (days > low) & (days <= high), "many": days > high}
    labels = np.full(len(days), None, dtype=object)
    order = []
    for tier, inside in tiers.items():
        if inside.any():
            name = f"{tier} ({days[inside].min():,} to {days[inside].max():,} days)"
            labels[inside] = name
            order.append(name)
    yield "activity", "activity", order, labels


def _attributes(task: Task, rows: pd.DataFrame) -> Iterator[_Labelled]:
    """Each attribute of the test users with few enough values; users without it are in no group."""
    rows = rows[rows["user_id"].isin(set(task.user_ids))]
    for attribute, own in rows.groupby("attribute"):
        values = dict(zip(own["user_id"], own["value"], strict=True))
        order = sorted(set(values.values()), key=_natural)
        if len(order) <= MOST_VALUES:
            labels = np.array([values.get(user) for user in task.user_ids], dtype=object)
            yield str(attribute), "attribute", order, labels


def _natural(text: str) -> list[tuple[int, str]]:
    """A sort key by which 15-24 comes before 100-124."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"([0-9]+)", text)]


def _dimension(
    task: Task,
    arms: tuple[str, str, str],
    name: str,
    kind: Literal["activity", "attribute"],
    order: Sequence[str],
    labels: npt.NDArray[np.object_],
    minimum_cell: int,
    config: EvaluationConfig,
    seed: int,
) -> Dimension:
    ranker, under_test, control = arms
    groups = []
    for group in order:
        inside = labels == group
        users = task.users[inside]
        count = len(set(users))
        if count < minimum_cell:
            continue
        columns = [task.primary(under_test)[inside] - task.primary(control)[inside]]
        groups.append(
            GroupRow(
                group=group,
                users=count,
                global_mean=float(task.primary(ranker)[inside].mean()),
                segments_mean=float(task.primary(under_test)[inside].mean()),
                difference=estimates(columns, users, config, seed)[0] if count >= config.minimum_users else None,
                adjusted_p_value=None,
            )
        )
    groups = _corrected(groups)
    gaps = [
        max(means) - min(means) if len(means) > 1 else None
        for means in (
            [row.global_mean for row in groups if row.difference is not None],
            [row.segments_mean for row in groups if row.difference is not None],
        )
    ]
    return Dimension(name, kind, groups, len(order) - len(groups), *gaps)


def _corrected(groups: list[GroupRow]) -> list[GroupRow]:
    """P-values corrected for the number of groups that were tested (Benjamini & Hochberg 1995)."""
    tested = [row.difference.p_value for row in groups if row.difference is not None]
    adjusted = iter(benjamini_hochberg(tested).tolist() if tested else [])
    return [row if row.difference is None else replace(row, adjusted_p_value=next(adjusted)) for row in groups]
