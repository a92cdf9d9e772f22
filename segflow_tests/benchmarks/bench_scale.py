"""`make bench-scale`: how time, memory and tables of every stage grow with the log, and what 1e9 events would take.

A project of each size is generated and made, each stage in a process of its own, so that what a stage takes can be told apart.
Results are kept as JSON after each stage; a size that is there is not run again. Nothing here asserts a time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from segflow.errors import UserError
from segflow_tests.benchmarks.scale_bounds import bound_rows
from segflow_tests.benchmarks.scale_growth import GENERATE, growth_rows, measured_rows, outlook_rows, text, with_tables
from segflow_tests.benchmarks.scale_job import DAY_STAGES, NOTHING, STAGES

_ROOT = Path(__file__).parents[2]
SHAPE = {"days": 42, "events_per_user": 100, "items": 2_000}
"""Of every log. Users grow with events; the catalogue does not, so that what grows is told by one number."""
WHOLE_UP_TO = 10_000_000
"""Events up to which all stages are run; above it those up to sessions."""
_BYTES_PER_EVENT, _BYTES_PER_EVENT_OF_DAYS = 1_200, 400
_START_UPS = 3
_GENERATE = "import sys; from segflow.cli import main; sys.exit(main())"


class StageError(Exception):
    """A stage did not finish; the message is the last that it said."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not there yet, and print it; 1 if a stage failed."""
    parser = argparse.ArgumentParser(prog="bench-scale", description=__doc__)
    parser.add_argument("--sizes", default="1e5,1e6,1e7,1e8", help="events of the logs, separated by commas")
    parser.add_argument("--folder", type=Path, help="where projects go, for good; a temporary folder without it")
    parser.add_argument(
        "--results", type=Path, default=Path("bench-scale.json"), help="the JSON that is kept and gone on with"
    )
    parser.add_argument("--stages", help="only these stages, separated by commas")
    parser.add_argument("--markdown", type=Path, help="put the tables into this page, and measure nothing")
    options = parser.parse_args(arguments)
    results = read(options.results)
    if options.markdown:
        page = options.markdown.read_text(encoding="utf-8")
        options.markdown.write_text(with_tables(page, results), encoding="utf-8")
        return 0
    try:
        chosen = _chosen(options.stages)
        with _scratch(options.folder) as folder:
            for events in sorted(int(float(size)) for size in options.sizes.split(",")):
                stages = [one for one in chosen if events <= WHOLE_UP_TO or one in DAY_STAGES]
                run_size(
                    folder, events, stages, results, lambda: _keep(options.results, results), options.folder is None
                )
    except (StageError, UserError) as error:
        print(error, file=sys.stderr)
        return 1
    print(summary(results))
    return 0


def _chosen(names: str | None) -> list[str]:
    """Stages in the order in which one reads the other, however they are named. Raises UserError for one that is none."""
    named = [name.strip() for name in names.split(",")] if names else list(STAGES)
    if unknown := [name for name in named if name not in STAGES]:
        raise UserError(f"--stages: no stage is called {unknown[0]!r}; there are {', '.join(STAGES)}")
    return [stage for stage in STAGES if stage in named]


def read(path: Path) -> dict[str, Any]:
    """The results that are kept in `path`, or none yet, with the machine that this is."""
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    machine = {
        "date": str(date.today()),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
    }
    return {"machine": machine, "shape": SHAPE, "start_up": {}, "sizes": {}}


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def _keep(path: Path, results: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    unfinished.rename(path)


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as made:
        yield Path(made)


def run_size(
    folder: Path,
    events: int,
    stages: Sequence[str],
    results: dict[str, Any],
    keep: Callable[[], None],
    remove: bool = True,
) -> None:
    """Generate a log of `events` and make `stages` of it, those that `results` lacks; `keep` is called after each.

    Raises StageError when a stage fails, and UserError where there is no room for the log and what is made of it.
    """
    project = folder / f"{events}"
    size = results["sizes"].get(str(events), {"stages": {}})
    done: dict[str, Any] = size["stages"]
    if all(stage in done for stage in stages):
        return
    if not (project / "segflow.yaml").exists():
        _check_room(folder, events)
        users = max(events // SHAPE["events_per_user"], 20)
        options = {"events": events, "users": users, "items": SHAPE["items"], "days": SHAPE["days"]}
        told = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        made = measure(folder, [sys.executable, "-c", _GENERATE, "generate", str(project), *told])
        rows = json.loads((project / "truth.json").read_text(encoding="utf-8"))["rows"]
        # What an earlier project of this size left is of no use to a new one.
        done.clear()
        del made["said"]
        done[GENERATE] = {**made, "bytes": _bytes(project), "rows": {"rows": rows}}
        size |= {"users": users, "events": rows}
        results["sizes"][str(events)] = size
        keep()
    if not results["start_up"]:
        results["start_up"] = _start_up(project)
    print(f"{events:,} events, {size['users']:,} users", flush=True)
    for stage in stages:
        if stage in done:
            continue
        done[stage] = run_stage(project, stage)
        keep()
        print(text([""] * 6, [row for row in measured_rows(results, events) if row[0] == stage]).strip(), flush=True)
    if remove:
        shutil.rmtree(project)


def _check_room(folder: Path, events: int) -> None:
    needed = events * (_BYTES_PER_EVENT if events <= WHOLE_UP_TO else _BYTES_PER_EVENT_OF_DAYS)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB are free and {needed / 1e9:.1f} GB needed for {events:,} events; name another "
            "--folder, or smaller --sizes"
        )


def _start_up(project: Path) -> dict[str, float]:
    """The median of a process with nothing to do. The first of all also makes what a new project lacks, and is left out."""
    runs = [run_stage(project, NOTHING) for _ in range(1 + _START_UPS)][1:]
    return {of: sorted(one[of] for one in runs)[_START_UPS // 2] for of in ("wall", "cpu", "peak")}


def run_stage(project: Path, stage: str) -> dict[str, Any]:
    """wall, cpu (seconds), peak (bytes of memory), bytes of the tables and their rows. Raises StageError."""
    own = {"DAGSTER_HOME": str(project), "SEGFLOW_CONFIG": str(project / "segflow.yaml"), "PYTHONPATH": str(_ROOT)}
    job = [sys.executable, "-m", "segflow_tests.benchmarks.scale_job", stage]
    made = measure(project, job, {**own, "DAGSTER_DISABLE_TELEMETRY": "1"})
    rows = json.loads(made.pop("said").splitlines()[-1])
    return {**made, "rows": rows, "bytes": sum(_bytes(project / "data" / "tables" / name) for name in rows)}


def measure(folder: Path, command: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """wall and cpu seconds, peak bytes of memory, and what a command said. Raises StageError when it fails."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complaint:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **(environment or {})}, stdout=said, stderr=complaint
        )
        # Only wait4 tells what this one child and its own children took.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
        for file in (said, complaint):
            file.seek(0)
        if code:
            last = (complaint.read().strip().splitlines() or ["nothing was said"])[-1]
            raise StageError(f"{' '.join(command[2:5])}: ended with {code}: {last}")
        peak = usage.ru_maxrss * 1024
        return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": peak, "said": said.read()}


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def summary(results: Mapping[str, Any]) -> str:
    """All tables, for a terminal."""
    start_up = results["start_up"]
    parts = [
        f"start-up of a process: {start_up['wall']:.1f} s, {start_up['cpu']:.1f} CPU s, {start_up['peak'] / 1e6:,.0f} MB"
    ]
    for events in sorted(map(int, results["sizes"])):
        head = [f"{events:,} events", "s", "CPU s", "peak MB", "tables MB", "rows"]
        parts.append(text(head, list(measured_rows(results, events))))
    parts.append(text(["growth", "CPU s", "last two sizes", "s", "held"], list(growth_rows(results))))
    parts.append(text(["memory", "settings", "allowed GB", "at sizes", "measured", "held"], list(bound_rows(results))))
    if rows := list(outlook_rows(results)):
        parts.append(text(["1e9 events, 1e7 users", "CPU hours", "in proportion", "peak GB", "tables GB"], rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
