"""Tables in an object store: as on disk, several writers included; what goes wrong there is told in one line."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from deltalake.exceptions import DeltaError

from segflow.config import ComputeConfig, StorageConfig
from segflow.erasure.needles import ERASED, Needles
from segflow.errors import StoreError, UserError
from segflow.storage import Storage, connect, erasing, explained
from segflow.storage.health import data_findings, storage_findings
from segflow_tests.object_store import BUCKET, ObjectStore
from segflow_tests.storage.samples import MODELS, NAMES, VISITS, day, numbers, start, together, visits
from segflow_tests.storage.test_erasing import FILLED, GONE, fill

Connection = duckdb.DuckDBPyConnection
QUICK = {"max_retries": "1", "retry_timeout": "2s", "connect_timeout": "1s", "timeout": "2s"}


def history(storage: Storage) -> list[dict]:
    opened = storage.open(VISITS)
    assert opened is not None
    return opened.history()


@pytest.mark.parametrize(("where", "told"), [("LocalFileSystem", False), ("S3", True)])
def test_a_disk_is_told_as_a_disk(where: str, told: bool) -> None:
    error = DeltaError(
        f"Failed to parse parquet: External: Generic {where} error: No space left on device (os error 28)"
    )
    assert (explained(error) is not None) == told


def test_tables_are_as_on_disk(connection: Connection, storage: Storage, objects: ObjectStore) -> None:
    there = Storage(objects.root("as-on-disk"), objects.options)
    days = [(day(1),), (day(2),), (day(3),)]
    for one in (storage, there):
        assert one.version(VISITS) is None
        assert one.read(connection, VISITS).num_rows == 0
    for query, partitions in (
        (visits(1, 2, 3), days),
        (visits(2, number=7, users=1), days[1:2]),
        (visits(3, 1, order="user_id DESC"), [days[2], days[0]]),
    ):
        here, remote = (one.write(connection, VISITS, query, partitions) for one in (storage, there))
        assert here == remote
    assert numbers(connection, there) == numbers(connection, storage) == {day(1): [0] * 3, day(2): [7], day(3): [0] * 3}
    assert numbers(connection, there, 1) == numbers(connection, storage, 1)
    assert there.partitions(VISITS) == storage.partitions(VISITS) == days
    assert there.rows(VISITS) == storage.rows(VISITS)
    for where in ({"day": day(2)}, {"day": (day(2), day(4))}, {"day": day(9)}):
        assert there.read(connection, VISITS, where=where) == storage.read(connection, VISITS, where=where)
    # A table of two partition columns, and one of none.
    model = f"SELECT DATE '{day(1)}' AS week, 's1' AS segment_id, 'bytes'::BLOB AS model"
    there.write(connection, MODELS, model, [(day(1), "s1")])
    there.write(connection, NAMES, "SELECT 'i' AS item_id, 'x' AS name")
    assert there.read(connection, MODELS)["model"].to_pylist() == [b"bytes"]
    assert there.read(connection, NAMES).to_pylist() == [{"item_id": "i", "name": "x"}]


@pytest.mark.parametrize("turn", range(3))
def test_a_table_that_several_make_at_once_is_made_once(objects: ObjectStore, tmp_path: Path, turn: int) -> None:
    root = objects.root(f"made-once-{turn}")
    ready = threading.Barrier(4)
    failed: list[Exception] = []

    def write(number: int) -> None:
        with connect(ComputeConfig(spill=str(tmp_path / "spill"), threads=1)) as connection:
            ready.wait()
            try:
                Storage(root, objects.options).write(connection, VISITS, visits(number), [(day(number),)])
            except Exception as error:
                failed.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(1, 5)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert failed == []
    storage = Storage(root, objects.options)
    assert storage.rows(VISITS) == {(day(number),): 3 for number in range(1, 5)}
    assert Counter(one["operation"] for one in history(storage)) == {"CREATE TABLE": 1, "WRITE": 4}


@pytest.mark.slow
def test_processes_rewrite_their_own_days_at_once(connection: Connection, objects: ObjectStore, tmp_path: Path) -> None:
    """Four new tables, which all create at the same moment, then one ten times more."""
    place, options = objects.root("own-days"), json.dumps(objects.options)
    own_days = range(1, 5)
    processes = [start("write_on_command", tmp_path, number, place, options) for number in own_days]
    folders = [*"abcd", *"a" * 10]
    together(processes, folders)
    for folder in "abcd":
        turn = max(number for number, one in enumerate(folders) if one == folder)
        storage = Storage(f"{place}/{folder}", objects.options)
        assert numbers(connection, storage) == {day(one): [turn] * 3 for one in own_days}
        writes = 4 * folders.count(folder)
        assert Counter(one["operation"] for one in history(storage)) == {"CREATE TABLE": 1, "WRITE": writes}


@pytest.mark.slow
def test_two_writers_of_one_partition_come_one_after_the_other(
    connection: Connection, objects: ObjectStore, tmp_path: Path
) -> None:
    place, options, turns = objects.root("one-day"), json.dumps(objects.options), 15
    writers = [start("write_many", tmp_path, own, place, options, turns) for own in (1, 2)]
    ends = [one.communicate(timeout=240)[1] for one in writers]
    storage = Storage(place, objects.options)
    wrote: list[int] = []
    for version in range(1, (storage.version(VISITS) or 0) + 1):
        found = numbers(connection, storage, version)[day(1)]
        assert len(found) == 50
        assert len(set(found)) == 1, "rows of two writers"
        wrote.append(found[0])
    assert len(set(wrote)) == len(wrote), "one write, two versions"
    for own, end, process in zip((1, 2), ends, writers, strict=True):
        mine = [one for one in wrote if one // 1000 == own]
        assert mine == sorted(mine)
        # Who lost against the other again and again says so, and what it had written by then is there.
        assert (process.returncode == 0 and len(mine) == turns) or "another run wrote it" in end, end


@pytest.mark.slow
def test_users_leave_tables_old_versions_and_logs(connection: Connection, objects: ObjectStore) -> None:
    storage = Storage(objects.root("erasing"), objects.options)
    needles = Needles(GONE)
    erasing.prepare(connection, GONE, erasing.Texts(needles.found, needles.redacted))
    fill(storage, connection)

    plain = Needles(GONE[:1])

    def telling() -> set[str]:
        """The objects that name the one with a plain id: in their bytes or, of Parquet, in their columns."""
        found = set()
        for name in objects.names("erasing/"):
            content = objects.client().get_object(Bucket=BUCKET, Key=name)["Body"].read()
            if name.endswith(".parquet") and "_delta_log" not in name:
                content = str(parquet.ParquetFile(pa.BufferReader(content)).read().to_pylist()).encode()
            if plain.found(content):
                found.add(name)
        return found

    assert {name.split("/")[1] for name in telling()} == {one.name for one in FILLED}
    for table in FILLED:
        assert erasing.left(storage, connection, table)[1]
        erasing.remove(storage, connection, table, erasing.held(storage, connection, table), 10)
        erasing.forget(storage, table)
        assert erasing.left(storage, connection, table)[1] == []
    assert telling() == set()
    page = storage.read(connection, FILLED[2], where={"week": day(1)})["html"].to_pylist()
    assert page == [f"<p>{ERASED}, user421</p>"]


def test_what_is_wrong_is_told_in_one_line(
    connection: Connection, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = Storage("s3://no-such-bucket/tables", objects.options)
    deaf = Storage(objects.root("x"), {**objects.options, "aws_endpoint_url": "http://127.0.0.1:9", **QUICK})
    plain = Storage(objects.root("x"), {"aws_endpoint_url": objects.address})
    lost = Storage(objects.root("lost"), objects.options)
    lost.write(connection, VISITS, visits(1), [(day(1),)])
    (data,) = [name for name in objects.names("lost/") if name.endswith(".parquet")]
    objects.client().delete_object(Bucket=BUCKET, Key=data)
    for action, says, passing in (
        (
            lambda: absent.version(VISITS),
            r"GET .*/no-such-bucket: 404 Not Found NoSuchBucket; correct storage.root",
            False,
        ),
        (
            lambda: absent.write(connection, VISITS, visits(1), [(day(1),)]),
            r"/no-such-bucket: 404 Not Found NoSuchBucket; correct storage.root",
            False,
        ),
        (
            lambda: deaf.version(VISITS),
            r"GET http://127.0.0.1:9/.*: Connection refused .* \(after 1 retries\); see that the store answers",
            True,
        ),
        (lambda: plain.version(VISITS), "URL scheme is not allowed; set aws_allow_http: 'true'", False),
        (lambda: lost.read(connection, VISITS), r"\.parquet: 404 Not Found NoSuchKey; restore it", False),
    ):
        with pytest.raises(StoreError, match=says) as raised:
            action()
        assert raised.value.passing == passing
        assert str(raised.value).startswith("storage.root: ")
        assert "\n" not in str(raised.value)
    # What is lost is made again.
    assert lost.write(connection, VISITS, visits(1), [(day(1),)]).replaced == [(day(1),)]
    assert numbers(connection, lost) == {day(1): [0, 0, 0]}
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="set its credentials in the environment"):
        Storage(objects.root("x"), {**objects.options, **QUICK}).version(VISITS)


def test_the_doctor_looks_at_the_store(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(**changes: object) -> dict[str, tuple[str, str, str]]:
        config = StorageConfig.model_validate({"root": objects.root("doctor"), "options": objects.options, **changes})
        return {
            one.area: (one.state, one.says, one.mend) for one in [*storage_findings(config, 1), *data_findings(config)]
        }

    before = objects.names("")
    well = found()
    assert {area: state for area, (state, _, _) in well.items()} == {"storage": "ok", "tables": "ok", "data": "ok"}
    missing = found(root="s3://no-such-bucket/x")
    assert [missing[area][0] for area in ("storage", "tables")] == ["fault", "fault"]
    assert "NoSuchBucket" in missing["storage"][1]
    assert missing["storage"][2].startswith("correct storage.root")
    assert (
        found(options={**objects.options, "aws_endpoint_url": "http://127.0.0.1:9", **QUICK})["storage"][0] == "fault"
    )
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    state, says, mend = found()["storage"]
    assert (state, mend) == ("warning", "remove AWS_S3_ALLOW_UNSAFE_RENAME")
    assert "overwrite each other" in says
    assert objects.names("") == before
