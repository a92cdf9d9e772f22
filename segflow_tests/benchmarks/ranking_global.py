"""The project's global ranker under the protocol.

The behaviour model is trained once, on what lies before the snapshot week of the first window. The ranker is fitted anew
for each window as a weekly run would do it: on the weeks before the week that precedes the window, which decides when to
stop. No setting is chosen here: they are the project's defaults.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt
import torch

from segflow.config import BehaviorConfig, RankerConfig
from segflow.rankers.global_ranker import fit_global_ranker
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.behavior import BehaviorModel, fit_behavior_model
from segflow.representation.sequences import MICROSECONDS_PER_WEEK
from segflow_tests.benchmarks.ranking_protocol import Protocol, Scores, Window, per_user

OURS = "global ranker"
_BLOCK = 512


@dataclass(frozen=True)
class Found:
    """What the global ranker did on the windows.

    Attributes:
        by_seed: (seeds, U, 2) NDCG@10 over all and over new items; NaN for a household that no window asks.
        examples_seconds: of the examples of one window, on one thread.
        fit_seconds: of one training, on one thread.
    """

    by_seed: npt.NDArray[np.float64]
    examples_seconds: float
    fit_seconds: float

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """(U, 2) averaged over the seeds."""
        return self.by_seed.mean(axis=0)


def global_ranker(
    protocol: Protocol,
    windows: Sequence[Window],
    text_vectors: npt.NDArray[np.float32],
    seeds: int,
    config: RankerConfig | None = None,
    processes: int = 1,
) -> Found:
    """Fitted anew for each window with each seed, several windows side by side in ``processes``.

    text_vectors: (I, d) float32, of every item of the log.
    """
    sequences = protocol.log.sequences
    first = windows[0].start_us - MICROSECONDS_PER_WEEK
    backbone = fit_behavior_model(sequences.before(first), text_vectors, BehaviorConfig(), seed=0)
    job = partial(_window, protocol, backbone, seeds, config or RankerConfig())
    if processes == 1:
        done = [job(window) for window in windows]
    else:
        # Training on one thread gives the same weights everywhere, so two cores take two windows.
        with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            done = list(pool.map(job, windows))
    users = len(sequences.user_ids)
    by_seed = [per_user(windows, list(of_seed), users) for of_seed in zip(*(one.scores for one in done), strict=True)]
    examples, fits = (np.mean([getattr(one, name) for one in done]) for name in ("examples_seconds", "fit_seconds"))
    return Found(np.stack(by_seed), float(examples), float(fits))


@dataclass(frozen=True)
class _Scored:
    scores: list[Scores]
    examples_seconds: float
    fit_seconds: float


def _window(protocol: Protocol, backbone: BehaviorModel, seeds: int, config: RankerConfig, window: Window) -> _Scored:
    """For each seed the (asked users, C) scores of the window, and the mean seconds of what was done."""
    start, began = window.start_us - MICROSECONDS_PER_WEEK, time.perf_counter()
    week = RankingWeek(protocol.log.sequences, backbone, protocol.history, start, config)
    training, validation = week.training, week.validation()
    made = time.perf_counter() - began
    examples = week.after()
    rows = np.searchsorted(examples.users, window.users)
    blocks = np.array_split(rows, -(-len(rows) // _BLOCK))
    found, seconds = [], 0.0
    for seed in range(seeds):
        began = time.perf_counter()
        ranker = fit_global_ranker(training, validation, week.item_vectors, week.candidate_ids, config, seed)
        seconds += (time.perf_counter() - began) / seeds
        found.append(np.concatenate([ranker.score(examples, block) for block in blocks]))
    return _Scored(found, made, seconds)
