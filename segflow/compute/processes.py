"""Processes that must not outlive what started them.

Does not live here: what is done about a process that is gone (``defs``).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from functools import cache
from multiprocessing import connection


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
