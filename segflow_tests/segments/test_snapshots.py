"""Who belongs to which segment at a snapshot and between two: rows for everybody, and what does not fit together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from segflow import tables
from segflow.arrow import matrix, vector_column
from segflow.config import UserEmbeddingConfig
from segflow.errors import UserError
from segflow.representation.views import UserViews, fuse_views
from segflow.segments.clustering import Assignment
from segflow.segments.history import ledger_rows
from segflow.segments.newcomers import newcomer_embeddings, newcomers
from segflow.segments.population import Population
from segflow.segments.snapshots import UNASSIGNED, Snapshot, ids_of, members, newcomer_rows, user_segment_rows
from segflow_tests.segments.snapshots import CONFIG, FEATURES, MONDAY, assignment, purchases, snapshot, users

WEEK = date(2024, 3, 4)
CLUSTERS = {0: users(0, 30), 1: users(30, 50), -1: users(50, 55)}
IDS = {0: "s004", 1: "s002"}


def ledger(clusters: dict[int, list[str]]) -> pa.Table:
    nothing = tables.SEGMENT_LEDGER.arrow.empty_table()
    return ledger_rows(WEEK, snapshot(clusters), nothing, purchases(clusters), CONFIG, seed=0)


def test_groups_hold_who_is_in_a_cluster_and_nobody_else():
    found = snapshot(CLUSTERS)
    groups = found.groups()
    assert {cluster: list(group.members) for cluster, group in groups.items()} == {0: users(0, 30), 1: users(30, 50)}
    assert groups[0].centroid == pytest.approx(found.engagement.matrix[:30].astype(float).mean(axis=0))
    assert found.unplaced == users(50, 55)
    assert set(members(found, IDS)["user_id"]) == {*users(0, 50)}


def test_everybody_is_a_row_and_who_belongs_nowhere_is_unassigned():
    everybody = users(0, 60)
    rows = user_segment_rows(WEEK, everybody, snapshot(CLUSTERS), IDS)
    assert rows.schema.names == tables.USER_SEGMENTS.column_names
    found = rows.to_pydict()
    assert found["user_id"] == everybody
    assert found["segment_id"] == ["s004"] * 30 + ["s002"] * 20 + [UNASSIGNED] * 10
    assert found["probability"] == [1.0] * 50 + [0.0] * 10
    assert found["distance"] == [1.0] * 50 + [None] * 10
    assert found["outlier"] == [True] + [False] * 59
    assert set(found["week"]) == {WEEK}


def test_without_segments_everybody_is_unassigned():
    found = snapshot({-1: users(0, 9)})
    assert found.groups() == {}
    assert ids_of(found, ledger({-1: users(0, 9)}), WEEK) == {}
    rows = user_segment_rows(WEEK, users(0, 12), found, {})
    assert rows["segment_id"].to_pylist() == [UNASSIGNED] * 12
    assert rows["distance"].null_count == 12


def test_ids_come_from_the_rows_of_the_same_clustering():
    rows = ledger(CLUSTERS)
    assert ids_of(snapshot(CLUSTERS), rows, WEEK) == {0: "s001", 1: "s002"}
    others = (
        {0: users(0, 30), 1: users(30, 49), -1: users(49, 55)},
        {0: users(0, 30), 2: users(30, 50)},
        {0: users(0, 30), 1: users(30, 50), 2: users(50, 55)},
        {-1: users(0, 55)},
    )
    for other in others:
        with pytest.raises(
            UserError, match=r"segment_ledger: its rows of week 2024-03-04 .* materialize segment_ledger"
        ):
            ids_of(snapshot(other), rows, WEEK)


@dataclass(frozen=True)
class Halves:
    """A clustering of vectors by the sign of their first number; zero belongs nowhere."""

    def assign(self, population: Population) -> Assignment:
        first = population.points[:, 0]
        return assignment(np.where(first == 0, -1, first > 0).tolist())


def test_a_snapshot_is_read_from_the_tables_of_a_week():
    names = users(0, 6)
    enough = [True, True, False, True, True, True]
    fused = np.array([[1.0], [-1.0], [9.0], [0.0], [2.0], [-3.0]], np.float32)
    embeddings = pa.table({"user_id": names, "enough_history": enough, "fused": vector_column(fused)})
    engagement = np.arange(24, dtype=np.float32).reshape(6, 4)
    views = pa.table(
        {
            "user_id": names,
            "engagement": vector_column(engagement),
            "engagement_names": pa.array([FEATURES] * 6, pa.list_(pa.string())),
        }
    )
    found = Snapshot.of(embeddings, views, Halves())
    assert found.users == ["u0000", "u0001", "u0003", "u0004", "u0005"]
    assert found.assignment.labels.tolist() == [1, 0, -1, 1, 0]
    assert found.engagement.matrix.tolist() == engagement[np.array(enough)].tolist()
    with pytest.raises(ValueError, match="different users"):
        Snapshot.of(embeddings, views.slice(1), Halves())


def views(ids: list[str], enough: list[bool], seed: int = 0) -> UserViews:
    rng = np.random.default_rng(seed)
    matrices = {
        "text": rng.normal(size=(len(ids), 12)).astype(np.float32),
        "engagement": rng.gamma(2, size=(len(ids), len(FEATURES))).astype(np.float32),
    }
    counts = np.full(len(ids), 9)
    cold = np.zeros(len(ids), bool)
    return UserViews(ids, matrices, {"text": [], "engagement": FEATURES}, counts, counts, np.array(enough), cold)


def test_newcomers_had_not_enough_history_at_the_snapshot_or_were_unknown():
    before = views(users(0, 6), [True, True, True, False, False, True])
    now = views(users(1, 9), [True, False, True, True, True, True, False, True])
    assert [now.user_ids[row] for row in newcomers(before, now)] == ["u0003", "u0004", "u0006", "u0008"]


def test_newcomers_are_put_into_the_very_space_of_the_snapshot():
    config = UserEmbeddingConfig(views=["text", "engagement"], view_dims=3)
    chosen = config.listed
    before = views(users(0, 200), [row % 3 > 0 for row in range(200)])
    fused = fuse_views(before, chosen, config).matrix
    # The same users under new names: whoever they are, the same views must give the same vectors, to the last bit.
    now = replace(before, user_ids=users(500, 700))
    rows = newcomers(before, now)
    found = newcomer_embeddings(before, fused, now, rows, chosen, config)
    assert rows.tolist() == np.flatnonzero(before.enough_history).tolist()
    assert matrix(found["fused"]).tolist() == fused[before.enough_history].tolist()
    assert found["user_id"].to_pylist() == [now.user_ids[row] for row in rows]
    assert found["enough_history"].to_pylist() == [True] * len(rows)
    with pytest.raises(UserError, match="materialize user_embeddings"):
        newcomer_embeddings(before, fused[:, ::-1], now, rows, chosen, config)
    with pytest.raises(UserError, match="materialize user_embeddings"):
        newcomer_embeddings(before, fused[:, :-1], now, rows, chosen, config)


def test_rows_of_newcomers_say_up_to_which_event():
    rows = newcomer_rows(WEEK, users(0, 3), assignment([1, -1, 0]), IDS, MONDAY)
    assert rows.schema.names == tables.NEWCOMER_SEGMENTS.column_names
    assert rows["segment_id"].to_pylist() == ["s002", UNASSIGNED, "s004"]
    assert rows["distance"].to_pylist() == [1.0, None, 1.0]
    assert set(rows["as_of"].to_pylist()) == {MONDAY}
    assert newcomer_rows(WEEK, [], assignment([]), IDS, MONDAY).num_rows == 0
