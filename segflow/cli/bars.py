"""How a long job is shown: a line for each step, and on a terminal a bar for each stage below the lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from segflow.watching import Watcher

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Lines(Watcher):
    """Each line with the seconds since the start."""

    def __init__(self, stream: TextIO | None = None):
        self._began = time.monotonic()
        self._stream = stream

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

    def say(self, line: str) -> None:
        # Looked up now: while bars are shown, standard output is a part of them.
        print(f"[{self.seconds:6.1f} s] {line}", file=self._stream or sys.stdout, flush=True)


class Bars(Lines):
    """The same, above a bar for each stage that is under way."""

    def __init__(self, progress: Progress, stream: TextIO | None = None):
        super().__init__(stream)
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        if self._stream is None:
            super().say(line)
        else:
            self._progress.console.print(
                f"[{self.seconds:6.1f} s] {line}", markup=False, highlight=False, soft_wrap=True
            )

    def begin(self, stage: str, steps: int) -> None:
        if stage in self._bars:
            total = self._progress.tasks[self._bars[stage]].total or 0
            self._progress.update(self._bars[stage], total=total + steps)
        else:
            self._bars[stage] = self._progress.add_task(stage, total=steps, start=False, on="")

    def working(self, stage: str, on: str) -> None:
        if stage in self._bars:
            self._progress.start_task(self._bars[stage])
            self._progress.update(self._bars[stage], on=on)

    def advance(self, stage: str, steps: int = 1) -> None:
        if stage in self._bars:
            self._progress.start_task(self._bars[stage])
            self._progress.advance(self._bars[stage], steps)
            if self._progress.tasks[self._bars[stage]].finished:
                self._progress.update(self._bars[stage], on="")


@contextmanager
def watching(as_json: bool = False) -> Iterator[Lines]:
    """Lines on standard output, or on standard error where JSON goes to standard output; bars if that is a terminal."""
    stream = sys.stderr if as_json else None
    if not sys.stderr.isatty():
        yield Lines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[on]}"),
    )
    console = Console(stderr=True)
    # Lines that go to a file must not end up on the terminal.
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty(), redirect_stderr=False) as progress:
        yield Bars(progress, stream)
