"""Settings that change between runs: what depends on them is made again, and nothing else; what was there can still be read."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import yaml

from segflow import tables
from segflow_tests.faults.settled import MADE
from segflow_tests.pipeline.project import SMALL, Project
from segflow_tests.planted import planted_log

pytestmark = pytest.mark.faults
DAILY = {name for names in MADE.values() for name in names}
DIRECT = {
    "sessions.gap_minutes": {"events", "sessions"},
    "segments.k_max": set[str](),
    "text.max_tokens": {"items", "item_embeddings"},
}
"""Setting -> the assets of these days whose code version holds it. What is made of k is made of weeks."""
FOLLOWING = {
    "sessions.gap_minutes": {"events", "sessions", "user_days", "session_embeddings"},
    "segments.k_max": set[str](),
    "text.max_tokens": {"items", "item_embeddings", "session_embeddings"},
}
"""Setting -> the most that may be made again: those, and what is made of them."""
VALUES = {"sessions.gap_minutes": [5, 12, 25, 40, 90], "segments.k_max": [3, 5, 7, 9], "text.max_tokens": [8, 9, 64]}
TABLES = (tables.RAW_EVENTS, tables.EVENTS, tables.SESSIONS, tables.ITEM_EMBEDDINGS, tables.SESSION_EMBEDDINGS)


@dataclass
class Settled:
    """A project and the process that makes it by its settings."""

    project: Project
    maker: subprocess.Popen[str]
    code: dict[str, str]

    def set(self, key: str, value: object) -> None:
        file = self.project.folder / "segflow.yaml"
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        section, name = key.split(".")
        values.setdefault(section, {})[name] = value
        file.write_text(yaml.safe_dump(values), encoding="utf-8")

    def get(self, key: str) -> object:
        values = yaml.safe_load((self.project.folder / "segflow.yaml").read_text(encoding="utf-8"))
        section, name = key.split(".")
        return values.get(section, {}).get(name)

    def make(self) -> tuple[dict[str, list[str]], set[str]]:
        """What was made, and the assets whose code version has changed since the last time."""
        assert self.maker.stdin is not None
        assert self.maker.stdout is not None
        self.maker.stdin.write("make\n")
        self.maker.stdin.flush()
        line = self.maker.stdout.readline()
        assert line, (self.project.folder / "maker.log").read_text(encoding="utf-8")[-3000:]
        answer: dict[str, Any] = json.loads(line)
        changed = {name for name, version in answer["code"].items() if self.code.get(name) != version}
        self.code = answer["code"]
        return answer["made"], changed


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settled]:
    folder = tmp_path_factory.mktemp("settled")
    log = planted_log(folder, users=10, weeks=1)
    project = Project.make(
        folder, log.start, log.end, text={**SMALL["text"], "max_tokens": 64}, sessions={"gap_minutes": 30}
    )
    with (folder / "maker.log").open("w") as said:
        maker = subprocess.Popen(
            [sys.executable, "-m", "segflow_tests.faults.settled"],
            cwd=folder, env={**project.environment, "OMP_NUM_THREADS": "1"}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
        )  # fmt: skip
        opened = Settled(project, maker, {})
        made, _ = opened.make()
        assert set(made) == DAILY
        yield opened
        assert maker.stdin is not None
        maker.stdin.close()
        maker.wait(30)


@pytest.mark.parametrize("seed", range(12))
def test_only_what_depends_on_a_setting_is_made_again(settled: Settled, seed: int) -> None:
    chance = random.Random(seed)
    key = list(DIRECT)[seed % 3]
    value = chance.choice([one for one in VALUES[key] if one != settled.get(key)])
    before = settled.project.versions()
    rows = {table.name: settled.project.read(table) for table in TABLES}
    settled.set(key, value)
    made, changed = settled.make()

    assert changed & DAILY == DIRECT[key], f"{key}: {value}"
    assert changed - DAILY if key == "segments.k_max" else changed
    assert DIRECT[key] <= set(made) <= FOLLOWING[key]
    after = settled.project.versions()
    for table in TABLES:
        # What was there before can be read as it was.
        assert settled.project.read(table, version=before[table.name]).equals(rows[table.name])
        if table.name not in made:
            assert after[table.name] == before[table.name]
    # The gap decides how far the edges of a day reach, not what its events are.
    assert after["events"] == before["events"]
    assert after["raw_events"] == before["raw_events"]
    assert settled.make() == ({}, set())
    assert_of_one_kind(settled.project, int(str(settled.get("sessions.gap_minutes"))))


def assert_of_one_kind(project: Project, gap: int) -> None:
    """Every day is of the settings of now: pauses inside sessions, those between them, and vectors of one model."""
    sessions = project.read(tables.SESSIONS).to_pylist()
    assert max(max(row["gaps"]) for row in sessions) <= gap * 60
    ends: dict[str, Any] = {}
    for row in sorted(sessions, key=lambda row: (row["user_id"], row["start"])):
        last = ends.get(row["user_id"])
        assert last is None or row["start"] - last > timedelta(minutes=gap)
        ends[row["user_id"]] = row["end"]
    vectors = project.read(tables.SESSION_EMBEDDINGS).to_pylist()
    assert {(row["day"], row["session_id"]) for row in vectors} == {(row["day"], row["session_id"]) for row in sessions}
    own = {row["item_id"]: row["vector"] for row in project.read(tables.ITEM_EMBEDDINGS).to_pylist()}
    of_session = {row["session_id"]: row["vector"] for row in vectors}
    for row in sessions:
        if len(set(row["items"])) == 1:
            # A session of one item points where the item does.
            item, session = np.array(own[row["items"][0]]), np.array(of_session[row["session_id"]])
            assert item @ session > 0.999 * np.linalg.norm(item) * np.linalg.norm(session)
