"""Personas of two planted groups, the rules that explain them, and their names."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segflow.config import SegmentConfig
from segflow.representation.users import UserFeatures
from segflow.segments.naming import name, name_newborns
from segflow.segments.profiles import ProfileReport, profile_segments
from segflow.segments.rules import surrogate_rules

CONFIG = SegmentConfig(permutations=99, top=3)
MONDAY = datetime(2024, 3, 4)


def planted(users: int = 60) -> tuple[pa.Table, pd.DataFrame, UserFeatures, pd.DataFrame]:
    """A third of the users buy much, mostly fresh food; the others little, mostly frozen."""
    rng = np.random.default_rng(4)
    rows, people, matrix = [], [], []
    for number in range(users):
        heavy = number % 3 == 0
        user = f"user {number:03d}"
        for step in range(30 if heavy else 10):
            fresh = rng.random() < (0.8 if heavy else 0.3)
            category = "FRESH_FOOD" if fresh else "FROZEN"
            item = f"{category} {rng.integers(4)}"
            ts = MONDAY - timedelta(hours=step + 1)
            rows.append((user, item, "buy", ts, 3.0 if heavy else 1.0, category))
        people.append((user, "s001" if heavy else "s002", float(rng.random())))
        matrix.append([np.log1p(rng.normal(5 if heavy else 1, 0.3)), rng.normal()])
    columns = ["user_id", "item_id", "event_type", "ts", "value", "category"]
    events = pa.Table.from_pandas(pd.DataFrame(rows, columns=columns), preserve_index=False)
    members = pd.DataFrame(people, columns=["user_id", "segment_id", "distance"])
    names = ["log_sessions_per_week_long", "share_weekend"]
    features = UserFeatures(members["user_id"].tolist(), np.array(matrix, np.float32), names)
    kinds = ["old" if segment == "s001" else "young" for segment in members["segment_id"]]
    attributes = pd.DataFrame({"user_id": members["user_id"], "attribute": "age", "value": kinds})
    return events, members, features, attributes


@pytest.fixture(scope="module")
def report() -> ProfileReport:
    events, members, features, attributes = planted()
    return profile_segments(events, members, features, attributes, CONFIG, 0)


def test_sizes_and_values(report: ProfileReport):
    heavy, light = report.profiles
    assert (heavy.segment_id, heavy.users, light.users) == ("s001", 20, 40)
    assert heavy.share_of_users == pytest.approx(1 / 3)
    assert heavy.value == pytest.approx(20 * 30 * 3)
    assert heavy.share_of_value == pytest.approx(1800 / 2200)
    assert heavy.summary.startswith("33% of users, 82% of value; sessions per week long ")
    assert "favours FRESH_FOOD" in heavy.summary


def test_details_are_json_with_hashed_exemplars(report: ProfileReport):
    text = json.dumps([profile.details for profile in report.profiles], allow_nan=False)
    assert "user 0" not in text
    _, members, _, _ = planted()
    heavy = members[members["segment_id"] == "s001"].sort_values("distance")
    expected = [hashlib.sha256(user.encode()).hexdigest() for user in heavy["user_id"][:3]]
    assert report.profiles[0].details["exemplars"] == expected
    fresh = next(row for row in report.profiles[0].details["contrasts"] if row.get("category") == "FRESH_FOOD")
    assert fresh["low"] > 1
    assert fresh["q_value"] >= fresh["p_value"]
    assert {row["to"] for row in report.profiles[0].details["journeys"]} == {"FRESH_FOOD"}
    assert all(row["item_id"].startswith("FRESH") for row in report.profiles[0].details["items"])


def test_attributes_validate(report: ProfileReport):
    assert report.associations[0]["cramers_v"] == pytest.approx(1)
    assert report.associations[0]["p_value"] == pytest.approx(0.01)


def test_order_of_rows_does_not_matter(report: ProfileReport):
    events, members, features, attributes = planted()
    shuffled = members.sample(frac=1, random_state=1)
    again = profile_segments(events, shuffled, features, attributes.sample(frac=1, random_state=2), CONFIG, 0)
    assert again == report


def test_journeys_use_event_types_where_there_are_several():
    events, members, features, _ = planted()
    frame = events.to_pandas()
    frame["event_type"] = np.where(frame["category"] == "FRESH_FOOD", "buy", "view")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    found = profile_segments(table, members, features, None, CONFIG, 0)
    states = {row["to"] for profile in found.profiles for row in profile.details["journeys"]}
    assert states == {"buy", "view"}
    assert found.associations == []


@pytest.mark.parametrize("missing", [["category"], ["value"], ["category", "value", "item_id"]])
def test_a_log_that_lacks_a_column_is_described_without_it(missing: list[str]):
    events, members, features, _ = planted()
    frame = events.to_pandas()
    frame[missing] = None
    bare = pa.Table.from_pandas(frame, schema=events.schema, preserve_index=False)
    heavy = profile_segments(bare, members, features, None, CONFIG, 0).profiles[0]
    assert ("of value" in heavy.summary) == ("value" not in missing)
    assert ("favours" in heavy.summary) == ("category" not in missing)
    assert bool(heavy.details["items"]) == ("item_id" not in missing)
    assert bool(heavy.details["journeys"]) == ("category" not in missing)


def test_members_must_be_unique_and_have_features():
    events, members, features, _ = planted()
    with pytest.raises(ValueError, match="two segments"):
        profile_segments(events, pd.concat([members, members]), features, None, CONFIG, 0)
    fewer = UserFeatures(features.user_ids[1:], features.matrix[1:], features.names)
    with pytest.raises(ValueError, match="no features"):
        profile_segments(events, members, fewer, None, CONFIG, 0)


def test_rules_explain_a_segment_and_admit_when_they_cannot():
    _, members, features, _ = planted(300)
    found = surrogate_rules(features, members["segment_id"].tolist(), 0)
    assert found["fidelity"] > 0.97
    assert found["held_out_users"] == 90
    assert found["baseline"] == pytest.approx(2 / 3, abs=0.12)
    rule = next(rule for rule in found["rules"] if rule["segment_id"] == "s001")
    assert rule["rule"].startswith("sessions_per_week_long > ")
    assert 1 < float(rule["rule"].split()[2]) < 5  # natural units, between the planted means
    assert rule["precision"] > 0.97
    random = np.random.default_rng(0).choice(["s001", "s002"], 300).tolist()
    assert surrogate_rules(features, random, 0)["fidelity"] < 0.7


def feature(name: str, difference: float) -> dict:
    return {
        "kind": "feature",
        "feature": name,
        "difference": difference,
        "low": difference - 0.1,
        "high": difference + 0.1,
    }


def category(name: str, lift: float, share: float = 0.2) -> dict:
    return {"kind": "category", "category": name, "lift": lift, "low": lift * 0.9, "share_segment": share}


FACTS = [
    feature("log_sessions_per_week_long", 0.9),
    feature("log_gap_days_mean", -1.2),
    feature("log_value_total", 0.8),
    feature("share_weekend", 0.1),
    category("MEAT", 2.0),
    category("MEAT_PACKAGED", 1.9),
    category("FRESH", 3.0),
    category("FUEL", 0.5),
]


def test_name_takes_the_strongest_contrasts_once_each():
    assert name(FACTS, []) == "Frequent high-value, fresh & meat"
    assert name([feature("price_level", -0.5)], []) == "Budget"
    assert name([category("TOYS", 2.0)], []) == "Toys"
    assert name([feature("share_evening", 0.5), feature("share_night", 0.9)], []) == "Night"
    assert name([], []) == "Typical"


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 6))
def test_names_are_unique_and_do_not_depend_on_order(count):
    newborns = {f"s{number:03d}": FACTS for number in range(1, count + 1)}
    named = name_newborns(newborns, ["FREQUENT high-value, fresh & meat", "Typical"])
    assert len({one.casefold() for one in [*named.values(), "frequent high-value, fresh & meat"]}) == count + 1
    assert named == name_newborns(dict(reversed(newborns.items())), ["Frequent high-value, fresh & meat", "Typical"])
    assert name([], ["Typical", "typical 2"]) == "Typical 3"
