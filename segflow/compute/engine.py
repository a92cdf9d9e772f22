"""What every engine is: the two calls that stages make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Protocol, TypeVar

import pyarrow as pa

Item = TypeVar("Item")
Result = TypeVar("Result")


class Reference(Protocol):
    """A table in an exchange. Picklable, and small wherever the exchange's tables are not in this process."""

    def get(self) -> pa.Table:
        """The table."""


class Exchange(Protocol):
    """Where tables pass between pieces of work. Picklable: a piece that makes a table is given the exchange with its item."""

    def put(self, table: pa.Table) -> Reference:
        """Keep `table` until the engine is closed."""


class EngineError(RuntimeError):
    """The engine failed, not what ran on it: the same work may succeed another time."""


class Engine(ABC):
    """Runs a function over items. Functions are module-level (or `functools.partial` of such) and may run twice."""

    spreads: ClassVar[bool] = True
    """Whether pieces may be worked on side by side. If not, what one leaves behind may help the next."""

    @property
    @abstractmethod
    def exchange(self) -> Exchange:
        """For tables that are too large for an item or a result."""

    @property
    def workers(self) -> int:
        """How many pieces can be worked on at a time. To cut work by it is right only where results do not depend on the cuts."""
        return 1

    @abstractmethod
    def imap(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`function` of each item, in the items' order, as they are asked for; pieces may run ahead of what is asked.

        The first exception, in that order, ends the call and is raised unchanged. An item whose worker is lost is given to
        another one. Raises EngineError when the engine is lost, or one item loses several workers.
        """

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`imap`, all of it."""
        return list(self.imap(function, items))
