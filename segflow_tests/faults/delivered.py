"""A log that is delivered as a file a day, in every format, and a project that makes events of it in a process that stays.

`Delivery.check` asserts what must hold after every fault: no row is lost, none is there twice, and every table can be read.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segflow import tables
from segflow_tests.pipeline.project import Project

START, DAYS = date(2024, 2, 27), 4
"""Four days, one of them the 29th of February."""
LAST = START + timedelta(days=DAYS - 1)
FORMATS = ("csv", "jsonl", "parquet", "csv.gz", "jsonl.gz", "csv.zst")
Row = dict[str, Any]
_NAMES = ("user", "item", "type", "time", "price")
SETTINGS: dict[str, Any] = {
    "source": {
        "events": {
            "path": "log",
            "columns": {"user_id": "user", "item_id": "item", "event_type": "type", "ts": "time", "value": "price"},
        }
    },
    "compute": {"memory_limit": "500MB", "threads": 1, "spill": "data/spill"},
    "tracking": {"partition_runs": False, "system_metrics": False},
}


def rows_of(day: date, chance: random.Random, count: int = 30) -> list[Row]:
    """The rows of a day, no two alike, a few of which are no events."""
    rows = []
    for number in range(count):
        moment = datetime.combine(day, datetime.min.time()) + timedelta(
            seconds=chance.randrange(86_000), milliseconds=0
        )
        time = "soon" if chance.random() < 0.05 else f"{moment:%Y-%m-%d %H:%M:%S}"
        user = f"u{chance.randrange(6)}"
        rows.append(
            {"user": user, "item": f"i{number}", "type": "view", "time": time, "price": f"{chance.random():.4f}"}
        )
    return rows


def written(rows: Sequence[Row], form: str, names: Sequence[str] = _NAMES) -> bytes:
    """The bytes of a file with these rows. form: one of FORMATS."""
    if form == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), sink)
        return sink.getvalue()
    if form.startswith("csv"):
        lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
    else:
        lines = [json.dumps({name: row[name] for name in names if name in row}) for row in rows]
    content = ("\n".join(lines) + "\n").encode()
    if form.endswith(".gz"):
        return gzip.compress(content, mtime=0)
    if form.endswith(".zst"):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return bytes(sink.getvalue())
    return content


@dataclass
class Delivery:
    """The project, the files that lie in its log, and what stands in them. clock: a later file has a later time."""

    project: Project
    maker: subprocess.Popen[str]
    held: dict[str, list[Row]] = field(default_factory=dict)
    clock: int = 1_700_000_000

    @property
    def log(self) -> Path:
        return self.project.folder / "log"

    def put(self, name: str, content: bytes, rows: Sequence[Row] | None = None) -> None:
        """A file in one piece; with `rows`, it is from now on what must be found."""
        aside = self.project.folder / "arriving"
        aside.write_bytes(content)
        self.touch(aside)
        aside.replace(self.log / name)
        if rows is not None:
            self.held[name] = list(rows)

    def touch(self, file: Path) -> None:
        """The file is newer than all others."""
        self.clock += 1
        os.utime(file, (self.clock, self.clock))

    def make(self, last: date = LAST) -> str | None:
        """Make what is not up to date; returns the one line of a refusal."""
        self.start(last)
        return self.finish()

    def start(self, last: date = LAST) -> None:
        """Begin `make`, and do not wait for its end."""
        self._tell(last.isoformat())

    def finish(self) -> str | None:
        """Wait for the end of what `start` began."""
        said = json.loads(self._answer())
        if said is not None:
            # What the program says of its own faults begins with the name of a step or of an exception.
            assert said.isprintable(), said
            assert re.match(r"(/|\d{4}-|[\w.-]+\.(csv|jsonl|parquet))", said), said
        return None if said is None else str(said)

    def today(self, day: date) -> None:
        """Set the clock by which the calendar goes."""
        self._tell(f"today {day}")
        self._answer()

    def begin(self) -> None:
        """A new project in the old folder: no file, no table, no history of runs."""
        for place in (self.log, self.project.folder / "data" / "tables"):
            shutil.rmtree(place, ignore_errors=True)
        self.log.mkdir()
        self.held.clear()
        self._tell("forget")
        self._answer()

    def check(self, files: Sequence[str] | None = None) -> None:
        """The rows of `files` (default: of all that are held) are raw rows as they were meant, each an event or in quarantine."""
        raw, kept, refused = (
            [row for row in self.read(table) if files is None or row["source_file"] in files]
            for table in (tables.RAW_EVENTS, tables.EVENTS, tables.QUARANTINED_EVENTS)
        )
        for name, rows in self.held.items():
            if files is None or name in files:
                found = [row for row in raw if row["source_file"] == name]
                assert [spelled(row) for row in found] == [spelled_as_meant(row) for row in rows], name
        if files is None:
            assert {row["source_file"] for row in raw} == {name for name, rows in self.held.items() if rows}
        assert Counter(map(place, kept)) + Counter(map(place, refused)) == Counter(map(place, raw))
        assert len({(row["day"], row["event_id"]) for row in kept}) == len(kept)

    def read(self, table: tables.Table, version: int | None = None) -> list[Row]:
        """The rows of a table, in the order of arrival; none of one that was never written."""
        if self.project.storage.version(table) is None:
            return []
        rows = self.project.read(table, version=version).to_pylist()
        return sorted(rows, key=place) if "source_file" in table.column_names else rows

    def _tell(self, line: str) -> None:
        assert self.maker.stdin is not None
        self.maker.stdin.write(line + "\n")
        self.maker.stdin.flush()

    def _answer(self) -> str:
        assert self.maker.stdout is not None
        answer = self.maker.stdout.readline()
        assert answer, "the maker died"
        return answer


def place(row: Row) -> tuple[str, int]:
    """Where a row was read."""
    return row["source_file"], row["source_row"]


def spelled(row: Row) -> tuple[Any, ...]:
    """What a raw row says."""
    time = None if row["ts"] is None else f"{row['ts']:%Y-%m-%d %H:%M:%S}"
    return row["user_id"], row["item_id"], row["event_type"], time, row["value"]


def spelled_as_meant(row: Row) -> tuple[Any, ...]:
    """What a raw row should say of a row of the log."""
    time = None if row["time"] == "soon" else row["time"]
    price = row.get("price")
    return str(row["user"]), row.get("item"), row["type"], time, None if price is None else float(price)


@contextmanager
def delivery(folder: Path, **settings: Any) -> Iterator[Delivery]:
    """A project without files, and its maker, which ends with the block. settings: whole sections to replace."""
    project = Project.make(folder, START, START + timedelta(days=DAYS), **{**SETTINGS, **settings})
    with (folder / "maker.log").open("w") as log:
        maker = subprocess.Popen(
            [sys.executable, "-m", "segflow_tests.faults.maker"],
            cwd=folder, env={**project.environment, "OMP_NUM_THREADS": "1"}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        try:
            yield Delivery(project, maker)
        finally:
            assert maker.stdin is not None
            maker.stdin.close()
            maker.wait(30)


def days() -> Iterator[date]:
    """The days of the log."""
    return (START + timedelta(days=number) for number in range(DAYS))
