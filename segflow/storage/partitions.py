"""Partitions by their keys, and the predicates that select them: an unchecked key could select more than its own."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date

from segflow.errors import UserError
from segflow.sql import identifier, literal
from segflow.tables import Table

Key = date | str
Partition = tuple[Key, ...]

_SAFE_KEY = re.compile(r"[A-Za-z0-9_.-]{1,100}")


def check_key(key: Key) -> Key:
    """`key` if it is a date or a plain word; anything else could widen the predicate that selects what to replace."""
    if isinstance(key, date) or _SAFE_KEY.fullmatch(key):
        return key
    raise UserError(f"partition key {key!r}: only letters, digits, '_', '.' and '-' are allowed (at most 100)")


def after(day: Key) -> date:
    """The day after `day`, which is one."""
    assert isinstance(day, date)
    return date.fromordinal(day.toordinal() + 1)


def by_column(table: Table, partitions: Sequence[Partition]) -> dict[str, list[Key]]:
    """Partition column -> the different keys among `partitions`, in order."""
    columns: dict[str, list[Key]] = {}
    for index, name in enumerate(table.partitions):
        columns[name] = sorted({partition[index] for partition in partitions})
    return columns


def condition(table: Table, partitions: Sequence[Partition]) -> str | None:
    """The predicate that selects exactly `partitions`; None for a table without partitions."""
    if not table.partitions:
        return None
    if len(table.partitions) == 1:
        keys = ", ".join(literal(partition[0]) for partition in partitions)
        return f"{identifier(table.partitions[0])} IN ({keys})"
    whole = (
        " AND ".join(f"{identifier(name)} = {literal(key)}" for name, key in zip(table.partitions, one, strict=True))
        for one in partitions
    )
    return " OR ".join(f"({one})" for one in whole)


def filters(table: Table, where: Mapping[str, tuple[Key, Key] | Key]) -> list[tuple[str, str, str]] | None:
    """`where` in the form that deltalake prunes files by."""
    found = []
    for name, wanted in where.items():
        if name not in table.partitions:
            raise ValueError(f"{table.name} is not partitioned by {name}")
        if isinstance(wanted, tuple):
            found += [(name, ">=", str(check_key(wanted[0]))), (name, "<", str(check_key(wanted[1])))]
        else:
            found.append((name, "=", str(check_key(wanted))))
    return found or None


def around(table: Table, wanted: Collection[Partition]) -> dict[str, tuple[Key, Key] | Key]:
    """The narrowest `where` of ``Storage.view`` that holds all these partitions."""
    ends = {name: (keys[0], keys[-1]) for name, keys in by_column(table, list(wanted)).items()}
    return {
        name: first if first == last else (first, after(last))
        for name, (first, last) in ends.items()
        if first == last or not isinstance(first, str)
    }
