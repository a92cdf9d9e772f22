"""Settings that change between runs: what depends on them is made again, and nothing else; what was there can still be read."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
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
        answer = self._answer("make")
        changed = {name for name, version in answer["code"].items() if self.code.get(name) != version}
        self.code = answer["code"]
        return answer["made"], changed

    def segflow(self, *arguments: str) -> str:
        """What the command says that ends well."""
        answer = self._answer(json.dumps(arguments))
        assert answer["status"] == 0, answer["said"]
        return str(answer["said"])

    def refused(self, *arguments: str) -> str:
        """The one line that a command ends with that fails."""
        answer = self._answer(json.dumps(arguments))
        assert answer["status"] in (1, 3), answer["said"]
        return str(answer["said"]).splitlines()[-1]

    def _answer(self, line: str) -> dict[str, Any]:
        assert self.maker.stdin is not None
        assert self.maker.stdout is not None
        self.maker.stdin.write(line + "\n")
        self.maker.stdin.flush()
        answer = self.maker.stdout.readline()
        assert answer, (self.project.folder / "maker.log").read_text(encoding="utf-8")[-3000:]
        found: dict[str, Any] = json.loads(answer)
        return found


@contextmanager
def opened(folder: Path, weeks: int, people: int = 10, **settings: Any) -> Iterator[Settled]:
    """A project with a log of so many weeks and nothing made. settings: whole sections to replace."""
    log = planted_log(folder, users=people, weeks=weeks)
    project = Project.make(folder, log.start, log.end, **settings)
    with (folder / "maker.log").open("w") as said:
        maker = subprocess.Popen(
            [sys.executable, "-m", "segflow_tests.faults.settled"],
            cwd=folder, env={**project.environment, "OMP_NUM_THREADS": "1"}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
        )  # fmt: skip
        yield Settled(project, maker, {})
        assert maker.stdin is not None
        maker.stdin.close()
        maker.wait(30)


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settled]:
    folder = tmp_path_factory.mktemp("settled")
    with opened(folder, 1, text={**SMALL["text"], "max_tokens": 64}, sessions={"gap_minutes": 30}) as project:
        made, _ = project.make()
        assert set(made) == DAILY
        yield project


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


def write_encoder(folder: Path, seed: int) -> None:
    """A small BERT that spells words, with random weights."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{one}" for one in letters)]
    torch.manual_seed(seed)
    size: dict[str, Any] = {
        "hidden_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 96,
    }
    BertModel(BertConfig(vocab_size=len(words), **size)).save_pretrained(folder)
    BertTokenizerFast(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder)


@pytest.mark.parametrize("how", ["another folder", "other weights in the same folder"])
def test_another_encoder(tmp_path: Path, how: str) -> None:
    """Of the encoder depend the vectors of items and sessions, and they are never mixed in what a week is made of."""
    first, second = tmp_path / "one" / "encoder", tmp_path / "two" / "encoder"
    write_encoder(first, 1)
    write_encoder(second, 2)
    views = {"views": ["text", "engagement"], "fuse": ["text", "engagement"]}
    text: dict[str, Any] = {"text": {"encoder": str(first)}, "users": views}
    with opened(tmp_path / "project", 3, **text) as project:
        made, _ = project.make()
        assert set(made) == DAILY
        before = project.project.read(tables.ITEM_EMBEDDINGS)
        days = sorted({str(day) for day in project.project.read(tables.SESSION_EMBEDDINGS)["day"].to_pylist()})
        week = ["backfill", f"{days[14]}..{days[20]}", "--assets"]
        project.segflow(*week, "behavior_model,user_views")

        if how == "another folder":
            project.set("text.encoder", str(second))
        else:
            second.joinpath("model.safetensors").replace(first / "model.safetensors")
        # Some of the days only: what a week would read is of two encoders.
        project.segflow("backfill", f"{days[7]}..{days[20]}", "--assets", "item_embeddings,session_embeddings")
        after = project.project.read(tables.ITEM_EMBEDDINGS)
        assert after["text_hash"].equals(before["text_hash"])
        assert not set(after["encoder"].to_pylist()) & set(before["encoder"].to_pylist())
        assert not after["vector"].equals(before["vector"])
        project.segflow(*week, "behavior_model")
        said = project.refused(*week, "user_views")
        assert "session_embeddings: 7 of 14 days are of the encoder encoder@" in said
        mend = f"backfill {days[0]}..{days[6]} --assets session_embeddings"
        assert f"run `segflow {mend}`" in said
        project.segflow(*mend.split())
        project.segflow(*week, "user_views")
        # The setting is one of the texts of items too.
        assert set(project.make()[0]) <= {"items"}


def test_the_number_of_segments(tmp_path: Path) -> None:
    """Of `k_max` depends the segmentation of a week, and nothing before it; what was there can still be read."""
    made_of_days = ["backfill", "--assets", "catalogue,days"]
    settings = {"users": {"views": ["engagement"], "fuse": ["engagement"]}}
    segments = {"segments": {**SMALL["segments"], "min_users": 5}}
    with opened(tmp_path / "project", 3, 40, **settings, **segments) as project:
        log = project.project
        start = yaml.safe_load((log.folder / "segflow.yaml").read_text())["calendar"]["start"]
        week = start + timedelta(weeks=2)
        project.segflow(*made_of_days, f"{start}..{week + timedelta(days=6)}")
        asked = ["backfill", f"{week}..{week + timedelta(days=6)}", "--assets"]
        names = ("behavior_model", "user_views", "user_embeddings", "segmentation")
        project.segflow(*asked, ",".join(names))
        before, rows = log.versions(), log.read(tables.SEGMENTATION)
        for key, value in (("segments.k_max", 3), ("segments.k_max", 5), ("segments.bootstraps", 12)):
            project.set(key, value)
            project.segflow(*asked, ",".join(names))
            after = log.versions()
            assert {name for name in names if after[name] != before[name]} == {"segmentation"}, key
            assert log.read(tables.SEGMENTATION, version=before["segmentation"]).equals(rows)
            before, rows = after, log.read(tables.SEGMENTATION)
