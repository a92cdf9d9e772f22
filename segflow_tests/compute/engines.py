"""Engines for tests."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segflow.compute import Engine, Exchange
from segflow.compute.engine import Item, Result
from segflow.compute.exchange import exchange_below
from segflow.compute.worker import run, versions


def sent(value: Any) -> Any:
    """The value as another process has it."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301


class Sent(Engine):
    """Runs all that a node runs, in this process: pieces and results pass as bytes, tables as files.

    given: how large the pieces were, in bytes.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.given: list[int] = []

    @property
    def exchange(self) -> Exchange:
        return self._exchange

    def imap(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        for item in items:
            self.given.append(len(pickle.dumps((function, item))))
            outcome = sent(run(versions(), *sent((function, item))))
            if outcome.error is not None:
                raise outcome.error
            yield outcome.value


@contextmanager
def sending(folder: Path) -> Iterator[Sent]:
    """The engine with its exchange below `folder`."""
    with exchange_below(str(folder), {}) as exchange:
        yield Sent(exchange)
