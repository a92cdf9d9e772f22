"""How many threads do a piece of work, and that it makes no difference to the result.

What does not live here: the work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]


@cache
def _pools() -> ThreadpoolController:
    # Finding the libraries takes longer than a small clustering. Those that fit are loaded by the time of the first call.
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, libraries add up floats in one thread: the order of a sum, and so its last bits, are always the same.

    The limit is the process's for some libraries, the thread's for others. Work that is spread over threads needs it
    in each of them, and around them all.
    """
    with _pools().limit(limits=1):
        yield


def for_each(work: Callable[[int], None], starts: range) -> None:
    """Do the pieces of a job that do not depend on each other, on all processors if there are several pieces."""
    with one_thread():
        if len(starts) <= 1:
            for start in starts:
                work(start)
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(work, starts):  # raises what a piece raised
                pass
