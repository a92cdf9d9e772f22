"""A backfill on the command line: a span of days and weeks, in order and in chunks, again and again until all is there.

Lives here: what a span asks for, and in which order. Does not live here: making it (`defs/runner.py`), whole runs (`runs.py`).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from segflow.config import CalendarConfig, did_you_mean
from segflow.errors import UserError
from segflow.watching import Watcher

if TYPE_CHECKING:
    from segflow.config import Config
    from segflow.defs.materializes import Plan
    from segflow.defs.runner import Runner

_OF_DAYS = ("catalogue", "days")
"""The jobs that are not made week by week."""
DAY, WEEK = timedelta(days=1), timedelta(weeks=1)


@dataclass(frozen=True)
class Backfill:
    """What is asked for. first, last: days, both included; weeks are those that start between them.

    assets: names of assets, or of jobs for all of theirs; none for everything, and what the weeks read as well.
    days_at_once: days of one run, by default `compute.days_per_run`. A run that fails or is stopped loses at most the asset that
        it is at, for so many days.
    """

    first: date
    last: date
    assets: tuple[str, ...] = ()
    force: bool = False
    days_at_once: int | None = None


@dataclass(frozen=True)
class Piece:
    """One asset of a backfill: how many of its partitions it asks for, and which of them would be made now."""

    asset: str
    asked: int
    stale: list[str]

    def __str__(self) -> str:
        if not self.stale:
            return f"{self.asset}: up to date" if self.asked else f"{self.asset}: nothing to make yet"
        span = self.stale[0] if len(self.stale) == 1 else f"{self.stale[0]} … {self.stale[-1]}"
        return (
            f"{self.asset}: {len(self.stale):,} of {self.asked:,} partitions [{span}]" if self.stale[0] else self.asset
        )


def backfill(asked: Backfill, watcher: Watcher, dry_run: bool = False) -> tuple[list[Piece], list[date]]:
    """Say what would be made as things are, asset by asset, and make it, unless this is a dry run.

    More is made where an asset that others read changes. Returns what was to be made, and the weeks that have been.

    Raises UserError before anything is written, and RunFailedError when a step has failed; what had finished is kept.
    """
    from segflow.definitions import defs
    from segflow.defs.runner import open_runner

    config, weeks = _checked(asked, watcher)
    with open_runner(defs, watcher, asked.force) as runner:
        planned = [
            Piece(plan.name, len(keys), runner.stale(plan, keys)) for _, plan, keys in _chosen(config, asked, weeks)
        ]
        for piece in planned:
            watcher.say(f"to make: {piece}" if piece.stale else str(piece))
        if dry_run:
            return planned, []
        runner.tidy()
        if not any(piece.stale for piece in planned):
            return planned, weeks
        if asked.assets:
            _assets(runner, config, asked, watcher)
            return planned, []
        _everything(runner, config, asked, weeks, watcher)
    return planned, weeks


def _everything(runner: Runner, config: Config, asked: Backfill, weeks: Sequence[date], watcher: Watcher) -> None:
    from segflow.defs.runner import steps_of
    from segflow.runs import make_weeks
    from segflow.workers import open_workers

    first, end = _days(config.calendar, asked, weeks)
    watcher.begin("catalogue", steps_of("catalogue"))
    watcher.begin("days", steps_of("days", (end - first).days))
    runner.catalogue()
    runner.days(first, end, asked.days_at_once or config.compute.days_per_run)
    if weeks:
        with open_workers(config.compute.processes, watcher) as workers:
            make_weeks(config, runner, workers, watcher, weeks, asked.force)


def _checked(asked: Backfill, watcher: Watcher) -> tuple[Config, list[date]]:
    """The settings, and the testable weeks of the span. Raises UserError for a span outside the calendar."""
    from segflow.events.preflight import preflight
    from segflow.settings import load

    config = load()
    calendar = config.calendar
    if asked.last < asked.first:
        raise UserError(f"{asked.first}..{asked.last}: the last day comes before the first; swap them")
    if asked.first < calendar.start or asked.last > calendar.last_day:
        raise UserError(
            f"{asked.first}..{asked.last}: reaches beyond the calendar from {calendar.start} to {calendar.last_day}; "
            "choose days inside it, or correct calendar.start and calendar.end"
        )
    weeks = [] if asked.assets else _testable(calendar, asked)
    preflight(config, weeks)
    watcher.say("settings and sources are readable")
    left = [week for week in _weeks(calendar, asked) if week not in weeks]
    if left and not asked.assets:
        watcher.say(f"no history before, or no whole test week after: {', '.join(map(str, left))} are left out")
    return config, weeks


def _weeks(calendar: CalendarConfig, asked: Backfill) -> list[date]:
    """The weeks that start in the span and are over inside the calendar."""
    week = max(calendar.week(asked.first), calendar.first_snapshot)
    week += WEEK * (week < asked.first)
    last = min(asked.last, calendar.last_day - 6 * DAY)
    return [week + number * WEEK for number in range(max((last - week).days // 7 + 1, 0))]


def _testable(calendar: CalendarConfig, asked: Backfill) -> list[date]:
    last = calendar.week(calendar.last_day + DAY) - 2 * WEEK
    return [week for week in _weeks(calendar, asked) if week <= last]


def _days(calendar: CalendarConfig, asked: Backfill, weeks: Sequence[date]) -> tuple[date, date]:
    """The days to make, half-open: those asked for, and the history and the test week of each of `weeks`."""
    first, end = asked.first, asked.last + DAY
    if weeks:
        first = min(first, max(calendar.start, weeks[0] - calendar.history_weeks * WEEK))
        end = max(end, weeks[-1] + 2 * WEEK)
    return first, end


def _assets(runner: Runner, config: Config, asked: Backfill, watcher: Watcher) -> None:
    """The named assets and nothing else: weeks one after the other, all their assets before the next."""
    from segflow.defs.runner import keys_of, weight_of

    weeks = _weeks(config.calendar, asked)
    chosen = _chosen(config, asked, weeks)
    for job, plan, keys in chosen:
        watcher.begin(plan.name, weight_of(job, keys) if job in _OF_DAYS else len(weeks))
    for job, plan, keys in chosen:
        if job in _OF_DAYS:
            runner.asset(job, plan, keys, asked.days_at_once or config.compute.days_per_run)
    for week in weeks:
        for job, plan, _ in chosen:
            # Asked for now: the segments of a week are known once its ledger is there.
            if job not in _OF_DAYS and (keys := keys_of(job, week)):
                runner.asset(job, plan, keys)


def _chosen(config: Config, asked: Backfill, weeks: Sequence[date]) -> list[tuple[str, Plan, list[str]]]:
    """(job, asset, partition keys) of all that is asked for, in the order in which it is made."""
    from segflow.defs.jobs import ASSETS
    from segflow.defs.runner import day_keys, keys_of, plans_of

    known = {name for names in ASSETS.values() for name in names} | set(ASSETS)
    for name in asked.assets:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UserError(
                f"--assets {name}: no such asset or job{did_you_mean(near)}; docs/tables.md lists the assets"
            )
    if asked.assets:
        days, weeks = day_keys(asked.first, asked.last + DAY), _weeks(config.calendar, asked)
    else:
        days = day_keys(*_days(config.calendar, asked, weeks))
    found = []
    for job in ASSETS:
        keys = {"catalogue": [""], "days": days}.get(job) or [key for week in weeks for key in keys_of(job, week)]
        for plan in plans_of(job):
            names = {job, plan.name, *(table.name for table in plan.tables)}
            if (job in _OF_DAYS or weeks) and (not asked.assets or names & set(asked.assets)):
                found.append((job, plan, keys))
    return found
