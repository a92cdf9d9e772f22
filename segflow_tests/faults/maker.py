"""`python -m segflow_tests.faults.maker`: makes the days of a project again and again, each time that a line arrives.

The runner of `segflow run` in one process that stays, since most of a short run is its start. A line on standard input names the
last day to make, or is `forget` to begin a new history of runs, or `today DAY` to set the clock by which the calendar goes; the
answer is a line of JSON: the error, or null.
The settings come from the environment.
"""

from __future__ import annotations

import json
import sys
from datetime import date, timedelta

import dagster as dg

from segflow.config import CalendarConfig
from segflow.definitions import defs
from segflow.defs.materializes import PLANS
from segflow.defs.partitions import CALENDAR
from segflow.defs.runner import Runner, day_keys
from segflow.errors import UserError
from segflow.watching import Watcher


def make(instance: dg.DagsterInstance, last: date) -> str | None:
    """Whatever of the files, the items and the days up to `last` is not up to date; returns the user's mistake."""
    runner = Runner(defs, instance, Watcher())
    try:
        for name in ("source_files", "items"):
            runner.asset("catalogue", PLANS[name], [""])
        for name in ("raw_events", "events"):
            runner.asset("days", PLANS[name], day_keys(CALENDAR.start, last + timedelta(days=1)))
    except UserError as error:
        return str(error)
    return None


def serve() -> None:
    """Answer until the input ends."""
    instance = dg.DagsterInstance.ephemeral()
    for line in sys.stdin:
        word, _, day = line.strip().rpartition(" ")
        answer = None
        if day == "forget":
            instance = dg.DagsterInstance.ephemeral()
        elif word == "today":
            setattr(CalendarConfig, "last_day", date.fromisoformat(day))  # noqa: B010
        else:
            answer = make(instance, date.fromisoformat(day))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
