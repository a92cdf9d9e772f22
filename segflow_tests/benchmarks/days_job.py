"""The days of a project, as a user has them: through Dagster, checked, versioned, in Delta tables.

`python -m segflow_tests.benchmarks.days_job month|day` prints seconds and the number of partitions made, in the project that the
environment names. `month` makes all days that files hold so far in one range run; `day` lets the sensor bring in what arrived.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Arrival:
    """Seconds of a range run over the month, and of the day that arrived after it; partitions of events that each made."""

    month: float
    day: float
    month_days: int
    touched_days: int

    @property
    def shares(self) -> float:
        """What the day cost, in days of the month."""
        return self.day / (self.month / self.month_days)


def measure_arrival(log: Path, folder: Path) -> Arrival:
    """A project of the generated `log` in `folder`, without its last file; then that file arrives.

    The last file holds late events of the days before it.
    """
    folder.mkdir()
    for name in ("segflow.yaml", "items.parquet"):
        shutil.copy(log / name, folder)
    shutil.copy(_ROOT / "dagster.yaml", folder)
    *first, last = sorted((log / "events").iterdir())
    (folder / "events").mkdir()
    for file in first:
        os.link(file, folder / "events" / file.name)
    month = _run("month", folder)
    os.link(last, folder / "events" / last.name)
    day = _run("day", folder)
    return Arrival(month["seconds"], day["seconds"], month["days"], day["days"])


def _run(what: str, folder: Path) -> dict[str, Any]:
    own = {"DAGSTER_HOME": str(folder), "SEGFLOW_CONFIG": str(folder / "segflow.yaml"), "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", __name__, what],
        cwd=folder,
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _month() -> int:
    import dagster as dg

    from segflow.definitions import defs
    from segflow.defs.provenance import Provenance

    with dg.DagsterInstance.get() as instance:
        catalogue = [dg.AssetKey("source_files"), dg.AssetKey("items")]
        defs.resolve_job_def("catalogue").execute_in_process(instance=instance, asset_selection=catalogue)
        days = sorted(Provenance(instance).made("source_files")[""].aspects or {})
        span = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]}
        defs.resolve_job_def("arrived_days").execute_in_process(instance=instance, tags=span)
    return len(days)


def _day() -> int:
    from segflow_tests.pipeline.follow import follow

    return len({partition for asset, partition in follow() if asset == "events"})


if __name__ == "__main__":
    began = time.perf_counter()
    import segflow.definitions  # noqa: F401  the import is paid once by a server that goes on

    began = time.perf_counter()
    made = _month() if sys.argv[1] == "month" else _day()
    print(json.dumps({"seconds": time.perf_counter() - began, "days": made}))
