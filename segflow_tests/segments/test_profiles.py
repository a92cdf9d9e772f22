"""Personas of two planted groups, what may be published of them, and the rules that explain them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from segflow import sql
from segflow.config import ProfileConfig
from segflow.representation.users import UserFeatures
from segflow.segments.aggregates import Aggregates
from segflow.segments.privacy import hashed, key_from
from segflow.segments.profiles import (
    Material,
    ProfileReport,
    kinds_seen,
    profile_rows,
    profile_segments,
    segment_contrasts,
)
from segflow.segments.rules import surrogate_rules
from segflow.segments.story import facts

CONFIG = ProfileConfig(permutations=99, top=3, sessions=500)
KEY = key_from({}, "SALT", 0)
MONDAY = datetime(2024, 3, 4)
SESSIONS = ["user_id", "session_id", "start", "end", "items"]


def planted(users: int = 60) -> Material:
    """A third of the users buy much, mostly fresh food; the others little, mostly frozen."""
    rng = np.random.default_rng(4)
    rows, people, matrix, baskets = [], [], [], []
    for number in range(users):
        heavy = number % 3 == 0
        user = f"user {number:03d}"
        for step in range(30 if heavy else 10):
            fresh = rng.random() < (0.8 if heavy else 0.3)
            category = "FRESH_FOOD" if fresh else "FROZEN"
            item = f"{category} {rng.integers(4)}"
            ts = MONDAY - timedelta(hours=step + 1)
            rows.append((user, item, "buy", ts, 3.0 if heavy else 1.0, category))
            baskets.append((user, f"basket {len(baskets)}", ts, ts, [item, "FROZEN 0"] if heavy else [item]))
        people.append((user, "s001" if heavy else "s002", float(rng.random())))
        matrix.append([np.log1p(rng.normal(5 if heavy else 1, 0.3)), rng.normal()])
    columns = ["user_id", "item_id", "event_type", "ts", "value", "category"]
    members = pd.DataFrame(people, columns=["user_id", "segment_id", "distance"])
    kinds = ["old" if segment == "s001" else "young" for segment in members["segment_id"]]
    items = [
        (f"{one} {n}", f"{one} no. {n}", one, f"{one} thing") for one in ("FRESH_FOOD", "FROZEN") for n in range(4)
    ]
    return Material(
        table(rows, columns),
        members,
        UserFeatures(
            members["user_id"].tolist(), np.array(matrix, np.float32), ["log_sessions_per_week_long", "share_weekend"]
        ),
        sessions=table(baskets, SESSIONS),
        items=table(items, ["item_id", "title", "category", "text"]),
        attributes=pd.DataFrame({"user_id": members["user_id"], "attribute": "age", "value": kinds}),
        vectors=np.array(matrix, np.float32),
    )


def table(rows: list[tuple], columns: list[str]) -> pa.Table:
    return pa.Table.from_pandas(pd.DataFrame(rows, columns=columns), preserve_index=False)


def shuffled(rows: pa.Table) -> pa.Table:
    return rows.take(np.random.default_rng(1).permutation(rows.num_rows))


@pytest.fixture(scope="module")
def report() -> ProfileReport:
    return profile_segments(planted(), CONFIG, 0, KEY)


def test_sizes_and_values(report: ProfileReport):
    heavy, light = report.profiles
    assert (heavy.segment_id, heavy.users, light.users) == ("s001", 20, 40)
    assert heavy.share_of_users == pytest.approx(1 / 3)
    assert heavy.value == pytest.approx(20 * 30 * 3)
    assert heavy.share_of_value == pytest.approx(1800 / 2200)
    assert heavy.summary.startswith("33% of users, 82% of value; sessions per week long ")
    assert "favours FRESH_FOOD" in heavy.summary


def test_the_story_is_told_in_words(report: ProfileReport):
    told = report.profiles[0].details["story"]
    assert told.startswith(
        "They are about a third of all users and bring 82% of the money. They come more often (typically 5"
    )
    assert "a larger part goes to fresh food (" in told
    assert told.endswith("age “old” is found more often: 100% against 0%.") or "age" not in told
    assert 2 <= told.count(". ") + 1 <= 4
    assert facts(report.contrasts["s002"]).startswith("come less often; like frozen")


def test_details_are_json_with_keyed_exemplars(report: ProfileReport):
    text = json.dumps([profile.details for profile in report.profiles], allow_nan=False)
    assert "user 0" not in text
    members = planted().members
    heavy = members[members["segment_id"] == "s001"].sort_values("distance")
    details = report.profiles[0].details
    assert details["exemplars"] == [hashed(user, KEY) for user in heavy["user_id"][:3]]
    assert details["privacy"]["exemplars"] == "pseudonym"
    fresh = next(row for row in details["contrasts"] if row.get("category") == "FRESH_FOOD")
    assert fresh["low"] > 1
    assert {row["to"] for row in details["journeys"]} == {"FRESH_FOOD"}
    assert all(row["title"].startswith("FRESH_FOOD no.") for row in details["items"])
    assert [row["word"] for row in details["words"]] == ["food", "fresh"]


def test_what_was_not_clustered_on_comes_first(report: ProfileReport):
    kinds = [row["kind"] for row in report.profiles[0].details["contrasts"]]
    assert kinds == ["category", "category", "feature", "feature"]  # every value of the attribute is of one side only
    honest = profile_segments(replace(planted(), seen=["category"]), CONFIG, 0, KEY).profiles[0].details["contrasts"]
    assert [row["kind"] for row in honest] == ["feature", "feature", "category", "category"]
    assert honest[0]["q_value"] >= honest[0]["p_value"]


def test_kinds_that_a_clustering_saw():
    assert kinds_seen(["text", "engagement"], "kmeans") == {"category", "feature"}
    assert kinds_seen(["behavior"], "hdbscan") == {"category"}
    assert kinds_seen(["attributes"], "ward") == {"attribute"}
    assert kinds_seen(["text", "engagement"], "rfm") == {"feature"}
    assert kinds_seen(["engagement"], "lda") == {"category"}


def test_sessions_begin_end_and_hold_things_together(report: ProfileReport):
    heavy, light = (one.details for one in report.profiles)
    entries = {row["state"]: row["entry"] for row in heavy["graph"]["states"]}
    assert entries["FRESH_FOOD"] == pytest.approx(0.8, abs=0.05)
    assert sum(entries.values()) == pytest.approx(1)
    leaving = [row["probability"] for row in heavy["graph"]["steps"] if row["from"] == "FRESH_FOOD"]
    assert sum(leaving) == pytest.approx(1)
    # Who takes fresh food takes a frozen thing as well, always: nothing is likelier than the frozen thing itself.
    assert heavy["baskets"] == light["baskets"] == []
    by_item = profile_segments(planted(), CONFIG.model_copy(update={"basket_level": "item"}), 0, KEY)
    assert all("FROZEN 0" not in row["antecedents"] for row in by_item.profiles[0].details["baskets"])


def test_distances_are_in_units_of_the_spread(report: ProfileReport):
    found = report.profiles[0].details["distances"]
    material = planted()
    inside = material.members["segment_id"].to_numpy() == "s001"
    groups = [material.vectors[inside].astype(float), material.vectors[~inside].astype(float)]
    within = sum(((group - group.mean(axis=0)) ** 2).sum() for group in groups)
    apart = np.linalg.norm(groups[0].mean(axis=0) - groups[1].mean(axis=0))
    assert found["segments"] == ["s001", "s002"]
    assert found["matrix"][0][1] == pytest.approx(apart / np.sqrt(within / 58))


def test_attributes_validate(report: ProfileReport):
    association = report.profiles[0].details["associations"][0]
    assert association["cramers_v"] == pytest.approx(1)
    assert association["cramers_v_by_chance"] < 0.3
    assert association["p_value"] == pytest.approx(0.01)


def test_order_of_rows_does_not_matter(report: ProfileReport):
    material = planted()
    mixed = replace(
        material,
        events=shuffled(material.events),
        sessions=shuffled(material.sessions),
        items=shuffled(material.items),
        members=material.members.sample(frac=1, random_state=1),
        attributes=material.attributes.sample(frac=1, random_state=2),
    )
    assert profile_segments(mixed, CONFIG, 0, KEY) == report
    assert segment_contrasts(replace(mixed, attributes=None), CONFIG, 0)["s001"][0] == report.contrasts["s001"][0]


def test_journeys_use_event_types_where_there_are_several():
    material = planted()
    frame = material.events.to_pandas()
    frame["event_type"] = np.where(frame["category"] == "FRESH_FOOD", "buy", "view")
    events = pa.Table.from_pandas(frame, preserve_index=False)
    found = profile_segments(replace(material, events=events, attributes=None), CONFIG, 0, KEY)
    states = {row["to"] for profile in found.profiles for row in profile.details["journeys"]}
    assert states == {"buy", "view"}
    assert found.profiles[0].details["associations"] == []


@pytest.mark.parametrize("missing", [["category"], ["value"], ["category", "value", "item_id"]])
def test_a_log_that_lacks_a_column_is_described_without_it(missing: list[str]):
    material = planted()
    frame = material.events.to_pandas()
    frame[missing] = None
    events = pa.Table.from_pandas(frame, schema=material.events.schema, preserve_index=False)
    bare = Material(events, material.members, material.features)
    heavy = profile_segments(bare, CONFIG, 0, KEY).profiles[0]
    assert ("of value" in heavy.summary) == ("money" in heavy.details["story"]) == ("value" not in missing)
    assert ("favours" in heavy.summary) == ("category" not in missing)
    assert bool(heavy.details["items"]) == ("item_id" not in missing)
    assert bool(heavy.details["journeys"]) == bool(heavy.details["graph"]["states"]) == ("category" not in missing)
    assert heavy.details["baskets"] == heavy.details["words"] == []
    assert heavy.details["distances"]["matrix"] is None


def test_members_must_be_unique_and_have_features():
    material = planted()
    with pytest.raises(ValueError, match="two segments"):
        profile_segments(replace(material, members=pd.concat([material.members] * 2)), CONFIG, 0, KEY)
    features = material.features
    fewer = UserFeatures(features.user_ids[1:], features.matrix[1:], features.names)
    with pytest.raises(ValueError, match="no features"):
        profile_segments(replace(material, features=fewer), CONFIG, 0, KEY)
    with pytest.raises(ValueError, match="vectors"):
        profile_segments(replace(material, vectors=material.vectors[1:]), CONFIG, 0, KEY)


def test_no_segment_and_one_segment_are_described():
    material = planted()
    none = np.array([], object)
    nobody = replace(material, members=pd.DataFrame({"user_id": none, "segment_id": [], "distance": []}))
    assert profile_segments(nobody, CONFIG, 0, KEY) == ProfileReport([])
    assert profile_rows(ProfileReport([]), {}, no_encoder) == ([], {})
    everybody = replace(material, members=material.members.assign(segment_id="s001"))
    found = profile_segments(everybody, CONFIG, 0, KEY)
    details = found.profiles[0].details
    assert found.profiles[0].share_of_users == 1
    assert details["contrasts"] == details["items"] == details["journeys"] == details["rules"] == []
    assert details["story"] == (
        "Everybody is in this one segment. Nothing that was measured sets them clearly apart from the others."
    )
    json.dumps(details, allow_nan=False)


def no_encoder(texts) -> np.ndarray:
    raise AssertionError("nothing is to be encoded")


def numbers_of_users(details) -> list:
    if isinstance(details, list):
        return [number for one in details for number in numbers_of_users(one)]
    if isinstance(details, dict):
        own = [value for key, value in details.items() if key == "users"]
        return own + [number for one in details.values() for number in numbers_of_users(one)]
    return []


@pytest.mark.parametrize("least", [2, 15, 25])
def test_nothing_rests_on_fewer_users_than_allowed(least: int):
    config = CONFIG.model_copy(update={"min_cell": least, "hidden_states": 2})
    found = profile_segments(planted(), config, 0, KEY)
    assert [one.segment_id for one in found.profiles] == (["s002"] if least == 25 else ["s001", "s002"])
    shown = numbers_of_users([one.details for one in found.profiles])
    assert min(shown) >= least
    assert json.dumps([one.details for one in found.profiles], allow_nan=False)


def test_noised_sizes_stand_alone():
    config = CONFIG.model_copy(update={"epsilon": 0.2})
    runs = [profile_segments(planted(), config, 0, KEY) for _ in range(4)]
    assert len({tuple(one.users for one in run.profiles) for run in runs}) > 1
    for run in runs:
        heavy, light = run.profiles
        assert heavy.share_of_users == pytest.approx(heavy.users / (heavy.users + light.users))
        assert heavy.summary.startswith(f"{heavy.share_of_users:.0%} of users")
        assert set(numbers_of_users(heavy.details)) == {None}
        assert heavy.details["surrogate"]["held_out_users"] is None
        assert heavy.details["privacy"] == {
            "min_cell": 10,
            "exemplars": "pseudonym",
            "epsilon": 0.2,
            "mechanism": "discrete Laplace (OpenDP), scale 1 / epsilon",
            "counts": ["users", "share_of_users"],
        }


def test_rows_say_how_well_names_fit(report: ProfileReport):
    def embed(texts) -> np.ndarray:
        fresh = np.array(["fresh" in text.lower() for text in texts])
        return np.stack([fresh, ~fresh], axis=1).astype(np.float32)

    rows, naming = profile_rows(report, {"s001": "Fresh fans", "s002": "Fresh too", "s003": "gone"}, embed)
    assert [row["name"] for row in rows] == ["Fresh fans", "Fresh too"]
    fits = [json.loads(row["details"])["name_fit"] for row in rows]
    assert [(fit["rank"], fit["nearest"]) for fit in fits] == [(1, "s001"), (2, "s001")]
    assert naming["given"] == {"share": 0.5, "by_chance": 0.5}
    assert naming["template"]["share"] == 1


def test_rules_explain_a_segment_and_admit_when_they_cannot():
    material = planted(300)
    found = surrogate_rules(material.features, material.members["segment_id"].tolist(), 0, 10)
    assert found["fidelity"] > 0.97
    assert found["held_out_users"] == 90
    assert found["baseline"] == pytest.approx(2 / 3, abs=0.12)
    rule = next(rule for rule in found["rules"] if rule["segment_id"] == "s001")
    assert rule["rule"].startswith("sessions_per_week_long > ")
    assert 1 < float(rule["rule"].split()[2]) < 5  # natural units, between the planted means
    assert rule["precision"] > 0.97
    random = np.random.default_rng(0).choice(["s001", "s002"], 300).tolist()
    assert surrogate_rules(material.features, random, 0, 10)["fidelity"] < 0.7
    assert surrogate_rules(material.features, ["s001"] * 300, 0, 10)["rules"] == []
    kept = surrogate_rules(material.features, random, 0, 25)["rules"]
    assert any(rule["precision"] is None for rule in kept)


def test_a_session_over_the_start_of_the_week_is_left_out():
    times = [(MONDAY - timedelta(hours=2), MONDAY - timedelta(hours=1)), (MONDAY - timedelta(hours=1), MONDAY)]
    sessions = table([("u", f"b{n}", *one, ["i"]) for n, one in enumerate(times)], SESSIONS)
    with duckdb.connect() as connection:
        connection.register("sessions", sessions)
        kept = connection.sql(sql.render("segments/ended_sessions.sql", week_start=MONDAY)).fetchall()
    assert [row[1] for row in kept] == ["b0"]


def test_sampled_sessions_are_bounded_and_the_same_in_any_order():
    material = planted()
    config = CONFIG.model_copy(update={"sessions": 100})
    ways = []
    for sessions in (material.sessions, shuffled(material.sessions)):
        with Aggregates.over(material.events, material.members, sessions, material.items, config, 0) as counted:
            counted.keep("steps", "sampled_sessions")
            ways.append(counted.baskets())
            ends = counted.count("session_ends")
    assert ways[0].groupby("segment_id").size().to_dict() == {"s001": 100, "s002": 100}
    pd.testing.assert_frame_equal(*ways)
    assert ends.groupby(["side", "segment_id"])["sessions"].sum().tolist() == [100] * 4
