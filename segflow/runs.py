"""A whole run on the command line: the catalogue, the days, then the weeks, side by side where they do not depend on
each other. `backfills.py` is the same for a span of days and weeks.

Training runs one thread per process: on two cores, two processes do in the time of one what two threads do in twice that.
A week is always worked on by the same process, which still has what its ranker learned from when its report is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING

from segflow.errors import RunFailedError, UserError
from segflow.watching import Watcher
from segflow.workers import Workers, as_worker, leave, open_workers

if TYPE_CHECKING:
    from segflow.config import Config
    from segflow.defs.runner import Runner


def run(
    weeks: Sequence[date] | None, count: int, force: bool, rewrite_history: bool = False, watcher: Watcher | None = None
) -> list[date]:
    """Materialize what is not up to date for `weeks`, or for the last `count` weeks that can be tested; returns them.

    rewrite_history: also segments of weeks that later ones were matched to, if they would change.

    Raises UserError before anything is written, and RunFailedError when a step has failed.
    """
    from segflow.events.preflight import preflight
    from segflow.settings import load

    watcher = watcher or Watcher()
    config = load()
    chosen = config.calendar.testable(weeks) if weeks else config.calendar.last_testable(count)
    preflight(config, chosen)
    watcher.say("settings and sources are readable")

    from segflow.definitions import defs
    from segflow.defs.runner import open_runner, steps_of

    first, end = config.calendar.start, config.calendar.last_day + timedelta(days=1)
    with (
        open_runner(defs, watcher, force, rewrite_history) as runner,
        open_workers(config.compute.processes, watcher) as workers,
    ):
        watcher.begin("catalogue", steps_of("catalogue"))
        watcher.begin("days", steps_of("days", (end - first).days))
        runner.tidy()
        runner.catalogue()
        runner.days(first, end)
        make_weeks(config, runner, workers, watcher, chosen, force)
    return chosen


def make_weeks(
    config: Config, runner: Runner, workers: Workers, watcher: Watcher, weeks: Sequence[date], force: bool
) -> None:
    """All that is made for weeks whose days are there, stage after stage. Raises RunFailedError."""
    from segflow.defs.runner import steps_of

    for stage in ("models", "segments", "report", "pooled"):
        watcher.begin(stage, len(weeks) * steps_of(stage))

    def side_by_side(stage: str) -> None:
        stale = [week for week in weeks if runner.is_stale(stage, week)]
        watcher.say(f"— {stage} of {len(stale)} of {len(weeks)} weeks, {config.compute.processes} side by side —")
        watcher.advance(stage, (len(weeks) - len(stale)) * steps_of(stage))
        mistakes = workers.each(partial(_stage, stage, force), stale)
        if found := [mistake for mistake in mistakes if mistake]:
            raise RunFailedError("; ".join(found))
        runner.refresh()

    side_by_side("models")
    for week in weeks:
        watcher.say(f"— segments of week {week} —")
        runner.segments(week)
    side_by_side("report")
    for week in sorted(weeks):
        runner.pooled(week)


def _stage(stage: str, force: bool, week: date) -> str | None:
    """One stage of one week in a process of its own; returns the user's mistake, if there was one."""
    import warnings

    warnings.filterwarnings("ignore")
    with as_worker() as watcher:
        from segflow.definitions import defs
        from segflow.defs.runner import open_runner

        try:
            with open_runner(defs, watcher, force) as runner:
                getattr(runner, stage)(week)
        except UserError as error:
            return str(error)
        except KeyboardInterrupt:
            leave()
    return None
