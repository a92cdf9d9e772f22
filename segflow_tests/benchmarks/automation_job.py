"""`python -m segflow_tests.benchmarks.automation_job [DAYS]`: seconds that one evaluation of the automation conditions takes.

The log of an instance is filled as real runs would fill it, for so many days and four weeks, and nothing is computed. Then: the
first tick, which reads all of it; ticks on which nothing happened; and one after sessions of the first day have changed.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import yaml

START = date(2024, 1, 1)


def main(days: int) -> None:
    """Fill, evaluate, print."""
    with TemporaryDirectory() as name:
        columns = {"user_id": "user", "item_id": "item", "ts": "time"}
        values = {
            "source": {"events": {"path": "events.csv", "columns": columns, "event_type": "view"}},
            "calendar": {"start": START, "end": START + timedelta(days=days)},
        }
        settings = Path(name, "segflow.yaml")
        settings.write_text(yaml.safe_dump(values), encoding="utf-8")
        os.environ["SEGFLOW_CONFIG"] = str(settings)
        with dg.DagsterInstance.ephemeral() as instance:
            _measure(instance, days)


def _measure(instance: dg.DagsterInstance, days: int) -> None:
    # What is defined is read off the settings, which are there by now.
    from segflow.definitions import defs
    from segflow.defs.jobs import ASSETS
    from segflow.defs.materializes import PLANS
    from segflow_tests.defs.recorded import record, record_days, record_week

    record_days(instance, days)
    for back in range(5, 1, -1):
        record_week(instance, START + timedelta(weeks=days // 7 - back), list(ASSETS)[2:])
    now = datetime.combine(START + timedelta(days=days), datetime.min.time(), UTC)
    cursor: Any = None
    for tick in ("first tick", "nothing new", "nothing new", "one day changed"):
        if tick == "one day changed":
            record(instance, PLANS["sessions"], [str(START)], content="other")
        wall, cpu = time.perf_counter(), time.process_time()
        found = dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=cursor, evaluation_time=now)
        cursor = found.cursor
        print(
            f"{tick}: {found.total_requested} partitions asked for, {time.perf_counter() - wall:.2f} s, "
            f"of CPU {time.process_time() - cpu:.2f} s"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 730)
