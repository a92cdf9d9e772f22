"""Taking users out of tables for good: their rows, their places in lists, texts that name them, and all older versions.

Lives here: what is done to tables and their logs. Does not live here: pages, records of runs, and what else may name a user
(``segflow.erasure``).

A table is first written anew without the users, partition by partition, as any write does it. Old versions go afterwards:
a vacuum removes their data files. Delta's log still tells the least and the greatest value of each column of each file that
ever was, ids among them, so the log starts anew too, with a checkpoint. No predicate names a user: the log would keep it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import DeltaTable

from segflow.sql import identifier, literal
from segflow.storage import checksums
from segflow.storage.partitions import Key, Partition, after
from segflow.storage.places import file_system
from segflow.storage.tables import Storage
from segflow.tables import Table

USERS = "erased_users"
"""The view of the ids to erase, with the column `user_id`."""
_LISTED = f"getvariable('{USERS}')"
_NAMES, _REDACTED = "names_erased", "without_erased"
_LOG_FILE = re.compile(r"(\d{20})\..*")


@dataclass(frozen=True)
class Texts:
    """How users are told in free text. found: whether bytes name one; redacted: the text without their names."""

    found: Callable[[bytes], bool]
    redacted: Callable[[str], str]


def prepare(connection: duckdb.DuckDBPyConnection, users: Sequence[str], texts: Texts) -> None:
    """Make the view of the ids, and the functions on texts, that all others here use."""
    connection.register(USERS, pa.table({"user_id": pa.array(users, pa.string())}))
    # No subquery may stand in a lambda.
    connection.execute(f"SET VARIABLE {USERS} = (SELECT list(user_id) FROM {USERS})")
    connection.create_function(_NAMES, lambda text: texts.found(text.encode()), ["VARCHAR"], "BOOLEAN")
    connection.create_function(_REDACTED, texts.redacted, ["VARCHAR"], "VARCHAR")


def held(storage: Storage, connection: duckdb.DuckDBPyConnection, table: Table) -> dict[Partition, int]:
    """Partition -> how many of its rows belong to the users, hold one in a list, or name one in a text."""
    rule = _rule(table)
    if rule is None:
        return {}
    storage.view(connection, table, name="looked_into")
    keys = ", ".join(identifier(name) for name in table.partitions)
    found = connection.execute(
        f"SELECT {keys + ', ' if keys else ''}count(*) FROM looked_into WHERE {rule} {'GROUP BY ALL' if keys else ''}"
    ).fetchall()
    return {tuple(row[:-1]): row[-1] for row in found if row[-1]}


def known(storage: Storage, connection: duckdb.DuckDBPyConnection, table: Table) -> set[str]:
    """Those of the users whose ids the table holds."""
    storage.view(connection, table, name="looked_into")
    found: set[str] = set()
    for column in table.user_columns:
        name = identifier(column.name)
        ids = f"unnest({name})" if column.type.endswith("[]") else name
        query = f"SELECT DISTINCT id FROM (SELECT {ids} AS id FROM looked_into) WHERE id IN (FROM {USERS})"
        found |= {row[0] for row in connection.execute(query).fetchall()}
    return found


def remove(
    storage: Storage,
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    partitions: Collection[Partition],
    rows_at_once: int,
) -> None:
    """Write the partitions anew without the users, in commits of about `rows_at_once` rows."""
    for part in _parts(sorted(partitions), storage.rows(table), rows_at_once):
        storage.view(connection, table, name="erased_from", where=_around(table, part))
        storage.write(connection, table, f"{_without(table)}{_among(table, part)}", part, commit={"why": "erasure"})


def forget(storage: Storage, table: Table) -> None:
    """Remove every version but the newest: data files, and the log that tells of them."""
    opened = storage.open(table)
    if opened is None:
        return
    opened.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
    opened = storage.open(table) or opened
    opened.create_checkpoint()
    files = _files(storage, table)
    for name in _log(files):
        if (numbered := _LOG_FILE.fullmatch(name)) and int(numbered[1]) < opened.version():
            files.delete_file(f"_delta_log/{name}")
    if storage.is_local:
        folder = storage.folder(table)
        log = checksums.commit_files(folder, opened.version())
        checksums.record(folder, log)
        checksums.forget(folder, [*(path for _, path in storage.files(table)), *log])


def expire(
    storage: Storage, connection: duckdb.DuckDBPyConnection, table: Table, partitions: Sequence[Partition]
) -> None:
    """Remove all rows of the partitions, in one commit."""
    columns = ", ".join(f"NULL::{column.type} AS {identifier(column.name)}" for column in table.columns)
    storage.write(connection, table, f"SELECT {columns} LIMIT 0", partitions, commit={"why": "retention"})


def prune(storage: Storage, table: Table, days: int, dry_run: bool = False) -> int:
    """Remove data files that no version of the last `days` days reads; returns how many. Those versions stay readable."""
    opened = storage.open(table)
    if opened is None:
        return 0
    gone = opened.vacuum(retention_hours=24 * days, dry_run=dry_run, enforce_retention_duration=False, full=True)
    if storage.is_local and not dry_run:
        checksums.forget_gone(storage.folder(table))
    return len(gone)


def left(storage: Storage, connection: duckdb.DuckDBPyConnection, table: Table) -> tuple[int, list[str]]:
    """How many files there are below the table, of all versions, and which of them hold one of the users.

    In an object store the data files of the newest version are read, and any other one counts as one that does.
    """
    opened = storage.open(table)
    if opened is None:
        return 0, []
    files = _files(storage, table)
    data = [one.path for one in files.get_file_info(pafs.FileSelector("", recursive=True)) if one.is_file]
    logs = [one for one in data if "_delta_log/" in one]
    data = [one for one in data if "_delta_log/" not in one and one.endswith(".parquet")]
    holding = _holding(storage, connection, table, opened, data)
    users = {row[0] for row in connection.execute(f"FROM {USERS}").fetchall()}
    holding += [name for name in logs if _tells(files, name, table, users)]
    return len(data) + len(logs), sorted(f"{storage.uri(table)}/{name}" for name in holding)


def _holding(
    storage: Storage, connection: duckdb.DuckDBPyConnection, table: Table, opened: DeltaTable, data: Sequence[str]
) -> list[str]:
    rule = _rule(table)
    if rule is None or not data:
        return []
    if "://" in storage.root:
        live = {unquote(one) for one in pa.table(opened.get_add_actions(flatten=True))["path"].to_pylist()}
        storage.view(connection, table, name="looked_into")
        ((rows,),) = connection.execute(f"SELECT count(*) FROM looked_into WHERE {rule}").fetchall()
        return [one for one in data if one not in live or rows]
    paths = [str(Path(storage.root) / table.name / one) for one in data]
    found = connection.execute(
        f"SELECT DISTINCT filename FROM read_parquet({literal(paths)}, filename = true, hive_partitioning = false, "
        f"union_by_name = true) WHERE {rule}"
    ).fetchall()
    return [str(Path(row[0]).relative_to(Path(storage.root) / table.name)) for row in found]


def _rule(table: Table) -> str | None:
    """The SQL condition of rows with something to erase; None for a table that can hold nothing."""
    rules = []
    for column in table.user_columns:
        name = identifier(column.name)
        if column.type.endswith("[]"):
            rules.append(f"list_has_any({name}, {_LISTED})")
        else:
            rules.append(f"{name} IN (SELECT user_id FROM {USERS})")
    rules += [f"coalesce({_NAMES}({identifier(name)}), false)" for name in _texts(table)]
    return " OR ".join(rules) or None


def _texts(table: Table) -> list[str]:
    """The columns of free text that may name a user: those of pages and summaries.

    Where a row belongs to a user, it goes with them; what others wrote is theirs. Catalogues and source files name no user.
    """
    if any(column.type == "VARCHAR" for column in table.user_columns):
        return []
    origins = {one for column in table.columns for one in column.origin if "." in one}
    return [
        column.name
        for column in table.columns
        if origins
        and column.type == "VARCHAR"
        and column.name not in (*table.key, *table.partitions)
        and not column.values
    ]


def _without(table: Table) -> str:
    """The query of the rows of the view `erased_from` as they are to stay."""
    changed = []
    for column in table.user_columns:
        if not column.type.endswith("[]"):
            continue
        name = identifier(column.name)
        changed.append(f"list_filter({name}, lambda one: NOT list_contains({_LISTED}, one)) AS {name}")
        for beside in (one for one in table.columns if one.along == column.name):
            own = identifier(beside.name)
            changed.append(
                f"list_filter({own}, lambda share, place: NOT list_contains({_LISTED}, {name}[place])) AS {own}"
            )
    changed += [f"{_REDACTED}({identifier(name)}) AS {identifier(name)}" for name in _texts(table)]
    owners = [identifier(one.name) for one in table.user_columns if not one.type.endswith("[]")]
    theirs = "".join(f" AND coalesce({name} NOT IN (SELECT user_id FROM {USERS}), true)" for name in owners)
    replaced = f" REPLACE ({', '.join(changed)})" if changed else ""
    return f"SELECT *{replaced} FROM erased_from WHERE true{theirs}"


def _parts(
    partitions: Sequence[Partition], rows: Mapping[Partition, int], rows_at_once: int
) -> Iterator[list[Partition]]:
    part: list[Partition] = []
    held_rows = 0
    for one in partitions:
        if part and held_rows + rows.get(one, 0) > rows_at_once:
            yield part
            part, held_rows = [], 0
        part.append(one)
        held_rows += rows.get(one, 0)
    if part:
        yield part


def _around(table: Table, part: Sequence[Partition]) -> dict[str, tuple[Key, Key] | Key]:
    """The range of days or weeks from the first to the last of the partitions: only these files are looked into."""
    if not table.partitions or not isinstance(part[0][0], date):
        return {}
    days = [one[0] for one in part if isinstance(one[0], date)]
    return {table.partitions[0]: (min(days), after(max(days)))}


def _among(table: Table, part: Sequence[Partition]) -> str:
    if not table.partitions:
        return ""
    keys = ", ".join(identifier(name) for name in table.partitions)
    wanted = ", ".join(f"({', '.join(literal(key) for key in one)})" for one in part)
    return f" AND ({keys}) IN ({wanted})"


def _files(storage: Storage, table: Table) -> pafs.FileSystem:
    """The files below the table, by paths relative to it."""
    return file_system(storage.uri(table), storage.options)


def _log(files: pafs.FileSystem) -> list[str]:
    return [Path(one.path).name for one in files.get_file_info(pafs.FileSelector("_delta_log")) if one.is_file]


def _tells(files: pafs.FileSystem, name: str, table: Table, users: Collection[str]) -> bool:
    """Whether a file of the log has one of the users as least or greatest value of a column of ids."""
    with files.open_input_file(name) as file:
        content = file.read()
    if name.endswith(".parquet"):
        import pyarrow.parquet as parquet

        rows = parquet.read_table(pa.BufferReader(content))
        adds = [one for one in rows["add"].to_pylist() if one] if "add" in rows.column_names else []
    elif name.endswith(".json"):
        lines = [json.loads(line) for line in content.splitlines() if line.strip()]
        adds = [one["add"] for one in lines if "add" in one]
    else:
        return False
    owned = [one.name for one in table.user_columns]
    for add in adds:
        said = json.loads(add.get("stats") or "{}")
        for bound in ("minValues", "maxValues"):
            values = said.get(bound, {})
            if any(values.get(column) in users for column in owned if isinstance(values.get(column), str)):
                return True
    return False
