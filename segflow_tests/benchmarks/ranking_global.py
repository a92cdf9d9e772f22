"""The project's global ranker under the protocol.

The behaviour model is trained once, on what lies before the snapshot week of the first window. The ranker is fitted anew
for each window as a weekly run would do it: on the weeks before the week that precedes the window, which decides when to
stop. No setting is chosen here: they are the project's defaults.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segflow.config import BehaviorConfig, RankerConfig
from segflow.rankers.global_ranker import fit_global_ranker
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.behavior import BehaviorModel, fit_behavior_model
from segflow.representation.sequences import MICROSECONDS_PER_WEEK
from segflow_tests.benchmarks.ranking_protocol import Protocol, Scores, Window, per_user

_BLOCK = 512


def global_ranker(
    protocol: Protocol,
    windows: Sequence[Window],
    text_vectors: npt.NDArray[np.float32],
    seeds: int,
    config: RankerConfig | None = None,
) -> npt.NDArray[np.float64]:
    """(U, 2) NDCG@10 over all and over new items, averaged over the seeds; NaN for a household that no window asks.

    text_vectors: (I, d) float32, of every item of the log.
    """
    config = config or RankerConfig()
    sequences = protocol.log.sequences
    first = windows[0].start_us - MICROSECONDS_PER_WEEK
    backbone = fit_behavior_model(sequences.before(first), text_vectors, BehaviorConfig(), seed=0)
    by_window = [_scores(protocol, window, backbone, seeds, config) for window in windows]
    users = len(sequences.user_ids)
    return np.mean([per_user(windows, list(of_seed), users) for of_seed in zip(*by_window, strict=True)], axis=0)


def _scores(
    protocol: Protocol, window: Window, backbone: BehaviorModel, seeds: int, config: RankerConfig
) -> list[Scores]:
    """For each seed the (asked users, C) scores of the window."""
    start = window.start_us - MICROSECONDS_PER_WEEK
    week = RankingWeek(protocol.log.sequences, backbone, protocol.history, start, config)
    examples, validation = week.after(), week.validation()
    rows = np.searchsorted(examples.users, window.users)
    blocks = np.array_split(rows, -(-len(rows) // _BLOCK))
    found = []
    for seed in range(seeds):
        ranker = fit_global_ranker(week.training, validation, week.item_vectors, week.candidate_ids, config, seed)
        found.append(np.concatenate([ranker.score(examples, block) for block in blocks]))
    return found
