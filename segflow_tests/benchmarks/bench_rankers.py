"""`make bench-rankers`: how well the next week is foretold, by the classics and by the global ranker, on Complete Journey.

Prints NDCG@10 with intervals, paired differences, and what was asked for with whether it held. Every setting of a classic
is chosen on the tuning weeks; the test weeks choose nothing. A confirmation follows on the log before its tuning weeks,
cut in the same way: nothing of the global ranker was chosen there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from segflow.config import TextConfig
from segflow.evaluation.statistics import Estimate
from segflow.representation.encoder import Encoder
from segflow_tests.benchmarks.bench_events import Target
from segflow_tests.benchmarks.ranking_classics import CLASSICS, TASKS, Judged, Known, Scorer, judge
from segflow_tests.benchmarks.ranking_global import Found, global_ranker
from segflow_tests.benchmarks.ranking_protocol import Protocol, compared, complete_journey

OURS = "global ranker"
ASKED = {"all": (0.380, "TIFU-KNN"), "new": (0.066, "EASE")}
"""Task -> the least NDCG@10, and whom to beat with the paired interval above zero."""
_HOUSEHOLDS = {"all": 2053, "new": 1977}

Figures = Mapping[str, npt.NDArray[np.float64]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if the households are not those of the protocol."""
    parser = argparse.ArgumentParser(prog="bench-rankers", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the global ranker; 0: only the classics")
    parser.add_argument("--processes", type=int, default=2, help="windows that are worked on side by side")
    parser.add_argument("--part", choices=("protocol", "confirmation", "both"), default="both")
    options = parser.parse_args(arguments)
    # Training on one thread gives the same weights everywhere.
    torch.set_num_threads(1)
    protocol = Protocol(complete_journey())
    vectors = Encoder.load(TextConfig()).encode(list(protocol.log.texts))
    passed = True
    if options.part != "confirmation":
        figures = measured(protocol, vectors, options.seeds, options.processes, CLASSICS)
        print()
        for target in targets(figures):
            print(target, flush=True)
        passed = all(households(figures[task]) == _HOUSEHOLDS[task] for task in TASKS)
    if options.part != "protocol":
        print("\nConfirmation: the same on the first 80 % of the days, which no choice of the global ranker has seen")
        rivals = {rival: CLASSICS[rival] for _, rival in ASKED.values()}
        measured(protocol.earlier(), vectors, options.seeds, options.processes, rivals)
    return 0 if passed else 1


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


def of_task(task: str, figures: Figures) -> str:
    """A table of a task: everyone's NDCG@10 on the test weeks, best first, and the differences of the global ranker."""
    means = compared(figures)
    lines = [f"\nNDCG@10, {task} items, {households(figures):,} households:"]
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


if __name__ == "__main__":
    sys.exit(main())
