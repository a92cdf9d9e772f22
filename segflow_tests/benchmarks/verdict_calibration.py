"""What the verdict says where the truth is planted: real training of every arm, the real test, the real rules.

A log of `planted_tastes` goes through what a week goes through: behaviour model, global ranker, deltas of the true segments, of
everybody and of placebos, one ranking of all candidates for all test users, the summary. Nothing is chosen here.
`python -m segflow_tests.benchmarks.verdict_calibration` prints a line for each log.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from segflow.config import BehaviorConfig, EvaluationConfig, RankerConfig
from segflow.evaluation.baselines import tuned_baselines
from segflow.evaluation.controls import roles_of
from segflow.evaluation.diagnostics import active_days
from segflow.evaluation.protocol import evaluate, popular_items, ranker_arms
from segflow.evaluation.statistics import Estimate
from segflow.evaluation.summary import PRIMARY_TASK, summarize
from segflow.evaluation.verdict import Verdict
from segflow.rankers.deltas import Grouped, Membership
from segflow.rankers.global_ranker import fit_global_ranker
from segflow.rankers.segment_rankers import fit_segment_rankers
from segflow.rankers.snapshot import RankingWeek, placebo_groups
from segflow.representation.behavior import fit_behavior_model
from segflow.representation.sequences import MICROSECONDS_PER_WEEK
from segflow_tests.benchmarks.planted_tastes import PlantedTastes, planted_tastes

STRENGTHS = (0.0, 0.6, 0.9)
SEEDS = (0, 1, 2)
PLACEBOS = 5
_RANKER = RankerConfig(training_weeks=6, steps=300, minimum_item_events=5, minimum_item_users=3)
_BEHAVIOR = BehaviorConfig(width=32, layers=1, heads=2, context=32, epochs=1)


@dataclass(frozen=True)
class Judged:
    """What was concluded of one log; `placebos`: the mean of the placebo arms minus everybody as one group, all items."""

    strength: float
    seed: int
    verdict: Verdict
    placebos: Estimate
    seconds: float

    def __str__(self) -> str:
        verdict, low, high = self.verdict, *self.verdict.interval
        return (
            f"strength {self.strength:g}, seed {self.seed}: {verdict.outcome} "
            f"({', '.join(verdict.segments) or 'none'}); {verdict.difference:+.4f} [{low:+.4f}, {high:+.4f}] over "
            f"{verdict.best_control} {verdict.control_mean:.4f}; placebos {self.placebos.mean:+.4f} "
            f"[{self.placebos.low:+.4f}, {self.placebos.high:+.4f}] over global_extra; {self.seconds:.0f} s"
        )


def judged(strength: float, seed: int, users: int = 2000) -> Judged:
    """One log, from its events to the verdict; `seed` is that of the log and of everything trained on it."""
    began = time.monotonic()
    log = planted_tastes(strength, users=users, seed=seed)
    results = tested(log, seed)
    config = EvaluationConfig()
    summary = summarize(results.assign(week="planted"), roles_of(results["arm"].unique()), config, seed)
    placebos = next(row.placebos_over_extra for row in summary.controls if row.task == PRIMARY_TASK)
    assert placebos is not None
    return Judged(strength, seed, summary.verdict, placebos, time.monotonic() - began)


def tested(log: PlantedTastes, seed: int) -> pd.DataFrame:
    """Rows of `ranking_results`: every arm of a week on the log's last week."""
    before = log.sequences.before(log.snapshot_us)
    texts = np.random.default_rng(seed).normal(size=(len(before.item_ids), 8)).astype(np.float32)
    backbone = fit_behavior_model(before, texts, _BEHAVIOR, seed=seed)
    week = RankingWeek.of(log.sequences, backbone, log.snapshot_us, _RANKER)
    training, validation = week.training, week.validation()
    ranker = fit_global_ranker(training, validation, week.item_vectors, week.candidate_ids, _RANKER, seed)
    segment_of = {str(user): f"s{code}" for user, code in zip(log.sequences.user_ids, log.segment, strict=True)}
    members = {user: (segment, 1.0) for user, segment in segment_of.items()}
    dealt = {
        "segments": members,
        "global_extra": dict.fromkeys(members, ("everybody", 1.0)),
        **{f"placebo_{number}": placebo_groups(members, seed + number) for number in range(1, PLACEBOS + 1)},
    }
    groups = [
        Membership.of(log.sequences.user_ids, sorted({group for group, _ in one.values()}), one)
        for one in dealt.values()
    ]
    fitted = fit_segment_rankers(ranker, training, validation, groups, _RANKER, seed)
    examples, features = week.after(), week.features_after()
    baselines, _ = tuned_baselines(week, examples, features, segment_of)
    trained = {name: Grouped(deltas, group) for name, deltas, group in zip(dealt, fitted, groups, strict=True)}
    arms = [*baselines, *ranker_arms(ranker, examples, {"global": None, **trained})]
    days = active_days(week.sequences, log.snapshot_us + MICROSECONDS_PER_WEEK)
    popular = popular_items(features, EvaluationConfig().popular_items)
    return evaluate(arms, week, examples, segment_of, seed, popular, days).to_pandas()


def calibration(strengths: Sequence[float] = STRENGTHS, seeds: Sequence[int] = SEEDS) -> Iterator[Judged]:
    """Every strength with every seed."""
    for strength in strengths:
        for seed in seeds:
            yield judged(strength, seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is concluded of each log."""
    parser = argparse.ArgumentParser(prog="verdict-calibration", description=__doc__)
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for one in calibration(options.strengths, options.seeds):
        print(one, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
