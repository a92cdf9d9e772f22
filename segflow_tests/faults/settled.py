"""`python -m segflow_tests.faults.settled`: works on a project with the settings as they are when a line arrives.

Definitions are loaded once in a process, by the settings of then; so each line is answered by a child, which loads them anew,
in a second, since this process has loaded the libraries. A line is `make`, to make what is not up to date, and the answer is a
line of JSON: asset -> the partitions that were made, and asset -> its code version, of every asset that there is. Or it is a
list of arguments as JSON, and the answer is how `segflow` ends with them, and what it says. The settings come from the
environment.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from datetime import timedelta

import dagster as dg
import deltalake  # noqa: F401
import duckdb  # noqa: F401
import mlflow  # noqa: F401

MADE = {
    "catalogue": ["source_files", "items", "item_embeddings"],
    "days": ["raw_events", "events", "sessions", "user_days", "session_embeddings"],
}


def make() -> dict[str, dict[str, object]]:
    """Make what is not up to date, each asset after those that it reads."""
    from segflow.definitions import defs
    from segflow.defs.materializes import PLANS
    from segflow.defs.partitions import CALENDAR
    from segflow.defs.runner import day_keys, open_runner
    from segflow.watching import Watcher

    days = day_keys(CALENDAR.start, CALENDAR.last_day + timedelta(days=1))
    made: dict[str, object] = {}
    with open_runner(defs, Watcher()) as runner:
        for job, names in MADE.items():
            for name in names:
                keys = days if job == "days" else [""]
                if stale := runner.stale(PLANS[name], keys):
                    made[name] = stale
                    runner.asset(job, PLANS[name], keys)
                    runner.refresh()
                assert not runner.stale(PLANS[name], keys), name
    return {"made": made, "code": {name: plan.code_version for name, plan in PLANS.items()}}


def command(arguments: list[str]) -> dict[str, object]:
    """What the command `segflow` does with these arguments."""
    from segflow import cli

    with tempfile.TemporaryFile("w+") as said:
        kept = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(said.fileno(), number)
        status = cli.main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
        said.seek(0)
        return {"status": status, "said": said.read()}


if __name__ == "__main__":
    print(dg.__version__, file=sys.stderr)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            print(json.dumps(make() if line == "make\n" else command(json.loads(line))), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"the child ended with {status}")
