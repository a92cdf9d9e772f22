"""One measurement: a job in a process of its own, its seconds, its processor seconds and its peak of memory.

`python -m segflow_tests.benchmarks.measure JOB LOG OUT [MEMORY_LIMIT]` is that process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from pathlib import Path

JOBS = ("floor", "plain floor", "ours", "polars")
_ROOT = Path(__file__).parents[2]
_THREADS = {"POLARS_MAX_THREADS": "2"}


@dataclass(frozen=True)
class Measurement:
    """seconds: of the job without the imports before it. cpu: processor seconds of the process. peak: bytes of memory.

    died: how the process ended if it did not finish; the figures are then those up to its end.
    """

    job: str
    rows: int
    seconds: float
    cpu: float
    peak: int
    died: str | None = None

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds


def measure(job: str, rows: int, log: Path, out: Path, memory_limit: str | None = None) -> Measurement:
    """Run `job` on the log of `rows` rows, its outputs under `out`, which must not exist."""
    own = [job, str(log), str(out), *([memory_limit] if memory_limit else [])]
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complaint:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, *own], cwd=_ROOT, env=os.environ | _THREADS, stdout=said, stderr=complaint
        )
        # Only wait4 tells what this one child took.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        said.seek(0)
        complaint.seek(0)
        died = None
        if code == 0:
            seconds = float(said.read())
        else:
            died = (complaint.read().strip().splitlines() or [f"ended by signal {-code}"])[-1]
    name = f"{job} in {memory_limit}" if memory_limit else job
    return Measurement(name, rows, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, died)


class _WithoutPandas(MetaPathFinder):
    """Arrow imports pandas, wherever it is installed, only to ask whether it was given a data frame."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def _run(job: str, log: Path, out: Path, memory_limit: str | None) -> float:
    """The seconds of `job`. What the other jobs need is not imported: it would count as memory."""
    sys.meta_path.insert(0, _WithoutPandas())
    if job == "ours":
        from segflow_tests.benchmarks import full_job

        began = time.perf_counter()
        full_job.run(log, out, memory_limit)
    elif job == "polars":
        from segflow_tests.benchmarks import polars_job

        began = time.perf_counter()
        polars_job.run(log, out)
    else:
        from segflow_tests.benchmarks import floor_job

        began = time.perf_counter()
        floor_job.run(log, out, provenance=job == "floor")
    return time.perf_counter() - began


if __name__ == "__main__":
    print(_run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else None))
