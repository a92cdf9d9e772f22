"""Tables: one partition replaced at a time, nothing when nothing changed, nothing at all when a rule is broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segflow.config import ComputeConfig
from segflow.errors import UserError
from segflow.storage import Storage, ViolationsError, connect
from segflow.storage.partitions import check_key
from segflow.tables import Column
from segflow_tests.storage.samples import MODELS, NAMES, VISITS, day, numbers, start, together, visits

Connection = duckdb.DuckDBPyConnection


def test_only_the_named_partition_is_replaced(connection: Connection, storage: Storage) -> None:
    storage.write(connection, VISITS, visits(1, 2, 3), [(day(1),), (day(2),), (day(3),)])
    written = storage.write(connection, VISITS, visits(2, number=7, users=1), [(day(2),)])
    assert numbers(connection, storage) == {day(1): [0, 0, 0], day(2): [7], day(3): [0, 0, 0]}
    assert (written.replaced, written.rows, written.total_rows) == ([(day(2),)], {(day(2),): 1}, 1)
    assert storage.partitions(VISITS) == [(day(1),), (day(2),), (day(3),)]


def test_reads_are_limited_to_partitions(connection: Connection, storage: Storage) -> None:
    storage.write(connection, VISITS, visits(1, 2, 3), [(day(1),), (day(2),), (day(3),)])
    for where, days in (
        ({"day": day(2)}, {day(2)}),
        ({"day": (day(2), day(4))}, {day(2), day(3)}),
        ({"day": (day(2), day(2))}, set()),
        ({"day": day(9)}, set()),
    ):
        rows = storage.read(connection, VISITS, where=where)
        assert set(rows["day"].to_pylist()) == days
        assert rows.column_names == VISITS.column_names
    with pytest.raises(ValueError, match="not partitioned by user_id"):
        storage.read(connection, VISITS, where={"user_id": "u1"})
    chosen = storage.read(connection, VISITS, columns=["number", "user_id"])
    assert chosen.column_names == ["number", "user_id"]
    assert chosen["user_id"].to_pylist() == ["u0", "u1", "u2"] * 3


def test_writing_the_same_again_commits_nothing(connection: Connection, storage: Storage) -> None:
    days = [(day(1),), (day(2),)]
    first = storage.write(connection, VISITS, visits(1, 2), days)
    again = storage.write(connection, VISITS, visits(2, 1, order="user_id DESC"), days)
    assert (again.version, again.replaced, again.digests) == (first.version, [], first.digests)
    # Of two days, only the changed one is written.
    query = f"{visits(1)} UNION ALL {visits(2, number=1)}".replace("ORDER BY user_id", "")
    changed = storage.write(connection, VISITS, query, days)
    assert changed.replaced == [(day(2),)]
    assert changed.version == first.version + 1
    assert changed.digests[(day(1),)] == first.digests[(day(1),)]
    assert changed.digests[(day(2),)] != first.digests[(day(2),)]


def test_a_partition_with_another_number_of_rows_need_not_be_read_to_be_known_as_changed(
    connection: Connection, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("read")

    storage.write(connection, VISITS, visits(1), [(day(1),)])
    with monkeypatch.context() as patch:
        patch.setattr("segflow.storage.writing.files_view", read)
        with pytest.raises(AssertionError, match="read"):
            storage.write(connection, VISITS, visits(1, number=1), [(day(1),)])
        assert storage.write(connection, VISITS, visits(1, number=1, users=2), [(day(1),)]).replaced == [(day(1),)]
    assert numbers(connection, storage) == {day(1): [1, 1]}


def test_files_keep_the_order_of_rows_and_a_dictionary_where_values_repeat(
    connection: Connection, storage: Storage, tmp_path: Path
) -> None:
    storage.write(connection, VISITS, visits(1, order="user_id DESC"), [(day(1),)])
    (file,) = (pq.ParquetFile(one) for one in tmp_path.rglob("*.parquet"))
    assert file.read(["user_id"])["user_id"].to_pylist() == ["u2", "u1", "u0"]
    group = file.metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    assert {one.path_in_schema: one.has_dictionary_page for one in columns} == {
        "user_id": False, "number": True, "share": True, "kind": True, "items.list.element": False
    }  # fmt: skip
    assert {one.compression for one in columns} == {"ZSTD"}


@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 9), st.one_of(st.none(), st.floats(0, 1)), st.lists(st.sampled_from("ab"), max_size=2)
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda row: row[0],
    ),
    change=st.sampled_from(["number", "share", "items", "drop"]),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_digest_sees_every_change_and_no_order(
    connection: Connection, tmp_path: Path, rows: list, change: str
) -> None:
    def written(values: list) -> str:
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE drawn (number INTEGER, share DOUBLE, items VARCHAR[], user_id VARCHAR)"
        )
        if values:
            connection.executemany("INSERT INTO drawn VALUES (?, ?, ?, ?)", values)
        storage = Storage(str(tmp_path / "tables"))
        query = "SELECT DATE '2024-01-01' AS day, *, 'view' AS kind FROM drawn"
        return storage.write(connection, VISITS, query, [(day(1),)]).digests[(day(1),)]

    named = [(*row, f"u{row[0]}") for row in rows]
    number, share, items, user = named[0]
    changed = {
        "number": [(number + 10, share, items, user)],
        "share": [(number, 0.25 if share is None else None, items, user)],
        "items": [(number, share, [*items, "c"], user)],
        "drop": [],
    }[change]
    assert written(named) == written(named[::-1]) != written(changed + named[1:])


def test_time_travel(connection: Connection, storage: Storage) -> None:
    first = storage.write(connection, VISITS, visits(1, number=1), [(day(1),)]).version
    second = storage.write(connection, VISITS, visits(1, number=2), [(day(1),)]).version
    storage.write(connection, VISITS, visits(2, number=3), [(day(2),)])
    assert numbers(connection, storage, first) == {day(1): [1, 1, 1]}
    assert numbers(connection, storage, second) == {day(1): [2, 2, 2]}
    assert storage.partitions(VISITS, first) == [(day(1),)]
    assert numbers(connection, storage) == {day(1): [2, 2, 2], day(2): [3, 3, 3]}


@pytest.mark.parametrize("key", ["x' OR '1'='1", "../../x", "a/b", "", "a b", 'a"', "é", "x" * 101, "a\n"])
def test_unsafe_keys_are_refused(connection: Connection, storage: Storage, key: str) -> None:
    safe = "SELECT DATE '2024-01-01' AS week, 's1' AS segment_id, 'm'::BLOB AS model"
    storage.write(connection, MODELS, safe, [(day(1), "s1")])
    escaped = key.replace("'", "''")
    with pytest.raises(UserError, match="partition key"):
        storage.write(
            connection,
            MODELS,
            f"SELECT DATE '2024-01-01' AS week, '{escaped}' AS segment_id, 'm'::BLOB AS model",
            [(day(1), key)],
        )
    with pytest.raises(UserError, match="partition key"):
        storage.read(connection, MODELS, where={"segment_id": key})
    assert storage.read(connection, MODELS).num_rows == 1
    assert check_key("s-1_a.B") == "s-1_a.B"


@pytest.mark.parametrize(
    ("bad", "check", "message"),
    [
        ("* REPLACE (NULL AS user_id)", "schema", "visits: 1 rows without user_id"),
        ("* REPLACE (NULL AS day)", "schema", "visits: 1 rows without day"),
        ("* REPLACE ('u1' AS user_id)", "keys", 'visits: 1 keys ("day", "user_id") repeated'),
        ("* REPLACE (DATE '2024-01-02' AS day)", "keys", "visits: 1 rows outside the partitions"),
        ("* REPLACE (-1 AS number)", "ranges", "visits: 1 rows with number below 0"),
        ("* REPLACE (1.01 AS share)", "ranges", "visits: 1 rows with share above 1"),
        ("* REPLACE ('nan'::DOUBLE AS share)", "ranges", "visits: 1 rows with share not a number"),
        ("* REPLACE ('like' AS kind)", "ranges", "visits: 1 rows with kind not one of view, buy"),
    ],
)
def test_a_broken_rule_blocks_the_write(
    connection: Connection, storage: Storage, bad: str, check: str, message: str
) -> None:
    storage.write(connection, VISITS, visits(1), [(day(1),)])
    version = storage.version(VISITS)
    good, spoilt = (f"SELECT {what} FROM ({visits(1, number=5)}) WHERE user_id" for what in ("*", bad))
    with pytest.raises(ViolationsError) as raised:
        storage.write(connection, VISITS, f"{good} <> 'u0' UNION ALL {spoilt} = 'u0'", [(day(1),)])
    assert check in {one.check for one in raised.value.found}
    assert message in str(raised.value)
    assert storage.version(VISITS) == version
    assert numbers(connection, storage) == {day(1): [0, 0, 0]}


def test_a_value_that_does_not_fit_its_type_blocks_the_write(connection: Connection, storage: Storage) -> None:
    with pytest.raises(duckdb.Error):
        storage.write(connection, VISITS, f"SELECT * REPLACE ('many' AS number) FROM ({visits(1)})", [(day(1),)])
    assert storage.version(VISITS) is None


def test_a_table_that_was_never_written_is_empty(connection: Connection, storage: Storage) -> None:
    assert storage.version(VISITS) is None
    assert storage.partitions(VISITS) == []
    rows = storage.read(connection, VISITS, where={"day": day(1)})
    assert (rows.num_rows, rows.column_names) == (0, VISITS.column_names)
    storage.view(connection, VISITS)
    assert connection.execute("SELECT count(*) FROM visits").fetchone() == (0,)


def test_a_partition_may_become_empty(connection: Connection, storage: Storage) -> None:
    empty = f"SELECT * FROM ({visits(1)}) LIMIT 0"
    first = storage.write(connection, VISITS, empty, [(day(1),)])
    assert first.rows == {(day(1),): 0}
    assert storage.read(connection, VISITS).num_rows == 0
    storage.write(connection, VISITS, visits(1, 2), [(day(1),), (day(2),)])
    storage.write(connection, VISITS, empty, [(day(1),)])
    assert numbers(connection, storage) == {day(2): [0, 0, 0]}
    assert storage.partitions(VISITS) == [(day(2),)]


def test_rows_that_build_on_the_table_itself_are_refused_once_another_write_came(
    connection: Connection, storage: Storage
) -> None:
    version = storage.pin(VISITS)
    assert version == storage.pin(VISITS) == storage.version(VISITS)
    one = storage.stage(connection, VISITS, visits(1), [(day(1),)])
    storage.commit(connection, VISITS, one, [(day(1),)], version=version)
    other = storage.stage(connection, VISITS, visits(2), [(day(2),)])
    with pytest.raises(UserError, match="one after the other"):
        storage.commit(connection, VISITS, other, [(day(2),)], version=version)
    assert storage.partitions(VISITS) == [(day(1),)]
    other = storage.stage(connection, VISITS, visits(2), [(day(2),)])
    storage.commit(connection, VISITS, other, [(day(2),)], version=storage.pin(VISITS))
    assert storage.partitions(VISITS) == [(day(1),), (day(2),)]


@pytest.mark.parametrize("there", ["the partition", "another partition", "nothing"])
@pytest.mark.parametrize("over", [False, True])
def test_who_writes_a_partition_behind_another_is_asked_again(
    connection: Connection, storage: Storage, there: str, over: bool
) -> None:
    """Two runs write one partition at once: one comes first. Of a run that was given up meanwhile, nothing is written."""
    if there != "nothing":
        storage.write(connection, VISITS, visits(1 if there == "the partition" else 2), [(day(1),), (day(2),)])
    asked = []

    def allowed() -> None:
        asked.append(1)
        if len(asked) == 1:
            with connect(ComputeConfig(spill=f"{storage.root}/spill", threads=1)) as other:
                storage.write(other, VISITS, visits(1, number=5, users=4), [(day(1),)])
        elif over:
            raise RuntimeError("over")

    staged = storage.stage(connection, VISITS, visits(1, number=9), [(day(1),)])
    if over:
        with pytest.raises(RuntimeError, match="over"):
            storage.commit(connection, VISITS, staged, [(day(1),)], allowed=allowed)
    else:
        storage.commit(connection, VISITS, staged, [(day(1),)], allowed=allowed)
    assert len(asked) == 2
    assert numbers(connection, storage)[day(1)] == ([5] * 4 if over else [9] * 3)


def test_two_partition_columns(connection: Connection, storage: Storage) -> None:
    def model(week: int, segment: str, content: str) -> None:
        query = f"SELECT DATE '{day(week)}' AS week, '{segment}' AS segment_id, '{content}'::BLOB AS model"
        storage.write(connection, MODELS, query, [(day(week), segment)])

    for week in (1, 8):
        for segment in ("s1", "s2"):
            model(week, segment, f"{week}{segment}")
    model(8, "s1", "new")
    rows = storage.read(connection, MODELS).to_pylist()
    assert [(row["week"], row["segment_id"], row["model"]) for row in rows] == [
        (day(1), "s1", b"1s1"), (day(1), "s2", b"1s2"), (day(8), "s1", b"new"), (day(8), "s2", b"8s2"),
    ]  # fmt: skip
    assert storage.partitions(MODELS)[-1] == (day(8), "s2")
    assert storage.read(connection, MODELS, where={"week": day(1), "segment_id": "s2"})["model"].to_pylist() == [b"1s2"]


def test_a_table_without_partitions_is_replaced_whole(connection: Connection, storage: Storage) -> None:
    storage.write(connection, NAMES, "SELECT 'i' || i AS item_id, NULL AS name FROM range(3) AS t(i)")
    written = storage.write(connection, NAMES, "SELECT 'x' AS item_id, 'X' AS name")
    assert storage.read(connection, NAMES).to_pylist() == [{"item_id": "x", "name": "X"}]
    assert storage.write(connection, NAMES, "SELECT 'x' AS item_id, 'X' AS name").version == written.version


def test_the_commit_keeps_facts(connection: Connection, storage: Storage) -> None:
    storage.write(connection, VISITS, visits(1), [(day(1),)], commit={"run": "r-1"})
    opened = storage.open(VISITS)
    assert opened is not None
    assert opened.history(1)[0]["run"] == "r-1"


@pytest.mark.parametrize("folder", ["with space", "naïve", "key=value", "star*"])
def test_any_folder_will_do(connection: Connection, tmp_path: Path, folder: str) -> None:
    storage = Storage(str(tmp_path / folder / "tables"))
    storage.write(connection, VISITS, visits(1), [(day(1),)])
    assert numbers(connection, storage) == {day(1): [0, 0, 0]}
    assert storage.write(connection, VISITS, visits(1), [(day(1),)]).replaced == []


def test_the_engine_keeps_to_its_bounds_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compute = ComputeConfig(spill=str(tmp_path / "spill"), threads=1, memory_limit="30MB")
    with connect(compute) as connection:
        connection.execute("CREATE TEMP TABLE big AS SELECT i, md5(i::VARCHAR) AS text FROM range(1_000_000) AS t(i)")
        spilled = [file for file in (tmp_path / "spill").rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in spilled) > 0
        assert connection.execute("SELECT current_setting('TimeZone'), current_setting('threads')").fetchone() == (
            "UTC",
            1,
        )
    assert [path.name for path in tmp_path.rglob("*")] == ["spill"]


def test_a_step_that_fails_leaves_nothing_in_the_spill_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), connect(ComputeConfig(spill=str(tmp_path / "spill"))):
        raise RuntimeError
    assert list((tmp_path / "spill").iterdir()) == []


def test_spill_folders_of_killed_processes_go_away(tmp_path: Path) -> None:
    abandoned, begun = (tmp_path / "spill" / name for name in ("step-abandoned", "step-begun"))
    for folder in (abandoned, begun):
        folder.mkdir(parents=True)
        (folder / "rows.tmp").write_bytes(b"rows")
    (abandoned / "owner").touch()
    compute = ComputeConfig(spill=str(tmp_path / "spill"), threads=1)
    with connect(compute), connect(compute):
        there = {one.name for one in (tmp_path / "spill").iterdir()}
        assert abandoned.name not in there
        # One without an owner may be about to get one; both connections are at work.
        assert begun.name in there
        assert len(there) == 3
    assert [one.name for one in (tmp_path / "spill").iterdir()] == [begun.name]


def test_processes_write_their_own_partitions_at_once(connection: Connection, tmp_path: Path) -> None:
    """Each in its turn: new tables, which all create at the same moment, and one that is there already."""
    own_days = range(1, 5)
    processes = [start("write_on_command", tmp_path, number) for number in own_days]
    folders = ["a", "b", "c", "d", "a", "a"]
    together(processes, folders)
    for folder in "abcd":
        turn = max(number for number, one in enumerate(folders) if one == folder)
        assert numbers(connection, Storage(str(tmp_path / folder))) == {day(one): [turn] * 3 for one in own_days}


def test_a_table_with_other_columns_says_what_to_do(connection: Connection, storage: Storage) -> None:
    storage.write(connection, VISITS, visits(1), [(day(1),)])
    grown = replace(VISITS, columns=[*VISITS.columns, Column("weight", "DOUBLE", "weight")])
    with pytest.raises(UserError, match=r"columns that differ: weight\); move storage.root aside .*--force"):
        storage.view(connection, grown)


_NEGATIVE = "SELECT * REPLACE (-1 AS number) FROM ({})"


@pytest.mark.parametrize(
    ("bad", "days", "where"),
    [
        (_NEGATIVE + " WHERE day = '2024-01-02'", range(1, 9), "2024-01-02"),
        (_NEGATIVE, range(1, 4), "2024-01-01, 2024-01-02, 2024-01-03"),
        (_NEGATIVE, range(1, 9), "2024-01-01, 2024-01-02, 2024-01-03, 2024-01-04, 2024-01-05 and 3 more"),
        ("({0}) UNION ALL SELECT * FROM ({0}) WHERE day = '2024-01-04'", range(1, 9), "2024-01-04"),
    ],
)
def test_a_violation_says_in_which_partitions(
    connection: Connection, storage: Storage, bad: str, days: range, where: str
) -> None:
    with pytest.raises(ViolationsError) as raised:
        storage.stage(connection, VISITS, bad.format(visits(*days)), [(day(one),) for one in days])
    assert [one.where for one in raised.value.found] == [where]


def test_a_violation_of_a_table_without_partitions_names_none(connection: Connection, storage: Storage) -> None:
    with pytest.raises(ViolationsError) as raised:
        storage.stage(connection, NAMES, "SELECT NULL AS item_id, 'x' AS name")
    assert [one.where for one in raised.value.found] == [""]
