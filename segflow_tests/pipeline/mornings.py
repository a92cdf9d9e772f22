"""A project whose automation is on, what `simulate` did with it, and what the rules say that it should have done.

The rules are written here once more, from the log itself and the calendar: no code of the automation is used.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from segflow_tests.pipeline.project import SOURCE, Project
from segflow_tests.planted import START, PlantedLog

DAY, WEEK = timedelta(days=1), timedelta(days=7)
GAP = pd.Timedelta(minutes=30)
CATALOGUE = ("source_files", "items", "users", "user_edges")
INGESTED = ("raw_events", "events", "quarantined_events", "sessions")
FOLLOWERS = ("user_days", "day_reports", "session_embeddings")
SNAPSHOT = (
    *("behavior_model", "global_ranker", "user_views", "user_embeddings", "segmentation"),
    *("segment_ledger", "user_segments", "segment_profiles", "segment_page"),
)
SERVED = ("representation_probe", "control_rankers", "repeated_rankers", "recommendations", "served_ranker")
TESTED = (
    *("ranking_results", "list_quality", "leave_one_out", "arm_tuning"),
    *("evaluation_report", "champion", "pooled_verdict"),
)


@dataclass(frozen=True)
class Chapter:
    """See `simulate.Chapter`."""

    made: Counter[str]
    failed: list[str]
    asked: list[str]
    skipped: list[str]


@dataclass(frozen=True)
class Mornings:
    """The project, the rows of its log, the first morning and how many there were, and the chapters by name."""

    project: Project
    rows: pd.DataFrame
    first: date
    count: int
    chapters: dict[str, Chapter]

    def chapter(self, name: str) -> Chapter:
        """By its name, or by the day of a morning."""
        return self.chapters[name] if name in self.chapters else self.chapters[f"morning {name}"]

    def reaches_over(self, day: date) -> bool:
        """Whether a session goes on over the midnight that ends `day`."""
        midnight = pd.Timestamp(day + DAY)
        near = self.rows[(self.rows["time"] > midnight - GAP) & (self.rows["time"] < midnight + GAP)]
        pauses = near.sort_values("time").groupby("user")["time"].agg(list)
        return any(
            before < midnight <= after and after - before <= GAP
            for times in pauses
            for before, after in pairwise(times)
        )

    def expected(self, morning: date, segments: dict[date, list[str]]) -> Counter[str]:
        """What is made on `morning`, and how often: `asset partition` -> 1. segments: week -> ids."""
        newest = morning - DAY
        days = [newest - DAY, newest]
        followed = [day for day in days if day == newest or self.reaches_over(day)]
        if morning == self.first:
            days = followed = [START + number * DAY for number in range((morning - START).days)]
        made = [f"{asset} " for asset in CATALOGUE]
        made += [f"{asset} {day}" for day in days for asset in INGESTED]
        made += [f"{asset} {day}" for day in followed for asset in FOLLOWERS]
        if morning == self.first:
            made.append("item_embeddings ")
        if morning.weekday() == START.weekday():
            week = morning - WEEK
            made += [f"{asset} {week}" for asset in (*SNAPSHOT, *SERVED)]
            made += [f"segment_rankers {segment}|{week}" for segment in segments[week]]
            if week - WEEK in segments:
                made += [f"{asset} {week - WEEK}" for asset in TESTED]
        return Counter(made)


def mornings(folder: Path, log: PlantedLog, first: date, count: int, **settings: Any) -> Mornings:
    """Run `simulate` on `log` in `folder`. settings: replace whole sections of those of `Project.make`."""
    rows = pd.read_csv(log.events, dtype=str, keep_default_na=False)
    (folder / "waiting").mkdir()
    for day, part in rows.groupby(rows["time"].str[:10]):
        part.to_csv(folder / "waiting" / f"{day}.csv", index=False)
    shutil.copy(log.items, folder / "items.csv")
    source = {**SOURCE, "events": {**SOURCE["events"], "path": "log", "settle_seconds": 1}}
    automation = dict.fromkeys(("daily_ingest", "weekly_snapshot", "late_files", "downstream"), True)
    project = Project.make(folder, log.start, log.end, source=source, automation=automation, **settings)
    _leave_open(project)
    process = project.start("-W", "ignore", "-m", "segflow_tests.pipeline.simulate", str(first), str(count))
    out, err = process.communicate(timeout=3600)
    assert process.returncode == 0, err[-5000:]
    chapters = {}
    for line in out.splitlines():
        one = json.loads(line)
        name = one.pop("chapter")
        chapters[name] = Chapter(Counter(one.pop("made")), **one)
    rows["time"] = pd.to_datetime(rows["time"])
    return Mornings(project, rows, first, count, chapters)


def _leave_open(project: Project) -> None:
    """The log goes on: a calendar without an end."""
    file = project.folder / "segflow.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    del values["calendar"]["end"]
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
