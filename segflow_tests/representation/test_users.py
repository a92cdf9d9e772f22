"""User vectors: exact features on a log small enough to check by hand, no look ahead, and a fusion that applies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from segflow.config import UserEmbeddingConfig
from segflow.errors import UserError
from segflow.representation.users import (
    Fusion,
    UserFeatures,
    attribute_features,
    engagement_features,
    fuse,
    natural_units,
    text_profiles,
)

MONDAY = datetime(2024, 3, 4)
CONFIG = UserEmbeddingConfig()
EVENT = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event_type", pa.string()),
        ("ts", pa.timestamp("us", tz="UTC")),
        ("value", pa.float64()),
        ("category", pa.string()),
    ]
)
SESSION = pa.schema(
    [
        ("user_id", pa.string()),
        ("start", pa.timestamp("us", tz="UTC")),
        ("end", pa.timestamp("us", tz="UTC")),
        ("events", pa.int64()),
        ("value", pa.float64()),
    ]
)


def moment(days: float) -> datetime:
    return (MONDAY - timedelta(days=days)).replace(tzinfo=UTC)


def event(user: str, item: str, days: float, value: float | None, category: str | None = "food") -> dict:
    when = moment(days)
    return {"user_id": user, "item_id": item, "event_type": "buy", "ts": when, "value": value, "category": category}


def session(user: str, days: float, minutes: float, events: int = 1, value: float = 0.0) -> dict:
    end = moment(days) + timedelta(minutes=minutes)
    return {"user_id": user, "start": moment(days), "end": end, "events": events, "value": value}


EVENTS = [
    event("ann", "milk", 10, 4.0),
    event("ann", "milk", 8, 4.0),
    event("ann", "bread", 8, 2.0),
    event("ann", "pen", 1.5, 10.0, "office"),
    event("bob", "milk", 3, None, None),
]
SESSIONS = [
    session("ann", 10, 0),
    session("ann", 8, 30),
    session("ann", 1.5, 6),
    session("bob", 3, 0),
]


def features(events: list[dict], sessions: list[dict], week_start: datetime = MONDAY) -> UserFeatures:
    tables = pa.Table.from_pylist(events, EVENT), pa.Table.from_pylist(sessions, SESSION)
    return engagement_features(*tables, week_start, CONFIG)


def natural(found: UserFeatures, user: str) -> dict[str, float]:
    row = found.matrix[found.user_ids.index(user)]
    return {
        shown: float(values[0])
        for name, value in zip(found.names, row, strict=True)
        for shown, values in [natural_units(name, np.array([value]))]
    }


def test_features_by_hand():
    found = features(EVENTS, SESSIONS)
    assert found.user_ids == ["ann", "bob"]
    assert found.matrix.dtype == np.float32
    assert np.isfinite(found.matrix).all()
    ann = natural(found, "ann")
    expected = {
        "recency_days": 1.5,
        "tenure_days": 10,
        "sessions_per_week_recent": 3 * 7 / 10,
        "value_total": 20,
        "value_per_session": 20 / 3,
        "events_per_session": 4 / 3,
        "minutes_per_session": 12,
        "gap_days_mean": (2 + 6.5) / 2,
        "gap_days_std": 2.25,
        "share_night": 2 / 3,  # two sessions at midnight, one at noon
        "share_afternoon": 1 / 3,
        "share_friday": 1 / 3,  # 10 days before a Monday
        "share_weekend": 2 / 3,
        "distinct_items": 3,
        "distinct_categories": 2,
        "share_repeated_items": 1 / 4,
        "category_entropy_bits": -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)),
        "price_level": 0,
        "share_events_with_value": 1,
    }
    for name, value in expected.items():
        assert ann[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    bob = natural(found, "bob")
    assert bob["gap_days_mean"] == pytest.approx(3, rel=1e-5)
    assert (bob["value_total"], bob["gap_days_std"], bob["category_entropy_bits"]) == (0, 0, 0)
    assert bob["sessions_per_week_recent"] == pytest.approx(1)


def test_price_level_compares_inside_a_category():
    dear = [event("dear", "a", 2, 8.0), event("cheap", "b", 2, 2.0), event("dear", "car", 2, 9e3, "cars")]
    found = features(dear, [session("dear", 2, 0), session("cheap", 2, 0)])
    assert natural(found, "dear")["price_level"] == pytest.approx(np.log(2) / 2, rel=1e-5)
    assert natural(found, "cheap")["price_level"] == pytest.approx(-np.log(2), rel=1e-5)


@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(st.sampled_from(["ann", "bob", "new"]), st.floats(-300, 0), st.floats(0, 1e4), st.integers(0, 90)),
        max_size=8,
    )
)
def test_nothing_after_the_snapshot_is_read(later):
    before = features(EVENTS, SESSIONS)
    events = EVENTS + [event(user, "later", days, value, "future") for user, days, value, _ in later]
    sessions = SESSIONS + [session(user, days, minutes, 5, 9.0) for user, days, _, minutes in later]
    after = features(events, sessions)
    assert after.user_ids == before.user_ids
    np.testing.assert_array_equal(after.matrix, before.matrix)


def test_a_session_across_the_snapshot_is_cut_there():
    across = [*SESSIONS, session("bob", 0.01, 0, events=1, value=3.0)]
    longer = [*SESSIONS, session("bob", 0.01, 600, events=99, value=1e6)]
    bought = [*EVENTS, event("bob", "milk", 0.01, 3.0)]
    short, cut = features(bought, across), features(bought, longer)
    minutes = short.names.index("log_minutes_per_session")
    others = [column for column in range(len(short.names)) if column != minutes]
    np.testing.assert_array_equal(cut.matrix[:, others], short.matrix[:, others])
    assert natural(cut, "bob")["minutes_per_session"] == pytest.approx(0.01 * 24 * 60 / 2, rel=1e-2)


def test_week_start_with_a_zone_is_the_same_moment():
    found = features(EVENTS, SESSIONS, MONDAY.replace(tzinfo=UTC))
    np.testing.assert_array_equal(found.matrix, features(EVENTS, SESSIONS).matrix)


def test_text_profiles_decay_and_normalize():
    vectors = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    profiles = text_profiles(vectors, np.array([0, 0, 2]), np.array([0.0, 30.0, 5.0]), np.ones(3), 30.0, 3)
    np.testing.assert_allclose(profiles[0], np.array([1, 0.5]) / np.sqrt(1.25), rtol=1e-6)
    np.testing.assert_array_equal(profiles[1:], [[0, 0], [1, 0]])
    with pytest.raises(ValueError, match="after the snapshot"):
        text_profiles(vectors, np.zeros(3, int), np.array([0.0, -1.0, 5.0]), np.ones(3), 30.0, 1)


def views(users: int = 80) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    wide = rng.normal(size=(users, 3)) @ rng.normal(size=(3, 40)) * 100
    flat = np.full((users, 1), 7.7)
    narrow = np.hstack([rng.normal(size=(users, 4)), flat])
    return {"text": wide.astype(np.float32), "engagement": narrow.astype(np.float32)}


def test_weights_are_shares_of_the_variance():
    config = UserEmbeddingConfig(view_dims=3, view_weights={"text": 3, "engagement": 1})
    fused = fuse(views(), config)
    assert fused.columns == [f"{view}_pc{axis}" for view in ("engagement", "text") for axis in (1, 2, 3)]
    variance = fused.matrix.var(axis=0, ddof=1)
    assert variance[:3].sum() == pytest.approx(0.25, rel=1e-4)
    assert variance[3:].sum() == pytest.approx(0.75, rel=1e-4)


def test_fusion_applies_to_other_users_and_survives_storage():
    config = UserEmbeddingConfig(view_dims=4)
    fused = fuse(views(), config)
    read = Fusion.from_tensors(fused.fusion.to_tensors())
    few = {name: view[10:20] for name, view in views().items()}
    np.testing.assert_allclose(read.apply(few), fused.matrix[10:20], atol=1e-6)
    assert read.columns == fused.columns
    with pytest.raises(ValueError, match="fitted on the views"):
        read.apply({"text": few["text"]})


def test_fusion_is_deterministic_and_ignores_units():
    first, again = fuse(views(), CONFIG), fuse(dict(reversed(views().items())), CONFIG)
    np.testing.assert_array_equal(first.matrix, again.matrix)
    scaled = fuse({name: view * 1000 for name, view in views().items()}, CONFIG)
    np.testing.assert_allclose(scaled.matrix, first.matrix, atol=1e-3)


def test_a_view_that_does_not_vary_adds_nothing():
    varied = views()
    fused = fuse({"text": np.ones((80, 3), np.float32), "engagement": varied["engagement"]}, CONFIG)
    assert (fused.matrix[:, fused.columns.index("text_pc1")] == 0).all()
    assert np.isfinite(fused.matrix).all()


def test_weights_that_leave_no_view_are_the_users_mistake():
    with pytest.raises(UserError, match=r"engagement, text.*positive"):
        fuse(views(), UserEmbeddingConfig(view_weights={"text": 0, "engagement": 0}))
    with pytest.raises(ValidationError, match="txt"):
        UserEmbeddingConfig(view_weights={"txt": 1})


def test_attributes_are_one_hot_and_rare_values_are_one_column():
    users = [f"u{number:03d}" for number in range(300)]
    rows = [
        {"user_id": user, "attribute": "age", "value": "young" if number % 2 else "old"}
        for number, user in enumerate(users)
    ]
    rows[0]["value"], rows[1]["value"] = "ancient", "newborn"
    rows += [
        {"user_id": "u000", "attribute": "city", "value": "Rome"},
        {"user_id": "stranger", "attribute": "city", "value": "Oslo"},
    ]
    found = attribute_features(pa.Table.from_pylist(rows), users)
    assert found.names == ["age=old", "age=other", "age=young", "city=Rome"]
    assert found.matrix[:3].tolist() == [[0, 1, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0]]
    assert (found.matrix[:, :3].sum(axis=1) == 1).all()
