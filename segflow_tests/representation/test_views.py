"""Views side by side: everybody known is a row, newcomers and strangers have defined vectors, every column has a name."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from segflow.config import BehaviorConfig, UserEmbeddingConfig
from segflow.errors import UserError
from segflow.representation.behavior import BehaviorModel, fit_behavior_model
from segflow.representation.histories import Histories, UpTo, whole_users
from segflow.representation.sequences import EventSequences
from segflow.representation.users import category_prices
from segflow.representation.views import (
    UserViews,
    ViewSources,
    fuse_views,
    latest_sessions,
    make_views,
    session_pools,
)
from segflow_tests.representation.separable import END, TYPES, SeparableLog, separable_log

ALL = UserEmbeddingConfig(views=["text", "behavior", "engagement", "journey", "adapted", "attributes"])
ONCE = "a once"
COLD = ["a stranger", "z stranger"]


def with_one_event(log: SeparableLog) -> SeparableLog:
    """The log and a user with a single event, an hour before the end."""
    when = END - timedelta(hours=1)
    event = {"user_id": ONCE, "item_id": "i007", "event_type": "view", "ts": when, "value": 5.0, "category": "all"}
    session = {"user_id": ONCE, "start": when, "end": when, "events": 1, "value": 5.0, "items": ["i007"]}
    return SeparableLog(
        pa.concat_tables([pa.Table.from_pylist([event], log.events.schema), log.events]),
        pa.concat_tables([pa.Table.from_pylist([session], log.sessions.schema), log.sessions]),
        log.item_texts,
        log.truth,
    )


@pytest.fixture(scope="module")
def log() -> SeparableLog:
    return with_one_event(separable_log("rhythm"))


@pytest.fixture(scope="module")
def vectors(log: SeparableLog) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(len(log.item_texts), 6)).astype(np.float32)


@pytest.fixture(scope="module")
def sequences(log: SeparableLog) -> EventSequences:
    return EventSequences.from_arrow(log.events, list(log.item_texts), TYPES)


@pytest.fixture(scope="module")
def model(sequences: EventSequences, vectors: np.ndarray) -> BehaviorModel:
    config = BehaviorConfig(width=8, layers=1, heads=2, context=8, epochs=1)
    return fit_behavior_model(sequences, vectors, config, seed=0)


@pytest.fixture(scope="module")
def sources(log: SeparableLog, vectors: np.ndarray, sequences: EventSequences, model: BehaviorModel) -> ViewSources:
    ids = list(log.item_texts)
    ages = [{"user_id": user, "attribute": "age", "value": "old"} for user in ["u000", "u001", COLD[0]]]
    return ViewSources(
        [Histories(log.events, log.sessions, sequences)],
        {
            "text": [session_pools(log.sessions, ids, vectors)],
            "adapted": [session_pools(log.sessions, ids, vectors[:, :4])],
            "journey": [session_pools(log.sessions.slice(0, 500), ids, vectors[:, ::-1])],
        },
        model,
        pa.Table.from_pylist(ages),
        COLD,
    )


@pytest.fixture(scope="module")
def views(sources: ViewSources) -> UserViews:
    return make_views(sources, END, ALL)


def test_every_known_user_is_a_row_and_every_column_has_a_name(views: UserViews, log: SeparableLog):
    assert views.user_ids == sorted({*log.events["user_id"].to_pylist(), *COLD})
    assert list(views.views) == ALL.views
    for name, view in views.views.items():
        assert view.dtype == np.float32
        assert view.shape == (len(views.user_ids), len(views.names[name])), name
        assert np.isfinite(view).all(), name
    assert views.names["text"] == [f"text_{number}" for number in range(1, 7)]
    assert views.names["behavior"][-1] == "behavior_8"
    assert views.names["attributes"] == ["age=old"]
    assert "share_weekend" in views.names["engagement"]
    assert views.events[views.user_ids.index("u000")] == pc.sum(pc.equal(log.events["user_id"], "u000")).as_py()


def test_strangers_are_cold_and_lie_at_the_mean_of_the_others(views: UserViews):
    rows = [views.user_ids.index(user) for user in COLD]
    assert np.flatnonzero(views.cold).tolist() == rows
    assert not views.enough_history[rows].any()
    assert (views.events[rows] == 0).all()
    for name in ("text", "behavior", "journey", "adapted"):
        assert (views.views[name][rows] == 0).all()
    mean = views.views["engagement"][views.enough_history].mean(axis=0)
    np.testing.assert_allclose(views.views["engagement"][rows], [mean, mean], rtol=1e-4)
    assert views.views["attributes"][rows].tolist() == [[1], [0]]

    fused = fuse_views(views, ALL.listed, ALL)
    assert (fused.matrix[rows] == 0).all()
    np.testing.assert_allclose(fused.matrix[views.enough_history].mean(axis=0), 0, atol=1e-5)


def test_one_event_gives_vectors_of_ones_own_and_a_flag(views: UserViews, vectors: np.ndarray):
    row = views.user_ids.index(ONCE)
    assert (views.events[row], views.sessions[row]) == (1, 1)
    assert not views.enough_history[row]
    assert not views.cold[row]
    seventh = vectors[7] / np.linalg.norm(vectors[7])
    np.testing.assert_allclose(views.views["text"][row], seventh, rtol=1e-5)
    assert (views.views["behavior"][row] != 0).any()
    assert (fuse_views(views, ["behavior"], ALL).matrix[row] != 0).any()


def test_the_fusion_is_fitted_on_users_with_enough_history(views: UserViews):
    fused = fuse_views(views, ["text", "engagement"], ALL)
    enough = {name: view[views.enough_history] for name, view in views.views.items()}
    ids = [user for user, kept in zip(views.user_ids, views.enough_history, strict=True) if kept]
    flags = np.ones(len(ids), bool)
    alone = UserViews(ids, enough, views.names, views.events, views.sessions, flags, ~flags)
    again = fuse_views(alone, ["text", "engagement"], ALL)
    np.testing.assert_allclose(fused.matrix[views.enough_history], again.matrix, atol=1e-6)
    assert {column.split("_pc")[0] for column in fused.columns} == {"text", "engagement"}


def test_views_survive_the_table(views: UserViews):
    table = views.to_table(date(2024, 3, 25))
    read = UserViews.from_table(table.take(np.random.default_rng(0).permutation(table.num_rows)), ALL.views)
    assert read.user_ids == views.user_ids
    assert read.names == views.names
    for name, view in views.views.items():
        np.testing.assert_array_equal(read.views[name], view)
    for flag in ("events", "sessions", "enough_history", "cold"):
        np.testing.assert_array_equal(getattr(read, flag), getattr(views, flag))
    with pytest.raises(UserError, match="'journey'"):
        UserViews.from_table(table.drop_columns(["journey"]), ALL.views)


def test_a_user_whom_the_model_does_not_know_has_a_zero_state(sources: ViewSources):
    (everything,) = sources.histories
    others = everything.events.filter(pc.not_equal(everything.events["user_id"], "u005"))
    without = EventSequences.from_arrow(others, everything.sequences.item_ids, TYPES)
    histories = [Histories(everything.events, everything.sessions, without)]
    changed = ViewSources(histories, sources.session_vectors, sources.model)
    views = make_views(changed, END, UserEmbeddingConfig())
    zero = [user for user, state in zip(views.user_ids, views.views["behavior"], strict=True) if not state.any()]
    assert zero == ["u005"]


def test_the_latest_sessions_with_a_text():
    moments = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4, 1)]
    rows = pa.table(
        {"user_id": ["a", "a", "a", "a", "b"], "start": moments, "text": ["one", "two", "three", None, "four"]}
    )
    assert latest_sessions(rows, 2)["text"].to_pylist() == ["three", "two", "four"]


def test_views_of_some_users_at_a_time_are_those_of_the_whole(
    log: SeparableLog, vectors: np.ndarray, model: BehaviorModel
):
    ids, config = list(log.item_texts), UserEmbeddingConfig()
    # What users pay differs, and so would what is usual if it were taken from some of them.
    column = log.events.column_names.index("value")
    values = pa.array(np.random.default_rng(1).lognormal(0, 1, len(log.events)))
    events = log.events.set_column(column, "value", values)
    with duckdb.connect() as connection:
        connection.register("events", events)
        prices = category_prices(connection, END, config)

    def made(at_once: int) -> UserViews:
        sessions = UpTo(log.sessions.sort_by([("user_id", "ascending"), ("start", "ascending")]).to_reader())
        histories = (
            Histories(part, sessions.user(part["user_id"][-1].as_py()), EventSequences.from_arrow(part, ids, TYPES))
            for part in whole_users(events.to_reader(50), at_once)
        )
        pools = session_pools(log.sessions, ids, vectors)
        of_sessions = (pools.slice(start, at_once) for start in range(0, len(pools), at_once))
        return make_views(ViewSources(histories, {"text": of_sessions}, model, prices=prices), END, config)

    whole, parts = made(10**9), made(len(events) // 4)
    assert parts.user_ids == whole.user_ids
    for flag in ("events", "sessions", "enough_history", "cold"):
        np.testing.assert_array_equal(getattr(parts, flag), getattr(whole, flag))
    np.testing.assert_array_equal(parts.views["engagement"], whole.views["engagement"])
    np.testing.assert_allclose(parts.views["text"], whole.views["text"], atol=1e-6)
    # Matrices of another shape round otherwise, in half precision most of all.
    np.testing.assert_allclose(parts.views["behavior"], whole.views["behavior"], atol=0.05)


def test_mistakes_of_a_user(sources: ViewSources):
    demanding = UserEmbeddingConfig(min_events=10_000)
    with pytest.raises(UserError, match=r"0 users have 10000 events.*lower users\.min_events"):
        make_views(sources, END, demanding)
    nobody = ViewSources(sources.histories, attributes=sources.attributes.slice(0, 0))
    with pytest.raises(UserError, match=r"users\.views: 'attributes'"):
        make_views(nobody, END, UserEmbeddingConfig(views=["engagement", "attributes"]))
    with pytest.raises(ValidationError, match="add 'engagement'"):
        UserEmbeddingConfig(views=["text"])
    with pytest.raises(ValidationError, match=r"fuse.*journey"):
        UserEmbeddingConfig(fuse=["journey"])
    with pytest.raises(ValidationError, match="at least one view"):
        UserEmbeddingConfig(fuse=[])


def test_what_is_fused():
    assert UserEmbeddingConfig().listed == ["text", "behavior", "engagement"]
    assert ALL.listed == ["text", "behavior", "engagement", "journey", "adapted"]
    assert UserEmbeddingConfig(fuse=["engagement", "text"]).listed == ["text", "engagement"]
