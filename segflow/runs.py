"""A whole run on the command line: the catalogue, the days, then the weeks, side by side where they do not depend on
each other.

Training runs one thread per process: on two cores, two processes do in the time of one what two threads do in twice that.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date, timedelta
from functools import partial

from segflow.errors import UserError


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

    with open_runner(defs, say, force, rewrite_history) as runner:
        runner.catalogue()
        runner.days(config.calendar.start, config.calendar.last_day + timedelta(days=1))
        _side_by_side("models", runner.is_stale, chosen, began, force, config.compute.processes)
        for week in chosen:
            say(f"— segments of week {week} —")
            runner.segments(week)
        _side_by_side("report", runner.is_stale, chosen, began, force, config.compute.processes)


def _say(began: float, message: str) -> None:
    print(f"[{time.time() - began:6.1f} s] {message}", flush=True)


def _side_by_side(
    stage: str,
    is_stale: Callable[[str, date], bool],
    weeks: Sequence[date],
    began: float,
    force: bool,
    processes: int,
) -> None:
    stale = [week for week in weeks if is_stale(stage, week)]
    _say(began, f"— {stage} of {len(stale)} of {len(weeks)} weeks, {processes} side by side —")
    if not stale:
        return
    # Spawned, not forked: a forked child would share open databases and thread pools with its parent.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        mistakes = list(pool.map(partial(_stage, stage, began, force), stale))
    if found := [mistake for mistake in mistakes if mistake]:
        raise UserError("; ".join(found))


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
