"""`make bench-events`: how fast and how large the way from raw rows to sessions is, beside a floor and beside Polars.

Makes logs of several sizes, measures, checks that both engines wrote the same, and prints a table and what was asked for with
whether it held. Nothing here asserts a time; only different outputs are a failure.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from segflow.datasets.generator import generate
from segflow.datasets.shop import Shop
from segflow_tests.benchmarks.checksums import compare
from segflow_tests.benchmarks.measure import JOBS, Measurement, measure

SMALL, MIDDLE, LARGE = 5_000_000, 10_000_000, 50_000_000
_LIMIT = "1GB"
_LIMITED = f"ours in {_LIMIT}"
_REPEATED_UP_TO = MIDDLE
_REPEATS = 3
_BYTES_PER_ROW = 120
_TOO_MUCH = 20_000_000_000

Found: TypeAlias = dict[tuple[str, int], Measurement]


@dataclass(frozen=True)
class Target:
    """Something that was asked for: a ratio and its bound, or, without a bound, that the job finished."""

    asked: str
    measured: str
    held: bool

    def __str__(self) -> str:
        return f"{'held' if self.held else 'missed':6}  {self.asked}: {self.measured}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if the engines wrote different tables."""
    parser = argparse.ArgumentParser(prog="bench-events", description=__doc__)
    parser.add_argument("--events", nargs="+", type=lambda text: int(float(text)), default=[SMALL, MIDDLE, LARGE])
    parser.add_argument("--folder", type=Path, help="where logs and outputs go; a temporary folder without it")
    options = parser.parse_args(arguments)
    with _scratch(options.folder, max(options.events)) as folder:
        found: Found = {}
        for events in sorted(options.events):
            for one in _measured(Path(folder), events):
                if isinstance(one, str):
                    print(one, flush=True)
                    if one.startswith("same output: no"):
                        return 1
                else:
                    found[one.job, events] = one
                    print(_row(one), flush=True)
    print()
    for target in [*speed(found), *memory(found), *steadiness(found)]:
        print(target)
    return 0
