"""What a machine does to a program, told in one line like a user's mistake: full disks, missing rights, locked databases.

Lives here: recognising such an error, whichever library raised it, and what mends it. Does not live here: where it is caught: by
commands (``cli``), by steps (``defs.materializes``), and by tables and spill folders, which know their place (``storage``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from segflow.errors import UserError

_MEND: Mapping[str, tuple[str, str]] = {
    r"No space left on device|Disk quota exceeded|database or disk is full": (
        "no room is left on the disk",
        "make room, and run it again",
    ),
    r"Read-only file system": ("is on a read-only file system", "mount it for writing, and run it again"),
    r"Permission denied|attempt to write a readonly database": (
        "may not be used by this user",
        "mend its rights, or run as its owner",
    ),
    # A full disk too: sqlite says so if it was to grow a file of its write-ahead log.
    r"disk I/O error|unable to open database file": (
        "cannot be read or written",
        "make room on its disk and look at its rights, and run it again",
    ),
    # The last one: a server that died as it answered.
    r"Max retries exceeded|Connection refused|API request to \S+ failed with (?:timeout )?exception": (
        "does not answer",
        "start that server, or correct its address (tracking.uri is MLflow's), and run it again",
    ),
    # The protocol: a process was stopped while it held a lock of the write-ahead log.
    r"database is locked|locking protocol": (
        "is locked",
        "end the process that holds it (`segflow doctor` looks for locks), and run it again",
    ),
}
"""Pattern of what the system or sqlite says -> what that means, and what to do."""
_QUOTED = re.compile(r"['\"](/[^'\"]+)['\"]|(?:file|folder) (/\S+?)(?:#\d+)?:")
_SERVER = re.compile(r"host='([^']+)', port=(\d+)|API request to https?://([^/\s]+)")
_RECORDS = "a database of Dagster (in DAGSTER_HOME) or of MLflow (tracking.root)"


def line(error: BaseException, place: str = "") -> str:
    """One line that says what is wrong, where and how to mend it; empty for an error that is not the machine's.

    place: what is named if the error itself names no file. Errors that led to this one are looked at too.
    """
    for one in _chain(error):
        said = str(one)
        for pattern, (what, mend) in _MEND.items():
            if re.search(pattern, said):
                where = place or _file(one) or (_RECORDS if "sqlite3" in f"{type(one)}{said}" else "the disk")
                return f"{where}: {what}; what was there before is kept; {mend}"
    return ""


@contextmanager
def at(place: str) -> Iterator[None]:
    """Raises UserError, which names `place`, instead of an error of the machine's."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if said := line(error, place):
            raise UserError(said) from error
        raise


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it was raised from, the newest first."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        seen.append(one)
        yield one
        one = one.__cause__ or one.__context__


def _file(error: BaseException) -> str:
    """The file or server that an error names; empty if it names none."""
    if isinstance(error, OSError) and error.filename:
        return str(error.filename)
    if server := _SERVER.search(str(error)):
        return server[3] or f"{server[1]}:{server[2]}"
    found = _QUOTED.search(str(error))
    return next((one for one in found.groups() if one), "") if found else ""
