"""A small log in which users have habits: every user buys its own items weekly and, rarely, something new."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest

from segflow.config import BehaviorConfig, RankerConfig
from segflow.rankers.deltas import Grouped, Membership
from segflow.rankers.examples import Examples, build_examples, training_cuts
from segflow.rankers.features import ItemHistory, candidate_items
from segflow.rankers.global_ranker import GlobalRanker, fit_global_ranker
from segflow.rankers.segment_rankers import train_deltas
from segflow.rankers.served import ServedRanker
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.behavior import BehaviorModel, fit_behavior_model
from segflow.representation.sequences import MICROSECONDS_PER_DAY as DAY
from segflow.representation.sequences import MICROSECONDS_PER_WEEK as WEEK
from segflow.representation.sequences import EventSequences
from segflow_tests.sequences import sequences_of

USERS, ITEMS, WEEKS = 60, 40, 14
SNAPSHOT = (WEEKS - 2) * WEEK  # the last two weeks of the log validate and test
# Places of a list, and the segments, of the bundle that the tests ask.
COUNT = 10
SEGMENTS = ["s1", "s2"]
CONFIG = RankerConfig(
    minimum_item_events=3,
    minimum_item_users=2,
    training_weeks=4,
    hidden=8,
    explore_hidden=4,
    steps=80,
    batch_users=32,
    check_every=20,
    delta_steps=20,
    gate_users=20,
    cooccurrence_regularization=10,
    neighbours=10,
)
# A check after every step: there is something to go on from as soon as there can be.
OFTEN = CONFIG.model_copy(update={"check_every": 1, "steps": 60})


def make_log(seed: int = 0) -> EventSequences:
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(USERS):
        group = user % 2
        # Half of the catalogue belongs to each group; a user has eight habits, each bought in most weeks.
        own = group * (ITEMS // 2) + rng.choice(ITEMS // 2, 8, replace=False)
        for week in range(WEEKS):
            for item in own[rng.random(8) < 0.6]:
                rows.append((user, (week * 7 + int(rng.integers(7))) * DAY + 3600_000_000, item))
            other = group * (ITEMS // 2) + rng.integers(ITEMS // 2)
            rows.append((user, (week * 7 + 3) * DAY + 7200_000_000, other))
    return sequences_of(rows, USERS, ITEMS)


@dataclass(frozen=True)
class World:
    """Everything the ranker tests share."""

    log: EventSequences
    history: ItemHistory
    training: Examples
    validation: Examples
    test: Examples
    everybody: Examples
    backbone: BehaviorModel
    vectors: np.ndarray
    candidate_ids: tuple[str, ...]

    @cached_property
    def ranker(self) -> GlobalRanker:
        return fit_global_ranker(self.training, self.validation, self.vectors, self.candidate_ids, CONFIG, seed=0)


@pytest.fixture(scope="package")
def world() -> World:
    return make_world()


def make_world() -> World:
    log = make_log()
    text = np.random.default_rng(1).normal(size=(ITEMS, 8)).astype(np.float32)
    small = BehaviorConfig(width=16, layers=1, heads=2, context=16, epochs=1)
    backbone = fit_behavior_model(log.before(SNAPSHOT), text, small, seed=0)
    candidates = candidate_items(log.before(SNAPSHOT), CONFIG.minimum_item_events, CONFIG.minimum_item_users)
    history = ItemHistory(log, candidates)

    def examples(cuts: list[int], only: bool = True) -> Examples:
        return build_examples(log, history, backbone, cuts, CONFIG, only_with_targets=only)

    training, validation = examples(training_cuts(SNAPSHOT, CONFIG.training_weeks)), examples([SNAPSHOT])
    return World(
        log=log,
        history=history,
        training=training,
        validation=validation,
        test=examples([SNAPSHOT + WEEK]),
        everybody=examples([SNAPSHOT + WEEK], only=False),
        backbone=backbone,
        vectors=backbone.item_vectors()[candidates],
        candidate_ids=tuple(log.item_ids[candidates].tolist()),
    )


@pytest.fixture(scope="package")
def week(world: World) -> RankingWeek:
    return RankingWeek(world.log, world.backbone, world.history, SNAPSHOT, CONFIG)


@pytest.fixture(scope="package")
def grouped(world: World) -> Grouped:
    """Two segments whose deltas count in full: the planted halves, of which every third user is in none."""
    users = np.arange(USERS)
    membership = Membership.certain(np.where(users % 3 == 0, -1, users % 2))
    return Grouped(train_deltas(world.ranker, world.training, [membership], CONFIG, seed=0)[0], membership)


@pytest.fixture(scope="package")
def served(world: World, week: RankingWeek, grouped: Grouped) -> ServedRanker:
    return ServedRanker.of(week, world.ranker, count=COUNT, segments=SEGMENTS, grouped=grouped)
