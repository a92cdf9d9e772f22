"""Statements of a source's own read the source, and nothing else on the machine; paths of settings stay below their roots."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segflow import settings, tables
from segflow.config import ComputeConfig, EventSource, Input, SourceConfig
from segflow.errors import UserError
from segflow.events import mapping
from segflow.events.files import files
from segflow.pages import write_page
from segflow.storage import Storage, confine, connect
from segflow_tests.events.steps import records, write

ROW = "SELECT 'u' AS user_id, 'view' AS event_type, TIMESTAMP '2024-01-02' AS ts, 'f' AS source_file, 0 AS source_row"


def sourced(folder: Path, statement: str, **more: Input) -> SourceConfig:
    """A source whose statement is `statement`, and a file beside it that is none of its own."""
    write(folder / "secret.csv", "secret", "hunter2")
    log = write(folder / "log" / "log.csv", "user", "u")
    sql = write(folder / "events.sql", statement)
    return SourceConfig(events=EventSource(path=str(log.parent), sql=str(sql)), inputs=more, suppressed=None)


@pytest.mark.parametrize(
    "wanted",
    [
        "(SELECT content FROM read_text('{folder}/secret.csv'))",
        "(SELECT secret FROM '{folder}/secret.csv')",
        "(SELECT secret FROM read_csv('{folder}/log/../secret.csv'))",
        "(SELECT secret FROM read_csv('{folder}/log/link.csv'))",
        "(SELECT any_value(file) FROM glob('/etc/*'))",
        "(SELECT content FROM read_text('/etc/hostname'))",
        "(SELECT content FROM read_blob('/proc/self/environ'))::VARCHAR",
    ],
)
def test_a_statement_reads_no_other_file(connection: duckdb.DuckDBPyConnection, tmp_path: Path, wanted: str) -> None:
    whole = sourced(tmp_path, ROW.replace("'u'", wanted.format(folder=tmp_path)))
    # The source is one file; the link beside it is none of its own.
    (tmp_path / "log" / "link.csv").symlink_to(tmp_path / "secret.csv")
    events = whole.events.model_copy(update={"path": str(tmp_path / "log" / "log.csv")})
    with pytest.raises(UserError, match=r"events\.sql: Permission Error.*name the file in source\.inputs"):
        mapping.mapped_events(connection, whole.model_copy(update={"events": events}))


@pytest.mark.parametrize(
    "statement",
    [
        f"{ROW}; COPY (SELECT 1) TO '{{folder}}/written.csv'",
        "COPY (SELECT 1) TO '{folder}/written.csv'",
        "SET enable_external_access = true",
        "ATTACH '{folder}/written.db'",
        "INSTALL httpfs",
        "LOAD 'httpfs'",
        "CREATE TABLE t AS SELECT 1",
        "DROP TABLE events",
        "PRAGMA database_list",
        "",
    ],
)
def test_a_statement_is_one_query(connection: duckdb.DuckDBPyConnection, tmp_path: Path, statement: str) -> None:
    whole = sourced(tmp_path, statement.format(folder=tmp_path))
    with pytest.raises(UserError, match=r"events\.sql: is not one SELECT"):
        mapping.mapped_events(connection, whole)
    assert not list(tmp_path.glob("written*"))


def test_a_statement_reads_its_source_its_inputs_and_where_their_links_lead(tmp_path: Path) -> None:
    far = write(tmp_path / "far" / "b.csv", "user", "from far")
    more = write(tmp_path / "more.csv", "name", "more")
    whole = sourced(
        tmp_path,
        f"SELECT user AS user_id, name AS item_id, 'view' AS event_type, TIMESTAMP '2024-01-02' AS ts, source_file, source_row "
        f"FROM source_events, (SELECT name FROM more UNION ALL FROM read_csv('{more}'))",
        more=Input(path=str(more)),
    )
    (tmp_path / "log" / "b.csv").symlink_to(far)
    (tmp_path / "linked").symlink_to(tmp_path / "log", target_is_directory=True)
    for path in ("log", "linked", "log/*.csv"):
        events = whole.events.model_copy(update={"path": str(tmp_path / path)})
        with connect(ComputeConfig(spill=str(tmp_path / "spill"), threads=1)) as engine:
            rows = records(engine, mapping.mapped_events(engine, whole.model_copy(update={"events": events})))
        assert sorted(row["user_id"] for row in rows) == ["from far", "from far", "u", "u"], path


def test_what_a_step_needs_goes_on_working(tmp_path: Path) -> None:
    """Tables, rows in memory, spilling, settings of the engine, other connections to it, and views made before."""
    storage = Storage(str(tmp_path / "tables"))
    compute = ComputeConfig(spill=str(tmp_path / "spill"), threads=1, memory_limit="100MB")
    with connect(compute, storage.root) as engine:
        confine(engine, [], [])
        confine(engine, [str(tmp_path)], [])
        row = {
            "week": date(2024, 1, 1),
            "user_id": "u",
            "segment_id": "s",
            "probability": 1.0,
            "distance": None,
            "outlier": False,
        }
        engine.register("rows", pa.Table.from_pylist([row], schema=tables.USER_SEGMENTS.arrow))
        storage.write(engine, tables.USER_SEGMENTS, "FROM rows", [(row["week"],)])
        assert storage.read(engine, tables.USER_SEGMENTS).to_pylist() == [row]
        engine.execute("SET preserve_insertion_order = false")
        engine.execute("CREATE TEMP TABLE big AS SELECT md5(i::VARCHAR) AS word FROM range(3_000_000) AS t(i)")
        ((rows,),) = engine.execute(
            "SELECT count(*) FROM (SELECT row_number() OVER (ORDER BY word) FROM big)"
        ).fetchall()
        assert rows == 3_000_000
        assert any(file.stat().st_size for file in (tmp_path / "spill").rglob("*.tmp")), "nothing was spilled"
        for one in (engine, engine.cursor()):
            with pytest.raises(duckdb.PermissionException):
                one.execute(f"SELECT * FROM read_csv('{write(tmp_path / 'x.csv', 'a', '1')}')")


@pytest.mark.parametrize("name", ["../page.html", "/tmp/page.html", "days/../../page.html"])
def test_a_page_stays_below_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="leaves"):
        write_page(str(tmp_path / "reports"), name, "<p>")
    assert not list(tmp_path.rglob("page.html"))


@pytest.mark.parametrize(
    "path", ["package:segflow/../README.md", "package:segflow//etc/hostname", "package:segflow/../../x"]
)
def test_a_packaged_file_is_a_file_of_the_package(path: str) -> None:
    with pytest.raises(UserError, match="lies outside the package"):
        files(path)


@pytest.mark.parametrize("sql", ["../events.sql", "/etc/hostname", "a/../../events.sql"])
def test_a_statement_lies_beside_the_settings(tmp_path: Path, sql: str) -> None:
    write(tmp_path / "events.sql", ROW)
    file = write(
        tmp_path / "project" / "segflow.yaml",
        f"source: {{events: {{path: log.csv, sql: '{sql}'}}}}",
        "calendar: {start: 2024-01-01}",
    )
    with pytest.raises(UserError, match=r"source: sql: .* lies elsewhere; put the statement beside the settings file"):
        settings.load(file)


def test_a_link_in_a_source_folder_is_read_as_the_file_it_leads_to(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Decided: whoever may write to the folder of a source decides what is read; links among its files are followed."""
    pq.write_table(pa.table({"user": ["far"]}), tmp_path / "far.parquet")
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a.parquet").symlink_to(tmp_path / "far.parquet")
    assert [file.name for file in files(str(tmp_path / "log"))] == ["a.parquet"]
