"""Who is told how far a long job is. Lives here: what can be told. Does not live here: how it is shown (`cli/bars.py`)."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

Message = tuple[str, tuple[str | int, ...]]


class Watcher:
    """Told what happens, and shows nothing. A stage is a part of a job whose steps are counted, such as `days`."""

    def say(self, line: str) -> None:
        """A line for people."""

    def begin(self, stage: str, steps: int) -> None:
        """A stage has so many steps (more) to do."""

    def working(self, stage: str, on: str) -> None:
        """What the stage is at now."""

    def advance(self, stage: str, steps: int = 1) -> None:
        """So many more steps are done."""


class Relay(Watcher):
    """Hands all it is told to another process, which passes on to `told` what it gets. `send` takes one picklable message."""

    def __init__(self, send: Callable[[Message], None]):
        self._send = send
        self._one_at_a_time = Lock()

    def say(self, line: str) -> None:
        self._hand_on("say", line)

    def begin(self, stage: str, steps: int) -> None:
        self._hand_on("begin", stage, steps)

    def working(self, stage: str, on: str) -> None:
        self._hand_on("working", stage, on)

    def advance(self, stage: str, steps: int = 1) -> None:
        self._hand_on("advance", stage, steps)

    def _hand_on(self, name: str, *arguments: str | int) -> None:
        with self._one_at_a_time:
            self._send((name, arguments))


def told(watcher: Watcher, message: Message) -> None:
    """Tell `watcher` what a `Relay` handed on."""
    name, arguments = message
    getattr(watcher, name)(*arguments)
