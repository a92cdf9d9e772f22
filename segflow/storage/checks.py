"""The contract of a table, checked on staged rows before they are committed.

Each check is one aggregate over the staged rows, derived from the table's declaration. What is not declared there is
not checked here: rules that join tables live with the assets that own them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import duckdb

from segflow.sql import identifier, literal
from segflow.tables import Column, Table

CHECKS = {
    "schema": "columns, types, and no missing value where none may be missing",
    "keys": "the key identifies a row, and every row belongs to a partition that is being replaced",
    "ranges": "numbers inside their bounds, text among its allowed values",
}


_SHOWN = 5


@dataclass(frozen=True)
class Violation:
    """A broken rule: which check, how many rows, and a message naming table, column and rule.

    where: the partitions that hold such rows, in words; empty for a table without partitions.
    """

    check: str
    rows: int
    message: str
    blocking: bool = True
    where: str = ""


def violations(
    connection: duckdb.DuckDBPyConnection, table: Table, staged: str, partitions: Sequence[tuple[date | str, ...]]
) -> list[Violation]:
    """Every rule of `table` that the staged rows break, in one scan."""
    rules = [rule for column in table.columns for rule in _column_rules(column)]
    if table.partitions:
        inside = " OR ".join(
            "("
            + " AND ".join(f"{identifier(n)} = {literal(k)}" for n, k in zip(table.partitions, one, strict=True))
            + ")"
            for one in partitions
        )
        if len(table.partitions) == 1:
            inside = f"{identifier(table.partitions[0])} IN ({', '.join(literal(one[0]) for one in partitions)})"
        rules.append(("keys", f"NOT ({inside})", "outside the partitions being replaced"))
    key = ", ".join(identifier(name) for name in table.key)
    broken = ", ".join(f"count(*) FILTER (WHERE {rule})" for _, rule, _ in rules)
    # Equal keys have equal hashes, and numbers are counted faster than texts: keys are compared only if a hash repeats.
    counts = connection.execute(
        f"SELECT count(*) - count(DISTINCT hash({key})), {broken or 'NULL'} FROM {identifier(staged)}"
    ).fetchall()[0]
    found = [
        Violation(check, rows, f"{table.name}: {rows} rows {what}", where=_where(connection, table, staged, rule))
        for (check, rule, what), rows in zip(rules, counts[1:], strict=False)
        if rows
    ]
    if counts[0] and (repeated := _repeated(connection, key, staged)):
        rule = f"({key}) IN (SELECT ({key}) FROM {identifier(staged)} GROUP BY {key} HAVING count(*) > 1)"
        where = _where(connection, table, staged, rule)
        found.append(Violation("keys", repeated, f"{table.name}: {repeated} keys ({key}) repeated", where=where))
    return found


def _where(connection: duckdb.DuckDBPyConnection, table: Table, staged: str, rule: str) -> str:
    """The first partitions that hold rows of which `rule` is true, with how many more there are."""
    if not table.partitions:
        return ""
    names = ", ".join(f"{identifier(name)}::VARCHAR" for name in table.partitions)
    query = f"SELECT DISTINCT concat_ws('|', {names}) FROM {identifier(staged)} WHERE {rule} ORDER BY ALL"
    held = [key or "none" for (key,) in connection.execute(query).fetchall()]
    return ", ".join(held[:_SHOWN]) + (f" and {len(held) - _SHOWN} more" if len(held) > _SHOWN else "")


def _repeated(connection: duckdb.DuckDBPyConnection, key: str, staged: str) -> int:
    """How many keys more than one row has."""
    rows = connection.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM {identifier(staged)} GROUP BY {key} HAVING count(*) > 1)"
    ).fetchall()
    return int(rows[0][0])


def _column_rules(column: Column) -> list[tuple[str, str, str]]:
    """(check, SQL condition of a bad row, what is bad) for each rule of a column."""
    name = identifier(column.name)
    rules = []
    if not column.nullable:
        rules.append(("schema", f"{name} IS NULL", f"without {column.name}"))
    if column.minimum is not None:
        rules.append(("ranges", f"{name} < {column.minimum}", f"with {column.name} below {column.minimum}"))
    if column.maximum is not None:
        # A share computed in floating point may exceed its bound by rounding.
        top = column.maximum + 1e-9
        rules.append(("ranges", f"{name} > {top}", f"with {column.name} above {column.maximum}"))
    if column.type in ("REAL", "DOUBLE"):
        rules.append(("ranges", f"isnan({name})", f"with {column.name} not a number"))
    if column.values:
        allowed = ", ".join(literal(value) for value in column.values)
        rules.append(
            ("ranges", f"{name} NOT IN ({allowed})", f"with {column.name} not one of {', '.join(column.values)}")
        )
    return rules
