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
    feature_contrasts,
)
from segflow.segments.statistics import eta_squared


def members(*sizes: int) -> pd.DataFrame:
    segments = [f"s{number + 1:03d}" for number, size in enumerate(sizes) for _ in range(size)]
    return pd.DataFrame({"user_id": [f"u{n:04d}" for n in range(len(segments))], "segment_id": segments})


def test_feature_medians_are_in_natural_units_and_circular_tests_are_withheld():
    people = members(20, 30)
    days = np.r_[np.linspace(1, 3, 20), np.linspace(10, 30, 30)]
    matrix = np.log1p(days)[:, None].astype(np.float32)
    features = UserFeatures(people["user_id"].tolist(), matrix, ["log_recency_days"])
    first, second = feature_contrasts(features, people["segment_id"].tolist(), True, 10)
    assert first["shown_as"] == "recency_days"
    assert first["median_segment"] == pytest.approx(np.median(days[:20]), rel=1e-5)
    assert first["mean_rest"] == pytest.approx(days[20:].mean(), rel=1e-5)
    assert first["variance_rest"] == pytest.approx(days[20:].var(ddof=1), rel=1e-5)
    assert first["wasserstein"] == pytest.approx(second["wasserstein"])
    assert first["wasserstein"] == pytest.approx(abs(first["difference"]), rel=0.05)  # no overlap: a shift
    assert first["difference"] == pytest.approx(-second["difference"])
    assert first["low"] < first["difference"] < first["high"] < 0
    assert first["p_value"] is None
    honest = feature_contrasts(features, people["segment_id"].tolist(), False, 10)
    assert honest[0]["p_value"] < 1e-6


def test_attribute_lift_by_hand_ignores_unknown_values():
    people = members(100, 200)
    values = ["old"] * 40 + ["young"] * 40 + [None] * 20 + ["old"] * 50 + ["young"] * 150
    attributes = pd.DataFrame({"user_id": people["user_id"], "attribute": "age", "value": values})
    rows = {(row["segment_id"], row["value"]): row for row in attribute_contrasts(attributes, people, False, 10)}
    row = rows["s001", "old"]
    assert (row["share_segment"], row["share_rest"]) == (0.5, 0.25)
    assert row["lift"] == pytest.approx(2)
    error = np.sqrt(1 / 40 - 1 / 80 + 1 / 50 - 1 / 200)
    assert row["low"] == pytest.approx(2 * np.exp(-1.959964 * error), rel=1e-5)
    associations = attribute_associations(attributes, people, 199, 0, 10)
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
    rows = category_affinity(pd.concat([amounts, stranger]), people, False, 10)
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
        row = category_affinity(frame, people, False, 10)[0]
        covered += row["low"] <= 1 <= row["high"]
    assert 0.88 <= covered / 200 <= 0.99


def test_rare_categories_are_left_out():
    people = members(50, 50)
    frame = pd.DataFrame({"user_id": people["user_id"], "category": ["a"] * 91 + ["rare"] * 9, "amount": 1.0})
    assert {row["category"] for row in category_affinity(frame, people, False, 10)} == {"a"}


def test_correction_runs_over_all_rows():
    rows = [{"p_value": 0.01}, {"p_value": None}, {"p_value": 0.04}]
    assert [row["q_value"] for row in adjust(rows)] == [pytest.approx(0.02), None, pytest.approx(0.04)]


@pytest.mark.parametrize(
    ("values", "places"),
    [
        (["3", "1", "2.5", "1"], [3, 1, 2.5, 1]),
        (["25-34", "Under 25", "65+", "35-44"], [1, 0, 3, 2]),
        (["50-74K", "Under 15K", "15-24K", "250K+"], [2, 0, 1, 3]),
        (["1", "5+", "2", "3"], [0, 3, 1, 2]),
    ],
)
def test_numbers_and_ranges_have_an_order(values, places):
    people = members(40, 40)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 4, 80)
    attributes = pd.DataFrame(
        {"user_id": people["user_id"], "attribute": "a", "value": [values[code] for code in drawn]}
    )
    found = attribute_associations(attributes, people, 99, 0, 10)[0]
    numbers = np.array(places, float)[drawn]
    codes = pd.factorize(people["segment_id"])[0]
    assert found["eta_squared"] == pytest.approx(eta_squared(codes, numbers, 99, rng).estimate)
    assert found["eta_p_value"] is not None


@pytest.mark.parametrize(
    "values", [["Renter", "Owner"], ["1 Adult", "2 Adults"], ["1-5", "1-9"], ["12 Oak Street", "7"]]
)
def test_words_have_no_order(values):
    people = members(40, 40)
    attributes = pd.DataFrame({"user_id": people["user_id"], "attribute": "a", "value": values * 40})
    found = attribute_associations(attributes, people, 99, 0, 10)[0]
    assert found["cramers_v"] is not None
    assert found["eta_squared"] is None


def test_what_was_clustered_on_carries_no_p_value():
    people = members(50, 50)
    frame = pd.DataFrame({"user_id": people["user_id"], "category": "a", "amount": 1.0})
    frame = pd.concat([frame, frame.head(30).assign(category="b")])
    values = pd.DataFrame({"user_id": people["user_id"], "attribute": "x", "value": ["p", "q"] * 50})
    for seen in (True, False):
        rows = category_affinity(frame, people, seen, 2) + attribute_contrasts(values, people, seen, 2)
        assert {row["clustered_on"] for row in rows} == {seen}
        assert all((row["p_value"] is None) == seen for row in rows if row["low"] is not None)
