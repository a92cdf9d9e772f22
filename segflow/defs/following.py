"""What is due: which partitions were never made or are out of date, and whether all that they read is there.

Schedules and automation conditions ask here; all answers come from provenance, so nothing is remembered between two looks.

Lives here: which weeks are followed, which changes are, and what a partition waits for. Does not live here: who asks, and how it
becomes a run (``schedules``, ``automation``), and what content digests mean (``provenance``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from functools import cache

import dagster as dg

from segflow.defs.jobs import ASSETS
from segflow.defs.materializes import PLANS, Plan
from segflow.defs.partitions import CONFIG, DAY, SAME_WEEK, SNAPSHOT, WEEK, Window
from segflow.defs.provenance import Made, Provenance, partition_day
from segflow.tables import Table

CALENDAR = CONFIG.calendar
SNAPSHOT_ASSETS = frozenset([*ASSETS["models_week"], *ASSETS["segments_week"]])
"""Made by `weekly_snapshot`; everything else of a week follows from them."""

Promised = Collection[tuple[str, str]]
"""Tables with partition keys that are made before, in the same run."""


@cache
def plan_of(table: str) -> Plan:
    """The plan that writes `table`."""
    return next(plan for plan in PLANS.values() for one in plan.tables if one.name == table)


def ended_days(now: datetime) -> list[date]:
    """The days of the calendar that are over at `now` (UTC), in order."""
    end = min(now.date(), CALENDAR.end) if CALENDAR.end else now.date()
    return [CALENDAR.start + number * DAY for number in range((end - CALENDAR.start).days)]


def followed_weeks(now: datetime) -> list[date]:
    """The last `automation.followed_weeks` weeks that are over at `now` and can be snapshots, in order."""
    end = min(now.date(), CALENDAR.end) if CALENDAR.end else now.date()
    newest = CALENDAR.week(end) - WEEK
    weeks = [newest - back * WEEK for back in range(CONFIG.automation.followed_weeks)]
    return sorted(week for week in weeks if week >= CALENDAR.first_snapshot)


class Following:
    """One look at what is made, and at what has changed since."""

    def __init__(self, provenance: Provenance, now: datetime):
        self.provenance = provenance
        self.weeks = followed_weeks(now)
        self._made: dict[str, Mapping[str, Made]] = {}
        self._settled: dict[tuple[str, str], bool] = {}
        self._lacking: dict[tuple[str, str, str], str | None] = {}

    def made(self, plan: Plan, key: str) -> list[Made] | None:
        """What the tables of `plan` recorded of the partition `key`; None if one was never made."""
        found = [made for table in plan.tables if (made := self._of(table.name).get(key))]
        return found if len(found) == len(plan.tables) else None

    def candidates(self, plan: Plan) -> list[str]:
        """The partitions of `plan` that are looked after: all days that were made, the followed weeks, and their segments."""
        if plan.partitions is None:
            return [""]
        if _by_day(plan.tables[0]):
            return sorted({key for table in plan.reads if _by_day(table) for key in self._of(table.name)})
        weeks = [week.isoformat() for week in self.weeks]
        if len(plan.tables[0].partitions) == 1:
            return weeks
        return [key for week in weeks for key in self.segments(week) or ()]

    def segments(self, week: str) -> Sequence[str] | None:
        """The partition keys of the segments that live in `week`; None as long as it is not known who belongs to them."""
        made = self._of("user_segments").get(week)
        if made is None or made.aspects is None:
            return None
        return [dg.MultiPartitionKey({"week": week, "segment": segment}) for segment in sorted(made.aspects)]

    def changed(self, plan: Plan, key: str) -> list[str]:
        """The tables that `key` follows and that differ from what it was made of; none for one that was never made.

        Followed are changes of the same cadence. A catalogue that grows, or a late event in the history of a week, leave a
        partition out of date for all to see, but making it again is for people to decide.
        """
        made = self.made(plan, key)
        if made is None:
            return []
        now = self.provenance.contents(plan, key)
        followed = [table.name for table, window in plan.reads.items() if _follows(plan, table, window)]
        return [
            name for name in followed if any(name in one.upstream and one.upstream[name] != now[name] for one in made)
        ]

    def same_code(self, plan: Plan, key: str) -> bool:
        """Whether `key` was made by the code and settings of now. Changed code is for people to run."""
        return all(one.code == plan.code_version for one in self.made(plan, key) or ())

    def settled(self, plan: Plan, key: str) -> bool:
        """Whether `key` was made, and neither it nor what it follows has changed since."""
        asked = (plan.name, key)
        if asked not in self._settled:
            self._settled[asked] = False  # a ledger reads its own earlier weeks, never this one
            self._settled[asked] = (
                self.made(plan, key) is not None
                and not self.changed(plan, key)
                and all(
                    self.settled(plan_of(table.name), one)
                    for table, window in plan.reads.items()
                    if _follows(plan, table, window)
                    for one in self._there(table, window, key)
                )
            )
        return self._settled[asked]

    def waits_for(self, plan: Plan, key: str, promised: Promised = ()) -> str | None:
        """The first thing that `key` reads and that is not there or not up to date, by name; None if it can be made."""
        for table, window in plan.reads.items():
            if (table.name, key) in promised:
                continue
            asked = (table.name, window.name, key)
            if asked not in self._lacking:
                self._lacking[asked] = self._lack(plan, table, window, key)
            if self._lacking[asked] is not None:
                return self._lacking[asked]
        return None

    def _lack(self, plan: Plan, table: Table, window: Window, key: str) -> str | None:
        needed = self._needed(plan, table, window, key)
        if needed is None:
            return f"{table.name} of {key}"
        upstream = plan_of(table.name)
        for one in needed:
            if not self.settled(upstream, one):
                state = "is not made" if self.made(upstream, one) is None else "is not up to date"
                return f"{table.name}{f' of {one}' if one else ''}, which {state}"
        return None

    def _needed(self, plan: Plan, table: Table, window: Window, key: str) -> Sequence[str] | None:
        """The partitions of `table` without which `key` is not made; None if they cannot all be."""
        if not table.partitions:
            return [""]
        assert window.days is not None
        day = partition_day(key)
        first, last = window.days(day, day)
        if _by_day(table):
            if CALENDAR.end and last > CALENDAR.end:
                if not _by_day(plan.tables[0]):
                    return None
                last = CALENDAR.end
            first = max(first, CALENDAR.start)
            return [(first + number * DAY).isoformat() for number in range((last - first).days)]
        if len(table.partitions) == 2:
            return self.segments(day.isoformat())
        # Of earlier weeks those that are followed; older ones are taken as they are.
        return [week.isoformat() for week in {*self.weeks, day} if first <= week < last]

    def _there(self, table: Table, window: Window, key: str) -> Collection[str]:
        """The partitions of `table` in the window around `key` that were made."""
        if window.days is None or not key:
            return self.provenance.keys(table.name)
        day = partition_day(key)
        return self.provenance.keys(table.name, window.days(day, day))

    def _of(self, asset: str) -> Mapping[str, Made]:
        if asset not in self._made:
            self._made[asset] = self.provenance.made(asset)
        return self._made[asset]


def _by_day(table: Table) -> bool:
    return table.partitions == ("day",)


def _follows(plan: Plan, table: Table, window: Window) -> bool:
    """Whether a change of `table` makes a partition of `plan` due again."""
    if plan.partitions is None:
        return True
    if _by_day(plan.tables[0]):
        # Of source files the rows of the day; of a catalogue nothing.
        return window is not SNAPSHOT
    if not table.partitions or _by_day(table):
        return False
    return window is SAME_WEEK or plan.name not in SNAPSHOT_ASSETS
