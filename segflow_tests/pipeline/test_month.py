"""A month that came in pieces, with late, double, bad and bots' rows, equals the same month made in one go."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml

from segflow import tables
from segflow.datasets.generator import Truth, generate
from segflow.datasets.shop import Shop
from segflow_tests.pipeline.project import Project

SHOP = Shop(
    events=20_000, users=400, items=200, days=30, seed=5, duplicates=0.02, late=0.03, bad=0.01, bots=0.03
)  # fmt: skip
LAST = SHOP.start + timedelta(days=SHOP.days - 1)
DAYS = ("raw_events", "events", "quarantined_events", "sessions")
COMPARED = (tables.RAW_EVENTS, tables.EVENTS, tables.QUARANTINED_EVENTS, tables.SESSIONS)


@dataclass(frozen=True)
class Month:
    """The generated log, from which files are delivered to projects."""

    folder: Path
    truth: Truth
    files: Sequence[Path]

    def project(self, folder: Path) -> Project:
        """A project that no file was delivered to yet."""
        settings = yaml.safe_load((self.folder / "segflow.yaml").read_text(encoding="utf-8"))
        source, cleaning = settings["source"], settings["cleaning"]
        source["events"]["settle_seconds"] = 1
        cleaning["bots"] = {"events_per_day": 300}
        made = Project.make(folder, SHOP.start, LAST + timedelta(days=1), source=source, cleaning=cleaning)
        (folder / "events").mkdir()
        shutil.copy(self.folder / "items.parquet", folder)
        return made

    def deliver(self, project: Project, first: int, last: int) -> None:
        """The files [first, last), written a while ago."""
        then = time.time() - 60
        for file in self.files[first:last]:
            os.utime(shutil.copy(file, project.folder / "events"), (then, then))


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Month:
    folder = tmp_path_factory.mktemp("month") / "log"
    truth = generate(folder, SHOP)
    files = sorted((folder / "events").iterdir())
    assert len(files) == SHOP.days
    return Month(folder, truth, files)


def test_a_month_in_pieces_equals_a_month_in_one_go(month: Month, tmp_path: Path) -> None:
    pieces = month.project(tmp_path / "pieces")
    month.deliver(pieces, 0, 12)
    pieces.materialize("catalogue", "", only=["source_files", "items"])
    pieces.materialize("days", str(SHOP.start), str(SHOP.start + timedelta(days=11)), DAYS)
    for first, last in ((12, 13), (13, 20), (20, 27), (27, 30)):
        month.deliver(pieces, first, last)
        done = pieces.python("-m", "segflow_tests.pipeline.follow")
        assert done.returncode == 0, done.stderr
        made = set(done.stdout.split("\n"))
        fresh = {f"sessions {SHOP.start + timedelta(days=number)}" for number in range(first, last)}
        assert fresh <= made
        # Late rows are a day or so late; older days are left alone.
        assert f"raw_events {SHOP.start}" not in made

    whole = month.project(tmp_path / "whole")
    month.deliver(whole, 0, SHOP.days)
    whole.materialize("catalogue", "", only=["source_files", "items"])
    whole.materialize("days", str(SHOP.start), str(LAST), DAYS)
    for table in COMPARED:
        found, expected = (one.read(table).to_pandas() for one in (pieces, whole))
        pd.testing.assert_frame_equal(found, expected, obj=table.name)

    truth = month.truth
    refused = Counter(pieces.read(tables.QUARANTINED_EVENTS).column("reason").to_pylist())
    assert refused == {**truth.bad, "duplicate": truth.duplicates, "bot_rate": truth.bot_rows}
    assert min(refused.values()) > 10, "every kind of dirt was there"
    assert pieces.read(tables.EVENTS).num_rows == truth.clean
    assert truth.late > 100
