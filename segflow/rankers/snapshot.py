"""The ranking side of a week: candidates, examples before the week for training, and the users at a later cut.

Everything the rankers of one week share is made here, in one way, so that all arms see the same examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from segflow.config import RankerConfig
from segflow.errors import UserError
from segflow.rankers.examples import Examples, LazyScores, build_examples, training_cuts
from segflow.rankers.features import Features, ItemHistory, Pairs, candidate_items
from segflow.rankers.scorers.fitted import FittedScorers
from segflow.representation.behavior import BehaviorModel
from segflow.representation.sequences import MICROSECONDS_PER_WEEK, EventSequences

Label = TypeVar("Label")


@dataclass(frozen=True)
class RankingWeek:
    """Sequences up to some later moment, and what was a candidate before the week started."""

    sequences: EventSequences
    backbone: BehaviorModel
    history: ItemHistory
    start_us: int
    config: RankerConfig

    @classmethod
    def of(cls, sequences: EventSequences, backbone: BehaviorModel, start_us: int, config: RankerConfig) -> RankingWeek:
        """`sequences` may reach past the week's start; candidates are chosen from what lies before it.

        Raises UserError when too few items are candidates to rank anything.
        """
        candidates = candidate_items(sequences.before(start_us), config.minimum_item_events, config.minimum_item_users)
        if len(candidates) < 2:
            raise UserError(
                f"rankers: {len(candidates)} items have {config.minimum_item_events} events by {config.minimum_item_users} "
                "users before the week; choose a later week or lower rankers.minimum_item_events and minimum_item_users"
            )
        return cls(sequences, backbone, ItemHistory(sequences, candidates), start_us, config)

    @property
    def candidate_ids(self) -> tuple[str, ...]:
        """Item ids of the candidates, in the order of every score matrix."""
        return tuple(self.sequences.item_ids[self.history.candidates].tolist())

    @property
    def item_vectors(self) -> npt.NDArray[np.float32]:
        """(C, width) the backbone's vectors of the candidates."""
        return self.backbone.item_vectors()[self.history.candidates]

    @cached_property
    def training(self) -> Examples:
        """Users at the cuts of the last weeks whose target week is over before this week starts."""
        return self._examples(training_cuts(self.start_us, self.config.training_weeks), sample=True)

    def validation(self) -> Examples:
        """Users at the start of the week; the week itself is what they should have been shown."""
        return self._validation

    @cached_property
    def _validation(self) -> Examples:
        return self._examples([self.start_us], sample=True)

    def after(self, weeks: int = 1, only_with_targets: bool = True) -> Examples:
        """Users `weeks` later, with everything they did until then as history."""
        return self._examples([self.start_us + weeks * MICROSECONDS_PER_WEEK], only_with_targets=only_with_targets)

    def later(self, users: npt.NDArray[np.int64]) -> Examples:
        """The ``users`` (E,) at the end of the week, whatever they want then: to be scored, not to be tested.

        Of everybody only what costs little is made for them: scorers say what they say whenever it is asked for.
        """
        features, scorers = self._known_later
        cut = np.zeros(len(users), np.int64)
        when = np.full(len(users), self.start_us + MICROSECONDS_PER_WEEK)
        return Examples(
            users=users,
            cut=cut,
            states=self.backbone.states(self.sequences.only(users), when, np.arange(len(users)), "last"),
            context=features.context[users],
            scores=LazyScores([scorers], [features], users, cut),
            trends=features.trends[None],
            had=features.pairs.of(users),
            values=features.values[features.pairs.take(users)[0]],
            wanted=Pairs(np.zeros(len(users) + 1, np.int64), np.zeros(0, np.int64)),
        )

    @cached_property
    def _known_later(self) -> tuple[Features, FittedScorers]:
        features = self.features_after()
        return features, FittedScorers.of(features, self.config)

    def features_after(self, weeks: int = 1) -> Features:
        """What the simple scorers read, at the cut of `after`."""
        return self.history.at(self.start_us + weeks * MICROSECONDS_PER_WEEK, self.config.half_life_days)

    def _examples(self, cuts: list[int], *, only_with_targets: bool = True, sample: bool = False) -> Examples:
        return build_examples(
            self.sequences,
            self.history,
            self.backbone,
            cuts,
            self.config,
            only_with_targets=only_with_targets,
            sample=sample,
        )


def placebo_groups(segment_of: Mapping[str, Label], seed: int) -> dict[str, Label]:
    """The same labels dealt to the same users at random: what a segmentation without meaning would gain."""
    users = sorted(segment_of)
    labels = [segment_of[user] for user in users]
    order = np.random.default_rng(seed).permutation(len(users))
    return {user: labels[place] for user, place in zip(users, order, strict=True)}
