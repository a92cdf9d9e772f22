"""What the settings keep no longer is removed: rows, older versions, runs, pages, caches, and what was left lying about.

Lives here: what goes, in which order, and the line that says so. Does not live here: how tables forget (`storage/erasing.py`),
and that what is gone is not made again (`defs/kept.py`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from segflow import tables
from segflow.config import Config
from segflow.erasure.files import files_below
from segflow.errors import UserError
from segflow.storage import Storage, connect, erasing
from segflow.storage.partitions import Partition
from segflow.tables import Table
from segflow.watching import Watcher

RESULTS = (tables.EVALUATION_REPORT, tables.POOLED_VERDICT, tables.CHAMPION, tables.SERVED_RANKER)
"""What was found out stays: it tells of nobody."""
_DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Due:
    """What is no longer kept.

    partitions: table -> those that go, with their rows; versions: table -> data files of older versions; files: kind -> files;
    runs: ids of MLflow runs; raw_before, weeks_before: what is over from now on.
    """

    partitions: dict[str, dict[Partition, int]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    files: dict[str, list[Path]] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    raw_before: date | None = None
    weeks_before: date | None = None

    def facts(self) -> dict[str, Any]:
        """For programs, and for the log."""
        return {
            "rows": {name: sum(found.values()) for name, found in self.partitions.items() if found},
            "files_of_older_versions": {name: count for name, count in self.versions.items() if count},
            "files": {kind: len(found) for kind, found in self.files.items() if found},
            "runs": len(self.runs),
            "raw_before": None if self.raw_before is None else str(self.raw_before),
            "weeks_before": None if self.weeks_before is None else str(self.weeks_before),
        }

    def __bool__(self) -> bool:
        facts = self.facts()
        return any(facts[name] for name in ("rows", "files_of_older_versions", "files", "runs"))


def due(config: Config, today: date | None = None) -> Due:
    """What the settings keep no longer; changes nothing. Raises UserError while a run is under way."""
    _require_quiet()
    today = today or datetime.now(UTC).date()
    storage, wanted = Storage(config.storage.root, config.storage.options), config.retention
    raw, weeks = _raw_before(config, today), _weeks_before(config, storage)
    partitions: dict[str, dict[Partition, int]] = {}
    for table, first in (*_of_raw(raw), *_of_weeks(weeks)):
        found = {key: rows for key, rows in storage.rows(table).items() if isinstance(key[0], date) and key[0] < first}
        if found:
            partitions[table.name] = found
    versions = {} if wanted.versions_days is None else _versions(storage, wanted.versions_days)
    aged = (
        ("pages", config.report.folder, ".html", wanted.pages_days),
        ("vectors of texts", config.text.cache, "", wanted.cache_days),
        ("checkpoints", config.behavior.checkpoints, "", wanted.checkpoints_days),
        ("checkpoints of rankers", config.rankers.checkpoints, "", wanted.checkpoints_days),
    )
    files = {kind: list(_older(Path(folder), ending, days)) for kind, folder, ending, days in aged if days is not None}
    runs = [] if wanted.runs_days is None else _runs(config, wanted.runs_days)
    return Due(partitions, versions, files, runs, raw, weeks)


def retain(config: Config, found: Due, watcher: Watcher) -> None:
    """Remove what was found due, and append a line to `retention.log`. Each table in one commit; can be called again.

    The line comes first: from then on nothing that is about to lose its inputs is made again.
    """
    _require_quiet()
    storage = Storage(config.storage.root, config.storage.options)
    _log(Path(config.retention.log), found)
    with connect(config.compute, config.storage.root) as connection:
        for name, partitions in found.partitions.items():
            erasing.expire(storage, connection, tables.ALL[name], sorted(partitions))
            erasing.forget(storage, tables.ALL[name])
            watcher.say(f"{name}: {sum(partitions.values()):,} rows of {len(partitions):,} partitions")
    for name in found.versions:
        removed = erasing.prune(storage, tables.ALL[name], config.retention.versions_days or 1)
        watcher.say(f"{name}: {removed:,} files of older versions")
    for kind, files in found.files.items():
        for file in files:
            file.unlink(missing_ok=True)
        watcher.say(f"{kind}: {len(files):,} files")
    if found.runs:
        from segflow.tracking import Tracking
        from segflow.tracking.aged import remove_runs

        remove_runs(Tracking(config.tracking), found.runs)
        watcher.say(f"MLflow: {len(found.runs):,} runs")


def _require_quiet() -> None:
    from segflow.defs.records import under_way

    if busy := under_way():
        raise UserError(f"{', '.join(busy)} is under way and may read; wait for the end, or cancel it, then call again")


def _log(file: Path, found: Due) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **found.facts()}
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(line) + "\n")
        opened.flush()
        os.fsync(opened.fileno())


def _raw_before(config: Config, today: date) -> date | None:
    """Days before it lose their raw rows; no day whose events are still to be made, or to be made again."""
    import segflow.definitions  # noqa: F401  (registers the plans)
    from segflow.defs.kept import Over
    from segflow.defs.materializes import PLANS
    from segflow.defs.records import open_provenance

    if config.retention.raw_days is None:
        return None
    last = today - timedelta(days=config.retention.raw_days)
    days = [day.isoformat() for day in config.calendar.days() if day < last]
    with open_provenance() as provenance:
        waiting = provenance.stale(PLANS["events"], days)
    before = min([last, *map(date.fromisoformat, waiting)])
    return max(filter(None, (before, Over.read(config.retention.log).raw)))


def _weeks_before(config: Config, storage: Storage) -> date | None:
    from segflow.defs.kept import Over

    if config.retention.weeks is None:
        return None
    weeks = sorted({key[0] for key in storage.partitions(tables.USER_SEGMENTS) if isinstance(key[0], date)})
    kept = weeks[-config.retention.weeks :]
    over = Over.read(config.retention.log).weeks
    return max(filter(None, (kept[0] if kept else None, over)), default=None)


def _of_raw(before: date | None) -> Iterator[tuple[Table, date]]:
    if before is not None:
        yield from ((table, before) for table in (tables.RAW_EVENTS, tables.QUARANTINED_EVENTS))


def _of_weeks(before: date | None) -> Iterator[tuple[Table, date]]:
    """Weekly tables, each with the first week that a kept one still reads."""
    import segflow.definitions  # noqa: F401
    from segflow.defs.materializes import PLANS

    if before is None:
        return
    for table in tables.ALL.values():
        if table.partitions[:1] != ("week",) or table in RESULTS:
            continue
        windows = [plan.reads[table] for plan in PLANS.values() if table in plan.reads]
        if all(window.days is not None for window in windows):
            starts = [window.days(before, before)[0] for window in windows if window.days is not None]
            yield table, min([before, *starts])


def _versions(storage: Storage, days: int) -> dict[str, int]:
    found = {table.name: erasing.prune(storage, table, days, dry_run=True) for table in tables.ALL.values()}
    return {name: count for name, count in found.items() if count}


def _older(folder: Path, ending: str, days: int) -> Iterable[Path]:
    """Files that were last written more than so many days ago."""
    limit = time.time() - days * _DAY_SECONDS
    return (file for file in files_below(folder) if file.name.endswith(ending) and file.stat().st_mtime < limit)


def _runs(config: Config, days: int) -> list[str]:
    from segflow.tracking import Tracking
    from segflow.tracking.aged import aged_runs

    return aged_runs(Tracking(config.tracking), days)
