"""Late and corrected files: the sensor brings them into exactly the days that they touch, and no others."""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from segflow import tables
from segflow.tables import Table
from segflow_tests.pipeline.project import SOURCE, Project
from segflow_tests.planted import planted_log

DAYS = ["raw_events", "events", "quarantined_events", "sessions"]
COMPARED = (tables.RAW_EVENTS, tables.EVENTS, tables.QUARANTINED_EVENTS, tables.SESSIONS)
HEADER = "user,item,type,time,price\n"


@pytest.fixture
def project(original: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The original, which is as it was after the test: what is up to date depends on where files lie, so a copy would not do."""
    kept = tmp_path_factory.mktemp("kept") / "original"
    shutil.copytree(original.folder, kept)
    yield original
    shutil.rmtree(original.folder)
    shutil.move(kept, original.folder)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Three weeks of a small log, a file a day, made from source rows to sessions."""
    folder = tmp_path_factory.mktemp("original")
    log = planted_log(folder / "whole", users=40, weeks=3, dirt=True)
    rows = pd.read_csv(log.events, dtype=str, keep_default_na=False)
    arrived = rows["time"].str[:10].where(rows["time"].str.match(r"2024-0"), "2024-01-21")
    for day, part in rows.groupby(arrived):
        _file(folder, f"{day}.csv", part.to_csv(index=False))
    shutil.copy(log.items, folder / "items.csv")
    source = {**SOURCE, "events": {**SOURCE["events"], "path": "log", "settle_seconds": 50}}
    made = Project.make(folder, log.start, log.end, source=source)
    made.materialize("catalogue", "", only=["source_files", "items"])
    made.materialize("days", str(log.start), str(log.end - timedelta(days=1)), DAYS)
    return made


def _file(folder: Path, name: str, text: str) -> None:
    (folder / "log").mkdir(exist_ok=True)
    (folder / "log" / name).write_text(text, encoding="utf-8")
    # Written a while ago: a file that was changed this second may still be growing.
    then = time.time() - 60
    os.utime(folder / "log" / name, (then, then))


def follow(project: Project) -> dict[str, set[str]]:
    """Let the sensor do its work as the daemon would, to its end; asset -> the partitions that were made."""
    done = project.python("-m", "segflow_tests.pipeline.follow")
    assert done.returncode == 0, done.stderr
    made: dict[str, set[str]] = defaultdict(set)
    for line in done.stdout.splitlines():
        asset, _, partition = line.partition(" ")
        made[asset].add(partition)
    return dict(made)


def content(project: Project) -> dict[str, pd.DataFrame]:
    return {table.name: project.read(table).to_pandas() for table in COMPARED}


def assert_like_from_scratch(project: Project, folder: Path) -> None:
    """Every table equals the one that is made of the same files in one go."""
    other = Project(folder)
    folder.mkdir()
    for name in ("segflow.yaml", "dagster.yaml", "items.csv"):
        shutil.copy(project.folder / name, folder)
    shutil.copytree(project.folder / "log", folder / "log")
    other.materialize("catalogue", "", only=["source_files", "items"])
    other.materialize("days", "2024-01-01", "2024-01-21", DAYS)
    after, expected = content(project), content(other)
    for table in COMPARED:
        pd.testing.assert_frame_equal(after[table.name], expected[table.name], obj=table.name)


def files_of(project: Project, table: Table) -> dict[date, set[str]]:
    return {key[0]: paths for key, paths in project.files(table).items()}  # type: ignore[misc]


def test_a_late_file_touches_its_days_and_nothing_else(project: Project, tmp_path: Path) -> None:
    assert follow(project) == {}
    before = {table: files_of(project, table) for table in COMPARED}
    late = HEADER + (
        "newcomer,p001,view,2024-01-10 12:00:00,5.00\nnewcomer,p002,purchase,2024-01-10 12:01:00,6.00\n"
        "newcomer,p003,view,2024-01-15 13:00:00,5.00\n"
    )
    _file(project.folder, "2024-01-18-late.csv", late)

    touched = {"2024-01-10", "2024-01-15"}
    assert follow(project) == {"source_files": {""}, **dict.fromkeys(DAYS, touched)}
    for table in (tables.RAW_EVENTS, tables.EVENTS, tables.SESSIONS):
        after = files_of(project, table)
        changed = {str(day) for day in after if after[day] != before[table][day]}
        assert changed == touched, table.name
    found = project.read(tables.SESSIONS, {"day": date(2024, 1, 10)}).to_pylist()
    (own,) = [row for row in found if row["user_id"] == "newcomer"]
    assert own["items"] == ["p001", "p002"]
    assert follow(project) == {}, "what was brought in is not brought in again"
    assert_like_from_scratch(project, tmp_path / "scratch")


def test_sessions_of_a_neighbour_are_made_again_when_they_reach_into_the_day(project: Project, tmp_path: Path) -> None:
    _file(project.folder, "early.csv", HEADER + "owl,p001,view,2024-01-10 23:50:00,5.00\n")
    assert follow(project)["sessions"] == {"2024-01-10", "2024-01-11"}, "late at night, the next day may go on with it"
    _file(project.folder, "later.csv", HEADER + "owl,p002,view,2024-01-11 00:05:00,5.00\n")
    made = follow(project)
    assert made["events"] == made["raw_events"] == {"2024-01-11"}
    assert made["sessions"] == {"2024-01-10", "2024-01-11"}
    (own,) = [row for row in project.read(tables.SESSIONS).to_pylist() if row["user_id"] == "owl"]
    assert (own["day"], own["items"]) == (date(2024, 1, 10), ["p001", "p002"])
    assert_like_from_scratch(project, tmp_path / "scratch")


def test_a_corrected_file_touches_the_days_whose_rows_changed(project: Project, tmp_path: Path) -> None:
    file = project.folder / "log" / "2024-01-09.csv"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) > 10
    # A file that is only touched, or that is delivered again as it was, changes nothing.
    _file(project.folder, file.name, "".join(lines))
    assert follow(project) == {"source_files": {""}}
    _file(project.folder, file.name, "".join([*lines[:5], *lines[6:]]))
    made = follow(project)
    assert made["raw_events"] == {"2024-01-09"}
    assert made["sessions"] <= {"2024-01-08", "2024-01-09", "2024-01-10"}
    assert_like_from_scratch(project, tmp_path / "scratch")


def test_a_file_that_changes_to_and_fro_is_followed_each_time(project: Project) -> None:
    names = ("mapped_rows.csv", "kept_files.csv")  # names that the statements use, too
    for name in names:
        _file(project.folder, name, HEADER)
    counts = []
    for rows in (1, 2, 1, 2):
        _file(project.folder, names[0], HEADER + "newcomer,p001,view,2024-01-09 12:00:00,5.00\n" * rows)
        assert follow(project)["raw_events"] == {"2024-01-09"}
        own = project.read(tables.RAW_EVENTS, {"day": date(2024, 1, 9)}).to_pandas()
        counts.append(int((own["user_id"] == "newcomer").sum()))
    assert counts == [1, 2, 1, 2]


def test_rows_of_a_file_that_was_rotated_away_are_kept(project: Project) -> None:
    rows = project.read(tables.RAW_EVENTS, {"day": date(2024, 1, 9)}).num_rows
    (project.folder / "log" / "2024-01-09.csv").unlink()
    assert set(follow(project)) <= {"source_files"}
    _file(project.folder, "late.csv", HEADER + "newcomer,p001,view,2024-01-09 12:00:00,5.00\n")
    assert follow(project)["raw_events"] == {"2024-01-09"}
    assert project.read(tables.RAW_EVENTS, {"day": date(2024, 1, 9)}).num_rows == rows + 1


def test_a_file_that_is_still_being_written_is_left_alone(project: Project) -> None:
    file = project.folder / "log" / "growing.csv"
    file.write_text(HEADER + "newcomer,p001,view,2024-01-09 12:00:00,5.00\n", encoding="utf-8")
    assert follow(project) == {}
    ahead = time.time() + 3600
    os.utime(file, (ahead, ahead))
    assert follow(project)["raw_events"] == {"2024-01-09"}, "a clock that is ahead is not waited for"


def test_days_without_a_list_of_files_say_what_to_do(tmp_path: Path) -> None:
    log = planted_log(tmp_path, users=10, weeks=2)
    bare = Project.make(tmp_path, log.start, log.end)
    done = bare.python("-m", "segflow_tests.pipeline.run_job", "days", "2024-01-01", "2024-01-02", "raw_events")
    assert done.returncode != 0
    assert "materialize source_files first" in done.stderr
