"""`make bench-events`: how fast and how large the way from raw rows to sessions is, beside a floor and beside Polars.

Makes logs of several sizes, measures, checks that both engines wrote the same, and prints a table and what was asked for with
whether it held. Nothing here asserts a time; only different outputs are a failure.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from segflow.datasets.generator import generate
from segflow.datasets.shop import Shop
from segflow.errors import UserError
from segflow_tests.benchmarks.checksums import compare
from segflow_tests.benchmarks.days_job import Arrival, measure_arrival
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
    """Something that was asked for, what was measured, and whether that is enough."""

    asked: str
    measured: str
    held: bool

    def __str__(self) -> str:
        return f"{'held' if self.held else 'missed':6}  {self.asked}: {self.measured}"


class DifferentOutputError(Exception):
    """The engines disagree, so that no measurement of them means anything. The message holds the first differing rows."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if the engines wrote different tables."""
    parser = argparse.ArgumentParser(prog="bench-events", description=__doc__)
    parser.add_argument("--events", nargs="+", type=float, default=[SMALL, MIDDLE, LARGE], help="rows of the logs")
    parser.add_argument("--folder", type=Path, help="where logs and outputs go; a temporary folder without it")
    parser.add_argument("--arrival", type=float, default=MIDDLE, help="rows of the month to which a day is added")
    options = parser.parse_args(arguments)
    sizes = sorted(int(events) for events in options.events)
    found: Found = {}
    arrivals: dict[int, Arrival] = {}
    with _scratch(options.folder, sizes[-1]) as folder:
        print(f"{'rows':>12} {'job':14} {'s':>7} {'rows/s':>10} {'CPU s':>7} {'peak GB':>8}", flush=True)
        try:
            for events in sizes:
                found |= measured(folder, events)
        except DifferentOutputError as error:
            print(f"same output: no\n{error}")
            return 1
        for events in sizes:
            if events in (MIDDLE, options.arrival):
                arrivals[events] = arrived(folder, events)
    print()
    for target in [*speed(found), *memory(found), *steadiness(found), *days(found, arrivals)]:
        print(target)
    return 0


@contextmanager
def _scratch(folder: Path | None, events: int) -> Iterator[Path]:
    """A folder of our own with room for a log of `events` rows and what is made of it; it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-events-", dir=folder) as made:
        free, needed = shutil.disk_usage(made).free, events * _BYTES_PER_ROW
        if free < needed:
            raise UserError(
                f"{made}: {free / 1e9:.1f} GB are free and {needed / 1e9:.1f} GB needed; name another --folder, or fewer --events"
            )
        yield Path(made)


def measured(folder: Path, events: int) -> Found:
    """Every job on a new log of about `events` rows, its table rows printed; nothing is left in `folder`.

    Raises DifferentOutputError when the engines' outputs differ.
    """
    log = folder / "log"
    rows = generate(log, Shop(events=events, users=max(events // 50, 1), items=20_000, days=30)).rows
    repeats = _REPEATS if events <= _REPEATED_UP_TO else 1
    taken: dict[str, list[Measurement]] = {}
    for _ in range(repeats):
        for job in JOBS:
            shutil.rmtree(folder / job, ignore_errors=True)
            taken.setdefault(job, []).append(measure(job, rows, log, folder / job))
        for job in ("floor", "plain floor"):
            shutil.rmtree(folder / job)
    found = {(job, events): sorted(those, key=lambda one: one.seconds)[repeats // 2] for job, those in taken.items()}
    for one in found.values():
        print(_row(one), flush=True)
    _check_output(folder, found["polars", events])
    if events >= LARGE:
        found[_LIMITED, events] = measure("ours", rows, log, folder / "limited", _LIMIT)
        print(_row(found[_LIMITED, events]), flush=True)
    for left in folder.iterdir():
        shutil.rmtree(left)
    return found


def arrived(folder: Path, events: int) -> Arrival:
    """A month of about `events` rows in a project of its own, and the day after it, which brings late events of earlier days."""
    log = folder / "log"
    generate(log, Shop(events=events * 31 // 30, users=max(events // 50, 1), items=20_000, days=31))
    arrival = measure_arrival(log, folder / "project")
    for left in folder.iterdir():
        shutil.rmtree(left)
    return arrival


def _check_output(folder: Path, polars: Measurement) -> None:
    if polars.died:
        print("same output: not known, Polars did not finish", flush=True)
        return
    compared = compare(folder / "ours", folder / "polars", folder / "spill")
    if not compared.same:
        raise DifferentOutputError("\n".join(compared.different))
    print(
        "same output: yes; " + ", ".join(f"{count:,} rows of {name}" for name, count in compared.rows.items()),
        flush=True,
    )


def _row(one: Measurement) -> str:
    figures = f"{one.seconds:7.1f} {one.rows_per_second:10,.0f} {one.cpu:7.1f} {one.peak / 1e9:8.2f}"
    return f"{one.rows:12,} {one.job:14} {figures}" + (f"  died: {one.died}" if one.died else "")


def speed(found: Found) -> Iterator[Target]:
    """Rows a second beside Polars, and seconds beside the floor."""
    for events, least in ((MIDDLE, 1.0), (LARGE, 1.4)):
        if ("ours", events) not in found:
            continue
        ours, polars = found["ours", events], found["polars", events]
        asked = f"{_millions(events)}: rows/s at least {least} times Polars'"
        if polars.died:
            yield Target(asked, f"Polars died ({polars.died})", not ours.died)
        else:
            yield _at_least(asked, polars.seconds / ours.seconds, least)
    for events in _sizes(found):
        ratio = found["ours", events].seconds / found["floor", events].seconds
        yield _at_most(f"{_millions(events)}: seconds at most 1.5 times the floor's", ratio, 1.5)


def memory(found: Found) -> Iterator[Target]:
    """Peaks beside Polars' and under a limit."""
    for events in _sizes(found):
        ours, polars = found["ours", events], found["polars", events]
        asked = f"{_millions(events)}: peak memory at most a third of Polars'"
        said = f" of {polars.peak / 1e9:.1f} GB" + (", more than 20 GB" if polars.peak > _TOO_MUCH else "")
        ratio = ours.peak / polars.peak
        yield Target(asked, f"{ratio:.2f}{said}", ratio <= 1 / 3)
    for (job, events), one in found.items():
        if job == _LIMITED:
            said = f"{one.seconds:.0f} s, peak {one.peak / 1e9:.2f} GB" if one.died is None else f"died: {one.died}"
            yield Target(f"{_millions(events)}: finishes under memory_limit {_LIMIT}", said, one.died is None)


def steadiness(found: Found) -> Iterator[Target]:
    """Whether a larger log takes longer only in proportion."""
    if {("ours", SMALL), ("ours", LARGE)} <= found.keys():
        ratio = found["ours", LARGE].rows_per_second / found["ours", SMALL].rows_per_second
        yield _at_least(f"rows/s at {_millions(LARGE)} at least 0.9 times those at {_millions(SMALL)}", ratio, 0.9)


def days(found: Found, arrivals: dict[int, Arrival]) -> Iterator[Target]:
    """What a day costs beside its month, and a month of stored and checked days beside the bare job."""
    for events, one in arrivals.items():
        said = (
            f"{one.shares:.2f} ({one.day:.1f} s for {one.touched_days} touched days, a month of days {one.month:.1f} s)"
        )
        yield Target(f"{_millions(events)}: one new day at most 3 times its share of the month", said, one.shares <= 3)
        if ("ours", events) in found:
            ratio = one.month / found["ours", events].seconds
            yield _at_most(
                f"{_millions(events)}: days as one range in Dagster at most 1.2 times the full job", ratio, 1.2
            )


def _at_least(asked: str, ratio: float, bound: float) -> Target:
    return Target(asked, f"{ratio:.2f}", ratio >= bound)


def _at_most(asked: str, ratio: float, bound: float) -> Target:
    return Target(asked, f"{ratio:.2f}", ratio <= bound)


def _sizes(found: Found) -> list[int]:
    return sorted({events for _, events in found})


def _millions(events: int) -> str:
    return f"{events / 1e6:g} M"


if __name__ == "__main__":
    sys.exit(main())
