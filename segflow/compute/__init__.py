"""The seam to engines: run one function over many small items, results in order.

Items are small and picklable (table locations, shard keys, segment ids); data move through tables. Asset code does not know
which engine runs it. In-process is the only engine so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ordered(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of each item, in the items' order. The first exception ends the call and is raised unchanged."""
    return [function(item) for item in items]
