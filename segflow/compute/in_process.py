"""The engine of one process, the default: each piece is a plain call, and tables stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from segflow.compute.engine import Engine, Exchange, Item, Reference, Result


@dataclass(frozen=True)
class Held:
    """A table of this process."""

    table: pa.Table

    def get(self) -> pa.Table:
        """The table itself."""
        return self.table


class HeldExchange:
    """Hands tables on; nothing is copied or written."""

    def put(self, table: pa.Table) -> Reference:
        """See `Exchange`."""
        return Held(table)


class InProcess(Engine):
    """One piece after the other, each when it is asked for."""

    spreads = False

    @property
    def exchange(self) -> Exchange:
        """See `Engine`."""
        return HeldExchange()

    def imap(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See `Engine`."""
        return (function(item) for item in items)


IN_PROCESS = InProcess()
