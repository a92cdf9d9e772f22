"""The engine seam: results in order, the first exception unchanged, tables through the exchange, and clear errors."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from segflow.compute import IN_PROCESS, open_engine
from segflow.compute import worker as worker_module
from segflow.compute.exchange import FileExchange, exchange_below, remove_left
from segflow.compute.worker import run, versions
from segflow.config import ComputeConfig
from segflow.errors import UserError
from segflow.storage import ViolationsError
from segflow.tables import SESSIONS
from segflow_tests.compute.engines import sent


def half(number: int) -> int:
    if number % 2:
        raise UserError(f"row {number}: not even; give an even number")
    return number // 2


def broken(number: int) -> None:
    raise ViolationsError(SESSIONS, [])


def piece_on(config: ComputeConfig) -> None:
    """Ask the engine for a piece of work."""
    with open_engine(config) as engine:
        engine.map(half, [2])


def test_results_are_in_the_order_of_the_items() -> None:
    assert IN_PROCESS.map(half, iter([6, 2, 4])) == [3, 1, 2]
    assert IN_PROCESS.map(half, []) == []


def test_the_first_exception_ends_the_call_unchanged() -> None:
    seen = []
    wrong = ValueError("two")

    def visit(number: int) -> None:
        seen.append(number)
        if number == 2:
            raise wrong

    with pytest.raises(ValueError, match="two") as raised:
        IN_PROCESS.map(visit, [1, 2, 3])
    assert raised.value is wrong
    assert seen == [1, 2]


def test_pieces_are_done_as_they_are_asked_for() -> None:
    asked: list[int] = []

    def numbers() -> Iterator[int]:
        for number in (2, 4):
            asked.append(number)
            yield number

    results = IN_PROCESS.imap(half, numbers())
    assert next(results) == 1
    assert asked == [2]


def test_in_one_process_a_table_is_handed_on_as_it_is() -> None:
    with open_engine(ComputeConfig()) as engine:
        table = pa.table({"a": [1]})
        assert engine is IN_PROCESS
        assert engine.exchange.put(table).get() is table


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_tables_pass_between_machines_as_files_that_go_away(tmp_path: Path, scheme: str) -> None:
    names = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), ["a", "b"])
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), names)
    table = pa.table({"items": pa.chunked_array([lists, pa.array([["c"]]).cast(lists.type)]), "n": [1, 2, 3]})
    with exchange_below(f"{scheme}{tmp_path}", {}) as exchange:
        # As a piece of work does it that was sent to another process.
        reference = sent(sent(exchange).put(table))
        assert len(pickle.dumps(reference)) < 1000
        assert reference.get().equals(table)
        assert [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_what_a_killed_process_left_can_be_removed(tmp_path: Path, scheme: str) -> None:
    root = f"{scheme}{tmp_path}/exchange"
    (tmp_path / "exchange" / "step-1").mkdir(parents=True)
    (tmp_path / "exchange" / "ours").touch()
    FileExchange(root, "step-1").put(pa.table({"user_id": ["u"]}))
    assert remove_left(root, {}) == [f"{root}/step-1"]
    assert [one.name for one in tmp_path.rglob("*") if one.is_file()] == ["ours"]
    assert remove_left(str(tmp_path / "never made"), {}) == []


def test_an_exchange_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(UserError, match=r"compute\.exchange: .*file.*"), exchange_below(f"{tmp_path}/file/x", {}):
        pass


def test_an_error_comes_back_from_a_node_as_it_was() -> None:
    outcome = run(versions(), half, 3)
    assert isinstance(outcome.error, UserError)
    assert str(outcome.error) == "row 3: not even; give an even number"
    assert "in half" in "".join(outcome.error.__notes__)
    assert sent(outcome).error.args == outcome.error.args
    # This one cannot be made again from its arguments.
    outcome = run(versions(), broken, 3)
    assert isinstance(outcome.error, RuntimeError)
    assert str(outcome.error) == "ViolationsError: sessions: nothing written; "


def test_a_node_with_other_versions_does_nothing() -> None:
    outcome = run({**versions(), "duckdb": "0.1", "segflow": "other"}, broken, 3)
    assert isinstance(outcome.error, UserError)
    assert f"segflow {versions()['segflow']} instead of other, duckdb {versions()['duckdb']} instead of 0.1" in str(
        outcome.error
    )


def test_the_code_decides_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = versions()["segflow"]
    (tmp_path / "one.py").write_text("changed", encoding="utf-8")
    monkeypatch.setattr(worker_module, "_PACKAGE", tmp_path)
    versions.cache_clear()
    try:
        assert versions()["segflow"] != before
    finally:
        versions.cache_clear()


def test_a_closed_port_is_an_error_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the engine of several machines is not installed")
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    config = ComputeConfig(engine="ray", address=f"127.0.0.1:{port}", exchange=str(tmp_path / "exchange"))
    began = time.monotonic()
    with pytest.raises(
        UserError, match=rf"compute\.address: .*127\.0\.0\.1:{port}: .*refused; start one with `ray start --head`"
    ):
        piece_on(config)
    assert time.monotonic() - began < 5


def test_a_head_that_says_nothing_is_an_error_within_the_patience(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the engine of several machines is not installed")
    # In a process of its own: what Ray began in vain goes on in the background.
    script = (
        "import sys\nfrom segflow.config import ComputeConfig\nfrom segflow_tests.compute.test_engine import piece_on\n"
        "piece_on(ComputeConfig(engine='ray', address=sys.argv[1], exchange=sys.argv[2], patience=1))"
    )
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-c", script, address, str(tmp_path)]
        began = time.monotonic()
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert time.monotonic() - began < 20
    assert ended.returncode == 1
    assert (
        f"compute.address: cannot use the Ray cluster at {address}: no answer for 1 s" in ended.stderr.splitlines()[-1]
    )


def test_what_is_no_address_is_said(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the engine of several machines is not installed")
    config = ComputeConfig(engine="ray", address="ray://head:10001", exchange=str(tmp_path))
    with pytest.raises(UserError, match=r"'ray://head:10001' is not HOST:PORT"):
        piece_on(config)
