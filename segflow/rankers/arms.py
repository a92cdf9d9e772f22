"""The trained arms of the test: the segments, and the controls that a gain of segments has to exceed.

An arm divides users into groups, and every group adds something of its own to the global ranker. All arms go the same way: the
same examples, steps and gates. A repeat is the whole training again with another seed, the global ranker and the random groups
included: what differs between repeats is luck.

Lives here: which arms there are, and how all of them are trained at once. Does not live here: what a group adds and how it is
learned (``segment_rankers``), and how arms are compared (``evaluation``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from segflow.config import RankerConfig
from segflow.config.rankers import SegmentMethod
from segflow.rankers.deltas import Membership
from segflow.rankers.global_ranker import GlobalRanker, fit_global_ranker
from segflow.rankers.segment_rankers import Freezes, fit_segment_rankers
from segflow.rankers.snapshot import RankingWeek, placebo_groups

GLOBAL, SEGMENTS, EVERYBODY, FEATURE = "global", "segments", "global_extra", "segment_feature"
_SEEDS_APART = 1000  # more than there may be placebos, whose groups are dealt by the seeds that follow

Members = Mapping[str, tuple[str, float]]


@dataclass(frozen=True)
class Division:
    """An arm: user -> group and membership probability, and how the rankers of its groups are made."""

    arm: str
    members: Members
    method: SegmentMethod

    @property
    def groups(self) -> list[str]:
        """Names of the groups in their order."""
        return sorted({group for group, _ in self.members.values()})

    def shares(self, group: str) -> dict[str, float]:
        """Membership probability of each user of a group, in the order of users."""
        return self._shares[group]

    @cached_property
    def _shares(self) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {group: {} for group in self.groups}
        for user, (group, share) in sorted(self.members.items()):
            found[group][user] = share
        return found

    def only(self, groups: Collection[str]) -> Division:
        """The same arm with some of its groups."""
        return replace(self, members={user: member for user, member in self.members.items() if member[0] in groups})


class FittedGroup(NamedTuple):
    """What a group adds, as bytes, with the membership probability of each of its users, in their order."""

    arm: str
    group_id: str
    shares: dict[str, float]
    model: bytes
    gate: float


class Repeat(NamedTuple):
    """All rankers of the test by one seed, and the wall-clock seconds that the global one and all others took."""

    seed: int
    ranker: GlobalRanker
    groups: list[FittedGroup]
    global_seconds: float
    group_seconds: float


def control_divisions(members: Members, config: RankerConfig, seed: int) -> list[Division]:
    """Everybody as one group, random groups of the segments' sizes, and one model that is told the segment.

    The last one has the segments, but no ranker of each: left out where segments get no more than that either. A week without
    segments needs no controls.
    """
    if not members:
        return []
    method = config.segment_method
    placebos = [
        Division(f"placebo_{number}", placebo_groups(members, seed + number), method)
        for number in range(1, config.placebos + 1)
    ]
    told = [] if method == "feature" else [Division(FEATURE, members, "feature")]
    return [Division(EVERYBODY, dict.fromkeys(members, ("everybody", 1.0)), method), *placebos, *told]


def fit_divisions(ranker: Freezes, week: RankingWeek, divisions: Sequence[Division], seed: int) -> list[FittedGroup]:
    """Every group of every arm, trained side by side; to the last bit as if each was trained alone."""
    user_ids, training, validation = week.sequences.user_ids, week.training, week.validation()
    arms = [Membership.of(user_ids, one.groups, one.members) for one in divisions]
    methods = [one.method for one in divisions]
    fitted = fit_segment_rankers(ranker, training, validation, arms, week.config, seed, methods) if arms else []
    return [
        FittedGroup(
            division.arm,
            name,
            division.shares(name),
            deltas.only(code).to_bytes(),
            float(deltas.gate[code]),
        )
        for division, deltas in zip(divisions, fitted, strict=True)
        for code, name in enumerate(division.groups)
    ]


def repeat_seed(seed: int, number: int) -> int:
    """The seed of the repeat ``number`` of a training by ``seed``; those of its placebos are those of no other repeat."""
    return (seed + number * _SEEDS_APART) % 2**31


def repeat(week: RankingWeek, members: Members, seed: int, checkpoint: Callable[[int], Path]) -> Repeat:
    """The global ranker, the segments and all controls, trained by ``seed``.

    Args:
        members: user -> segment and membership probability; without any only the global ranker is trained.
        checkpoint: seed -> the file in which an interrupted training of the global ranker finds where it was.
    """
    began = time.perf_counter()
    ranker = fit_global_ranker(
        week.training,
        week.validation(),
        week.item_vectors,
        week.candidate_ids,
        week.config,
        seed,
        checkpoint=checkpoint(seed),
    )
    trained = time.perf_counter()
    segments = [Division(SEGMENTS, members, week.config.segment_method)] if members else []
    groups = fit_divisions(ranker, week, [*segments, *control_divisions(members, week.config, seed)], seed)
    return Repeat(seed, ranker, groups, trained - began, time.perf_counter() - trained)
