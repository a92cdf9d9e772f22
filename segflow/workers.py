"""The processes that a whole run deals its weeks to: started clean, heard by one watcher, and stopped together.

Lives here: processes and signals. Does not live here: what they do (`runs.py`).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import date
from multiprocessing.connection import Connection, wait
from typing import NoReturn, TypeVar

from segflow.watching import Relay, Watcher, told

Result = TypeVar("Result")

_INTERRUPTED = 130
_LISTEN, _LAST_WORDS = 0.1, 2.0
"""Seconds between two looks whether all is over, and for what was said until then."""
_watcher: Watcher = Watcher()


class Workers:
    """Processes that weeks are dealt to. A week stays with the one that had it first."""

    def __init__(self, pools: Sequence[ProcessPoolExecutor]):
        self._pools = pools
        self._of_week: dict[date, ProcessPoolExecutor] = {}

    def each(self, work: Callable[[date], Result], weeks: Sequence[date]) -> list[Result]:
        """`work` of each week, in the order of `weeks`; raises what a piece of it raised."""
        return [one.result() for one in [self._submit(work, week) for week in weeks]]

    def _submit(self, work: Callable[[date], Result], week: date) -> Future[Result]:
        pool = self._of_week.setdefault(week, self._pools[len(self._of_week) % len(self._pools)])
        # A process that starts inherits what is ignored, so an interrupt cannot break it before it is set up.
        with _ignoring_interrupts():
            return pool.submit(work, week)


@contextmanager
def open_workers(processes: int, watcher: Watcher | None = None) -> Iterator[Workers]:
    """At most so many processes, each of which starts with its first week. What they say goes to `watcher`.

    An interrupt ends the work of all of them, each once and in order, before it goes on.
    """
    # Spawned, not forked: a forked child would share open databases and thread pools with its parent.
    method = multiprocessing.get_context("spawn")
    # A pipe each: a process that is killed while it speaks silences nobody else.
    pipes = [method.Pipe(duplex=False) for _ in range(processes)]
    over = threading.Event()
    readers = [reader for reader, _ in pipes]
    listener = threading.Thread(target=_listen, args=(readers, watcher or Watcher(), over), daemon=True)
    listener.start()
    try:
        with ExitStack() as stack:
            pools = [
                stack.enter_context(ProcessPoolExecutor(1, mp_context=method, initializer=_set_up, initargs=(writer,)))
                for _, writer in pipes
            ]
            try:
                yield Workers(pools)
            except KeyboardInterrupt:
                for pool in pools:
                    pool.shutdown(wait=False, cancel_futures=True)
                for child in multiprocessing.active_children():
                    if child.pid is not None:
                        os.kill(child.pid, signal.SIGINT)
                raise
    finally:
        over.set()
        listener.join(_LAST_WORDS)


@contextmanager
def as_worker() -> Iterator[Watcher]:
    """What the work of a week is wrapped in, in its process: an interrupt ends it, and only it."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield _watcher
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def leave() -> NoReturn:
    """End an interrupted process at once, after its work has closed what it had open.

    Nobody waits for its answer; libraries that are unloaded while the interrupt still holds their objects complain at length.
    """
    os._exit(_INTERRUPTED)


def _set_up(writer: Connection) -> None:
    """In a new process: out of the terminal's reach, since the first process hands interrupts on."""
    global _watcher  # noqa: PLW0603  (one for each process)
    _watcher = Relay(writer.send)
    os.setpgid(0, 0)


def _listen(readers: Sequence[Connection], watcher: Watcher, over: threading.Event) -> None:
    """Until all is over and nothing more comes."""
    while True:
        ready = wait(readers, timeout=_LISTEN)
        if not ready and over.is_set():
            return
        for one in ready:
            if isinstance(one, Connection):
                told(watcher, one.recv())


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
