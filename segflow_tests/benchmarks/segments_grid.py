"""What selection finds in planted logs: a grid of plants, and logs in which nothing is planted.

Part of `make bench-segments`. `python -m segflow_tests.benchmarks.segments_grid` prints this part alone. A plant counts as
separable where a classifier that has learned the segments of other users tells a user's segment from its vector in 95 of 100
cases: that is no clusterer's doing, and says what there is to be found.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from sklearn.metrics import adjusted_rand_score

from segflow.config import SegmentConfig, UserEmbeddingConfig
from segflow.segments.clustering import select
from segflow.segments.population import Population
from segflow_tests.segments.planted_logs import Plant, Told, plant, snapshot, told

SEPARABLE = 0.95
"""Share of users whose planted segment the classifier must tell, each segment counting the same."""
CLEAR = 0.95
"""The classifier's own adjusted Rand index in logs that are summed up once more: below it there is little to be reached."""
ENOUGH = 0.9
"""The adjusted Rand index to reach in the mean of the separable logs."""
WEEKS = 4
USERS = 1_200
NOISE_USERS = (400, 800, 1_600)
"""Sizes of the logs without segments, in turn."""

_HEAD = ("", "logs", "separable", "told ARI", "ARI", "lowest", "k right", "stability", "least", "k chosen (logs)")
_VIEWS = UserEmbeddingConfig(views=["text", "engagement"])


class Cell(NamedTuple):
    """A place in the grid; see `Plant`."""

    segments: int
    balance: float
    overlap: float
    noise: float
    drift: float


class Found(NamedTuple):
    """What was found in a cell's log; the adjusted Rand index is over users who have a planted segment."""

    cell: Cell
    seed: int
    told: Told
    ari: float
    k: int
    stability: float
    least_stability: float
    verdict: str

    @property
    def separable(self) -> bool:
        """Whether the vectors show what was planted."""
        return self.told.accuracy >= SEPARABLE

    @property
    def right(self) -> bool:
        """Whether there are as many segments as planted; users without one may make one of their own."""
        return self.k - self.cell.segments in ((0, 1) if self.cell.noise else (0,))


class Nothing(NamedTuple):
    """What was found in a log in which nothing is planted; k is 0 where no segments were published."""

    seed: int
    users: int
    k: int
    verdict: str


def cells() -> list[Cell]:
    """The grid: all numbers of segments and overlaps, with half of the combinations of balance, noise and drift.

    It is the half in which any two of these three come in all their combinations.
    """
    whole = product((3, 4, 6, 8, 12), (1.0, 8.0), (0.1, 0.3, 0.5), (0.0, 0.1), (0.0, 0.03))
    return [one for one in map(Cell._make, whole) if ((one.balance > 1) + (one.noise > 0) + (one.drift > 0)) % 2]


def measure(cell: Cell, seed: int, config: SegmentConfig, users: int = USERS) -> Found:
    """Plant a log, select, and compare."""
    week = snapshot(plant(Plant(users=users, weeks=WEEKS, seed=seed, **cell._asdict())), WEEKS, WEEKS, _VIEWS)
    population = Population(week.points, week.engagement)
    clustering = select(population, config, seed)
    known = week.truth >= 0
    labels = clustering.assign(population).labels if clustering.k else np.full(len(known), -1)
    stability = clustering.stability if clustering.k else np.zeros(1)
    return Found(
        cell,
        seed,
        told(week.points, week.truth),
        float(adjusted_rand_score(week.truth[known], labels[known])),
        clustering.k,
        float(stability.mean()),
        float(stability.min()),
        clustering.verdict,
    )


def measure_nothing(seed: int, config: SegmentConfig) -> Nothing:
    """Plant users who all draw from one mix, and select."""
    users = NOISE_USERS[seed % len(NOISE_USERS)]
    week = snapshot(plant(Plant(users=users, weeks=WEEKS, noise=1.0, seed=seed)), WEEKS, WEEKS, _VIEWS)
    clustering = select(Population(week.points, week.engagement), config, seed)
    return Nothing(seed, users, clustering.k, clustering.verdict)


def run_grid(grid: Sequence[Cell], seeds: int, config: SegmentConfig, jobs: int) -> list[Found]:
    """Every cell with every seed, `jobs` processes side by side."""
    asked = [(cell, seed, config) for cell in grid for seed in range(seeds)]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        return list(pool.map(measure, *zip(*asked, strict=True)))


def run_nothing(seeds: range, config: SegmentConfig, jobs: int) -> list[Nothing]:
    """A log without segments for each of `seeds`, `jobs` processes side by side."""
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        return list(pool.map(measure_nothing, seeds, [config] * len(seeds)))


def grid_report(seeds: int = 1, nothing_seeds: int = 100, jobs: int = 2) -> str:
    """What the default settings find, for people."""
    config = SegmentConfig()
    found = run_grid(cells(), seeds, config, jobs)
    return f"{of_grid(found)}\n\n{of_nothing(run_nothing(range(nothing_seeds), config, jobs))}"


def of_grid(found: Sequence[Found]) -> str:
    """What was found for each setting of the plant, over all others, and the logs in which too little was."""
    lines = [
        f"{len(found)} planted logs of {USERS:,} users; right of `separable`: of the separable ones",
        _columns(_HEAD),
    ]
    for place, name in enumerate(Cell._fields):
        for value in sorted({one.cell[place] for one in found}):
            lines.append(_line(f"{name} {value:g}", [one for one in found if one.cell[place] == value]))
    lines.append(_line("all", found))
    lines.append(_line(f"told ARI {CLEAR:g}", [one for one in found if one.told.ari >= CLEAR]))
    missed = [one for one in found if one.separable and one.ari < ENOUGH]
    lines += [f"{len(missed)} separable logs below {ENOUGH}" + ":" * bool(missed), *map(_spelled, missed)]
    return "\n".join(lines)


def of_nothing(found: Sequence[Nothing]) -> str:
    """In how many logs without segments none were found."""
    none = [one for one in found if one.k == 0]
    verdicts = ", ".join(f"{verdict} {count}" for verdict, count in Counter(one.verdict for one in found).most_common())
    wrong = "".join(f"\n  seed {one.seed}, {one.users:,} users: k {one.k}" for one in found if one.k)
    return f"{len(found)} logs in which nothing is planted: no segments in {len(none)} ({verdicts}){wrong}"


def _line(name: str, found: Sequence[Found]) -> str:
    seen = [one for one in found if one.separable]
    if not seen:
        return _columns([name, f"{len(found)}", "0"])
    figures = [
        f"{np.mean([one.told.ari for one in seen]):.3f}",
        f"{np.mean([one.ari for one in seen]):.3f}",
        f"{min(one.ari for one in seen):.3f}",
        f"{np.mean([one.right for one in seen]):.0%}",
        f"{np.mean([one.stability for one in seen]):.3f}",
        f"{min(one.least_stability for one in seen):.3f}",
    ]
    chosen = sorted(Counter(one.k for one in seen).items())
    return _columns([name, f"{len(found)}", f"{len(seen)}", *figures, ", ".join(f"{k} ({logs})" for k, logs in chosen)])


def _columns(cells: Sequence[str]) -> str:
    last = f"  {cells[-1]}" if len(cells) == len(_HEAD) else f"{cells[-1]:>11}"
    return f"{cells[0]:15}" + "".join(f"{one:>11}" for one in cells[1:-1]) + last


def _spelled(one: Found) -> str:
    cell = ", ".join(f"{name} {value:g}" for name, value in one.cell._asdict().items())
    return (
        f"  {cell}, seed {one.seed}: ARI {one.ari:.3f}, k {one.k}, told right {one.told.accuracy:.3f} (ARI {one.told.ari:.3f}), "
        f"stability {one.stability:.2f}, {one.verdict}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="logs of each place in the grid")
    parser.add_argument("--nothing-seeds", type=int, default=100, help="logs in which nothing is planted")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    options = parser.parse_args(arguments)
    print(grid_report(options.seeds, options.nothing_seeds, options.jobs))


if __name__ == "__main__":
    main()
