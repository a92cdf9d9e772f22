"""The Dagster instance of `$DAGSTER_HOME`, for commands.

Lives here: opening it. Does not live here: what is run on it (``runner``), and what its records tell (``records``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import dagster as dg
from filelock import FileLock

_LOCK = Path("storage") / "first-use.lock"


@contextmanager
def open_instance() -> Iterator[dg.DagsterInstance]:
    """The instance, opened by one process at a time.

    Whoever comes first creates its databases. Of several processes that do so at the same moment, all but one fail, and may
    leave a database that nobody can open.
    """
    with _alone(os.environ.get("DAGSTER_HOME", "")):
        instance = dg.DagsterInstance.get()
        # Each is created when it is asked for.
        _ = instance.run_storage, instance.event_log_storage, instance.schedule_storage
    with instance:
        yield instance


def _alone(home: str) -> AbstractContextManager[object]:
    """A lock in the home; none where nothing can be created. What is wrong with it then, Dagster says."""
    if not home or not os.access(home, os.W_OK):
        return nullcontext()
    lock = Path(home) / _LOCK
    lock.parent.mkdir(exist_ok=True)
    return FileLock(lock)
