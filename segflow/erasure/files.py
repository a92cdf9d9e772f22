"""Files that may name a user: searched, and mended where they are text or an sqlite database.

Lives here: single files and folders. Does not live here: tables (`storage/erasing.py`), and which folders there are.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from segflow.erasure.needles import Needles
from segflow.errors import UserError

_SQLITE = b"SQLite format 3\0"
_BUSY_SECONDS = 30


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, in order; none if it is not there."""
    return (one for one in sorted(folder.rglob("*")) if one.is_file() and not one.is_symlink())


def naming(folder: Path, needles: Needles) -> tuple[int, list[Path]]:
    """How many files are below `folder`, and which of them name a user.

    A database is read by its cells: values stand there without anything between them. Its unused pages, which may hold what was
    deleted, count if the bytes of the file hold what no cell does.
    """
    count, found = 0, []
    for file in files_below(folder):
        count += 1
        if _names(file, needles):
            found.append(file)
    return count, found


def mend(file: Path, needles: Needles) -> bool:
    """Take the users' names out of `file`; False for one that is neither text nor a database. Its other content stays."""
    if _is_database(file):
        try:
            _mend_database(file, needles)
        except sqlite3.OperationalError as error:
            raise UserError(f"{file}: {error}; stop what has it open, such as the UIs, and call again") from error
        return True
    if file.name.endswith(("-wal", "-shm", "-journal")):
        return True  # the database's own, which goes with it
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError:
        return False
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_bytes(needles.redacted(text).encode())
    part.chmod(file.stat().st_mode)
    part.replace(file)
    return True


def _names(file: Path, needles: Needles) -> bool:
    if file.suffix == ".parquet":
        import pyarrow.parquet as parquet

        batches = parquet.ParquetFile(file).iter_batches()
        return any(needles.found(str(batch.to_pylist()).encode()) for batch in batches)
    if _is_database(file) and any(needles.found(cell) for _, _, _, cell in _cells(file)):
        return True
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return needles.found(content)  # type: ignore[arg-type]


def _is_database(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(_SQLITE)) == _SQLITE


def _cells(file: Path) -> Iterator[tuple[str, str, int, bytes]]:
    """(table, column, row, content) of every text and blob."""
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS)) as database:
        database.text_factory = bytes
        for table, columns in _tables(database).items():
            names = ", ".join(map(_quoted, columns))
            for row, *values in database.execute(f"SELECT rowid, {names} FROM {_quoted(table)}"):
                for column, value in zip(columns, values, strict=True):
                    if isinstance(value, bytes):
                        yield table, column, row, value


def _tables(database: sqlite3.Connection) -> dict[str, list[str]]:
    listed = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    names = [name.decode() for (name,) in listed]
    return {
        name: [row[1].decode() for row in database.execute(f"PRAGMA table_info({_quoted(name)})")] for name in names
    }


def _mend_database(file: Path, needles: Needles) -> None:
    """Redact the cells, and write the file anew: a deleted value stays in the pages that held it."""
    found = [one for one in _cells(file) if needles.found(one[3])]
    with closing(sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        for table, column, row, value in found:
            text = needles.redacted(value.decode(errors="surrogateescape"))
            database.execute(f"UPDATE {_quoted(table)} SET {_quoted(column)} = ? WHERE rowid = ?", (text, row))
        database.execute("COMMIT")
        database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
