"""Checksums of data files: what was changed on disk is refused by name, and making the partition again mends it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import duckdb
import pytest

from segflow.errors import UserError
from segflow.storage import Storage, checksums
from segflow_tests.storage.samples import MODELS, VISITS, day, numbers, visits

Connection = duckdb.DuckDBPyConnection


def file_of(storage: Storage, number: int) -> Path:
    """The data file of a day."""
    (found,) = [path for key, path in storage.files(VISITS) if key == (day(number),)]
    return found


@pytest.fixture
def written(connection: Connection, storage: Storage) -> Storage:
    storage.write(connection, VISITS, visits(1, users=200), [(day(1),)])
    storage.write(connection, VISITS, visits(2, number=2, users=200), [(day(2),)])
    return storage


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_is_refused_and_mended(connection: Connection, written: Storage, seed: int) -> None:
    chance, file = random.Random(seed), file_of(written, 1)
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    with pytest.raises(UserError) as told:
        numbers(connection, written)
    assert str(told.value) == (
        f"{file}: its content is not what was written; restore it from a backup, or make it again with "
        "`segflow backfill 2024-01-01..2024-01-01 --assets visits --force`"
    )
    assert len(written.read(connection, VISITS, where={"day": day(2)})) == 200
    again = written.write(connection, VISITS, visits(1, users=200), [(day(1),)])
    assert again.replaced == [(day(1),)]
    assert numbers(connection, written) == {day(1): [0] * 200, day(2): [2] * 200}


def test_files_in_place_of_each_other_are_refused(connection: Connection, written: Storage) -> None:
    first, second = file_of(written, 1), file_of(written, 2)
    aside = first.with_name("aside")
    for old, new in ((first, aside), (second, first), (aside, second)):
        shutil.move(old, new)
    for number in (1, 2):
        with pytest.raises(UserError, match="its content is not what was written"):
            written.read(connection, VISITS, where={"day": day(number)})


def test_what_is_cut_gone_or_without_a_readable_checksum_is_told(connection: Connection, written: Storage) -> None:
    file = file_of(written, 1)
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=f"has {len(whole) - 100:,} bytes, {len(whole):,} were written"):
        numbers(connection, written)
    file.unlink()
    with pytest.raises(UserError, match=f"{file}: is gone"):
        numbers(connection, written)
    file.write_bytes(whole)
    assert len(numbers(connection, written)[day(1)]) == 200
    (kept,) = [one for one in (file.parents[1] / checksums.FOLDER).iterdir() if one.name.startswith(file.name)]
    kept.write_text("", encoding="ascii")
    file.touch()
    with pytest.raises(UserError, match=r"its checksum .* is unreadable"):
        numbers(connection, written)


def test_a_file_without_a_checksum_gets_one_once_it_was_compared(connection: Connection, written: Storage) -> None:
    """Of an older version of segflow, or of a process that was killed right behind its commit."""
    table = written.folder(VISITS)
    shutil.rmtree(table / checksums.FOLDER)
    files = [path for _, path in written.files(VISITS)]
    assert len(numbers(connection, written)) == 2
    assert checksums.without(table, files) == files
    assert written.write(connection, VISITS, visits(1, users=200), [(day(1),)]).replaced == []
    assert checksums.without(table, files) == [file_of(written, 2)]


def test_each_file_of_a_commit_has_its_own_checksum(connection: Connection, storage: Storage) -> None:
    weeks = [(day(1), "s1"), (day(1), "s2"), (day(8), "s1")]
    rows = " UNION ALL ".join(
        f"SELECT DATE '{week}' AS week, '{one}' AS segment_id, '{one}'::BLOB AS model" for week, one in weeks
    )
    storage.write(connection, MODELS, rows, weeks)
    files = [path for _, path in storage.files(MODELS)]
    assert len({file.name for file in files}) == len(files) == 3
    assert len(list((storage.folder(MODELS) / checksums.FOLDER).iterdir())) == 3
    assert checksums.damages(storage.folder(MODELS), files, again=True) == []


def test_a_vacuum_leaves_checksums(connection: Connection, written: Storage) -> None:
    opened = written.open(VISITS)
    assert opened is not None
    opened.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
    assert checksums.without(written.folder(VISITS), [path for _, path in written.files(VISITS)]) == []
