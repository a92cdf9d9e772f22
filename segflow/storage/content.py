"""What the partitions of a table hold: their files, how many rows, and digests of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable, Schema

from segflow.sql import identifier, literal
from segflow.storage.checksums import Damage
from segflow.storage.partitions import Partition
from segflow.tables import Table


def data_files(table: Table, opened: DeltaTable) -> list[tuple[Partition, Path]]:
    """The data files of a table on this machine, each with its partition."""
    root = path_of(opened.table_uri)
    return [
        (_key(table, action), root / unquote(action["path"]))
        for action in pa.table(opened.get_add_actions(flatten=True)).to_pylist()
    ]


def differences(stored: Schema, table: Table) -> list[str]:
    """The columns that are stored or declared alone, or of another type."""
    there = {column.name: str(column.type) for column in stored.fields}
    declared = {column.name: str(column.type) for column in Schema.from_arrow(table.arrow).fields}
    return sorted(name for name in there.keys() | declared.keys() if there.get(name) != declared.get(name))


def path_of(address: str) -> Path:
    """A file on this machine. Addresses come percent-encoded; DuckDB wants the path as it is on disk."""
    return Path(unquote(address.removeprefix("file://")))


def files_view(connection: duckdb.DuckDBPyConnection, table: Table, name: str, files: Sequence[Path]) -> None:
    """Create the DuckDB view `name` over data files on this machine."""
    hive = ", ".join(
        f"{identifier(column.name)}: {column.type}" for column in table.columns if column.name in table.partitions
    )
    types = f", hive_partitioning = true, hive_types = {{{hive}}}" if hive else ""
    names = ", ".join(identifier(name) for name in table.column_names)
    listed = literal(sorted(map(str, files)))
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {identifier(name)} AS SELECT {names} FROM read_parquet({listed}{types})"
    )


def what_to_do(table: Table, damages: Sequence[Damage]) -> str:
    """One line on damaged files: the first of them, and how to mend it."""
    first = damages[0]
    more = f" (and {len(damages) - 1} more; `segflow doctor --tables` names them)" if len(damages) > 1 else ""
    key = dict(part.split("=", 1) for part in first.file.parts if "=" in part)
    day = key.get(table.partitions[0]) if table.partitions else None
    again = f"segflow backfill {day}..{day} --assets {table.name} --force" if day else "segflow run --force"
    return f"{first.file}: {first.says}{more}; restore it from a backup, or make it again with `{again}`"


def log_mend(table: Table, place: str, says: str) -> str:
    """One line on a table at `place` whose log is not as it was written, and how to mend it."""
    again = f"segflow backfill FIRST..LAST --assets {table.name} --force" if table.partitions else "segflow run --force"
    return f"{says}; restore it from a backup, or move {place} aside and make the table again with `{again}`"


def counted(table: Table, opened: DeltaTable) -> dict[Partition, int]:
    """Partition -> number of rows."""
    counted: dict[Partition, int] = {}
    for action in pa.table(opened.get_add_actions(flatten=True)).to_pylist():
        key = _key(table, action)
        counted[key] = counted.get(key, 0) + action["num_records"]
    return counted


def digests(connection: duckdb.DuckDBPyConnection, table: Table, source: str) -> dict[Partition, tuple[int, str]]:
    """Rows and content digest of each partition in `source`; the digest does not depend on row order."""
    columns = ", ".join(identifier(name) for name in table.column_names if name not in table.partitions)
    keys = ", ".join(identifier(name) for name in table.partitions)
    found = connection.execute(
        f"SELECT {keys + ', ' if keys else ''} count(*), sum(mark::HUGEINT)::VARCHAR, bit_xor(mark)::VARCHAR "
        f"FROM (SELECT {keys + ', ' if keys else ''} hash({columns}) AS mark FROM {identifier(source)}) "
        f"{'GROUP BY ' + keys if keys else ''}"
    ).fetchall()
    width = len(table.partitions)
    return {
        tuple(row[:width]): (row[width], _short(f"{row[width]}:{row[width + 1]}:{row[width + 2]}")) for row in found
    }


def _key(table: Table, action: Mapping[str, Any]) -> Partition:
    return tuple(action[f"partition.{name}"] for name in table.partitions)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
