"""The DuckDB connection of one step: in memory, bounded by the settings, spilling to a folder of its own."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from segflow.config import ComputeConfig
from segflow.errors import UserError
from segflow.sql import literal
from segflow.trouble import at, line

_OWNER = "owner"
_NAMELESS_SECONDS = 3600.0


@contextmanager
def connect(compute: ComputeConfig, tables: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory connection in UTC that keeps to `compute`; its spill folder goes away with it.

    tables: the root of the tables that it reads, for a connection that may come to be confined.

    DuckDB's own defaults are 80 % of the machine and the working directory for each process, which two parallel steps
    cannot both have.
    """
    with _spill_folder(Path(compute.spill)) as spill:
        connection = duckdb.connect()
        try:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"SET threads = {compute.threads}")
            connection.execute(f"SET memory_limit = '{compute.memory_limit}'")
            connection.execute("SET temp_directory = $1", [str(spill)])
            connection.execute(f"SET max_temp_directory_size = '{compute.spill_limit}'")
            connection.execute("SET enable_progress_bar = false")
            folders = [str(spill), *([tables] if tables is not None and "://" not in tables else [])]
            # Without effect until it is confined.
            connection.execute(f"SET allowed_directories = {literal(_canonical(folders))}")
            yield connection
        except duckdb.OutOfMemoryException as error:
            raise UserError(_too_much(compute, error)) from error
        except duckdb.IOException as error:
            # Elsewhere it is a file that is read, which is named as it is.
            if str(spill) in str(error) and (said := line(error, f"{compute.spill} (compute.spill)")):
                raise UserError(said) from error
            raise
        finally:
            connection.close()


def confine(connection: duckdb.DuckDBPyConnection, folders: Iterable[str], files: Iterable[str]) -> None:
    """From now on, and for good, the connection opens nothing but its own folders, these and these files.

    folders: on disk, or prefixes of an object store's addresses; files: paths. Links lead nowhere else: where they end counts.
    Statements of users run behind this: they can read and write no other file, attach no database and load no extension.
    """
    ((confined, own, spill),) = connection.execute(
        "SELECT NOT current_setting('enable_external_access'), current_setting('allowed_directories'), "
        "current_setting('temp_directory')"
    ).fetchall()
    if not confined:
        allowed = dict.fromkeys([*own, *_canonical([*([spill] if spill else []), *folders])])
        connection.execute(f"SET allowed_directories = {literal(list(allowed))}")
        connection.execute(f"SET allowed_paths = {literal([str(Path(one).resolve()) for one in files])}")
        connection.execute("SET enable_external_access = false")


def _canonical(folders: Iterable[str]) -> list[str]:
    """With a slash at the end, or `/data` would let `/data2` in."""
    return [one if "://" in one else f"{Path(one).resolve()}/" for one in folders]


def _too_much(compute: ComputeConfig, error: Exception) -> str:
    if "max_temp_directory_size" in str(error):
        return (
            f"{compute.spill}: more than compute.spill_limit ({compute.spill_limit}) was to be spilled; raise it, "
            "raise compute.memory_limit, or lower compute.rows_at_once"
        )
    said = str(error).split("\n")[0].partition(": ")[2]
    return (
        f"compute.memory_limit ({compute.memory_limit}) is too little for this step ({said}); raise it, or lower "
        "compute.rows_at_once"
    )


@contextmanager
def _spill_folder(root: Path) -> Iterator[Path]:
    """A new folder below `root`. Those of killed processes, which could not remove them, go away first.

    Its owner holds a lock, which the system gives back when the process ends, however it ends.
    """
    with at(f"{root} (compute.spill)"):
        root.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(root)
        folder = Path(tempfile.mkdtemp(prefix="step-", dir=root))
    try:
        with (folder / "new").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Under this name only once it is locked: nobody must find it free in between.
            (folder / "new").rename(folder / _OWNER)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob("step-*"):
        try:
            with (folder / _OWNER).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            # Its process was killed before it had the lock, or is about to take it.
            if _age(folder) > _NAMELESS_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            # Somebody works there, or it is another user's.
            continue


def _age(folder: Path) -> float:
    """Seconds since something was made or removed there; none for what is gone."""
    try:
        return time.time() - folder.stat().st_mtime
    except OSError:
        return 0.0
