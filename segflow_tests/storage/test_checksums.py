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
    assert len(list((storage.folder(MODELS) / checksums.FOLDER).glob("*.parquet.crc32"))) == 3
    assert checksums.damages(storage.folder(MODELS), files, again=True) == []


def test_a_vacuum_leaves_checksums(connection: Connection, written: Storage) -> None:
    opened = written.open(VISITS)
    assert opened is not None
    opened.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
    assert checksums.without(written.folder(VISITS), [path for _, path in written.files(VISITS)]) == []


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_log_is_refused(connection: Connection, written: Storage, seed: int) -> None:
    """Also where readers pass over it: of a log that ends between two lines, or whose `add` is another word, rows are missing."""
    chance, folder = random.Random(seed), written.folder(VISITS)
    before = numbers(connection, written)
    file = chance.choice(checksums.log_files(folder))
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    cut, between = content[: chance.randrange(len(content))], content[: content.index(b"\n") + 1]
    for broken in (bytes(flipped), cut, between, content.replace(b'{"add"', b'{"ade"').replace(b'"name"', b'"nome"')):
        file.write_bytes(broken)
        for use in (
            lambda: numbers(connection, written),
            lambda: written.write(connection, VISITS, visits(3), [(day(3),)]),
        ):
            with pytest.raises(UserError) as told:
                use()
            assert str(told.value).startswith(f"{file}: ")
            assert str(told.value).endswith(
                f"; restore it from a backup, or move {folder} aside and make the table again with `segflow backfill "
                "FIRST..LAST --assets visits --force`"
            )
    file.write_bytes(content)
    assert numbers(connection, written) == before


def test_a_commit_that_is_gone_is_missed(connection: Connection, written: Storage) -> None:
    """Without its newest commit a table would be an older version of itself."""
    folder = written.folder(VISITS)
    newest = checksums.newest_commit(folder)
    assert newest == folder / "_delta_log" / f"{written.version(VISITS):020}.json"
    content = newest.read_bytes()
    newest.unlink()
    with pytest.raises(UserError, match=f"{newest}: is gone"):
        numbers(connection, written)
    newest.write_bytes(content)
    shutil.move(newest.parent, folder / "aside")
    with pytest.raises(UserError, match=f"{newest}: is gone"):
        written.version(VISITS)
    shutil.move(folder / "aside", newest.parent)
    assert len(numbers(connection, written)) == 2


def test_an_old_commit_below_a_checkpoint_may_go(connection: Connection, written: Storage) -> None:
    """As Delta lets it after thirty days, also if the commits since then, such as those of a vacuum, have no checksums."""
    folder = written.folder(VISITS)
    newest, opened = checksums.newest_commit(folder), written.open(VISITS)
    assert newest is not None
    assert opened is not None
    opened.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
    opened.create_checkpoint()
    assert checksums.newest_commit(folder) == newest
    newest.unlink()
    assert len(numbers(connection, written)) == 2


def test_a_checkpoint_of_the_log(connection: Connection, written: Storage) -> None:
    """Delta's writer makes one at every hundredth version; from there on, it is what readers read."""
    folder = written.folder(VISITS)
    for number in range(3, 103):
        written.write(connection, VISITS, visits(1, number=number), [(day(1),)])
    first, *commits = checksums.log_files(folder)
    assert first.name.endswith(".checkpoint.parquet")
    assert 0 < len(commits) < 10
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 4
    first.write_bytes(content)
    with pytest.raises(UserError, match=f"{first}: its content is not what was written"):
        numbers(connection, written)


def test_a_log_without_checksums_that_cannot_be_read(connection: Connection, written: Storage) -> None:
    """Of an older version of segflow."""
    folder = written.folder(VISITS)
    shutil.rmtree(folder / checksums.FOLDER)
    assert len(numbers(connection, written)) == 2
    newest = checksums.log_files(folder)[-1]
    newest.write_bytes(newest.read_bytes()[:-20])
    with pytest.raises(
        UserError, match=rf"{folder}/_delta_log: cannot be read \(.+\); restore it from a backup"
    ) as told:
        numbers(connection, written)
    assert "\n" not in str(told.value)


def test_checksums_of_what_is_gone_go_too(connection: Connection, written: Storage) -> None:
    folder = written.folder(VISITS)
    old = file_of(written, 1)
    written.write(connection, VISITS, visits(1, number=5), [(day(1),)])
    first = checksums.log_files(folder)[0]
    kept = [
        folder / checksums.FOLDER / f"{old.name}.crc32",
        folder / checksums.FOLDER / "_delta_log" / f"{first.name}.crc32",
    ]
    assert all(one.is_file() for one in kept)
    opened = written.open(VISITS)
    assert opened is not None
    opened.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
    opened.create_checkpoint()
    first.unlink()
    checksums.forget_gone(folder)
    assert not any(one.is_file() for one in kept)
    assert checksums.newest_commit(folder) is not None
    assert sorted(numbers(connection, written)) == [day(1), day(2)]
