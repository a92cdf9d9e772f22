"""Pseudonyms are Python's HMAC whatever the file and the type; suppressed users are read from nowhere."""

from __future__ import annotations

import hashlib
import hmac
import json
import traceback
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from pydantic import ValidationError

from segflow.config import CalendarConfig, Config, EdgeSource, EventSource, SourceConfig, UserSource
from segflow.errors import UserError
from segflow.events import arrivals, catalogue, mapping
from segflow.events.files import reading
from segflow.events.preflight import preflight
from segflow.events.user_ids import UserIds
from segflow_tests.events.steps import COLUMNS, records, source, write

KEY = "a key of the tests, with 'quotes' and more than sixty-four letters, so that it is hashed first"
PSEUDONYMS = {"enabled": True}
USERS = ["u1", "ü'; --", "12", "u1-2"]


def pseudonym(user: str, key: str = KEY) -> str:
    return hmac.new(key.encode(), user.encode(), hashlib.sha256).hexdigest()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGFLOW_USER_KEY", KEY)


def settings(events: EventSource, folder: Path, **more: Any) -> SourceConfig:
    return SourceConfig(events=events, pseudonyms=PSEUDONYMS, suppressed=str(folder / "suppressed.jsonl"), **more)


def config_of(whole: SourceConfig) -> Config:
    return Config(source=whole, calendar=CalendarConfig(start=date(2024, 1, 1), end=date(2024, 2, 1)))


def log_of(folder: Path, kind: str, users: list[Any]) -> Path:
    """A log of an event for each user."""
    if kind == "csv":
        lines = (f'"{user}",i{number},view,2024-01-02 10:00:00' for number, user in enumerate(users))
        return write(folder / "log.csv", "user,item,type,time", *lines)
    columns = {
        "user": users,
        "item": [f"i{number}" for number in range(len(users))],
        "type": ["view"] * len(users),
        "time": [datetime(2024, 1, 2, 10)] * len(users),
    }
    pq.write_table(pa.table(columns), folder / "log.parquet")
    return folder / "log.parquet"


def read_in_memory(connection: duckdb.DuckDBPyConnection, whole: SourceConfig) -> list[dict[str, Any]]:
    """The raw rows as a whole log at once is read."""
    config = config_of(whole)
    query = mapping.with_day(mapping.mapped_events(connection, whole), config.calendar)
    counted = f"SELECT source_file AS file, day, count(*) AS rows, '' AS mapping FROM ({query}) GROUP BY ALL"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE source_files AS {counted}")
    ((days, only),) = arrivals.reading_plan(connection, config, date(2024, 1, 1), date(2024, 2, 1))
    rows: list[dict[str, Any]] = arrivals.raw_rows(connection, config, *days, only).to_pylist()
    return rows


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_every_way_of_reading_gives_pythons_hmac(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, kind: str
) -> None:
    whole = settings(source(log_of(tmp_path, kind, [*USERS, *USERS[:2]])), tmp_path)
    expected = [pseudonym(one) for one in [*USERS, *USERS[:2]]]
    rows = records(connection, mapping.mapped_events(connection, whole))
    assert [row["user_id"] for row in sorted(rows, key=lambda one: one["source_row"])] == expected
    assert [row["user_id"] for row in read_in_memory(connection, whole)] == expected


@settings_of_hypothesis(max_examples=50)
@given(st.text(min_size=1).filter(lambda one: "\0" not in one), st.text(min_size=16, max_size=200))
def test_the_engine_computes_hmac(user: str, secret: str) -> None:
    ids = UserIds(SourceConfig(events=source("unused.csv"), pseudonyms=PSEUDONYMS).pseudonyms, None)
    ids.__dict__["key"] = secret.encode()
    with duckdb.connect() as engine:
        # What was asked before need not have been read to its end.
        engine.execute("SELECT 1 FROM range(3)").fetchone()
        ids.prepare(engine)
        (found,) = engine.execute(f"SELECT {ids.sql('$1::VARCHAR')}", [user]).fetchone() or ()
    assert found == pseudonym(user, secret) == ids.stored([user])[0]


def test_an_id_has_one_pseudonym_whatever_type_it_is_stored_in(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    for users in ([12, 7], [12.0, 7.0], ["12", " 7 "]):
        whole = settings(source(log_of(tmp_path, "parquet", users)), tmp_path)
        for rows in (
            records(connection, mapping.mapped_events(connection, whole)),
            read_in_memory(connection, whole),
        ):
            assert [row["user_id"] for row in rows] == [pseudonym("12"), pseudonym("7")]


def test_ids_made_of_the_user_and_fields_that_are_named_are_hashed_too(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    path = write(tmp_path / "log.csv", "user,item,type,time,visit", "anna@x,i,view,2024-01-02,anna@x-7")
    events = source(path, {**COLUMNS, "event_id": ["user", "time"], "session_id": "visit"})
    whole = settings(events, tmp_path)
    (row,) = records(connection, mapping.mapped_events(connection, whole))
    assert (row["event_id"], row["session_id"]) == (f"{pseudonym('anna@x')}-2024-01-02", "anna@x-7")
    also = whole.pseudonyms.model_copy(update={"also": ["session_id"]})
    (row,) = records(connection, mapping.mapped_events(connection, whole.model_copy(update={"pseudonyms": also})))
    assert row["session_id"] == pseudonym("anna@x-7")
    assert "anna" not in str(row)


def test_attributes_and_ties_are_of_the_same_users(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    users = write(tmp_path / "users.csv", "user_id,age", "u1,30", ",7")
    ties = write(tmp_path / "ties.csv", "user_id,other_id", "u1,12", "u1,u1")
    whole = settings(
        source(log_of(tmp_path, "csv", USERS)),
        tmp_path,
        users=UserSource(path=str(users), attributes=["age"]),
        edges=EdgeSource(path=str(ties)),
    )
    assert records(connection, catalogue.users_query(connection, whole)) == [
        {"user_id": pseudonym("u1"), "attribute": "age", "value": "30"}
    ]
    assert records(connection, catalogue.user_edges_query(connection, whole)) == [
        {"user_id": pseudonym("u1"), "other_id": pseudonym("12"), "weight": 1.0}
    ]


def test_fields_that_cannot_be_read_are_named_and_not_kept(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    path = write(tmp_path / "log.csv", "item,type,time,user", "i,view,anna@x,2024-01-02,anna@x;y,anna@x")
    (row,) = records(connection, mapping.mapped_events(connection, settings(source(path), tmp_path)))
    assert row["unparsed"] == "row=(withheld); ts=(withheld)"
    assert "anna" not in str(row)


@pytest.mark.parametrize("row", ['anna@x,i,view,"anna@x', "anna@x,i,view,2024-01-02" + ",anna@x" * 20])
def test_what_is_said_of_a_broken_file_quotes_no_row(tmp_path: Path, row: str) -> None:
    path = write(tmp_path / "log.csv", "user,item,type,time", "u,i,view,2024-01-02", row, "u,i,view,2024-01-02")
    with duckdb.connect() as engine, pytest.raises(UserError) as raised, reading(str(path)):
        engine.execute(mapping.mapped_events(engine, settings(source(path), tmp_path))).fetchall()
    assert "log.csv" in str(raised.value)
    # Dagster keeps the causes of an error too.
    assert "anna" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("value", "said"), [(None, "is not set"), (" ", "is not set"), ("short", "is shorter than 16")]
)
def test_without_a_key_nothing_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None, said: str
) -> None:
    monkeypatch.delenv("SEGFLOW_USER_KEY") if value is None else monkeypatch.setenv("SEGFLOW_USER_KEY", value)
    # Were anything read, the missing file would be what is wrong.
    whole = settings(source(tmp_path / "absent.csv"), tmp_path)
    with pytest.raises(UserError, match=rf"source\.pseudonyms: the environment variable SEGFLOW_USER_KEY {said}"):
        preflight(config_of(whole))
    with duckdb.connect() as engine, pytest.raises(UserError, match="SEGFLOW_USER_KEY"):
        mapping.mapped_events(engine, whole)


def test_no_statement_and_no_error_of_one_holds_the_key(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = settings(source(log_of(tmp_path, "csv", USERS)), tmp_path)
    query = mapping.mapped_events(connection, whole)
    with pytest.raises(duckdb.Error) as raised:
        connection.execute(f"SELECT error(user_id) FROM ({query})").fetchall()
    said = query + str(raised.value) + "".join(capfd.readouterr())
    masked = bytes(byte ^ 0x36 for byte in hashlib.sha256(KEY.encode()).digest())
    assert not any(one in said for one in (KEY, KEY[:16], KEY.encode().hex(), masked.hex(), repr(masked)[2:-1]))


@pytest.mark.parametrize(
    ("columns", "cleaning", "message"),
    [
        ({"item_id": "user"}, {}, "the column 'user' is the user and is mapped to events.columns.item_id too"),
        ({"text": "user"}, {}, "mapped to events.columns.text too"),
        ({}, {"bots": {"user_pattern": "bot"}}, "cleaning.bots.user_pattern: never fits with source.pseudonyms"),
    ],
)
def test_settings_that_would_show_an_id_or_compare_one_are_refused(
    columns: dict[str, str], cleaning: dict[str, Any], message: str
) -> None:
    values = {
        "source": {"events": {"path": "log.csv", "columns": {**COLUMNS, **columns}}, "pseudonyms": PSEUDONYMS},
        "calendar": {"start": "2024-01-01"},
        "cleaning": cleaning,
    }
    with pytest.raises(ValidationError, match=message.replace(".", r"\.")):
        Config.model_validate(values)


@pytest.mark.parametrize("hashed", [False, True], ids=["raw", "hashed"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_suppressed_users_are_read_from_nowhere(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, kind: str, hashed: bool
) -> None:
    users = write(tmp_path / "users.csv", "user_id,age", "12,30", "u1,31")
    ties = write(tmp_path / "ties.csv", "user_id,other_id", "u1,12", "12,u1-2", "u1,u1-2")
    whole = SourceConfig(
        events=source(log_of(tmp_path, kind, [*USERS, "12", "ü'; --", None if kind == "parquet" else ""])),
        users=UserSource(path=str(users), attributes=["age"]),
        edges=EdgeSource(path=str(ties)),
        pseudonyms={"enabled": hashed},
        suppressed=str(tmp_path / "suppressed.jsonl"),
    )
    ids = UserIds.of(whole)
    assert (ids.suppress(["12", "ü'; --"]), UserIds.of(whole).suppress(["12"])) == (2, 0)
    u1, other = (pseudonym(one) if hashed else one for one in ("u1", "u1-2"))
    rows = records(connection, mapping.mapped_events(connection, whole))
    assert [row["user_id"] for row in sorted(rows, key=lambda one: one["source_row"])] == [u1, other, None]
    assert [row["user_id"] for row in read_in_memory(connection, whole)] == [u1, other, None]
    assert records(connection, catalogue.users_query(connection, whole)) == [
        {"user_id": u1, "attribute": "age", "value": "31"}
    ]
    assert records(connection, catalogue.user_edges_query(connection, whole)) == [
        {"user_id": u1, "other_id": other, "weight": 1.0}
    ]
    text = (tmp_path / "suppressed.jsonl").read_text(encoding="utf-8")
    assert not any(one in text for one in ("ü", '"12"', pseudonym("12")))
    assert hashlib.sha256(b"12").hexdigest() not in text, "a digest without salt could be looked up"


def test_a_file_of_suppressed_rows_alone_is_known_and_the_account_says_how_many(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    for name, users in (("a", ("gone", "gone", "stays")), ("b", ("gone",))):
        write(folder / f"{name}.csv", "user,item,type,time", *(f"{user},i,view,2024-01-0{2}" for user in users))
    whole = SourceConfig(events=source(folder), suppressed=str(tmp_path / "suppressed.jsonl"))
    UserIds.of(whole).suppress(["gone"])
    connection.execute(
        "CREATE TEMP TABLE known_files (file VARCHAR, day DATE, rows BIGINT, digest VARCHAR, size BIGINT, modified BIGINT, "
        "drift VARCHAR, mapping VARCHAR)"
    )
    query = arrivals.files_query(connection, config_of(whole), "v")
    found = [(row["file"], row["day"], row["rows"]) for row in records(connection, query)]
    assert sorted(found) == [("a.csv", date(2024, 1, 2), 1), ("b.csv", date(2024, 1, 1), 0)]
    assert arrivals.suppressed_rows(connection, config_of(whole)) == 3
    connection.execute(f"INSERT INTO known_files BY NAME {query}")
    arrivals.files_query(connection, config_of(whole), "v")
    assert arrivals.suppressed_rows(connection, config_of(whole)) == 0, "nothing was read again"


def test_files_are_read_again_when_the_key_is_another(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(settings(source(log_of(tmp_path, "csv", USERS)), tmp_path))
    connection.execute(
        "CREATE TEMP TABLE known_files (file VARCHAR, day DATE, rows BIGINT, digest VARCHAR, size BIGINT, modified BIGINT, "
        "drift VARCHAR, mapping VARCHAR)"
    )
    first = records(connection, arrivals.files_query(connection, config, "v"))
    monkeypatch.setenv("SEGFLOW_USER_KEY", "another key of the tests")
    second = records(connection, arrivals.files_query(connection, config, "v"))
    assert {row["mapping"] for row in first} != {row["mapping"] for row in second}
    assert {row["digest"] for row in first} != {row["digest"] for row in second}


def test_a_list_made_with_another_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = settings(source(log_of(tmp_path, "csv", USERS)), tmp_path)
    UserIds.of(whole).suppress(["u1"])
    for other in ({"SEGFLOW_USER_KEY": "another key of the tests"}, None):
        if other:
            monkeypatch.setenv(*other.popitem())
        changed = (
            whole
            if other is not None
            else whole.model_copy(update={"pseudonyms": SourceConfig(events=whole.events).pseudonyms})
        )
        with pytest.raises(
            UserError, match=r"suppressed\.jsonl: 1 of 1 erased users are listed by pseudonyms.*erase them again"
        ):
            UserIds.of(changed)


@pytest.mark.parametrize(
    "damage", ["", "{", '{"salt": "zz"}', '{"digest": 1}', '{"salt": "00"}\n{"digest": "ab"', "[]"]
)
def test_a_damaged_list_is_one_line_and_never_an_empty_list(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "suppressed.jsonl"
    file.write_text(damage, encoding="utf-8")
    with pytest.raises(UserError, match=r"suppressed\.jsonl: line \d: is not a list of erased users"):
        UserIds.of(SourceConfig(events=source("unused.csv"), suppressed=str(file)))


def test_the_list_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SourceConfig(events=source("unused.csv"), suppressed=str(tmp_path / "suppressed.jsonl"))
    UserIds.of(whole).suppress(["u1"])
    before = (tmp_path / "suppressed.jsonl").read_bytes()

    def fails(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fails)
        with pytest.raises(OSError, match="no space"):
            UserIds.of(whole).suppress(["u2"])
    assert (tmp_path / "suppressed.jsonl").read_bytes() == before
    UserIds.of(whole).suppress(["u2"])
    lines = [json.loads(line) for line in (tmp_path / "suppressed.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 3
    assert (tmp_path / "suppressed.jsonl").stat().st_mode & 0o077 == 0
