"""Whether two jobs wrote the same tables: counts and sums of hashes over rows in a canonical form, whatever their order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from segflow.sql import identifier, literal

# Times as numbers and fractions rounded, so that engines that store them in different types can be compared.
_SESSION = (
    'day::VARCHAR, session_id, user_id, epoch_us(start), epoch_us("end"), round(duration * 1e6)::BIGINT, events::BIGINT, '
    "{types}, distinct_items::BIGINT, round(value * 1e6)::BIGINT, round(weight * 1e6)::BIGINT, items, event_types, "
    "[round(gap * 1e3)::BIGINT FOR gap IN gaps], text"
)
_QUARANTINED = (
    "day::VARCHAR, event_id, user_id, item_id, event_type::VARCHAR, epoch_us(ts), round(value * 1e6)::BIGINT, "
    "round(quantity * 1e6)::BIGINT, session_id, text, unparsed, source_file, source_row::BIGINT, reason::VARCHAR"
)


@dataclass(frozen=True)
class Comparison:
    """rows: of each table in the first output. different: some rows of one output that the other lacks."""

    rows: dict[str, int]
    different: list[str]

    @property
    def same(self) -> bool:
        return not self.different


def compare(one: Path, other: Path, spill: Path) -> Comparison:
    """Compare the tables sessions and quarantine under two folders that jobs wrote."""
    rows: dict[str, int] = {}
    different: list[str] = []
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET memory_limit = '4GB'")
        connection.execute("SET temp_directory = $1", [str(spill)])
        for table in ("sessions", "quarantine"):
            queries = [_canonical(connection, folder / table, table == "sessions") for folder in (one, other)]
            sums = [_checksum(connection, query) for query in queries]
            rows[table] = sums[0][0]
            if sums[0] != sums[1]:
                different += _differing(connection, table, queries, (one.name, other.name))
    return Comparison(rows, different)


def _canonical(connection: duckdb.DuckDBPyConnection, folder: Path, sessions: bool) -> str:
    source = f"read_parquet({literal(str(folder / '*.parquet'))})"
    columns = _SESSION.format(types=_types(connection, source)) if sessions else _QUARANTINED
    return f"SELECT {columns} FROM {source}"


def _types(connection: duckdb.DuckDBPyConnection, source: str) -> str:
    """Counts by type as `cart=1 view=2`, from a map, or from a structure with a field for each type."""
    kinds = {row[0]: row[1] for row in connection.execute(f"DESCRIBE FROM {source}").fetchall()}
    if kinds["type_counts"].startswith("MAP"):
        counted = "[entry.key || '=' || entry.value FOR entry IN map_entries(type_counts)]"
    else:
        names = connection.execute(f"DESCRIBE SELECT unnest(type_counts) FROM {source}").fetchall()
        fields = [(literal(row[0]), f"type_counts.{identifier(row[0])}") for row in names]
        # A type that does not occur in a session is no part of a map.
        counted = ", ".join(f"CASE WHEN {count} > 0 THEN {name} || '=' || {count} END" for name, count in fields)
        counted = f"list_filter([{counted}], lambda one: one IS NOT NULL)"
    return f"array_to_string(list_sort({counted}), ' ')"


def _checksum(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[int, int, int]:
    """(rows, sum of hashes, all hashes by exclusive or)"""
    found = connection.execute(
        f"SELECT count(*), coalesce(sum(hash(rows)::HUGEINT), 0)::HUGEINT, coalesce(bit_xor(hash(rows)), 0) "
        f"FROM ({query}) AS rows"
    ).fetchone()
    assert found is not None
    return found


def _differing(
    connection: duckdb.DuckDBPyConnection, table: str, queries: list[str], names: tuple[str, str]
) -> list[str]:
    """The first rows of each output that do not stand as often in the other."""
    said = []
    for here, there, name in ((*queries, names[0]), (*reversed(queries), names[1])):
        missing = connection.execute(f"({here}) EXCEPT ALL ({there}) ORDER BY ALL LIMIT 3").fetchall()
        said += [f"{table}, only in {name}: {row}" for row in missing]
    return said
