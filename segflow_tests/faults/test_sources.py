"""Files that arrive cut, changed, twice, late or with other columns: no row is lost, none counts twice, all tables can be read.

Each fault is put into real files at random places and moments, while a real run reads them.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segflow import tables
from segflow_tests.faults.delivered import (
    FORMATS,
    LAST,
    START,
    Delivery,
    Row,
    days,
    delivery,
    rows_of,
    spelled,
    written,
)
from segflow_tests.faults.delivered import spelled_as_meant as meant

pytestmark = pytest.mark.faults
COUNTED = ("csv", "jsonl", "parquet", "csv.gz")
"""Formats in which each fault is put at least ten times; packed JSON and zstd take turns with gzip."""
COMPARED = (tables.RAW_EVENTS, tables.EVENTS, tables.QUARANTINED_EVENTS)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    with delivery(tmp_path_factory.mktemp("delivered")) as opened:
        yield opened


def ready(project: Delivery, form: str, chance: random.Random) -> None:
    """Four days of files in one format, all made."""
    if [name.partition(".")[2] for name in project.held] != [form] * 4:
        project.begin()
        for day in days():
            rows = rows_of(day, chance)
            project.put(f"{day}.{form}", written(rows, form), rows)
    assert project.make() is None
    project.check()


def begun(project: Delivery, fault: str, form: str, seed: int) -> tuple[random.Random, str, str]:
    """Four days of files that are made; chance, their format, and the name of one of them. gzip stands for all that is packed."""
    chance = random.Random(f"{fault} {form} {seed}")
    form = ("csv.gz", "jsonl.gz", "csv.zst")[seed // 4 % 3] if form == "csv.gz" else form
    ready(project, form, chance)
    return chance, form, chance.choice(sorted(project.held))


def content(project: Delivery) -> dict[str, list[Row]]:
    return {table.name: project.read(table) for table in COMPARED}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("form", COUNTED)
def test_a_file_that_is_cut_is_refused_or_gives_the_rows_that_are_there(
    project: Delivery, form: str, seed: int
) -> None:
    chance, form, name = begun(project, "cut", form, seed)
    rows, others = project.held[name], [one for one in project.held if one != name]
    whole, before = written(rows, form), content(project)
    cut = chance.randrange(len(whole))
    project.put(name, whole[:cut])
    said = project.make()
    if said is None:
        assert form in ("csv", "jsonl") or cut == 0
        found = [spelled(row) for row in project.read(tables.RAW_EVENTS) if row["source_file"] == name]
        # Where a line is cut, nothing tells its beginning from a whole one.
        assert len(found) <= len(rows)
        assert found[:-1] == [meant(row) for row in rows[: max(len(found) - 1, 0)]]
        project.check(others)
    else:
        assert name in said
        assert content(project) == before
    project.put(name, whole, rows)
    assert project.make() is None
    project.check()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("form", COUNTED)
def test_a_file_that_is_replaced_while_it_is_read_is_never_read_in_parts(
    project: Delivery, form: str, seed: int
) -> None:
    """At a moment between the look into a file and the end of its reading, as near as the length of a run before tells."""
    chance, form, name = begun(project, "replaced", form, seed)
    day = START + timedelta(days=sorted(project.held).index(name))
    earlier, first, second = (rows_of(day, chance, count) for count in (60, 60, chance.choice([55, 65])))
    project.put(name, written(earlier, form), earlier)
    began = time.monotonic()
    assert project.make() is None
    took = time.monotonic() - began
    project.put(name, written(first, form), first)
    project.start()
    time.sleep(took * chance.uniform(0.1, 0.7))
    if chance.random() < 0.4:
        project.put(name, written(second, form))
    else:
        # Faster than from the look to the reading: what is half written for longer is a file like any other.
        write_slowly(project, project.log / name, written(second, form), chance, took * 0.2)
    said = project.finish()
    if said is None:
        found = [spelled(row) for row in project.read(tables.RAW_EVENTS) if row["source_file"] == name]
        assert found in ([meant(row) for row in first], [meant(row) for row in second])
        listed = [row["rows"] for row in project.read(tables.SOURCE_FILES) if row["file"] == name]
        assert sum(listed) == len(found), "the days were read of another file than was looked into"
    else:
        assert name in said
    project.check([one for one in project.held if one != name])
    project.held[name] = second
    assert project.make() is None
    project.check()


def write_slowly(project: Delivery, file: Path, new: bytes, chance: random.Random, most: float) -> None:
    """Write over a file in place, half by half, as a copy over a slow line does. most: seconds that it may take."""
    half = chance.randrange(len(new))
    with file.open("r+b") as opened:
        opened.write(new[:half])
        opened.flush()
        time.sleep(chance.random() * most)
        opened.write(new[half:])
        opened.truncate()
    project.touch(file)


@pytest.mark.parametrize("seed", range(12))
def test_a_file_that_is_delivered_twice_counts_once(project: Delivery, seed: int) -> None:
    chance = random.Random(f"twice {seed}")
    form = FORMATS[seed % len(FORMATS)]
    ready(project, form, chance)
    before = events(project)
    name = chance.choice(sorted(project.held))
    rows = list(project.held[name])
    if chance.random() < 0.5:
        rows = chance.sample(rows, chance.randrange(1, len(rows)))
    again = chance.choice([f"again-{seed}", f"{name[:10]}-again-{seed}", f"1-before-{seed}"]) + f".{form}"
    project.put(again, written(rows, form), rows)
    assert project.make() is None
    project.check()
    assert events(project) == before
    reasons = [row["reason"] for row in project.read(tables.QUARANTINED_EVENTS) if row["source_file"] in (again, name)]
    assert reasons.count("duplicate") == sum(row["time"] != "soon" for row in rows)
    project.begin()


def events(project: Delivery) -> Counter[tuple[Any, ...]]:
    return Counter(spelled(row) for row in project.read(tables.EVENTS))


@pytest.mark.parametrize("seed", range(12))
def test_files_and_rows_may_come_in_any_order(project: Delivery, seed: int) -> None:
    chance = random.Random(f"order {seed}")
    form = FORMATS[seed % len(FORMATS)]
    every = [row for day in days() for row in rows_of(day, chance)]
    chance.shuffle(every)
    names = [f"{number}.{form}" for number in range(4)]
    files = {name: every[number::4] for number, name in enumerate(names)}
    project.begin()
    for name in chance.sample(names, len(names)):
        project.put(name, written(files[name], form), files[name])
        if chance.random() < 0.6:
            assert project.make() is None
            project.check()
    assert project.make() is None
    project.check()
    assert events(project) == Counter(meant(row) for row in every if row["time"] != "soon")


NAMES = ["user", "item", "type", "time", "price"]
CHANGES: dict[str, list[str]] = {
    "a column more": [*NAMES, "colour"],
    "columns in another order": ["price", "time", "type", "item", "user"],
    "an optional column less": ["user", "item", "type", "time"],
    "users as numbers": NAMES,
    "no column of users": ["item", "type", "time", "price"],
    "no column of times": ["user", "item", "type", "price"],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("form", COUNTED)
def test_columns_that_change_in_the_middle_of_a_backfill(project: Delivery, form: str, change: str) -> None:
    chance = random.Random(f"{change} {form}")
    project.begin()
    for day in days():
        rows = rows_of(day, chance)
        project.put(f"{day}.{form}", written(rows, form), rows)
    half = START + timedelta(days=chance.randrange(3))
    assert project.make(half) is None
    before = content(project)
    late = chance.choice([day for day in days() if day > half])
    rows = [{**row, "colour": "red"} for row in rows_of(late, chance)]
    if change == "users as numbers":
        rows = [{**row, "user": int(row["user"][1:])} for row in rows]
    names = CHANGES[change]
    said_by_rows = [{name: row[name] for name in names} for row in rows]
    name = f"{late}.{form}"
    project.put(name, written(said_by_rows, form, names))
    said = project.make(LAST)
    if "no column" in change:
        assert said is not None
        assert name in said
        assert f"'{change.rpartition(' ')[2][:-1]}'" in said
        assert content(project) == before
        project.put(name, written(rows, form, NAMES), rows)
        assert project.make() is None
    else:
        assert said is None
        project.held[name] = said_by_rows
    project.check()
