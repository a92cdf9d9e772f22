"""Disks that are small or cannot be written, and processes whose rights count although root started them. Needs a Linux that
lets the tests mount and limit memory, so root's rights; SEGFLOW_TEST_SKIPS=1 leaves out what is not allowed here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

RIGHTS_COUNT = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""The start of a command line under which root, too, may only do what a file's mode says."""


def cannot(needs: str) -> NoReturn:
    """This fault cannot be injected here: a failure, as it would go untested otherwise, or a skip where that is allowed."""
    if os.environ.get("SEGFLOW_TEST_SKIPS") == "1":
        pytest.skip(needs)
    pytest.fail(f"{needs}; SEGFLOW_TEST_SKIPS=1 leaves out what cannot be tried here", pytrace=False)


def mount(folder: Path, size: str) -> bool:
    """A file system of its own in memory at `folder`; False if that is not allowed here."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return (
        shutil.which("mount") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


def unmount(folder: Path) -> None:
    """Take it away, with all that is on it."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """`folder` on a disk of that size, until the end of the block."""
    if not mount(folder, size):
        cannot("needs to mount a small file system")
    try:
        yield folder
    finally:
        unmount(folder)


@contextmanager
def full_but_for(disk: Path, free: int) -> Iterator[None]:
    """No more than `free` bytes of room on the disk, until the end of the block."""
    ballast = disk / "ballast"
    room = shutil.disk_usage(disk).free
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(room - free, 1))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """The mounted disk cannot be written, until the end of the block."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


@contextmanager
def memory_group(name: str) -> Iterator[Callable[[int, int], None]]:
    """A function that gives a process (by its number) so many bytes of new memory; beyond, the kernel kills it."""
    root = next(
        (one for one in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")) if (one / "cgroup.procs").exists()),
        None,
    )
    group = root / name if root else Path(name)
    try:
        group.mkdir()
    except OSError:
        cannot("needs a control group for memory")
    limit = next((group / one for one in ("memory.limit_in_bytes", "memory.max") if (group / one).exists()), None)

    def join(process: int, size: int) -> None:
        assert limit is not None
        limit.write_text(str(size), encoding="ascii")
        (group / "cgroup.procs").write_text(str(process), encoding="ascii")

    try:
        if limit is None:
            cannot("needs a control group for memory")
        yield join
    finally:
        group.rmdir()
