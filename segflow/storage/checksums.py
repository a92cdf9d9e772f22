"""Checksums of data files and of Delta's log on local disk, so that what is read is what was written.

Lives here: recording and comparing them. Does not live here: which files a table consists of (``tables``).

Delta's writer puts no checksums into Parquet pages, and DuckDB's reader looks for none: of single flipped bits, three in five
were read as another value without a word. Each data file therefore has its CRC-32 and size beside it, in the folder
`_checksums` of its table, which Delta takes for hidden. That finds accidents, such as rotten disks, cut copies and files put in
place of others; whoever changes a file on purpose can change its checksum too. Object stores keep checksums of their own.

So have the files of Delta's log: of one that is cut between two lines, or whose `add` became another word, readers pass over
what is gone, and rows were missing without a word.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from segflow.errors import UserError
from segflow.trouble import line

FOLDER, LOG = "_checksums", "_delta_log"
_BLOCK = 1 << 20
_LOG_FILE = re.compile(r"\d{20}\.(json|checkpoint\.parquet)")
_SUM = re.compile(r"[0-9a-f]{8} \d+\n")
_Stamp = tuple[int, int, int]
_sound: dict[Path, _Stamp] = {}
"""Files that this process has compared, as they were: data files never change, so once is enough."""


@dataclass(frozen=True)
class Damage:
    """A data file that is not what was written, and in which way."""

    file: Path
    says: str


def record(table: Path, files: Iterable[Path]) -> int:
    """Keep the checksums of those data files of a table that have none yet; how many.

    The caller vouches for their content: it has just written it or has compared it.
    """
    missing = [one for one in files if not _beside(table, one).is_file()]
    for one in missing:
        kept = _beside(table, one)
        kept.parent.mkdir(parents=True, exist_ok=True)
        new = kept.with_name(f"{kept.name}.{os.getpid()}")
        new.write_text(_sum(one), encoding="ascii")
        new.replace(kept)
    return len(missing)


def damages(table: Path, files: Iterable[Path], again: bool = False) -> list[Damage]:
    """Those files of a table that are not as they were written. A file without a checksum counts as sound.

    again: compare also what this process has compared before.
    """
    found = ((one, _damage(table, one, again)) for one in files)
    return [Damage(file, says) for file, says in found if says]


def without(table: Path, files: Iterable[Path]) -> list[Path]:
    """Those files that no checksum was kept of: of an older version of segflow, or of a process killed behind its commit."""
    return [one for one in files if not _beside(table, one).is_file()]


def forget(table: Path, files: Iterable[Path]) -> None:
    """Remove all checksums but those of `files`."""
    kept = {_beside(table, one) for one in files}
    for one in (table / FOLDER).rglob("*"):
        if one not in kept and not one.is_dir():
            one.unlink(missing_ok=True)


def forget_gone(table: Path) -> None:
    """Remove the checksums of files that are gone, but for the newest commit, which is missed."""
    # Listed before the files are: of what is written meanwhile, both are there.
    kept, newest = list((table / FOLDER).rglob("*.crc32")), newest_commit(table)
    there = {_beside(table, one) for one in [*table.rglob("*.parquet"), *(table / LOG).glob("*.json")]}
    for one in kept:
        if one not in there and (newest is None or one != _beside(table, newest)):
            one.unlink(missing_ok=True)


def log_files(table: Path, version: int | None = None) -> list[Path]:
    """What a reader of `version` (default: the newest) reads of the log: the last checkpoint, and the commits since."""
    log = table / LOG
    there = [one for one in log.iterdir() if _LOG_FILE.fullmatch(one.name)] if log.is_dir() else []
    read = sorted(one for one in there if version is None or number_of(one) <= version)
    checkpoints = [one for one in read if one.suffix == ".parquet"]
    since = number_of(checkpoints[-1]) if checkpoints else -1
    return [*checkpoints[-1:], *(one for one in read if number_of(one) > since)]


def number_of(log_file: Path) -> int:
    """The version that a file of the log is of."""
    return int(log_file.name[:20])


def commit_files(table: Path, version: int) -> list[Path]:
    """What a commit has put into the log: itself, and at times a checkpoint."""
    names = (f"{version:020}.json", f"{version:020}.checkpoint.parquet")
    return [table / LOG / one for one in names if (table / LOG / one).is_file()]


def newest_commit(table: Path) -> Path | None:
    """The newest of the commits whose checksums were kept; None if there are none."""
    kept = table / FOLDER / LOG
    names = [one.name.removesuffix(".crc32") for one in kept.iterdir()] if kept.is_dir() else []
    return max((table / LOG / one for one in names if one.endswith(".json")), default=None)


def _damage(table: Path, file: Path, again: bool) -> str:
    """What is wrong with a file; empty if nothing is."""
    try:
        stamp = _stamp(file)
        if not again and _sound.get(file) == stamp:
            return ""
        kept = _beside(table, file).read_text(encoding="ascii", errors="replace")
        if not _SUM.fullmatch(kept):
            return f"its checksum {_beside(table, file)} is unreadable"
        if (now := _sum(file)) != kept:
            size, was = int(now.split()[1]), int(kept.split()[1])
            return "its content is not what was written" if size == was else f"has {size:,} bytes, {was:,} were written"
    except FileNotFoundError:
        return "" if file.is_file() else "is gone"
    except PermissionError as error:
        raise UserError(line(error)) from error
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    _sound[file] = stamp
    return ""


def _beside(table: Path, file: Path) -> Path:
    # Names of data files are unique: Delta's writer puts a UUID into each.
    folder = table / FOLDER / LOG if file.parent.name == LOG else table / FOLDER
    return folder / f"{file.name}.crc32"


def _sum(file: Path) -> str:
    checksum = size = 0
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            checksum, size = zlib.crc32(block, checksum), size + len(block)
    return f"{checksum:08x} {size}\n"


def _stamp(file: Path) -> _Stamp:
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
