"""`make bench-rankers`: how well the next week is foretold, by the classics and by the global ranker, on Complete Journey.

Prints NDCG@10 with intervals, paired differences, and what was asked for with whether it held. Every setting of a classic
is chosen on the tuning weeks; the test weeks choose nothing. A confirmation follows on the log before its tuning weeks,
cut in the same way: nothing of the global ranker was chosen there. MovieLens-100k follows, leave-one-out. Then how fast
segment rankers are trained and lists made.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from segflow.config import BehaviorConfig, RankerConfig, TextConfig
from segflow.evaluation.statistics import Estimate
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.behavior import fit_behavior_model
from segflow.representation.encoder import Encoder
from segflow.representation.sequences import MICROSECONDS_PER_WEEK
from segflow_tests.benchmarks import movielens_job, recommend_job
from segflow_tests.benchmarks.bench_events import Target
from segflow_tests.benchmarks.movielens_job import TRANSFORMER, Trained
from segflow_tests.benchmarks.movielens_protocol import LeaveOneOut, movielens
from segflow_tests.benchmarks.ranking_classics import CLASSICS, TASKS, Judged, Known, Scorer, judge
from segflow_tests.benchmarks.ranking_global import OURS, Found, global_ranker
from segflow_tests.benchmarks.ranking_protocol import Protocol, compared, complete_journey
from segflow_tests.benchmarks.segment_speed import ASKED_RATIO, ASKED_SPEEDUP, SegmentSpeed, segment_speed

ASKED = {"all": (0.380, "TIFU-KNN"), "new": (0.066, "EASE")}
"""Task -> the least NDCG@10, and whom to beat with the paired interval above zero."""
ASKED_MOVIELENS = 0.118
_HOUSEHOLDS = {"all": 2053, "new": 1977}
_MOVIELENS_USERS = 943

Figures = Mapping[str, npt.NDArray[np.float64]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if the households are not those of the protocol."""
    parser = argparse.ArgumentParser(prog="bench-rankers", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the global ranker; 0: only the classics")
    parser.add_argument("--processes", type=int, default=2, help="windows that are worked on side by side")
    parser.add_argument("--part", nargs="+", choices=_PARTS, default=list(_PARTS), help="what is measured")
    options = parser.parse_args(arguments)
    # Training on one thread gives the same weights everywhere.
    torch.set_num_threads(1)
    passed = [_PARTS[part](options) for part in options.part]
    return 0 if all(passed) else 1


def _protocol(options: argparse.Namespace) -> bool:
    figures = measured(*_log(), options.seeds, options.processes, CLASSICS)
    _print_all(targets(figures))
    return all(households(figures[task]) == _HOUSEHOLDS[task] for task in TASKS)


def _confirmation(options: argparse.Namespace) -> bool:
    print("\nConfirmation: the same on the first 80 % of the days, which no choice of the global ranker has seen")
    rivals = {rival: CLASSICS[rival] for _, rival in ASKED.values()}
    protocol, vectors = _log()
    measured(protocol.earlier(), vectors, options.seeds, options.processes, rivals)
    return True


def _movielens(options: argparse.Namespace) -> bool:
    log = LeaveOneOut(movielens())
    vectors = Encoder.load(TextConfig()).encode(list(log.log.texts))
    print("\nMovieLens-100k, leave-one-out. Chosen on the second last ratings:")
    figures = {}
    for one in movielens_job.classics(log, vectors):
        print(f"  {one.tuning:.4f}  {one.name}{': ' if one.settings else ''}{one.settings}", flush=True)
        figures[one.name] = one.test
    if options.seeds:
        trained = movielens_job.trained(log, vectors, options.seeds, options.processes)
        figures |= {name: by_seed.mean(axis=0) for name, by_seed in trained.by_seed.items()}
        print(of_seeds(trained), flush=True)
    print(of_task("new", figures, "users"))
    _print_all(movielens_targets(figures))
    return households(figures) == _MOVIELENS_USERS


def _segments(options: argparse.Namespace) -> bool:
    protocol, vectors = _log()
    start = protocol.test[0].start_us - MICROSECONDS_PER_WEEK
    sequences = protocol.log.sequences
    # How much the behaviour model has learned changes no time.
    backbone = fit_behavior_model(sequences.before(start), vectors, BehaviorConfig(epochs=1), seed=0)
    week = RankingWeek(sequences, backbone, protocol.history, start, RankerConfig())
    _print_all(segment_targets(segment_speed(week)))
    return True


def _lists(options: argparse.Namespace) -> bool:
    torch.set_num_threads(os.cpu_count() or 1)
    _print_all(list_targets(recommend_job.measure()))
    torch.set_num_threads(1)
    return True


_PARTS: Mapping[str, Callable[[argparse.Namespace], bool]] = {
    "protocol": _protocol,
    "confirmation": _confirmation,
    "movielens": _movielens,
    "segments": _segments,
    "lists": _lists,
}


@cache
def _log() -> tuple[Protocol, npt.NDArray[np.float32]]:
    """The protocol, and the text vectors of all items."""
    protocol = Protocol(complete_journey())
    return protocol, Encoder.load(TextConfig()).encode(list(protocol.log.texts))


def _print_all(found: Iterator[Target]) -> None:
    print()
    for target in found:
        print(target, flush=True)


def measured(
    protocol: Protocol,
    vectors: npt.NDArray[np.float32],
    seeds: int,
    processes: int,
    classics: Mapping[str, Mapping[str, Scorer]],
) -> dict[str, dict[str, npt.NDArray[np.float64]]]:
    """Task -> name -> (U,) NDCG@10 of the classics and of the global ranker on the test weeks; printed on the way."""
    began = time.perf_counter()
    print(of_protocol(protocol), flush=True)
    figures: dict[str, dict[str, npt.NDArray[np.float64]]] = {task: {} for task in TASKS}
    print("\nChosen on the tuning weeks:")
    for one in judge(protocol, Known(protocol.history, vectors[protocol.candidates]), classics):
        print(of_choice(one), flush=True)
        figures[one.task][one.name] = one.test
    if seeds:
        found = global_ranker(protocol, protocol.test, vectors, seeds, processes=processes)
        print(of_training(found), flush=True)
        for column, task in enumerate(TASKS):
            figures[task][OURS] = found.mean[:, column]
    for task in TASKS:
        print(of_task(task, figures[task]), flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s")
    return figures


def of_training(found: Found) -> str:
    """NDCG@10 with each seed, and what a training costs."""
    seeds = "; ".join(f"{all_:.4f}, {new:.4f}" for all_, new in np.nanmean(found.by_seed, axis=1))
    return (
        f"\n{OURS}, all and new with each seed: {seeds}\n"
        f"{found.examples_seconds:.0f} s for the examples of a week, {found.fit_seconds:.0f} s for a training on one thread"
    )


def of_seeds(trained: Trained) -> str:
    """NDCG@10 on MovieLens with each seed and of the mean of their scores, and what a seed costs."""
    lines = []
    for name, by_seed in trained.by_seed.items():
        seeds = "; ".join(f"{value:.4f}" for value in by_seed.mean(axis=1))
        ensemble = of_mean(compared(trained.ensemble)[name])
        lines.append(f"\n{name} with each seed: {seeds}; ensemble of these {len(by_seed)}: {ensemble}")
    return "".join(lines) + f"\n{trained.seconds:.0f} s for a seed on one thread"


def of_protocol(protocol: Protocol) -> str:
    """The log and its windows in two lines."""
    sequences = protocol.log.sequences
    asked = [", ".join(f"{len(window.users):,}" for window in part) for part in (protocol.tuning, protocol.test)]
    return (
        f"{len(sequences.times):,} events of {len(sequences.user_ids):,} households, {len(protocol.candidates):,} items\n"
        f"households asked in each tuning week: {asked[0]}; in each test week: {asked[1]}"
    )


def of_choice(one: Judged) -> str:
    """What was chosen for a task, and its NDCG@10 on the tuning weeks."""
    return f"  {one.task}  {one.tuning:.4f}  {one.name}{': ' if one.settings else ''}{one.settings}"


def of_task(task: str, figures: Figures, users: str = "households") -> str:
    """A table of a task: everyone's NDCG@10 in the test, best first, and the differences of the global ranker."""
    means = compared(figures)
    lines = [f"\nNDCG@10, {task} items, {households(figures):,} {users}:"]
    lines += [f"  {name:22} {of_mean(means[name])}" for name in sorted(means, key=lambda name: -means[name].mean)]
    if OURS in figures:
        for name in (name for name in figures if name != OURS):
            difference = compared({OURS: figures[OURS], name: figures[name]}, base=name)[OURS]
            lines.append(f"  {OURS} - {name:22} {of_difference(difference)}")
    return "\n".join(lines)


def of_mean(one: Estimate) -> str:
    """A mean with its interval."""
    return f"{one.mean:.4f} [{one.low:.4f}, {one.high:.4f}]"


def of_difference(one: Estimate) -> str:
    """A difference with its interval."""
    return f"{one.mean:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"


def households(figures: Figures) -> int:
    """How many households were asked."""
    return int((~np.isnan(next(iter(figures.values())))).sum())


def targets(figures: Mapping[str, Figures]) -> Iterator[Target]:
    """The protocol's households, and for each task the least NDCG@10 and the scorer to beat."""
    for task, count in _HOUSEHOLDS.items():
        found = households(figures[task])
        yield Target(f"{count:,} households with {task} items to find", f"{found:,}", found == count)
    for task, (least, rival) in ASKED.items():
        if OURS not in figures[task]:
            continue
        mean = compared(figures[task])[OURS]
        yield Target(f"{task}: NDCG@10 at least {least:.3f}", of_mean(mean), mean.mean >= least)
        difference = compared(figures[task], base=rival)[OURS]
        asked = f"{task}: above {rival}, the paired interval above zero"
        yield Target(asked, of_difference(difference), difference.low > 0)


def movielens_targets(figures: Figures) -> Iterator[Target]:
    """Everybody is asked; the least NDCG@10, and the two parts of which the mix is to be better."""
    count = households(figures)
    yield Target(f"MovieLens-100k: {_MOVIELENS_USERS} users", f"{count}", count == _MOVIELENS_USERS)
    if OURS not in figures:
        return
    mean = compared(figures)[OURS]
    asked = f"MovieLens-100k, leave-one-out: NDCG@10 at least {ASKED_MOVIELENS:.3f}"
    yield Target(asked, of_mean(mean), mean.mean >= ASKED_MOVIELENS)
    for rival in ("EASE", TRANSFORMER):
        difference = compared({name: figures[name] for name in (OURS, rival)}, base=rival)[OURS]
        asked = f"MovieLens-100k, leave-one-out: above {rival}, the paired interval above zero"
        yield Target(asked, of_difference(difference), difference.low > 0)


def segment_targets(found: SegmentSpeed) -> Iterator[Target]:
    """The one pass of all segments and controls, beside the global ranker's training and beside passes of their own."""
    one_pass = "all segments and controls in one pass"
    seconds = f"{found.ratio:.2f}, {found.arms:.1f} s and {found.fit:.1f} s on one thread"
    yield Target(
        f"ladder: all arms but the global ranker, at most {ASKED_RATIO:g} times its training, over the same seeds",
        seconds,
        found.ratio <= ASKED_RATIO,
    )
    asked = f"{one_pass}: at least {ASKED_SPEEDUP:g} times as fast as passes through the backbone"
    yield Target(asked, f"{found.speedup:.1f}", found.speedup >= ASKED_SPEEDUP)


def list_targets(found: recommend_job.Speed) -> Iterator[Target]:
    """Lists for everybody, beside one product of users and items with a selection."""
    for name, ratio in (("lists", found.ratio), ("lists without what users had", found.unseen_ratio)):
        asked = f"{name} for {recommend_job.USERS:,} users: at most {recommend_job.ASKED_RATIO:g} times the floor"
        yield Target(asked, f"{ratio:.2f}, the floor {found.floor:.1f} s", ratio <= recommend_job.ASKED_RATIO)


if __name__ == "__main__":
    sys.exit(main())
