"""The export: one snapshot, whole or not at all, and nobody in it who should not be."""

from __future__ import annotations

import hashlib
import hmac
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as parquet
import pytest

from segflow import tables
from segflow.config import ComputeConfig, Config
from segflow.console import export
from segflow.errors import UserError
from segflow.segments import export as exporting
from segflow.storage import Storage, connect

WEEKS = [date(2026, 1, 5), date(2026, 1, 12)]
COLUMNS = ["user_id", "segment_id", "name", "probability", "snapshot"]


def _rows(week: date) -> list[dict[str, object]]:
    """25 users of s001, five of s002, three of none, in no order of segment."""
    segments = ["s001"] * 25 + ["s002"] * 5 + ["unassigned"] * 3
    return [
        {"week": week, "user_id": f"u{(7 * number) % 33:02d}", "segment_id": segment, "probability": 0.75,
         "distance": None, "outlier": False}
        for number, segment in enumerate(segments)
    ]  # fmt: skip


def _segment(week: date, one: str, name: str) -> dict[str, object]:
    empty = {"former_name": None, "overlap": None, "parents": [], "migration": "{}", "centre": {}, "members": []}
    return {"week": week, "segment_id": one, "name": name, "event": "emerge", "cluster": 0, "users": 25,
            "previous_users": 0, "revision": 0, **empty}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    storage = Storage(str(folder / "tables"), {})
    with connect(ComputeConfig(spill=str(folder / "spill"))) as connection:
        for week in WEEKS:
            name = f'Big, "loud" {week}'
            ledger = [_segment(week, "s001", name), _segment(week, "s002", "Small")]
            for table, rows in ((tables.USER_SEGMENTS, _rows(week)), (tables.SEGMENT_LEDGER, ledger)):
                connection.register("rows", pa.Table.from_pylist(rows, schema=table.arrow))
                storage.write(connection, table, "SELECT * FROM rows", [(week,)])
    return folder


@pytest.fixture
def config(root: Path) -> Config:
    return Config.model_validate(
        {
            "source": {
                "events": {"path": "events.csv", "columns": {"user_id": "user", "event_type": "type", "ts": "time"}}
            },
            "calendar": {"start": WEEKS[0], "end": "2026-03-01"},
            "storage": {"root": str(root / "tables")},
            "compute": {"spill": str(root / "spill")},
        }
    )


def _hashing(config: Config) -> Config:
    segments = config.segments.model_copy(
        update={"export": config.segments.export.model_copy(update={"user_ids": "hashed"})}
    )
    return config.model_copy(update={"segments": segments})


def _read(file: Path) -> pa.Table:
    return csv.read_csv(file) if file.suffix == ".csv" else parquet.read_table(file)


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_latest_snapshot_without_small_segments_and_unassigned(config: Config, tmp_path: Path, name: str) -> None:
    said = str(export(config, tmp_path / name, None, False, False))
    rows = _read(tmp_path / name)
    assert rows.column_names == COLUMNS
    assert rows.num_rows == 25
    assert set(rows["segment_id"].to_pylist()) == {"s001"}
    assert set(rows["name"].to_pylist()) == {'Big, "loud" 2026-01-12'}
    assert set(rows["snapshot"].to_pylist()) == {WEEKS[1]}
    assert set(rows["probability"].to_pylist()) == {0.75}
    assert rows["user_id"].to_pylist() == sorted(
        row["user_id"] for row in _rows(WEEKS[1]) if row["segment_id"] == "s001"
    )
    assert "25 of 33 users of the snapshot of 2026-01-12, raw user ids" in said
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_all_users_of_an_earlier_snapshot(config: Config, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    export(config, out, WEEKS[0], True, False)
    rows = _read(out)
    assert rows.num_rows == 33
    outside = rows.filter(pa.compute.equal(rows["segment_id"], "unassigned"))
    assert outside.num_rows == 8  # the five of the segment that is too small are not told from others
    assert outside["name"].null_count == 8
    assert set(outside["probability"].to_pylist()) == {0.0}
    assert set(rows["snapshot"].to_pylist()) == {WEEKS[0]}


def test_hashed_ids_need_the_key_and_follow_it(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.csv"
    for unset in (None, "  "):
        if unset is None:
            monkeypatch.delenv("SEGFLOW_SALT", raising=False)
        else:
            monkeypatch.setenv("SEGFLOW_SALT", unset)
        with pytest.raises(UserError, match="set SEGFLOW_SALT to a long random text"):
            export(_hashing(config), out, None, False, False)
        assert not out.exists()
    monkeypatch.setenv("SEGFLOW_SALT", "secret")
    export(_hashing(config), out, None, True, False)
    found = _read(out)["user_id"].to_pylist()
    expected = {hmac.new(b"secret", f"u{number:02d}".encode(), hashlib.sha256).hexdigest() for number in range(33)}
    assert set(found) == expected
    assert found == sorted(found)  # the order tells nothing of the ids


@pytest.mark.parametrize(
    ("name", "week", "message"),
    [
        ("out.txt", None, "must end in .csv or .parquet"),
        ("none/out.csv", None, "there is no folder"),
        ("there.csv", None, "replace it with --force"),
        ("out.csv", date(2026, 1, 6), "no such snapshot; there are 2026-01-05, 2026-01-12"),
    ],
)
def test_mistakes(config: Config, tmp_path: Path, name: str, week: date | None, message: str) -> None:
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(UserError, match=message):
        export(config, tmp_path / name, week, False, False)
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["there.csv"]


def test_nothing_to_export_yet(config: Config, tmp_path: Path) -> None:
    empty = config.model_copy(update={"storage": config.storage.model_copy(update={"root": str(tmp_path / "none")})})
    with pytest.raises(UserError, match="there are no segments yet"):
        export(empty, tmp_path / "out.csv", None, False, False)


def test_force_replaces_only_by_a_whole_file(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.csv"
    out.write_text("mine")

    def broken(_rows: pa.Table, file: Path) -> None:
        file.write_text("half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setitem(exporting._WRITERS, ".csv", broken)
        with pytest.raises(OSError, match="disk full"):
            export(config, out, None, False, True)
    assert out.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]
    export(config, out, None, False, True)
    assert _read(out).num_rows == 25
    assert out.stat().st_mode & 0o077 == 0
