"""A process with children of its own, in a module that is quick to import: each of them imports it anew."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection

from segflow.compute.processes import end_with_parent


def child(pipe: Connection) -> None:
    """Tells its number and sleeps, as long as there is a parent."""
    end_with_parent()
    pipe.send(os.getpid())
    time.sleep(60)


def parent(method: str, pipe: Connection) -> None:
    """Two children at once: those of one fork server hold each other's pipes."""
    context = multiprocessing.get_context(method)
    for _ in range(2):
        context.Process(target=child, args=(pipe,)).start()
    time.sleep(60)
