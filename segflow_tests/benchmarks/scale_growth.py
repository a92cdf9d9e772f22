"""What measurements of several sizes say about larger ones: growth exponents, extrapolation, and the tables that show both.

Pure: takes the results that `bench_scale` keeps as JSON and returns numbers and text. Nothing is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from segflow_tests.benchmarks.scale_bounds import bound_of, bound_rows
from segflow_tests.benchmarks.scale_job import STAGES

Results: TypeAlias = Mapping[str, Any]
"""`machine`, `shape`, `start_up` (wall, cpu, peak) and `sizes`: events as text -> facts of the log and `stages`."""

GENERATE = "generate"
TELLING_SECONDS = 2.0
"""Processor seconds beyond the start-up below which a size says nothing of a stage: the start-up itself varies by tenths."""
ALLOWED_EXPONENT = 1.1
BOUND_EVENTS = 1_000_000_000
BEGIN, END = "<!-- bench-scale -->", "<!-- /bench-scale -->"
_ROWS_COLUMN = 5


@dataclass(frozen=True)
class Growth:
    """How the work of a stage grows with events, as work = a * events ** exponent.

    cpu, wall: least squares over all sizes that tell, of processor seconds and of seconds; None where fewer than two do.
    last: of processor seconds between the two largest sizes, where what is constant weighs least.
    """

    stage: str
    cpu: float | None
    wall: float | None
    last: float | None

    @property
    def held(self) -> bool | None:
        """Whether neither exponent of processor seconds exceeds the allowed one, to the two digits shown; None: not told."""
        if self.cpu is None or self.last is None:
            return None
        return round(max(self.cpu, self.last), 2) <= ALLOWED_EXPONENT


@dataclass(frozen=True)
class Outlook:
    """What a stage is expected to take at a larger size: processor hours, bytes of memory and of tables.

    hours follow the exponent between the two largest sizes, `linear_hours` grow in proportion to events from the largest.
    """

    stage: str
    hours: float | None
    linear_hours: float
    peak: float
    table: float


def exponent(events: Sequence[float], work: Sequence[float]) -> float:
    """The slope of the least-squares line through log(work) over log(events); both must be positive, at least two sizes.

    Raises ValueError for fewer.
    """
    if len(events) < 2:
        raise ValueError("a slope needs two sizes")
    x, y = [math.log(one) for one in events], [math.log(one) for one in work]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((one - mean_x) ** 2 for one in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread


def growth(results: Results, stage: str) -> Growth:
    """The exponents of a stage over the sizes at which it works for `TELLING_SECONDS` beyond the start-up."""
    start = {of: _start_up(results, stage, of) for of in ("cpu", "wall")}
    telling = [(n, one) for n, one in _of_stage(results, stage) if one["cpu"] - start["cpu"] >= TELLING_SECONDS]
    if len(telling) < 2:
        return Growth(stage, None, None, None)
    events = [size for size, _ in telling]
    cpu, wall = ([one[of] - start[of] for _, one in telling] for of in ("cpu", "wall"))
    # A machine that was busy with other work when the start-up was measured can tell nothing by the clock.
    clock = exponent(events, wall) if min(wall) >= TELLING_SECONDS else None
    return Growth(stage, exponent(events, cpu), clock, exponent(events[-2:], cpu[-2:]))


def _of_stage(results: Results, stage: str) -> list[tuple[int, Mapping[str, float]]]:
    """(events, figures) of the sizes at which a stage was run, small to large."""
    return sorted(
        (int(events), size["stages"][stage]) for events, size in results["sizes"].items() if stage in size["stages"]
    )


def _start_up(results: Results, stage: str, of: str) -> float:
    # The generator is a command of its own that loads no definitions; its own start is part of it.
    return 0.0 if stage == GENERATE else float(results["start_up"][of])


def outlook(results: Results, stage: str, events: int = BOUND_EVENTS) -> Outlook | None:
    """What a stage would take at `events`; None for a stage that was run at one size only.

    Tables follow the line through the two largest sizes; so does memory, where no bound is promised.
    """
    found = _of_stage(results, stage)
    if len(found) < 2:
        return None
    largest, most = found[-1]
    work = max(most["cpu"] - _start_up(results, stage, "cpu"), 0.0)
    told = growth(results, stage).last
    times = events / largest
    promised = bound_of(results, stage, events)
    peak = _line(found, "peak", events) if promised is None else promised
    table = _line(found, "bytes", events)
    hours = None if told is None else work * times ** max(told, 0.0) / 3600
    return Outlook(stage, hours, work * times / 3600, peak, table)


def _line(found: Sequence[tuple[int, Mapping[str, float]]], of: str, events: int) -> float:
    """Never less than what was measured: what shrinks from size to size is noise."""
    (near, low), (far, high) = found[-2:]
    slope = max((high[of] - low[of]) / (far - near), 0.0)
    return high[of] + slope * (events - far)


def stages_of(results: Results) -> list[str]:
    """The stages that were run at any size, in their order."""
    run = {stage for size in results["sizes"].values() for stage in size["stages"]}
    return [stage for stage in (GENERATE, *STAGES) if stage in run]


def measured_rows(results: Results, events: int) -> Iterator[list[str]]:
    """Of one size: stage, seconds, processor seconds, peak of memory in MB, MB of tables, rows."""
    for stage in stages_of(results):
        one = results["sizes"][str(events)]["stages"].get(stage)
        if one is not None:
            rows = ", ".join(f"{count:,} {name}" for name, count in one["rows"].items()) if one["rows"] else ""
            yield [
                stage,
                f"{one['wall']:.1f}",
                f"{one['cpu']:.1f}",
                f"{one['peak'] / 1e6:,.0f}",
                f"{one['bytes'] / 1e6:,.1f}",
                rows,
            ]


def growth_rows(results: Results) -> Iterator[list[str]]:
    """Of every stage its exponents, and whether they are allowed."""
    for stage in stages_of(results):
        one = growth(results, stage)
        if one.held is None:
            yield [stage, "too small to tell", "", "", ""]
            continue
        held = "yes" if one.held else "no"
        yield [stage, _exponent(one.cpu), _exponent(one.last), _exponent(one.wall), held]


def _exponent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def outlook_rows(results: Results, events: int = BOUND_EVENTS) -> Iterator[list[str]]:
    """Of every stage what `events` are expected to take, and the sum of hours and of tables at the end."""
    found = [one for stage in stages_of(results) if (one := outlook(results, stage, events)) is not None]
    if not found:
        return
    for one in found:
        hours = "" if one.hours is None else f"{one.hours:,.1f}"
        yield [one.stage, hours, f"{one.linear_hours:,.1f}", f"{one.peak / 1e9:,.1f}", f"{one.table / 1e9:,.1f}"]
    hours = sum(one.linear_hours if one.hours is None else one.hours for one in found)
    linear, tables = sum(one.linear_hours for one in found), sum(one.table for one in found)
    most = max(one.peak for one in found)
    yield ["all", f"{hours:,.1f}", f"{linear:,.1f}", f"{most / 1e9:,.1f}", f"{tables / 1e9:,.1f}"]


def side_by_side(results: Results) -> Iterator[list[str]]:
    """A row a stage; for each size processor seconds, peak of memory in MB and MB of tables."""
    sizes = _sizes(results)
    for stage in stages_of(results):
        cells = [results["sizes"][str(events)]["stages"].get(stage) for events in sizes]
        cpu = [f"{one['cpu']:,.0f}" if one else "" for one in cells]
        peak = [f"{one['peak'] / 1e6:,.0f}" if one else "" for one in cells]
        table = [f"{one['bytes'] / 1e6:,.0f}" if one else "" for one in cells]
        yield [stage, " / ".join(cpu), " / ".join(peak), " / ".join(table)]


def _sizes(results: Results) -> list[int]:
    return sorted(map(int, results["sizes"]))


def with_tables(page: str, results: Results) -> str:
    """`page` with the tables between its two marks. Raises ValueError for a page without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{markdown(results)}\n\n{END}{after}"


def markdown(results: Results) -> str:
    """The tables of docs/scale.md."""
    machine, shape, start_up = results["machine"], results["shape"], results["start_up"]
    sizes = " / ".join(f"{events:.0e}".replace("e+0", "e") for events in _sizes(results))
    intro = (
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, {machine['memory'] / 1e9:.0f} GB, "
        f"Python {machine['python']}. Logs of {shape['days']} days, {shape['events_per_user']} events a user, "
        f"{shape['items']:,} items; one snapshot week. Every process takes {start_up['cpu']:.1f} processor seconds and "
        f"{start_up['peak'] / 1e6:,.0f} MB before it does anything; figures of sizes below include that, exponents do not."
    ) + (f" {results['note']}" if "note" in results else "")
    head = [f"events: {sizes}", "processor seconds", "peak of memory, MB", "tables, MB"]
    exponents = ["stage", "exponent, all sizes", "last two sizes", "by the clock", f"at most {ALLOWED_EXPONENT}"]
    bounds = ["stage", "settings", "allowed, GB", f"allowed at {sizes}", "measured", "held"]
    future = ["stage", "processor hours", "if in proportion", "peak of memory, GB", "tables, GB"]
    return "\n\n".join(
        [
            intro,
            _table(head, side_by_side(results)),
            _table(exponents, growth_rows(results)),
            _table(bounds, bound_rows(results)),
            _table(future, outlook_rows(results)),
        ]
    )


def _table(head: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: texts to the left, figures to the right."""
    lines = [list(head), *map(list, rows)]
    wide = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(size) if column in (0, _ROWS_COLUMN) else cell.rjust(size)
            for column, (cell, size) in enumerate(zip(line, wide, strict=True))
        ).rstrip()
        for line in lines
    )
