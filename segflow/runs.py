"""A whole run on the command line: the catalogue, the days, then the weeks, side by side where they do not depend on
each other.

Training runs one thread per process: on two cores, two processes do in the time of one what two threads do in twice that.
A week is always worked on by the same process, which still has what its ranker learned from when its report is due.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from functools import partial
from typing import TypeVar

from segflow.errors import UserError

Result = TypeVar("Result")


def run(weeks: Sequence[date] | None, count: int, force: bool, rewrite_history: bool = False) -> None:
    """Materialize what is not up to date for `weeks`, or for the last `count` weeks that can be tested.

    rewrite_history: also segments of weeks that later ones were matched to, if they would change.
    """
    from segflow.events.preflight import preflight
    from segflow.settings import load

    began = time.time()
    config = load()
    chosen = config.calendar.testable(weeks) if weeks else config.calendar.last_testable(count)
    preflight(config, chosen)
    say = partial(_say, began)
    say("settings and sources are readable")

    from segflow.definitions import defs
    from segflow.defs.runner import open_runner

    with (
        open_runner(defs, say, force, rewrite_history) as runner,
        open_workers(config.compute.processes) as workers,
    ):

        def side_by_side(stage: str) -> None:
            stale = [week for week in chosen if runner.is_stale(stage, week)]
            say(f"— {stage} of {len(stale)} of {len(chosen)} weeks, {config.compute.processes} side by side —")
            mistakes = workers.each(partial(_stage, stage, began, force), stale)
            if found := [mistake for mistake in mistakes if mistake]:
                raise UserError("; ".join(found))
            runner.refresh()

        runner.tidy()
        runner.catalogue()
        runner.days(config.calendar.start, config.calendar.last_day + timedelta(days=1))
        side_by_side("models")
        for week in chosen:
            say(f"— segments of week {week} —")
            runner.segments(week)
        side_by_side("report")
        for week in sorted(chosen):
            runner.pooled(week)


def _say(began: float, message: str) -> None:
    print(f"[{time.time() - began:6.1f} s] {message}", flush=True)


class Workers:
    """Processes that weeks are dealt to. A week stays with the one that had it first."""

    def __init__(self, pools: Sequence[ProcessPoolExecutor]):
        self._pools = pools
        self._of_week: dict[date, ProcessPoolExecutor] = {}

    def each(self, work: Callable[[date], Result], weeks: Sequence[date]) -> list[Result]:
        """`work` of each week, in the order of `weeks`; raises what a piece of it raised."""
        return [one.result() for one in [self._pool(week).submit(work, week) for week in weeks]]

    def _pool(self, week: date) -> ProcessPoolExecutor:
        return self._of_week.setdefault(week, self._pools[len(self._of_week) % len(self._pools)])


@contextmanager
def open_workers(processes: int) -> Iterator[Workers]:
    """At most so many processes, each of which starts with its first week."""
    # Spawned, not forked: a forked child would share open databases and thread pools with its parent.
    method = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        yield Workers([stack.enter_context(ProcessPoolExecutor(1, mp_context=method)) for _ in range(processes)])


def _stage(stage: str, began: float, force: bool, week: date) -> str | None:
    """One stage of one week in a process of its own; returns the user's mistake, if there was one."""
    import warnings

    warnings.filterwarnings("ignore")
    from segflow.definitions import defs
    from segflow.defs.runner import open_runner

    try:
        with open_runner(defs, partial(_say, began), force) as runner:
            getattr(runner, stage)(week)
    except UserError as error:
        return str(error)
    return None
