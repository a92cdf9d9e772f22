"""What asset bodies read: the views that a probe chose, the week that rankers share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from types import SimpleNamespace
from typing import Any, cast

import duckdb
import pyarrow as pa
import pytest

from segflow.config import RankerConfig, UserEmbeddingConfig
from segflow.defs import reading
from segflow.defs.reading import chosen_views, ranking_week, repeated_arms
from segflow.defs.step import Step
from segflow.rankers import segment_rankers
from segflow.rankers.global_ranker import GlobalRanker
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.behavior import BehaviorModel
from segflow.tables import BEHAVIOR_MODEL, EVENTS, REPRESENTATION_PROBE, Table

COLUMNS = pa.schema([("candidate", pa.string()), ("chosen", pa.bool_())])


class Probed:
    """A step that reads `rows` of `representation_probe`."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.config = SimpleNamespace(users=UserEmbeddingConfig(fuse="auto"))
        self.notes: dict[str, Any] = {}
        self._rows = pa.Table.from_pylist(list(rows), schema=COLUMNS)
        self._connection = duckdb.connect()

    def view(self, table: Table) -> None:
        assert table is REPRESENTATION_PROBE
        self._connection.register(table.name, self._rows)

    def query(self, statement: str) -> pa.Table:
        return self._connection.sql(statement).to_arrow_table()

    def note(self, **values: Any) -> None:
        self.notes |= values


def test_what_the_probe_of_the_week_before_chose_is_fused() -> None:
    rows = [
        {"candidate": "engagement", "chosen": False},
        {"candidate": "behavior + text", "chosen": True},
        {"candidate": "behavior + text", "chosen": True},
    ]
    step = Probed(rows)
    assert chosen_views(cast(Step, step)) == ["behavior", "text"]
    assert not step.notes


@pytest.mark.parametrize("rows", [[], [{"candidate": "text", "chosen": False}]])
def test_without_a_choice_the_listed_views_are_fused_and_that_is_noted(rows: list[dict[str, Any]]) -> None:
    step = Probed(rows)
    assert chosen_views(cast(Step, step)) == ["text", "behavior", "engagement"]
    assert "not probed" in step.notes["no_probe"]


class Ranking:
    """A step of the rankers: its week's model, and the versions of all tables."""

    def __init__(self, model: bytes = b"one", versions: dict[str, int] | None = None, week: int = 1) -> None:
        self.config = SimpleNamespace(rankers=RankerConfig())
        self.storage = SimpleNamespace(root="data", version=lambda table: (versions or {}).get(table.name, 0))
        self.week = date(2024, 1, week)
        self._model = model

    def read(self, table: Table, columns: list[str]) -> pa.Table:
        return pa.table({columns[0]: [self._model]} if table is BEHAVIOR_MODEL else {"item_id": [], "vector": []})

    def bounds(self, table: Table) -> dict[str, str]:
        assert table is EVENTS
        return {"day": f"before {self.week}"}


def test_a_ranking_week_is_kept_until_what_it_was_made_from_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def new_week(*_: object) -> object:
        made.append(object())
        return made[-1]

    monkeypatch.setattr(reading, "_KEPT", {})
    monkeypatch.setattr(reading, "item_vectors", lambda _: ([], None))
    monkeypatch.setattr(reading, "event_sequences", lambda *_: None)
    monkeypatch.setattr(BehaviorModel, "from_bytes", lambda _: SimpleNamespace(event_types=()))
    monkeypatch.setattr(RankingWeek, "of", new_week)
    kept = ranking_week(cast(Step, Ranking()))
    # A model of another week is another row of the same table.
    assert ranking_week(cast(Step, Ranking(versions={"behavior_model": 1}))) is kept
    others = [
        Ranking(b"two"),
        Ranking(versions={"events": 1}),
        Ranking(versions={"item_embeddings": 1}),
        Ranking(week=8),
    ]
    for number, other in enumerate(others, 2):
        assert ranking_week(cast(Step, other)) is not kept
        assert len(made) == number
    assert len(reading._KEPT) == 1


def test_a_repeat_is_read_with_its_own_global_ranker(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {"users": [], "shares": [], "group_id": "everybody", "arm": "global"}
    own = {"users": ["a"], "shares": [1.0], "model": b"delta"}
    rows = [
        {"seed": 2000, **whole, "model": b"two"},
        {"seed": 1000, "arm": "segments", "group_id": "s001", **own},
        {"seed": 1000, "arm": "segments", "group_id": "s002", **own, "users": ["b", "c"], "shares": [0.5, 0.6]},
        {"seed": 1000, **whole, "model": b"one"},
    ]
    step = SimpleNamespace(config=SimpleNamespace(rankers=RankerConfig()), read=lambda _: pa.Table.from_pylist(rows))
    monkeypatch.setattr(GlobalRanker, "from_bytes", lambda data: data)
    monkeypatch.setattr(segment_rankers, "read_deltas", list)
    found = list(repeated_arms(cast(Step, step), ["a", "b", "d"]))
    assert [one[:2] for one in found] == [(1000, b"one"), (2000, b"two")]
    assert found[1][2] == {"global": None}
    assert set(found[0][2]) == {"global", "segments"}
    grouped = found[0][2]["segments"]
    assert grouped is not None
    assert grouped.deltas == [b"delta", b"delta"]
    assert grouped.membership.group.tolist() == [0, 1, -1]
    step.config.rankers = RankerConfig(repeats=0)
    assert list(repeated_arms(cast(Step, step), ["a"])) == []
