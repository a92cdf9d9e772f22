"""The classics and the global ranker on MovieLens-100k, leave-one-out.

The behaviour model is fitted to what lies before the week that precedes the window, and stops by the last week of that. The
global ranker mixes its state with the scorers; it learns how on the twelve weeks before the week that precedes the window,
and that week, the tuning week of the protocol, decides when to stop. Neither is fitted once more to that week: it is read as
history only. The ranker's settings are the project's defaults.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt
import torch

from segflow.config import BehaviorConfig, RankerConfig
from segflow.rankers import scorers
from segflow.rankers.examples import Examples
from segflow.rankers.global_ranker import fit_global_ranker
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.behavior import BehaviorModel, fit_behavior_model
from segflow.representation.sequences import MICROSECONDS_PER_DAY, MICROSECONDS_PER_WEEK
from segflow_tests.benchmarks.movielens_protocol import LeaveOneOut
from segflow_tests.benchmarks.ranking_classics import CLASSICS, TASKS, Known, Scorer, judge
from segflow_tests.benchmarks.ranking_global import OURS
from segflow_tests.benchmarks.ranking_protocol import Scores, Window, per_user

TASK = TASKS.index("new")  # nobody rates a film twice
TRANSFORMER = "transformer alone"
BEHAVIOR = BehaviorConfig(
    # On a clock that ticks once an event there are neither gaps nor hours, and everybody returns.
    inputs=["item", "text", "value"],
    tasks={"next_item": 1, "next_type": 0, "return": 0, "wait": 0},
    epochs=8,
    batch_moments=1024,
)
_WEEK_DAYS = MICROSECONDS_PER_WEEK / MICROSECONDS_PER_DAY
_BLOCK = 256


def _recent_ease(events: float, regularization: float, known: Known, window: Window) -> Scores:
    """EASE, scored from what a user had with weights that halve every so many ``events``."""
    features = known.at(window, events * _WEEK_DAYS)
    weights = scorers.fit_cooccurrence(features, regularization, len(known.history.candidates))
    return scorers.cooccurrence(features, weights, window.users, features.frequency)


SINGLE: Mapping[str, Mapping[str, Scorer]] = {
    **{name: CLASSICS[name] for name in ("popularity, all time", "item-kNN", "EASE", "TIFU-KNN", "text similarity")},
    "EASE, recent first": {
        f"half-life {events:g} events, ridge {ridge:g}": partial(_recent_ease, events, ridge)
        for events in (5.0, 10.0, 20.0)
        for ridge in (100.0, 300.0, 1000.0)
    },
}


@dataclass(frozen=True)
class Classic:
    """A classic scorer: the settings that the tuning week chose, its NDCG@10 there, and (U,) that of the test."""

    name: str
    settings: str
    tuning: float
    test: npt.NDArray[np.float64]


def classics(
    log: LeaveOneOut, vectors: npt.NDArray[np.float32], grids: Mapping[str, Mapping[str, Scorer]] = SINGLE
) -> list[Classic]:
    """Every classic under the settings that are best for the second last events; ``vectors`` (I, d) are of the texts."""
    judged = judge(log, Known(log.history, vectors), grids)
    return [Classic(one.name, one.settings, one.tuning, one.test) for one in judged if one.task == TASKS[TASK]]


@dataclass(frozen=True)
class Trained:
    """NDCG@10 of the last events by what was trained.

    Attributes:
        by_seed: name -> (seeds, U), a training each.
        ensemble: name -> (U,) of the mean of the seeds' scores.
        seconds: of one seed on one thread, everything.
    """

    by_seed: Mapping[str, npt.NDArray[np.float64]]
    ensemble: Mapping[str, npt.NDArray[np.float64]]
    seconds: float


def trained(
    log: LeaveOneOut,
    vectors: npt.NDArray[np.float32],
    seeds: int,
    processes: int = 1,
    behavior: BehaviorConfig = BEHAVIOR,
    config: RankerConfig | None = None,
) -> Trained:
    """The transformer and the global ranker with each seed, two seeds side by side in two ``processes``."""
    job = partial(_seed, log, vectors, behavior, config or RankerConfig())
    if processes == 1:
        done = [job(seed) for seed in range(seeds)]
    else:
        # Training on one thread gives the same weights everywhere, so two cores take two seeds.
        with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            done = list(pool.map(job, range(seeds)))
    scores = {name: [one[name] for one, _ in done] for name in (TRANSFORMER, OURS)}
    return Trained(
        {name: np.stack([found(log, one) for one in of_seeds]) for name, of_seeds in scores.items()},
        {name: found(log, np.mean(of_seeds, axis=0)) for name, of_seeds in scores.items()},
        float(np.mean([seconds for _, seconds in done])),
    )


def found(log: LeaveOneOut, scores: Scores) -> npt.NDArray[np.float64]:
    """(U,) NDCG@10 of the last events, among all items that the user had not had."""
    return per_user(log.test, [scores], len(log.log.sequences.user_ids))[:, TASK]


def _seed(
    log: LeaveOneOut, vectors: npt.NDArray[np.float32], behavior: BehaviorConfig, config: RankerConfig, seed: int
) -> tuple[dict[str, Scores], float]:
    """(users, I) scores by name, and the seconds they took."""
    began = time.perf_counter()
    sequences, start = log.log.sequences, log.test[0].start_us - MICROSECONDS_PER_WEEK
    backbone = fit_behavior_model(sequences.before(start), vectors, behavior, seed)
    week = RankingWeek(sequences, backbone, log.history, start, config)
    ranker = fit_global_ranker(week.training, week.validation(), week.item_vectors, week.candidate_ids, config, seed)
    examples = week.after()
    rows = np.searchsorted(examples.users, log.test[0].users)
    mixed = [ranker.score(examples, block) for block in np.array_split(rows, -(-len(rows) // _BLOCK))]
    scores = {TRANSFORMER: _next_item(backbone, examples, rows), OURS: np.concatenate(mixed)}
    return scores, time.perf_counter() - began


def _next_item(backbone: BehaviorModel, examples: Examples, rows: npt.NDArray[np.int64]) -> Scores:
    """What the behaviour model was trained to say: which item is next."""
    bias = backbone.network.item_bias.detach().numpy()
    scores: Scores = backbone.queries(examples.states[rows]) @ backbone.item_vectors().T + bias
    return scores
