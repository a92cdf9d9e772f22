"""`make bench-rankers`: how well the next week is foretold, by the classics and by the global ranker, on Complete Journey.

Prints NDCG@10 with intervals, paired differences, and what was asked for with whether it held. Every setting of a classic
is chosen on the tuning weeks; the test weeks choose nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from segflow.config import TextConfig
from segflow.evaluation.statistics import Estimate
from segflow.representation.encoder import Encoder
from segflow_tests.benchmarks.bench_events import Target
from segflow_tests.benchmarks.ranking_classics import TASKS, Judged, Known, judge
from segflow_tests.benchmarks.ranking_global import global_ranker
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
    options = parser.parse_args(arguments)
    # Training on one thread gives the same weights everywhere.
    torch.set_num_threads(1)
    log = complete_journey()
    protocol = Protocol(log)
    print(of_protocol(protocol), flush=True)
    vectors = Encoder.load(TextConfig()).encode(list(log.texts))
    figures: dict[str, dict[str, npt.NDArray[np.float64]]] = {task: {} for task in TASKS}
    print("\nChosen on the tuning weeks:")
    for one in judge(protocol, Known(protocol.history, vectors[protocol.candidates])):
        print(of_choice(one), flush=True)
        figures[one.task][one.name] = one.test
    if options.seeds:
        found = global_ranker(protocol, protocol.test, vectors, options.seeds)
        for column, task in enumerate(TASKS):
            figures[task][OURS] = found[:, column]
    for task in TASKS:
        print(of_task(task, figures[task]), flush=True)
    print()
    for target in targets(figures):
        print(target)
    return 0 if all(households(figures[task]) == _HOUSEHOLDS[task] for task in TASKS) else 1


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
