"""Contrasts: shares and lifts by hand, intervals that hold, tests that are corrected together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from segflow.representation.users import UserFeatures
from segflow.segments.contrasts import (
    adjust,
    attribute_associations,
    attribute_contrasts,
    category_affinity,
    distinctive_items,
    feature_contrasts,
    transition_lifts,
)


def members(*sizes: int) -> pd.DataFrame:
    segments = [f"s{number + 1:03d}" for number, size in enumerate(sizes) for _ in range(size)]
    return pd.DataFrame({"user_id": [f"u{n:04d}" for n in range(len(segments))], "segment_id": segments})


def test_feature_medians_are_in_natural_units_and_circular_tests_are_withheld():
    people = members(20, 30)
    days = np.r_[np.linspace(1, 3, 20), np.linspace(10, 30, 30)]
    matrix = np.log1p(days)[:, None].astype(np.float32)
    features = UserFeatures(people["user_id"].tolist(), matrix, ["log_recency_days"])
    first, second = feature_contrasts(features, people["segment_id"].tolist(), clustered_on=True)
    assert first["shown_as"] == "recency_days"
    assert first["median_segment"] == pytest.approx(np.expm1(np.median(np.log1p(days[:20]))), rel=1e-5)
    assert first["difference"] == pytest.approx(-second["difference"])
    assert first["low"] < first["difference"] < first["high"] < 0
    assert first["p_value"] is None
    honest = feature_contrasts(features, people["segment_id"].tolist(), clustered_on=False)
    assert honest[0]["p_value"] < 1e-6


def test_attribute_lift_by_hand_ignores_unknown_values():
    people = members(100, 200)
    values = ["old"] * 40 + ["young"] * 40 + [None] * 20 + ["old"] * 50 + ["young"] * 150
    attributes = pd.DataFrame({"user_id": people["user_id"], "attribute": "age", "value": values})
    rows = {(row["segment_id"], row["value"]): row for row in attribute_contrasts(attributes, people)}
    row = rows["s001", "old"]
    assert (row["share_segment"], row["share_rest"]) == (0.5, 0.25)
    assert row["lift"] == pytest.approx(2)
    error = np.sqrt(1 / 40 - 1 / 80 + 1 / 50 - 1 / 200)
    assert row["low"] == pytest.approx(2 * np.exp(-1.959964 * error), rel=1e-5)
    associations = attribute_associations(attributes, people, 199, 0)
    assert associations[0]["users"] == 280
    assert associations[0]["p_value"] == pytest.approx(1 / 200)


def test_category_share_is_of_the_segments_spend():
    people = members(50, 50)
    amounts = pd.DataFrame(
        {
            "user_id": [*people["user_id"], *people["user_id"]],
            "category": ["fresh"] * 100 + ["frozen"] * 100,
            "amount": np.r_[np.full(50, 30.0), np.full(50, 10.0), np.full(100, 10.0)],
        }
    )
    stranger = pd.DataFrame({"user_id": ["nobody"], "category": ["fresh"], "amount": [1e9]})
    rows = category_affinity(pd.concat([amounts, stranger]), people)
    fresh = next(r for r in rows if (r["segment_id"], r["category"]) == ("s001", "fresh"))
    assert (fresh["share_segment"], fresh["share_rest"]) == (0.75, 0.5)


def test_category_interval_covers_the_truth_when_users_differ():
    rng = np.random.default_rng(2)
    people = members(80, 160)
    covered = 0
    for _ in range(200):
        total = rng.lognormal(3, 1, 240)
        share = rng.beta(2, 6, 240)  # the same distribution on both sides: the true lift is one
        frame = pd.DataFrame(
            {
                "user_id": [*people["user_id"]] * 2,
                "category": ["a"] * 240 + ["b"] * 240,
                "amount": np.r_[total * share, total * (1 - share)],
            }
        )
        row = category_affinity(frame, people)[0]
        covered += row["low"] <= 1 <= row["high"]
    assert 0.88 <= covered / 200 <= 0.99


def test_rare_categories_are_left_out():
    people = members(50, 50)
    frame = pd.DataFrame({"user_id": people["user_id"], "category": ["a"] * 91 + ["rare"] * 9, "amount": 1.0})
    assert {row["category"] for row in category_affinity(frame, people)} == {"a"}


def test_correction_runs_over_all_rows():
    rows = [{"p_value": 0.01}, {"p_value": None}, {"p_value": 0.04}]
    assert [row["q_value"] for row in adjust(rows)] == [pytest.approx(0.02), None, pytest.approx(0.04)]


def test_distinctive_items_by_hand():
    counts = pd.DataFrame(
        {
            "segment_id": ["s001", "s001", "s001", "s002", "s002"],
            "item_id": ["everywhere", "special", "few", "everywhere", "other"],
            "events": [60, 30, 10, 60, 40],
            "users": [50, 20, 3, 50, 30],
        }
    )
    first, second = distinctive_items(counts, 5)
    assert (first["segment_id"], first["item_id"], second["item_id"]) == ("s001", "special", "other")
    assert first["c_tf_idf"] == pytest.approx(0.3 * np.log(1 + 100 / 30))
    assert first["lift"] is None  # nobody else takes it


def test_transition_probabilities_by_hand():
    counts = pd.DataFrame(
        [
            ("s001", "view", "buy", 60, 30),
            ("s001", "view", "view", 40, 30),
            ("s002", "view", "buy", 20, 20),
            ("s002", "view", "view", 80, 40),
            ("s002", "buy", "view", 5, 2),
        ],
        columns=["segment_id", "from_state", "to_state", "steps", "users"],
    )
    first, second = transition_lifts(counts, 5)
    assert (first["segment_id"], first["from"], first["to"]) == ("s001", "view", "buy")
    assert first["probability"] == pytest.approx(0.6)
    assert first["lift"] == pytest.approx(3)
    assert (second["segment_id"], second["to"], second["lift"]) == ("s002", "view", pytest.approx(2))
