"""Small tables to write, and the programs that write them in processes of their own."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from subprocess import PIPE

import duckdb

from segflow.config import ComputeConfig
from segflow.errors import UserError
from segflow.storage import Storage, connect
from segflow.tables import Column, Table

REPOSITORY = Path(__file__).parents[2]
MANY = 20_000

VISITS = Table(
    "visits",
    "Rows with one of each kind of rule.",
    (
        Column("day", "DATE", "day"),
        Column("user_id", "VARCHAR", "user"),
        Column("number", "INTEGER", "number", minimum=0),
        Column("share", "DOUBLE", "share", nullable=True, minimum=0.0, maximum=1.0),
        Column("kind", "VARCHAR", "kind", values=("view", "buy")),
        Column("items", "VARCHAR[]", "items"),
    ),
    key=("day", "user_id"),
    partitions=("day",),
)
MODELS = Table(
    "models",
    "Two partition columns.",
    (Column("week", "DATE", "week"), Column("segment_id", "VARCHAR", "segment"), Column("model", "BLOB", "bytes")),
    key=("week", "segment_id"),
    partitions=("week", "segment_id"),
)
NAMES = Table(
    "names",
    "No partitions.",
    (Column("item_id", "VARCHAR", "item"), Column("name", "VARCHAR", "name", nullable=True)),
    key=("item_id",),
)


def day(number: int) -> date:
    return date(2024, 1, number)


def visits(*days: int, number: int = 0, users: int = 3, order: str = "user_id") -> str:
    """A query with `users` rows for each of these days of January 2024."""
    listed = ", ".join(f"DATE '{day(one)}'" for one in days)
    return (
        f"SELECT day, 'u' || i AS user_id, {number} AS number, 0.5 AS share, 'view' AS kind, ['a', 'b'] AS items "
        f"FROM range({users}) AS users(i), unnest([{listed}]) AS days(day) ORDER BY {order}"
    )


def numbers(
    connection: duckdb.DuckDBPyConnection, storage: Storage, version: int | None = None
) -> dict[date, list[int]]:
    """Day -> the numbers of its rows."""
    rows = storage.read(connection, VISITS, version=version).to_pylist()
    return {one: [row["number"] for row in rows if row["day"] == one] for one in sorted({row["day"] for row in rows})}


def start(program: str, *arguments: object, under: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Run a function of this module in a process of its own. under: the start of its command line."""
    command = [*under, sys.executable, "-m", __name__, program, *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)


def together(processes: Sequence[subprocess.Popen[str]], folders: Sequence[str]) -> None:
    """Let all programs `write_on_command` write into one folder at once, and into the next when all are done; then they end."""
    for folder in folders:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n", process.communicate()[1]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0


def write_on_command(root: str, own_day: str, place: str = "", options: str = "{}") -> None:
    """For each folder named on the standard input: write one day of the table there, below `place`, and say so."""
    with connect(ComputeConfig(spill=f"{root}/spill", threads=1)) as connection:
        for turn, line in enumerate(sys.stdin):
            query = visits(int(own_day), number=turn)
            storage = Storage(f"{place or root}/{line.strip()}", json.loads(options))
            storage.write(connection, VISITS, query, [(day(int(own_day)),)])
            print("done", flush=True)


def write_many(root: str, own_number: str, place: str, options: str, turns: str) -> None:
    """Write the first day again and again, each time with another number of that own number's thousand."""
    with connect(ComputeConfig(spill=f"{root}/spill", threads=1)) as connection:
        for turn in range(int(turns)):
            query = visits(1, number=int(own_number) * 1000 + turn, users=50)
            Storage(place, json.loads(options)).write(connection, VISITS, query, [(day(1),)])


def write_until_killed(root: str, base: str) -> None:
    """Announce each write of many rows, with ever higher numbers: `begin` before it, `end` behind it."""
    with connect(ComputeConfig(spill=f"{root}/spill", threads=1)) as connection:
        for number in itertools.count(int(base)):
            print("begin", flush=True)
            query = visits(1, 2, number=number, users=MANY)
            Storage(f"{root}/tables").write(connection, VISITS, query, [(day(1),), (day(2),)])
            print("end", flush=True)


def write_two_tables(root: str, survive: str) -> None:
    """Write `visits`, die unless told to survive, write `names`."""
    with connect(ComputeConfig(spill=f"{root}/spill", threads=1)) as connection:
        storage = Storage(f"{root}/tables")
        storage.write(connection, VISITS, visits(1, number=1), [(day(1),)])
        if survive != "survive":
            os.kill(os.getpid(), signal.SIGKILL)
        storage.write(connection, NAMES, "SELECT 'i' AS item_id, 'new' AS name")


def write_once(root: str, number: str) -> None:
    """Write one day; print the error of a user's or the machine's, if there is one."""
    try:
        with connect(ComputeConfig(spill=f"{root}/spill", threads=1)) as connection:
            Storage(f"{root}/tables").write(connection, VISITS, visits(1, number=int(number)), [(day(1),)])
    except UserError as error:
        print(error)


def spill_until_killed(root: str) -> None:
    """Write more to disk than memory holds, and wait."""
    with connect(ComputeConfig(spill=f"{root}/spill", threads=1, memory_limit="30MB")) as connection:
        connection.execute("CREATE TEMP TABLE big AS SELECT i, md5(i::VARCHAR) AS text FROM range(1_000_000) AS t(i)")
        print("spilled", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
