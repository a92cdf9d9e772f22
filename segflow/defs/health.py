"""Whether Dagster's home can be used: it can be written, its databases are not locked, and no migration is due.

Nothing is created: a home without records is made by the first run.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import yaml

from segflow.findings import Finding, fault, ok, warning


def dagster_findings(home: Path) -> Iterator[Finding]:
    """What is found of `$DAGSTER_HOME`."""
    if not home.is_dir():
        yield fault("dagster", f"DAGSTER_HOME is {home}, which is no folder", "make it, or set DAGSTER_HOME to another")
        return
    if not os.access(home, os.W_OK):
        yield fault("dagster", f"{home}: cannot be written", "mend its rights, or set DAGSTER_HOME to another folder")
        return
    file = home / "dagster.yaml"
    if not file.is_file():
        yield warning(
            "dagster",
            f"{home}: no dagster.yaml: runs are not limited, long ranges are slow",
            "`segflow init` writes one",
        )
    databases = sorted(home.glob("history/**/*.db")) + sorted(home.glob("schedules/*.db"))
    elsewhere = file.is_file() and "storage" in (yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    if not databases and not elsewhere:
        yield ok("dagster", f"{home}: can be written; its records will be made by the first run")
        return
    if locked := [one for one in databases if not _free(one)]:
        yield fault(
            "dagster",
            f"{locked[0]}: is locked or cannot be written",
            "wait for the run that writes it, or end the process that holds it",
        )
        return
    yield _migrations(home)


def _free(database: Path) -> bool:
    """Whether a writer would get it within a second."""
    try:
        with sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=1) as opened:
            opened.execute("BEGIN IMMEDIATE")
            opened.execute("ROLLBACK")
    except sqlite3.Error:
        return False
    return True


def _migrations(home: Path) -> Finding:
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            storages = (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
            versions = [one.alembic_version() for one in storages if one is not None]
    except Exception as error:  # whatever a database or its driver raises is a finding here
        reason = " ".join(str(error).split())[:200]
        return fault(
            "dagster", f"{home}: its records cannot be opened: {reason}", "start its database, or correct dagster.yaml"
        )
    if any(found is not None and found[0] != found[1] for found in versions):
        return fault(
            "dagster",
            f"{home}: its records are of another version of Dagster",
            "copy them, then `dagster instance migrate`",
        )
    return ok("dagster", f"{home}: can be written, not locked, no migration is due")
