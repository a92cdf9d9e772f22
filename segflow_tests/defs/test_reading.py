"""What asset bodies read: the views that a probe chose."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import duckdb
import pyarrow as pa
import pytest

from segflow.config import UserEmbeddingConfig
from segflow.defs.reading import chosen_views
from segflow.defs.step import Step
from segflow.tables import REPRESENTATION_PROBE, Table

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
