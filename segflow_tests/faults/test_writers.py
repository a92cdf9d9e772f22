"""Several processes that write at once: the same partition, different ones, and a step that was given up and lives on."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from segflow import tables
from segflow.storage import Storage
from segflow_tests.faults.daemon import opened
from segflow_tests.faults.days import DAYS, INJECTIONS, SEED, Days, backfill, commits
from segflow_tests.faults.nursery import Child
from segflow_tests.storage.samples import VISITS, day, numbers, start

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("own", [True, False])
def test_four_processes_write_at_once(connection: duckdb.DuckDBPyConnection, tmp_path: Path, own: bool) -> None:
    """Ten rounds of four processes, which write a day of their own, or all the same day. Holds afterwards: no write
    failed; each day has the rows of one write; the version before each is whole too; nobody's commit was lost.
    """
    writers = [start("write_on_command", tmp_path, number if own else 1) for number in range(1, 5)]
    for turn in range(INJECTIONS):
        for process in writers:
            assert process.stdin is not None
            process.stdin.write("tables\n")
            process.stdin.flush()
        for process in writers:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n", process.communicate()[1]
        found = numbers(connection, Storage(str(tmp_path / "tables")))
        assert found == {day(number): [turn] * 3 for number in (range(1, 5) if own else (1,))}
    for process in writers:
        process.communicate(timeout=30)
    storage = Storage(str(tmp_path / "tables"))
    newest = storage.version(VISITS)
    assert newest is not None
    # Of equal rows, one write is enough.
    assert newest == 4 * INJECTIONS if own else INJECTIONS <= newest <= 4 * INJECTIONS
    for version in range(1, newest + 1):
        assert all(len(set(rows)) == 1 and len(rows) == 3 for rows in numbers(connection, storage, version).values())


def test_two_runs_make_the_same_days_at_once(days: Days) -> None:
    """Two commands for the same days, ten times, the second one begun a random time later. Holds afterwards: the rows
    are those of an undisturbed run, each day written once; a command that failed says why in one line, and does it when
    it is called again.
    """
    chance = random.Random(SEED)
    for turn in range(INJECTIONS):
        first = days.nursery.start(*backfill(chunk=4))
        first.ended.wait(chance.uniform(0.0, 1.5))
        second = days.nursery.start(*backfill(chunk=4))
        for child in (first, second):
            status, told = child.wait(), f"seed {SEED}, turn {turn}: {child.said}"
            assert status == 0 or child.said.splitlines()[-1].startswith("segflow: "), told
        days.check_readable()
        if first.status or second.status:
            assert days.nursery.run(*backfill(chunk=4)).status == 0
        days.check()
        days.restore()


def test_a_step_that_was_given_up_writes_nothing(days: Days) -> None:
    """A step that reads an old log is stopped (SIGSTOP) at a random moment before its commit. Its run is given up, the
    log grows, another process makes the days, and the step goes on. Holds afterwards: the rows are those of the whole
    log, written once; the step has failed, and says that its run is over.
    """
    chance, held, refused, tries = random.Random(SEED), 0, 0, 0
    command = ["backfill", f"{DAYS[0]}..{DAYS[-1]}", "--assets", "source_files,raw_events"]
    log = days.project.folder / "events.csv"
    whole = log.read_bytes()
    old = b"\n".join(line for number, line in enumerate(whole.split(b"\n")) if number % 3 != 1)
    while held < INJECTIONS:
        tries += 1
        days.restore()
        log.write_bytes(old)
        orphan = days.nursery.start(*command, "--force")
        while orphan.status is None and not any(name.startswith("raw_events") for name in days.open_runs()):
            time.sleep(0.01)
        orphan.ended.wait(chance.uniform(0.0, 0.8))
        orphan.send(signal.SIGSTOP)
        if not give_up(days, orphan) or commits(days.project, "raw_events"):
            orphan.send(signal.SIGKILL)
            orphan.wait()
            continue
        held += 1
        log.write_bytes(whole)
        successor = days.nursery.run(*command)
        assert successor.status == 0, f"seed {SEED}, try {tries}: {successor.said}"
        orphan.send(signal.SIGCONT)
        assert orphan.wait() != 0, f"seed {SEED}, try {tries}: {orphan.said}"
        refused += "raw_events is not written: the run" in orphan.said
        assert days.project.read(tables.RAW_EVENTS).to_pylist() == days.expected["raw_events"], (
            f"seed {SEED}, try {tries}"
        )
        assert set(commits(days.project, "raw_events").values()) == {1}
    print(f"seed {SEED}: {held} of {tries} stopped in time, {refused} refused at the commit")
    assert refused > 0


def give_up(days: Days, orphan: Child) -> bool:
    """What monitoring does with a run whose process does not answer; False if none is under way.

    Where a record is locked, monitoring tries again a tick later. Here the process may have been stopped while it held that
    lock, so it goes on for a moment before the next try.
    """
    while locked(days):
        orphan.send(signal.SIGCONT)
        time.sleep(0.01)
        orphan.send(signal.SIGSTOP)
    with opened(days.project) as instance:
        under_way = [run for run in instance.get_runs() if not run.is_finished]
        for run in under_way:
            instance.report_run_failed(run, "given up")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        return bool(under_way)


def locked(days: Days) -> bool:
    """Whether a process holds a database of Dagster's or MLflow's."""
    for file in days.project.folder.rglob("*.db"):
        try:
            with closing(sqlite3.connect(file, timeout=0.1)) as database:
                database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False
