"""Disks that are full, read-only or somebody else's: one line that says so, nothing half-written, and a rerun completes."""

from __future__ import annotations

import random
import re
import shutil
import signal
from pathlib import Path

import pytest

from segflow.config import ComputeConfig
from segflow.errors import UserError
from segflow.storage import Storage, connect
from segflow_tests.faults.days import INJECTIONS, SEED, Days, backfill
from segflow_tests.faults.places import RIGHTS_COUNT, cannot, full_but_for, read_only, small_disk
from segflow_tests.storage.samples import NAMES, VISITS, day, numbers, start, visits

pytestmark = pytest.mark.faults


def noise(rows: int) -> str:
    """So many rows that cannot be compressed: about 80 bytes each."""
    return (
        f"SELECT DATE '{day(1)}' AS day, md5(i::VARCHAR) AS user_id, 1 AS number, random() AS share, 'view' AS kind, "
        f"[md5(random()::VARCHAR)] AS items FROM range({rows}) AS users(i)"
    )


@pytest.mark.parametrize("seed", range(SEED, SEED + INJECTIONS))
def test_disk_full_while_a_table_is_written(tmp_path: Path, seed: int) -> None:
    """Room for a random part of a write. Holds afterwards: the version before can be read; the message names the table
    and says to make room; with room, the same write succeeds.
    """
    chance = random.Random(seed)
    with (
        small_disk(tmp_path / "disk", "8m") as disk,
        connect(ComputeConfig(spill=str(tmp_path / "spill"), threads=1)) as connection,
    ):
        storage = Storage(str(disk / "tables"))
        storage.write(connection, VISITS, visits(1, 2), [(day(1),), (day(2),)])
        with full_but_for(disk, chance.randrange(500_000)):
            with pytest.raises(UserError, match=r"disk/tables/visits \(storage.root\): no room .* make room") as told:
                storage.write(connection, VISITS, noise(20_000), [(day(1),)])
            assert "\n" not in str(told.value)
            assert numbers(connection, storage) == {day(1): [0] * 3, day(2): [0] * 3}
        with full_but_for(disk, 0), pytest.raises(UserError, match=r"disk/tables/names \(storage.root\): no room"):
            storage.write(connection, NAMES, "SELECT 'i' AS item_id, 'new' AS name")
        storage.write(connection, VISITS, noise(20_000), [(day(1),)])
        storage.write(connection, NAMES, "SELECT 'i' AS item_id, 'new' AS name")
        assert {one: len(found) for one, found in numbers(connection, storage).items()} == {day(1): 20_000, day(2): 3}


@pytest.mark.parametrize("seed", range(SEED, SEED + INJECTIONS))
def test_disk_full_while_a_step_spills(tmp_path: Path, seed: int) -> None:
    """Room for a random part of what does not fit into memory. Holds afterwards: the message names the folder and says
    to make room; the folder is empty; with room, the same step succeeds.
    """
    room = random.Random(seed).randrange(4_000_000)
    with small_disk(tmp_path / "disk", "64m") as disk:
        compute = ComputeConfig(spill=str(disk / "spill"), threads=1, memory_limit="16MB")
        big = "CREATE TEMP TABLE big AS SELECT i, md5(i::VARCHAR) AS text FROM range(500_000) AS t(i)"
        with full_but_for(disk, room):
            with (
                pytest.raises(UserError, match=r"disk/spill \(compute.spill\): no room .* make room"),
                connect(compute) as one,
            ):
                one.execute(big)
            assert list((disk / "spill").iterdir()) == []
        with connect(compute) as one:
            one.execute(big)


def test_spilled_rows_of_killed_processes_do_not_stay(tmp_path: Path) -> None:
    """SIGKILL to ten processes that have spilled. Holds afterwards: whoever comes next removes what they left."""
    for _ in range(INJECTIONS):
        process = start("spill_until_killed", tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "spilled\n"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        (left,) = (tmp_path / "spill").iterdir()
        assert sum(file.stat().st_size for file in left.iterdir()) > 1_000_000
    with connect(ComputeConfig(spill=str(tmp_path / "spill"), threads=1)):
        assert len(list((tmp_path / "spill").iterdir())) == 1


def test_disk_full_at_any_moment_of_a_command(days: Days) -> None:
    """Everything on one disk, with random room for what days take: tables, spilled rows, Dagster's and MLflow's
    records. Holds afterwards: one line says what is full; what can be read is whole; with room, a rerun completes, with
    nothing left open.
    """
    if not days.own_disk:
        cannot("needs to mount a small file system")
    chance, failed = random.Random(SEED), 0
    disk = days.project.folder
    for turn in range(4 * INJECTIONS):
        if failed == INJECTIONS:
            break
        with full_but_for(disk, chance.randrange(1_200_000)):
            child = days.nursery.run(*backfill(chunk=2))
        failed += child.status != 0
        told = f"seed {SEED}, turn {turn}: {child.said}"
        if child.status:
            assert re.match("segflow: .*(no room is left|cannot be read or written)", child.said.splitlines()[-1]), told
        else:
            days.check()
            days.restore()
        days.check_readable()
    assert failed == INJECTIONS
    assert days.nursery.run(*backfill()).status == 0
    days.check()


def test_a_read_only_disk(tmp_path: Path) -> None:
    """The file system becomes read-only, ten times. Holds afterwards: tables can be read; one line names what cannot be
    written; once it can be written again, the write succeeds.
    """
    with (
        small_disk(tmp_path / "disk", "8m") as disk,
        connect(ComputeConfig(spill=str(tmp_path / "spill"), threads=1)) as connection,
    ):
        storage = Storage(str(disk / "tables"))
        for number in range(INJECTIONS):
            storage.write(connection, VISITS, visits(1, number=number), [(day(1),)])
            with read_only(disk):
                with pytest.raises(
                    UserError, match=r"disk/tables/visits \(storage.root\): is on a read-only file system"
                ):
                    storage.write(connection, VISITS, visits(1, number=99), [(day(1),)])
                with (
                    pytest.raises(UserError, match=r"disk/spill \(compute.spill\): is on a read-only file system"),
                    connect(ComputeConfig(spill=str(disk / "spill"))),
                ):
                    raise AssertionError("never here")
                assert numbers(connection, storage) == {day(1): [number] * 3}


@pytest.mark.parametrize("seed", range(SEED, SEED + INJECTIONS))
def test_permission_denied(tmp_path: Path, seed: int) -> None:
    """One of the folders or files of a table may not be used, by a process that is not above rights (as root without
    CAP_DAC_OVERRIDE). Holds afterwards: one line names it; nothing has changed; with its rights back, the write
    succeeds.
    """
    if RIGHTS_COUNT and not shutil.which(RIGHTS_COUNT[0]):
        cannot("needs setpriv, or a user who is not root")
    chance = random.Random(seed)
    with connect(ComputeConfig(spill=str(tmp_path / "spill"), threads=1)) as connection:
        storage = Storage(str(tmp_path / "tables"))
        storage.write(connection, VISITS, visits(1), [(day(1),)])
        table = storage.folder(VISITS)
        places = [table / "_delta_log", table / f"day={day(1)}", tmp_path / "spill", storage.files(VISITS)[0][1]]
        place = chance.choice(places)
        mode = place.stat().st_mode
        place.chmod(0o500 if place.is_dir() else 0)
        try:
            said, errors = start("write_once", tmp_path, 9, under=RIGHTS_COUNT).communicate(timeout=60)
        finally:
            place.chmod(mode)
        assert "may not be used by this user" in said, f"seed {seed}, {place}: {said}{errors}"
        assert said.startswith((str(table), str(place))), said
        assert said.count("\n") == 1
        assert numbers(connection, storage) == {day(1): [0] * 3}
        assert start("write_once", tmp_path, 9, under=RIGHTS_COUNT).communicate(timeout=60)[0] == ""
        assert numbers(connection, storage) == {day(1): [9] * 3}
