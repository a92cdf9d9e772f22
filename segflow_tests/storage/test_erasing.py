"""Users leave tables, older versions and logs, whatever their ids look like; nobody else is touched."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from deltalake import DeltaTable

from segflow import tables
from segflow.erasure.needles import ERASED, Needles
from segflow.errors import UserError
from segflow.storage import Storage, checksums, erasing
from segflow.tables import Table

Connection = duckdb.DuckDBPyConnection

WEEKS = [date(2024, 1, 1), date(2024, 1, 8)]
INJECTION = "x' OR '1'='1"
OTHERS = ["user4", "user421", "user42-b", "x", "x' OR '1'='1' --"]
GONE = ["user42", INJECTION]


@pytest.fixture(params=["", "file://"], ids=["folder", "object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A folder by its path, and by an address, which is worked on as an object store is."""
    return Storage(f"{request.param}{tmp_path}/tables")


def write(storage: Storage, connection: Connection, table: Table, rows: list[dict[str, object]]) -> None:
    connection.register("rows_to_write", pa.Table.from_pylist(rows, schema=table.arrow))
    partitions = sorted({tuple(row[name] for name in table.partitions) for row in rows})
    storage.write(connection, table, "FROM rows_to_write", partitions)  # type: ignore[arg-type]


def fill(storage: Storage, connection: Connection) -> None:
    """Two versions of a table by user, of one with lists of users, and of one with pages."""
    users = [*OTHERS, *GONE]
    for probability in (0.25, 0.5):
        segments = [
            {"week": week, "user_id": user, "segment_id": "s001", "probability": probability, "outlier": False}
            for week in WEEKS
            for user in (users if week == WEEKS[0] else OTHERS)
        ]
        write(storage, connection, tables.USER_SEGMENTS, segments)
        group = {"arm": "placebo 1", "group_id": "g", "model": b"m", "metrics": "{}"}
        shares = [probability + number / 100 for number in range(len(users))]
        write(
            storage, connection, tables.CONTROL_RANKERS, [{"week": WEEKS[0], "users": users, "shares": shares, **group}]
        )
        report = {"outcome": "x", "sentence": f"at {probability}", "summary": "{}", "html": "<p>user42, user421</p>"}
        write(storage, connection, tables.EVALUATION_REPORT, [{"week": WEEKS[0], **report}])
    write(storage, connection, tables.EVALUATION_REPORT, [{"week": WEEKS[1], **report, "html": "<p>user421</p>"}])


FILLED = (tables.USER_SEGMENTS, tables.CONTROL_RANKERS, tables.EVALUATION_REPORT)


def bytes_of(storage: Storage) -> bytes:
    """Everything that any file says: its bytes, and of Parquet files the values."""
    said = b""
    for file in Path(storage.root.removeprefix("file://")).rglob("*"):
        if file.is_file():
            said += file.read_bytes()
            said += str(parquet.read_table(file).to_pylist()).encode() if file.suffix == ".parquet" else b""
    return said


def test_users_leave_every_version_and_nobody_else_is_touched(place: Storage, connection: Connection) -> None:
    fill(place, connection)
    needles = Needles(GONE)
    erasing.prepare(connection, GONE, erasing.Texts(needles.found, needles.redacted))
    before = place.read(connection, tables.USER_SEGMENTS).to_pylist()
    untouched = {one for one in DeltaTable(place.uri(tables.USER_SEGMENTS)).file_uris() if str(WEEKS[1]) in one}
    for table, rows in zip(FILLED, ({(WEEKS[0],): 2}, {(WEEKS[0],): 1}, {(WEEKS[0],): 1}), strict=True):
        assert erasing.held(place, connection, table) == rows
        assert erasing.left(place, connection, table)[1]
        erasing.remove(place, connection, table, rows, 1)
        assert erasing.held(place, connection, table) == {}
        # The newest version has forgotten them; older ones, and the log, have not.
        assert erasing.left(place, connection, table)[1]
        erasing.forget(place, table)
        assert erasing.left(place, connection, table)[1] == []
    assert erasing.known(place, connection, tables.USER_SEGMENTS) == set()

    after = place.read(connection, tables.USER_SEGMENTS).to_pylist()
    assert after == [row for row in before if row["user_id"] not in GONE]
    assert {row["user_id"] for row in after} == set(OTHERS)
    assert untouched <= set(DeltaTable(place.uri(tables.USER_SEGMENTS)).file_uris())
    (group,) = place.read(connection, tables.CONTROL_RANKERS).to_pylist()
    assert group["users"] == OTHERS
    assert group["shares"] == pytest.approx([0.5 + number / 100 for number in range(len(OTHERS))])
    first, second = place.read(connection, tables.EVALUATION_REPORT).to_pylist()
    assert (first["html"], second["html"]) == (f"<p>{ERASED}, user421</p>", "<p>user421</p>")
    said = bytes_of(place)
    for other in OTHERS:
        said = said.replace(json.dumps(other).encode(), b"").replace(repr(other).encode(), b"")
    assert b"user42" not in said.replace(b"user421", b"").replace(b"user42-b", b"")
    assert INJECTION.encode() not in said.replace(b"x' OR '1'='1' --", b"")


def test_a_table_can_be_written_and_read_after_it_forgot(place: Storage, connection: Connection) -> None:
    fill(place, connection)
    needles = Needles(GONE)
    erasing.prepare(connection, GONE, erasing.Texts(needles.found, needles.redacted))
    version = place.version(tables.USER_SEGMENTS)
    erasing.remove(place, connection, tables.USER_SEGMENTS, [(WEEKS[0],)], 1_000_000)
    erasing.forget(place, tables.USER_SEGMENTS)
    forgot = place.version(tables.USER_SEGMENTS)
    assert version is not None
    assert forgot is not None
    assert forgot > version, "versions that records name never come again"
    with pytest.raises(UserError, match=f"tables/user_segments: version {version} cannot be read"):
        place.read(connection, tables.USER_SEGMENTS, version=version)
    row = {"week": WEEKS[1], "user_id": "new", "segment_id": "s001", "probability": 1.0, "outlier": False}
    write(place, connection, tables.USER_SEGMENTS, [row])
    assert place.rows(tables.USER_SEGMENTS) == {(WEEKS[0],): len(OTHERS), (WEEKS[1],): 1}


def test_the_last_users_of_a_table_can_leave(storage: Storage, connection: Connection) -> None:
    write(storage, connection, tables.USERS, [{"user_id": "user42", "attribute": "age", "value": "30"}])
    write(storage, connection, tables.USER_EDGES, [{"user_id": "a", "other_id": "user42", "weight": 1.0}])
    erasing.prepare(connection, ["user42"], erasing.Texts(lambda _: False, lambda text: text))
    for table in (tables.USERS, tables.USER_EDGES):
        assert erasing.held(storage, connection, table) == {(): 1}
        assert erasing.known(storage, connection, table) == {"user42"}
        erasing.remove(storage, connection, table, [()], 1)
        erasing.forget(storage, table)
        assert erasing.left(storage, connection, table)[1] == []
        assert storage.read(connection, table).num_rows == 0


def test_what_a_killed_erasure_left_is_found_again(storage: Storage, connection: Connection) -> None:
    fill(storage, connection)
    erasing.prepare(connection, ["user42"], erasing.Texts(lambda _: False, lambda text: text))
    erasing.remove(storage, connection, tables.USER_SEGMENTS, [(WEEKS[0],)], 1)
    assert erasing.held(storage, connection, tables.USER_SEGMENTS) == {}
    named = erasing.left(storage, connection, tables.USER_SEGMENTS)[1]
    assert any(one.endswith(".parquet") for one in named)


def test_partitions_that_are_kept_no_longer_go_in_one_commit(place: Storage, connection: Connection) -> None:
    fill(place, connection)
    version = place.version(tables.USER_SEGMENTS)
    erasing.expire(place, connection, tables.USER_SEGMENTS, [(WEEKS[0],)])
    assert place.version(tables.USER_SEGMENTS) == (version or 0) + 1
    assert place.partitions(tables.USER_SEGMENTS) == [(WEEKS[1],)]
    erasing.expire(place, connection, tables.USER_SEGMENTS, [(WEEKS[0],)])
    assert place.version(tables.USER_SEGMENTS) == (version or 0) + 1, "nothing was left to do"
    assert place.read(connection, tables.USER_SEGMENTS, version=version).num_rows > len(OTHERS), "until it is forgotten"
    erasing.forget(place, tables.USER_SEGMENTS)
    assert b"user42" not in bytes_of(Storage(f"{place.root}/user_segments")).replace(b"user421", b"").replace(
        b"user42-b", b""
    )


def test_older_versions_go_by_their_age(storage: Storage, connection: Connection) -> None:
    fill(storage, connection)
    folder = Path(storage.uri(tables.EVALUATION_REPORT))
    first = [
        file for file in folder.rglob("*.parquet") if b"0.25" in str(parquet.read_table(file).to_pylist()).encode()
    ]
    assert erasing.prune(storage, tables.EVALUATION_REPORT, 3, dry_run=True) == 0
    for file in (folder / "_delta_log").glob("*.json"):
        # As if all of it had happened ten days ago.
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            for entry in line.values():
                for name in ("deletionTimestamp", "timestamp", "modificationTime"):
                    if name in entry:
                        entry[name] -= 10 * 86_400_000
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    shutil.rmtree(folder / checksums.FOLDER / checksums.LOG)
    assert erasing.prune(storage, tables.EVALUATION_REPORT, 11, dry_run=True) == 0
    assert erasing.prune(storage, tables.EVALUATION_REPORT, 3, dry_run=True) == len(first) > 0
    assert all(file.exists() for file in first)
    assert erasing.prune(storage, tables.EVALUATION_REPORT, 3) == len(first)
    assert not any(file.exists() for file in first)
    assert storage.rows(tables.EVALUATION_REPORT) == {(WEEKS[0],): 1, (WEEKS[1],): 1}


def test_a_log_entry_that_names_a_user_is_seen(storage: Storage, connection: Connection) -> None:
    write(storage, connection, tables.USERS, [{"user_id": "user42", "attribute": "age", "value": "30"}])
    write(storage, connection, tables.USERS, [{"user_id": "user43", "attribute": "age", "value": "30"}])
    DeltaTable(storage.uri(tables.USERS)).vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
    erasing.prepare(connection, ["user42"], erasing.Texts(lambda _: False, lambda text: text))
    (named,) = erasing.left(storage, connection, tables.USERS)[1]
    assert named.endswith("_delta_log/00000000000000000001.json")
    DeltaTable(storage.uri(tables.USERS)).create_checkpoint()
    erasing.forget(storage, tables.USERS)
    assert erasing.left(storage, connection, tables.USERS)[1] == []


def test_every_column_that_is_called_a_user_is_declared_as_one() -> None:
    for table in tables.ALL.values():
        for column in table.columns:
            named = column.name in ("user_id", "other_id", "members") or (column.name, column.type) == (
                "users",
                "VARCHAR[]",
            )
            assert column.users == named, f"{table.name}.{column.name}"
            assert not column.along or column.along in table.column_names
