"""What rankers read: the week that they share, and the groups of repeats."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace
from typing import cast

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from segflow.config import RankerConfig
from segflow.rankers import segment_rankers
from segflow.rankers.global_ranker import GlobalRanker
from segflow.rankers.snapshot import RankingWeek
from segflow.reading import Reader, rankers
from segflow.reading.rankers import ranking_week, repeated_arms, some_sequences
from segflow.representation.behavior import BehaviorModel
from segflow.tables import BEHAVIOR_MODEL, EVENTS, Table


class Ranking:
    """A reader of the rankers: its week's model, and the versions of all tables."""

    def __init__(self, model: bytes = b"one", versions: dict[str, int] | None = None, week: int = 1) -> None:
        self.config = SimpleNamespace(rankers=RankerConfig())
        self.storage = SimpleNamespace(root="data")
        self._versions = versions or {}
        self.week = date(2024, 1, week)
        self._model = model

    def read(self, table: Table, columns: list[str]) -> pa.Table:
        return pa.table({columns[0]: [self._model]} if table is BEHAVIOR_MODEL else {"item_id": [], "vector": []})

    def version(self, table: Table) -> int:
        return self._versions.get(table.name, 0)

    def bounds(self, table: Table) -> dict[str, str]:
        assert table is EVENTS
        return {"day": f"before {self.week}"}


def test_a_ranking_week_is_kept_until_what_it_was_made_from_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def new_week(*_: object) -> object:
        made.append(object())
        return made[-1]

    monkeypatch.setattr(rankers, "_KEPT", {})
    monkeypatch.setattr(rankers, "item_vectors", lambda _: ([], None))
    monkeypatch.setattr(rankers, "event_sequences", lambda *_: None)
    monkeypatch.setattr(BehaviorModel, "from_bytes", lambda _: SimpleNamespace(event_types=()))
    monkeypatch.setattr(RankingWeek, "of", new_week)
    kept = ranking_week(cast(Reader, Ranking()))
    # A model of another week is another row of the same table.
    assert ranking_week(cast(Reader, Ranking(versions={"behavior_model": 1}))) is kept
    others = [
        Ranking(b"two"),
        Ranking(versions={"events": 1}),
        Ranking(versions={"item_embeddings": 1}),
        Ranking(week=8),
    ]
    for number, other in enumerate(others, 2):
        assert ranking_week(cast(Reader, other)) is not kept
        assert len(made) == number
    assert len(rankers._KEPT) == 1


class Log:
    """A reader of a log of 400 users, of whom each did five things; `order` is that of its rows."""

    def __init__(self, order: str) -> None:
        self.connection = duckdb.connect()
        self.connection.execute(
            "CREATE TABLE stored AS SELECT 'u' || i % 400 AS user_id, 'a' AS item_id, 'view' AS event_type, "
            "TIMESTAMPTZ '2024-01-01' + to_seconds(i) AS ts, 1.0 AS value, 'f' AS source_file, i AS source_row "
            f"FROM range(2000) AS rows(i) ORDER BY {order}"
        )

    def view(self, table: Table, name: str | None = None) -> None:
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name or table.name} AS FROM stored")

    def query(self, statement: str) -> pa.Table:
        return self.connection.sql(statement).to_arrow_table()


def test_of_a_large_log_all_events_of_some_users_are_read() -> None:
    found, share = some_sequences(cast(Reader, Log("i")), ["a"], 500, seed=1)
    assert share == 0.25
    # Five standard deviations around a quarter of the users, each of them whole.
    assert 55 < len(found.user_ids) < 145
    assert set(np.diff(found.offsets)) == {5}
    turned, _ = some_sequences(cast(Reader, Log("i DESC")), ["a"], 500, seed=1)
    assert turned.user_ids.tolist() == found.user_ids.tolist()
    other, _ = some_sequences(cast(Reader, Log("i")), ["a"], 500, seed=2)
    assert other.user_ids.tolist() != found.user_ids.tolist()
    whole, share = some_sequences(cast(Reader, Log("i")), ["a"], 2000, seed=1)
    assert (len(whole.times), share) == (2000, 1.0)


def test_a_repeat_is_read_with_its_own_global_ranker(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {"users": [], "shares": [], "group_id": "everybody", "arm": "global"}
    own = {"users": ["a"], "shares": [1.0], "model": b"delta"}
    rows = [
        {"seed": 2000, **whole, "model": b"two"},
        {"seed": 1000, "arm": "segments", "group_id": "s001", **own},
        {"seed": 1000, "arm": "segments", "group_id": "s002", **own, "users": ["b", "c"], "shares": [0.5, 0.6]},
        {"seed": 1000, **whole, "model": b"one"},
    ]
    reader = SimpleNamespace(config=SimpleNamespace(rankers=RankerConfig()), read=lambda _: pa.Table.from_pylist(rows))
    monkeypatch.setattr(GlobalRanker, "from_bytes", lambda data: data)
    monkeypatch.setattr(segment_rankers, "read_deltas", list)
    found = list(repeated_arms(cast(Reader, reader), ["a", "b", "d"]))
    assert [one[:2] for one in found] == [(1000, b"one"), (2000, b"two")]
    assert found[1][2] == {"global": None}
    assert set(found[0][2]) == {"global", "segments"}
    grouped = found[0][2]["segments"]
    assert grouped is not None
    assert grouped.deltas == [b"delta", b"delta"]
    assert grouped.membership.group.tolist() == [0, 1, -1]
    reader.config.rankers = RankerConfig(repeats=0)
    assert list(repeated_arms(cast(Reader, reader), ["a"])) == []
