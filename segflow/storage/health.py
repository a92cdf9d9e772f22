"""Whether tables can be kept where the settings say, and whether what they hold is what was written.

A probe is written, moved, read and removed; schemas are compared; on demand, every data file is read and its checksum compared.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from segflow import tables
from segflow.config import StorageConfig
from segflow.errors import UserError
from segflow.findings import Finding, fault, ok, warning
from segflow.storage import checksums
from segflow.storage.content import what_to_do
from segflow.storage.remote import explained
from segflow.storage.tables import Storage

_SKEW = 2.0
_UNSAFE = ("AWS_S3_ALLOW_UNSAFE_RENAME", "ALLOW_UNSAFE_RENAME", "MOUNT_ALLOW_UNSAFE_RENAME")
"""Options of deltalake that commit without looking whether the version is taken."""
_ROOM = 3
"""Raw rows, events, sessions and what is made of them take about three times the log."""


def storage_findings(config: StorageConfig, log_bytes: int) -> Iterator[Finding]:
    """What is found of the place of the tables. log_bytes: the size of the log that is to be worked on."""
    try:
        Storage(config.root, config.options)
    except UserError as error:
        says, _, mend = str(error).partition("; ")
        yield fault("storage", says, mend)
        return
    if "://" in config.root:
        yield _object_store(config)
    else:
        found = _folder(Path(config.root))
        yield found
        if found.state != "fault":
            yield _disk(Path(config.root), log_bytes)
    yield from _schemas(config)


def data_findings(config: StorageConfig) -> Iterator[Finding]:
    """Every data file of the newest version of every table, compared with its checksum."""
    storage = Storage(config.root, config.options)
    if not storage.is_local:
        yield ok("data", f"{config.root}: an object store keeps checksums of its own")
        return
    began, count, size, unknown, damaged = time.monotonic(), 0, 0, 0, 0
    for table in tables.ALL.values():
        try:
            files = [path for _, path in storage.files(table)]
        except (UserError, OSError):
            # What cannot be opened was told of already.
            continue
        for one in checksums.damages(storage.folder(table), files, again=True):
            says, _, mend = what_to_do(table, [one]).rpartition("; ")
            yield fault("data", says, mend)
            damaged += 1
        unknown += len(checksums.without(storage.folder(table), files))
        count, size = count + len(files), size + sum(one.stat().st_size for one in files if one.is_file())
    if unknown:
        yield warning(
            "data",
            f"{unknown:,} of {count:,} files have no checksum: of an older segflow, or of a process killed as it wrote",
            "`segflow run --force` makes them again, compares, and keeps their checksums",
        )
    if not damaged:
        seconds = time.monotonic() - began
        yield ok(
            "data", f"{count - unknown:,} files are as they were written ({size / 1e6:,.1f} MB in {seconds:.1f} s)"
        )


def existing(folder: Path) -> Path:
    """`folder`, or the nearest one above it that is there."""
    return next(one for one in (folder, *folder.parents) if one.exists())


def _folder(root: Path) -> Finding:
    """A file can be made beside the others, renamed in one step, and has the time of this machine's clock."""
    place = existing(root)
    probe, moved = (place / f".segflow-doctor-{uuid4().hex}.{name}" for name in ("new", "moved"))
    try:
        try:
            before = time.time()
            probe.write_text("probe", encoding="utf-8")
            os.rename(probe, moved)
            # The clock of a network file system may differ from this machine's; files that arrived are told by it.
            skew = moved.stat().st_mtime - before
        finally:
            for one in (probe, moved):
                one.unlink(missing_ok=True)
    except OSError as error:
        return fault("storage", f"{place}: cannot be written: {error.strerror}", "mend its rights, or set storage.root")
    if abs(skew) > _SKEW:
        return warning(
            "storage", f"{place}: its clock differs by {skew:+.0f} s from this machine's", "set both clocks by NTP"
        )
    return ok("storage", f"{root}: files can be written and renamed{'' if place == root else '; it will be made'}")


def _object_store(config: StorageConfig) -> Finding:
    """An object can be put, copied to another name, and removed, and an option does not give up what keeps writers apart."""
    from segflow.storage.places import file_system

    store = file_system(config.root, Storage(config.root, config.options).options)
    probe, moved = (f".segflow-doctor-{uuid4().hex}.{name}" for name in ("new", "moved"))
    try:
        with store.open_output_stream(probe):
            pass
        store.move(probe, moved)
        store.delete_file(moved)
    except (OSError, ValueError) as error:
        if told := explained(error):
            says, _, mend = str(told).removeprefix("storage.root: ").partition("; ")
            return fault("storage", f"{config.root}: cannot be written: {says}", mend)
        reason = " ".join(str(error).split())[:200]
        return fault(
            "storage", f"{config.root}: cannot be written: {reason}", "correct storage.root and storage.options"
        )
    unsafe = {**os.environ, **config.options}
    if named := next((key for key in unsafe if key.upper() in _UNSAFE), None):
        return warning("storage", f"{named} is set: two writers may overwrite each other's commits", f"remove {named}")
    return ok("storage", f"{config.root}: objects can be put, moved and removed")


def _disk(root: Path, log_bytes: int) -> Finding:
    free = shutil.disk_usage(existing(root)).free
    says = f"{free / 1e9:,.1f} GB free; the log has {log_bytes / 1e9:,.1f} GB"
    if free < _ROOM * log_bytes:
        return warning("disk", says, f"tables take about {_ROOM} times the log: make room, or set storage.root")
    return ok("disk", says)


def _schemas(config: StorageConfig) -> Iterator[Finding]:
    """Tables that were made with other columns than this version declares."""
    storage = Storage(config.root, config.options)
    made = 0
    for table in tables.ALL.values():
        try:
            made += storage.version(table) is not None
        except UserError as error:
            says, _, mend = str(error).partition("; ")
            yield fault("tables", says, mend)
            return
        except OSError as error:
            yield fault("tables", f"{storage.uri(table)}: {' '.join(str(error).split())}", "correct storage.root")
            return
    yield ok("tables", f"{made} of {len(tables.ALL)} are there, with the columns of this version")
