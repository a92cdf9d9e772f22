"""Processes killed in the middle of a write: the last good version stays readable and complete."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pytest

from segflow.storage import Storage
from segflow_tests.faults.days import INJECTIONS, SEED
from segflow_tests.storage.samples import MANY, NAMES, VISITS, day, numbers, start, visits

Moment = Callable[[Path], None]


def after(seconds: float) -> Moment:
    """So long after a write began."""
    return lambda table: time.sleep(seconds)


def uncommitted_file(table: Path) -> None:
    """As soon as a data file of the new version is there, which is before its commit."""
    before = set(table.rglob("*.parquet"))
    deadline = time.monotonic() + 20
    while set(table.rglob("*.parquet")) <= before and time.monotonic() < deadline:
        time.sleep(0.0005)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL


def kill_writes(
    connection: duckdb.DuckDBPyConnection, storage: Storage, folder: Path, moments: Sequence[Moment]
) -> int:
    """Kill a process in the middle of a write at each of `moments`, and look at the table; how many writes were undone."""
    storage.write(connection, VISITS, visits(1, 2, users=MANY), [(day(1),), (day(2),)])
    undone = 0
    for turn, moment in enumerate(moments, 1):
        process = start("write_until_killed", folder, turn * 1000)
        assert process.stdout is not None
        # The second write of the process: the first also pays for what it loads.
        assert [process.stdout.readline() for _ in range(3)] == ["begin\n", "end\n", "begin\n"], process.communicate()
        moment(storage.folder(VISITS))
        kill(process)

        found = numbers(connection, storage)
        written = {number for values in found.values() for number in values}
        assert len(written) == 1, "rows of two versions"
        assert [len(values) for values in found.values()] == [MANY, MANY]
        assert written.pop() >= turn * 1000
        before = numbers(connection, storage, (storage.version(VISITS) or 0) - 1)
        assert [len(values) for values in before.values()] == [MANY, MANY]
        undone += found[day(1)][0] == turn * 1000
    return undone


def uncommitted(storage: Storage) -> set[str]:
    """The data files that no version has."""
    committed = {
        Path(file).name
        for number in range((storage.version(VISITS) or 0) + 1)
        if (opened := storage.open(VISITS, number)) is not None
        for file in opened.file_uris()
    }
    stored = {file.name for file in storage.folder(VISITS).rglob("*.parquet")}
    assert committed <= stored
    return stored - committed


@pytest.mark.faults
def test_killed_at_random_moments_of_a_write(
    connection: duckdb.DuckDBPyConnection, storage: Storage, tmp_path: Path
) -> None:
    """SIGKILL at a random moment of a write of two days. Holds afterwards: both days have the rows of one and the same
    write, the version before is whole too, and the next write succeeds.
    """
    chance = random.Random(SEED)
    undone = kill_writes(connection, storage, tmp_path, [after(chance.uniform(0, 0.15)) for _ in range(INJECTIONS)])
    print(f"seed {SEED}: {undone} of {INJECTIONS} writes were undone")
    assert storage.write(connection, VISITS, visits(1, number=1), [(day(1),)]).rows == {(day(1),): 3}
    assert numbers(connection, storage)[day(1)] == [1, 1, 1]


def test_a_kill_in_the_middle_of_a_write_leaves_a_whole_version(
    connection: duckdb.DuckDBPyConnection, storage: Storage, tmp_path: Path
) -> None:
    moments = [after(0), after(0.02), after(0.05), after(0.1), uncommitted_file, uncommitted_file]
    assert kill_writes(connection, storage, tmp_path, moments) > 0, "every kill came too late to interrupt a write"
    # On a busy machine a kill may come too late.
    tries = 8
    while not uncommitted(storage) and tries:
        kill_writes(connection, storage, tmp_path, [uncommitted_file])
        tries -= 1
    assert tries, "no kill came between the data files and the commit"

    # The next run goes on as if nothing had happened.
    written_again = storage.write(connection, VISITS, visits(1, number=1), [(day(1),)])
    assert written_again.rows == {(day(1),): 3}
    assert numbers(connection, storage)[day(1)] == [1, 1, 1]
    assert len(numbers(connection, storage)[day(2)]) == MANY


def test_a_kill_between_two_tables_leaves_the_first_new_and_the_second_old(
    connection: duckdb.DuckDBPyConnection, storage: Storage, tmp_path: Path
) -> None:
    storage.write(connection, VISITS, visits(1, number=0), [(day(1),)])
    storage.write(connection, NAMES, "SELECT 'i' AS item_id, 'old' AS name")
    process = start("write_two_tables", tmp_path, "die")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert numbers(connection, storage) == {day(1): [1, 1, 1]}
    assert storage.read(connection, NAMES)["name"].to_pylist() == ["old"]

    version = storage.version(VISITS)
    process = start("write_two_tables", tmp_path, "survive")
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
    # What was there is not written again.
    assert storage.version(VISITS) == version
    assert storage.read(connection, NAMES)["name"].to_pylist() == ["new"]
