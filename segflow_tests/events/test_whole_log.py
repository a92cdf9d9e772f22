"""A whole log at once gives what the days of a project hold, in whatever spans, or nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segflow.cli import main
from segflow.config import Config
from segflow.datasets.generator import generate
from segflow.datasets.shop import Shop
from segflow.errors import UserError
from segflow.events import catalogue, clean, mapping
from segflow.events.sessions import sessions
from segflow.events.whole_log import Made, write_sessions
from segflow.settings import load
from segflow.storage import connect
from segflow.watching import Watcher

_SHOP = Shop(events=20_000, users=400, items=100, days=8, late=0.05, bad=0.05, duplicates=0.05, bots=0.1)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("log")
    generate(folder, _SHOP)
    return load(folder / "segflow.yaml")


@pytest.fixture(scope="module")
def in_one_piece(log: Config) -> tuple[list[Any], list[Any]]:
    """Sessions and rejected rows as the statements give them on tables of the whole log."""
    with connect(log.compute) as connection:
        connection.execute(f"CREATE TEMP TABLE items AS {catalogue.items_query(connection, log.source)}")
        home = "max(CASE WHEN ts >= '2024-01-01' AND ts < '2024-01-09' THEN ts END) OVER (PARTITION BY source_file)"
        placed = f"SELECT *, {home}::DATE AS last_day FROM ({mapping.mapped_events(connection, log.source)})"
        rows = mapping.with_day(placed, log.calendar, "last_day")
        connection.execute(f"CREATE TEMP TABLE raw_events AS SELECT * EXCLUDE (last_day) FROM ({rows})")
        clean.judge(connection, log.cleaning)
        connection.execute(f"CREATE TEMP TABLE events AS {clean.events_query(log.cleaning)}")
        made = sessions(connection, log.sessions, date(2024, 1, 1), date(2024, 1, 9))
        return of_table(made), of_table(connection.table("rejected").to_arrow_table())


def of_table(rows: pa.Table) -> list[Any]:
    return sorted(str(sorted(row.items(), key=str)) for row in rows.to_pylist())


def of_files(folder: Path) -> list[Any]:
    return of_table(pa.concat_tables([pq.read_table(file) for file in sorted(folder.iterdir())]))


@pytest.mark.parametrize(("rows_at_once", "spans"), [(10**9, 1), (6000, 4), (1, 8)])
def test_spans_give_what_tables_of_the_whole_log_give(
    log: Config, in_one_piece: tuple[list[Any], list[Any]], tmp_path: Path, rows_at_once: int, spans: int
) -> None:
    made = write_sessions(log, tmp_path / "out", rows_at_once)
    assert len(list((tmp_path / "out" / "sessions").iterdir())) >= spans
    found, rejected = of_files(tmp_path / "out" / "sessions"), of_files(tmp_path / "out" / "quarantine")
    assert found == in_one_piece[0]
    assert rejected == in_one_piece[1]
    assert made.sessions == len(found)
    assert sum(made.rejected.values()) == len(rejected) > 1000
    assert {"duplicate", "missing_user", "bot_pattern"} <= made.rejected.keys()


def test_csv_gives_the_same(log: Config, in_one_piece: tuple[list[Any], list[Any]], tmp_path: Path) -> None:
    folder = Path(log.source.events.path)
    (tmp_path / "csv").mkdir()
    with duckdb.connect() as connection:
        for file in folder.iterdir():
            target = tmp_path / "csv" / f"{file.stem}.csv"
            connection.execute(f"COPY (FROM '{file}') TO '{target}' (HEADER)")
    source = log.source.model_copy(
        update={"events": log.source.events.model_copy(update={"path": str(tmp_path / "csv")})}
    )
    write_sessions(log.model_copy(update={"source": source}), tmp_path / "out", 6000)
    assert of_files(tmp_path / "out" / "sessions") == in_one_piece[0]


def test_what_is_there_already_is_left_alone(log: Config, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already; name a new folder"):
        write_sessions(log, tmp_path)
    with pytest.raises(UserError, match=r"notes\.txt: is there already"):
        write_sessions(log, tmp_path / "notes.txt")
    with pytest.raises(UserError, match="cannot be made: Not a directory"):
        write_sessions(log, tmp_path / "notes.txt" / "below")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_what_comes_into_the_folder_meanwhile_is_kept(
    log: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        if target == tmp_path / "out":
            target.mkdir()
            (target / "notes.txt").write_text("mine")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(UserError, match="cannot be put in place: Directory not empty"):
        write_sessions(log, tmp_path / "out")
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "notes.txt"]


class Changing(Watcher):
    """Does something to a file once all files were looked into and before they are read."""

    def __init__(self, change: Callable[[Path], object], file: Path):
        self._change, self._file = change, file

    def begin(self, stage: str, steps: int) -> None:
        self._change(self._file)


def append(file: Path) -> None:
    with file.open("ab") as opened:
        opened.write(b"u,i,view,2024-01-02 12:00:00\n")


def other_day(file: Path) -> None:
    new = file.with_suffix(".new")
    new.write_text(file.read_text().replace("2024-01-02", "2024-01-03"))
    new.replace(file)


@pytest.mark.parametrize("change", [append, other_day, Path.unlink])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, change: Callable[[Path], object]) -> None:
    (tmp_path / "log").mkdir()
    for name in ("a.csv", "b.csv"):
        rows = "".join(f"u{number},i{number},view,2024-01-02 10:00:{number}\n" for number in range(10, 60))
        (tmp_path / "log" / name).write_text("user,item,type,time\n" + rows)
    columns = {"user_id": "user", "item_id": "item", "event_type": "type", "ts": "time"}
    config = Config.model_validate(
        {
            "source": {"events": {"path": str(tmp_path / "log"), "columns": columns}},
            "calendar": {"start": "2024-01-01"},
            "compute": {"spill": str(tmp_path / "spill")},
        }
    )
    with pytest.raises(
        UserError, match=r"^b\.csv: was changed while it was read; when it is completely written, run again$"
    ):
        write_sessions(config, tmp_path / "out", watcher=Changing(change, tmp_path / "log" / "b.csv"))
    assert not (tmp_path / "out").exists()
    left = {append: 101, other_day: 100, Path.unlink: 50}
    assert write_sessions(config, tmp_path / "out").rows == left[change]


def test_an_empty_folder_is_filled(log: Config, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_sessions(log, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["quarantine", "sessions"]
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_log_that_breaks_half_way_leaves_nothing(tmp_path: Path) -> None:
    generate(tmp_path / "log", _SHOP)
    log = load(tmp_path / "log" / "segflow.yaml")
    last = sorted(Path(log.source.events.path).iterdir())[-1]
    content = bytearray(last.read_bytes())
    # The first column of the first row group; its head and the footer stay, so that the file looks whole at first.
    content[60:2000] = bytes(1940)
    last.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        write_sessions(log, tmp_path / "out", 3000)
    assert [file.name for file in tmp_path.iterdir()] == ["log"]


def test_the_command_says_what_became_of_the_rows(
    log: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Path(log.source.events.path).parent / "segflow.yaml"
    assert main(["--config", str(settings), "sessions", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    rows = pq.read_table(tmp_path / "out" / "sessions")
    assert f" in {rows.num_rows} sessions, " in said
    assert main(["--config", str(settings), "sessions", str(tmp_path / "out")]) == 1
    assert "is there already" in capsys.readouterr().err


def test_the_account_reads_as_a_sentence() -> None:
    made = Made(rows=10, rejected={"duplicate": 2, "bot_rate": 1}, sessions=3)
    assert str(made) == "10 raw rows: 7 events in 3 sessions, 1 bot_rate, 2 duplicate"
