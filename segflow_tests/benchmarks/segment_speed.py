"""How long all segments and controls take in one pass: beside the global ranker's fit, and beside passes of their own.

A pass of its own is what an arm costs if nothing is shared: the behaviour model and the global ranker run anew over its
users' examples. The groups of an arm divide the users, so they are run together, which favours the passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segflow.config.rankers import SegmentMethod
from segflow.rankers.deltas import Membership
from segflow.rankers.examples import Examples, training_cuts
from segflow.rankers.global_ranker import Frozen, GlobalRanker, fit_global_ranker
from segflow.rankers.segment_rankers import fit_segment_rankers, train_deltas
from segflow.rankers.snapshot import RankingWeek

Result = TypeVar("Result")

SEGMENTS, PLACEBOS = 4, 5
ASKED_RATIO, ASKED_SPEEDUP = 1.5, 4.0


@dataclass(frozen=True)
class SegmentSpeed:
    """Seconds, of one run, with the examples there."""

    fit: float  # the global ranker
    arms: float  # segments, everybody, all placebos, and one model told the segment: training and gates
    training: float  # the same without the last one, training alone
    own_pass: float  # training one of these arms with the behaviour model and the global ranker run anew

    @property
    def ratio(self) -> float:
        """All arms but the global ranker over its fit, and so over any number of seeds."""
        return self.arms / self.fit

    @property
    def speedup(self) -> float:
        """As many passes of their own over the one pass."""
        return self.own_pass * (2 + PLACEBOS) / self.training


@dataclass(frozen=True)
class _Anew:
    """A ranker that knows no cached state."""

    week: RankingWeek
    ranker: GlobalRanker

    @property
    def item_vectors(self) -> Tensor:
        return self.ranker.item_vectors

    def frozen(self, examples: Examples, rows: npt.NDArray[np.int64], scores: Tensor | None = None) -> Frozen:
        cuts = np.asarray(training_cuts(self.week.start_us, self.week.config.training_weeks), np.int64)
        when, users = cuts[examples.cut[rows]], examples.users[rows]
        states = torch.from_numpy(self.week.backbone.states(self.week.sequences, when, users, "last"))
        return self.ranker.frozen(examples, rows)._replace(states=states)


def segment_speed(week: RankingWeek, seed: int = 0) -> SegmentSpeed:
    """Measured with random segments: which users are together changes no time."""
    training, validation = week.training, week.validation()
    vectors, ids = week.item_vectors, week.candidate_ids
    fit, ranker = _timed(lambda: fit_global_ranker(training, validation, vectors, ids, week.config, seed))
    rng = np.random.default_rng(seed)
    segment = np.arange(week.history.users) % SEGMENTS
    divisions = [segment, np.zeros_like(segment), *(rng.permutation(segment) for _ in range(PLACEBOS))]
    arms = [Membership.certain(one) for one in divisions]
    ladder: list[SegmentMethod] = [*(week.config.segment_method for _ in arms), "feature"]
    told = [*arms, arms[0]]
    both, _ = _timed(lambda: fit_segment_rankers(ranker, training, validation, told, week.config, seed, ladder))
    alone, _ = _timed(lambda: train_deltas(ranker, training, arms, week.config, seed))
    own, _ = _timed(lambda: train_deltas(_Anew(week, ranker), training, arms[:1], week.config, seed))
    return SegmentSpeed(fit, both, alone, own)


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result
