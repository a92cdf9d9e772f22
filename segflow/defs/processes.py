"""Names of processes, and how to tell later whether one still lives.

Does not live here: what is done about a process that is gone (``executor``, ``launcher``, ``reconcile``), and how one ends with
its parent (``segflow.compute.processes``).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

PROCESS_TAG = "segflow/process"
"""Tag of a Dagster run: the run's id and the name of the process that works on it. A run that is made again inherits it."""


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
