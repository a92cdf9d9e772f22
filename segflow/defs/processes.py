"""Processes that must not outlive what started them, and how to tell later whether one still lives.

Lives here: the watch over the parent, and names of processes. Does not live here: what is done about a process that is gone
(``executor``, ``launcher``, ``reconcile``).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Mapping
from functools import cache
from multiprocessing import connection
from pathlib import Path

PROCESS_TAG = "segflow/process"
"""Tag of a Dagster run: the run's id and the name of the process that works on it. A run that is made again inherits it."""


@cache
def end_with_parent() -> None:
    """From now on this process is killed as soon as the one that started it is gone. Without such a parent nothing happens.

    A killed run worker leaves its step processes behind, which would go on writing while the run is tried again. They hold
    each other's pipes, so that no end of a file tells them; `multiprocessing` keeps one pipe for just this question. Killed,
    not interrupted: an interrupt would record that somebody canceled the run.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def wait() -> None:
        connection.wait([sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    # A parent that is gone already must not have to wait for the thread to be scheduled.
    if connection.wait([sentinel], timeout=0):
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


def this_process() -> str:
    """A name of this process that no other one has: its host, its number and, on Linux, when it was started."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def is_here(name: str) -> bool:
    """Whether the process with this name is one of this host, so that it can be told whether it lives."""
    return name.rpartition(":")[0].rpartition(":")[0] == socket.gethostname()


def is_gone(name: str) -> bool:
    """Whether the process with this name has ended. Of another host's processes nothing is known: they count as alive."""
    if not is_here(name):
        return False
    _, number, started = name.rsplit(":", 2)
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _started(int(number)) != started


def worker_tag(run_id: str) -> dict[str, str]:
    """The tag that says that this process works on a run."""
    return {PROCESS_TAG: f"{run_id}@{this_process()}"}


def worker_of(run_id: str, tags: Mapping[str, str]) -> str:
    """The name of the process that works on a run, by the run's tags; empty if they do not tell."""
    owner, _, name = tags.get(PROCESS_TAG, "").partition("@")
    return name if owner == run_id else ""


def _started(number: int) -> str:
    """Ticks since the machine was started, so that a number that was given again is not taken for the same process.

    The state stands before it: a zombie has ended, though its number is still taken.
    """
    try:
        # The name of the program is in parentheses, and may hold anything.
        fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in "ZX" else fields[19]
