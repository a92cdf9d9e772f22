"""The bundle: its lists are those of the batch, every request has a defined answer, and damaged files are told."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from segflow.config import RecommendationConfig
from segflow.errors import UserError
from segflow.rankers.attributes import fit_attribute_model
from segflow.rankers.cold_lists import Strangers, cold_rows, judged_steps
from segflow.rankers.deltas import Grouped, Membership
from segflow.rankers.new_items import NewItems
from segflow.rankers.recommend import Ranked, Shown, recommendation_rows
from segflow.rankers.requests import read_requests
from segflow.rankers.rules import Catalogue, rules_of
from segflow.rankers.segment_rankers import train_deltas
from segflow.rankers.served import MANIFEST, Answer, ServedRanker, Variant, restrict
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.sequences import MICROSECONDS_PER_DAY as DAY
from segflow_tests.rankers.conftest import CONFIG, ITEMS, SNAPSHOT, USERS, WEEK, World

NOW = SNAPSHOT + WEEK
COUNT = 10
SEGMENTS = ["s1", "s2"]
EDGES = pa.schema([("user_id", pa.string()), ("other_id", pa.string()), ("weight", pa.float64())])
CATALOGUE = Catalogue({f"i{item:02}": f"Item {item}" for item in range(ITEMS)}, {})


def moment(microseconds: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()


def request_of(world: World, user: int, **more: Any) -> dict[str, Any]:
    """What a caller knows of a user of the log at the moment that the ranker was made for."""
    log = world.log.before(NOW)
    rows = range(log.offsets[user], log.offsets[user + 1])
    events = [
        {
            "item_id": str(log.item_ids[log.items[row]]),
            "event_type": log.event_types[log.types[row]],
            "ts": moment(int(log.times[row])),
            "value": float(log.values[row]),
        }
        for row in rows
    ]
    return {"user_id": str(log.user_ids[user]), "events": events, **more}


@pytest.fixture(scope="module")
def week(world: World) -> RankingWeek:
    return RankingWeek(world.log, world.backbone, world.history, SNAPSHOT, CONFIG)


@pytest.fixture(scope="module")
def grouped(world: World) -> Grouped:
    """Two segments whose deltas count in full: the planted halves, of which every third user is in none."""
    users = np.arange(USERS)
    membership = Membership.certain(np.where(users % 3 == 0, -1, users % 2))
    return Grouped(train_deltas(world.ranker, world.training, [membership], CONFIG, seed=0)[0], membership)


@pytest.fixture(scope="module")
def served(world: World, week: RankingWeek, grouped: Grouped) -> ServedRanker:
    return ServedRanker.of(week, world.ranker, count=COUNT, segments=SEGMENTS, grouped=grouped)


def shown_of(week: RankingWeek) -> Shown:
    texts = np.ones((ITEMS, 4), np.float32)
    return Shown(CATALOGUE, texts[week.history.candidates], {}, NewItems.of(week, texts, 0))


def ask(served: ServedRanker, *rows: dict[str, Any]) -> list[Answer]:
    return served.recommend(read_requests(rows))


def ids(answer: Answer) -> list[str]:
    return [one["item_id"] for one in answer["items"]]


def test_lists_are_those_of_the_batch_item_for_item(
    world: World, week: RankingWeek, grouped: Grouped, served: ServedRanker
) -> None:
    groups = zip(world.log.user_ids, grouped.membership.group.tolist(), strict=True)
    names = {str(user): SEGMENTS[group] for user, group in groups if group >= 0}
    ranked = Ranked(world.ranker, grouped, names)
    rules = rules_of(RecommendationConfig(), CATALOGUE, week.candidate_ids)
    batch = recommendation_rows(week, ranked, shown_of(week), RecommendationConfig(count=COUNT), rules).rows.to_pandas()
    rows = [request_of(world, user, segment_id=names.get(str(world.log.user_ids[user]))) for user in range(USERS)]
    answers = ask(served, *rows)
    assert [answer["user_id"] for answer in answers] == batch["user_id"].unique().tolist()
    assert [item for answer in answers for item in ids(answer)] == batch["item_id"].tolist()
    assert [answer["arm"] for answer in answers for _ in answer["items"]] == batch["arm"].tolist()
    scores = [one["score"] for answer in answers for one in answer["items"]]
    assert np.allclose(scores, batch["score"], atol=1e-5)
    assert {answer["arm"] for answer in answers} == {"global", "segment"}
    assert answers[5] == ask(served, rows[5])[0]


def test_the_rules_of_the_lists_are_served_too(world: World, week: RankingWeek, tmp_path: Path) -> None:
    first, second, *_ = week.candidate_ids
    asked = {"count": COUNT, "exclude_seen": True, "exclude": {"items": [first]}, "boost": {"items": {second: 30.0}}}
    config = RecommendationConfig.model_validate(asked)
    rules = rules_of(config, CATALOGUE, week.candidate_ids)
    batch = recommendation_rows(week, Ranked(world.ranker, None, {}), shown_of(week), config, rules).rows.to_pandas()
    ServedRanker.of(week, world.ranker, count=COUNT, exclude_seen=True, added=rules.added).save(tmp_path)
    answers = ask(ServedRanker.load(tmp_path), *(request_of(world, user) for user in range(USERS)))
    assert [item for answer in answers for item in ids(answer)] == batch["item_id"].tolist()
    assert first not in set(batch["item_id"])
    assert (batch["item_id"] == second).sum() > USERS / 4


def test_users_without_events_get_the_fallback_that_earned_its_place(
    world: World, week: RankingWeek, grouped: Grouped, tmp_path: Path
) -> None:
    # The town tells the half of the catalogue, and the segment is that half.
    members = {str(user): (SEGMENTS[row % 2], 1.0) for row, user in enumerate(world.log.user_ids) if row % 3}
    towns = {str(user): {"town": str(row % 2)} for row, user in enumerate(world.log.user_ids)}
    strangers = Strangers(towns | {"new": {"town": "1"}, "nobody": {}}, EDGES.empty_table(), members, 0)
    config = RecommendationConfig(count=COUNT, boost={"items": {week.candidate_ids[0]: 1.3}})
    rules = rules_of(config, CATALOGUE, week.candidate_ids)
    cold = cold_rows(week, strangers, shown_of(week), config, rules)
    assert cold is not None
    batch = cold.rows.to_pandas().set_index("user_id")
    assert batch.loc["new", "arm"].unique().tolist() == ["cold: segment"]
    assert batch.loc["nobody", "arm"].unique().tolist() == ["cold: popularity"]
    places = {user: SEGMENTS.index(segment) for user, (segment, _) in members.items()}
    model = fit_attribute_model(strangers.attributes, places, len(SEGMENTS), strangers.seed)
    assert model is not None
    (shares,) = model.probabilities([{"town": "1"}])
    ServedRanker.of(
        week,
        world.ranker,
        count=COUNT,
        added=rules.added,
        segments=SEGMENTS,
        grouped=grouped,
        shrinkage=judged_steps(week, strangers)[0],
    ).save(tmp_path)
    asked = {"new": {"segments": dict(zip(SEGMENTS, shares.tolist(), strict=True))}, "nobody": {}}
    for user, answer in zip(asked, ask(ServedRanker.load(tmp_path), *asked.values()), strict=True):
        assert ids(answer) == batch.loc[user, "item_id"].tolist()
        assert answer["arm"] == batch.loc[user, "arm"].iloc[0]
        assert np.allclose([one["score"] for one in answer["items"]], batch.loc[user, "score"], atol=1e-5)


def test_a_segment_changes_the_scores_and_its_probability_how_much(world: World, served: ServedRanker) -> None:
    plain, sure, half, none = ask(
        served,
        request_of(world, 4),
        request_of(world, 4, segment_id="s1"),
        request_of(world, 4, segments={"s1": 0.5}),
        request_of(world, 4, segments={"s1": 0.0}),
    )
    scores = [{one["item_id"]: one["score"] for one in answer["items"]} for answer in (plain, half, sure)]
    common = set.intersection(*(set(one) for one in scores))
    before, middle, after = (np.array([one[item] for item in sorted(common)]) for one in scores)
    assert np.abs(after - before).max() > 1e-3
    assert np.allclose(middle, (before + after) / 2, atol=1e-5)
    assert none["items"] == plain["items"]
    assert none["arm"] == "global"


def test_the_same_bundle_after_a_round_trip(world: World, served: ServedRanker, tmp_path: Path) -> None:
    digest = served.save(tmp_path / "one")
    loaded = ServedRanker.load(tmp_path / "one")
    rows = [request_of(world, user, segment_id="s2") for user in range(8)] + [{}]
    assert ask(loaded, *rows) == ask(served, *rows)
    assert loaded.save(tmp_path / "two") == digest
    assert not any(
        user.encode() in file.read_bytes() for file in (tmp_path / "one").iterdir() for user in world.log.user_ids
    )


@pytest.mark.parametrize("variant", ["full", "int8"])
def test_a_restricted_bundle_serves_some_segments_and_the_global_ranker_to_all_others(
    world: World, served: ServedRanker, tmp_path: Path, variant: Variant
) -> None:
    whole = tmp_path / "whole"
    digest = served.save(whole, variant)
    assert restrict(whole, tmp_path / "all", SEGMENTS) == digest
    digests = [restrict(whole, tmp_path / name, kept) for name, kept in (("one", ["s1"]), ("none", []))]
    assert len({digest, *digests}) == 3
    whole_one, one, none = (ServedRanker.load(tmp_path / name) for name in ("whole", "one", "none"))
    of_first, of_second, of_nobody = (
        [request_of(world, user, **more) for user in range(6)]
        for more in ({"segment_id": "s1"}, {"segment_id": "s2"}, {})
    )
    assert ask(one, *of_first) == ask(whole_one, *of_first)
    plain = ask(whole_one, *of_nobody)
    assert {answer["arm"] for answer in plain} == {"global"}
    for rows in (ask(one, *of_second), ask(one, *of_nobody), ask(none, *of_first), ask(none, *of_nobody)):
        assert rows == plain
    shared = {file.name for file in whole.iterdir()} - {MANIFEST, "deltas.safetensors"}
    assert all((tmp_path / "none" / name).read_bytes() == (whole / name).read_bytes() for name in shared)


def test_only_segments_that_a_bundle_has_can_be_kept(served: ServedRanker, tmp_path: Path) -> None:
    served.save(tmp_path / "whole")
    with pytest.raises(ValueError, match="no segments \\['s9'\\]"):
        restrict(tmp_path / "whole", tmp_path / "one", ["s1", "s9"])
    (tmp_path / "whole" / "scorers.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"scorers\.safetensors: is damaged"):
        restrict(tmp_path / "whole", tmp_path / "one", ["s1"])


def test_int8_is_smaller_and_ranks_nearly_the_same(world: World, served: ServedRanker, tmp_path: Path) -> None:
    served.save(tmp_path / "full")
    served.save(tmp_path / "int8", "int8")
    sizes = [sum(file.stat().st_size for file in (tmp_path / name).iterdir()) for name in ("full", "int8")]
    assert sizes[1] < 0.8 * sizes[0]
    small = ServedRanker.load(tmp_path / "int8")
    rows = [request_of(world, user) for user in range(USERS)]
    common = [
        len({*ids(one)} & {*ids(other)}) for one, other in zip(ask(served, *rows), ask(small, *rows), strict=True)
    ]
    assert np.mean(common) > 0.9 * COUNT
    assert ask(served, *rows) != ask(small, *rows)


@pytest.mark.parametrize(
    "name", [MANIFEST, "scorers.safetensors", "behavior_model.safetensors", "fallbacks.safetensors"]
)
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_damaged_bundle_names_the_file(served: ServedRanker, tmp_path: Path, name: str, damage: str) -> None:
    served.save(tmp_path)
    file = tmp_path / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[:-9])
    else:
        at = content.index(b'"count": 10') + 9 if name == MANIFEST else len(content) - 5
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(UserError, match=rf"{name}: is (missing|damaged).*materialize served_ranker again"):
        ServedRanker.load(tmp_path)


def test_a_bundle_of_another_version_is_refused(served: ServedRanker, tmp_path: Path) -> None:
    served.save(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({"manifest": {"format": 99}, "digest": "x"}))
    with pytest.raises(UserError, match="of another version of segflow"):
        ServedRanker.load(tmp_path)


def test_the_history_decides_not_the_name(world: World, served: ServedRanker) -> None:
    known, stranger, nameless = ask(
        served,
        request_of(world, 7),
        request_of(world, 7) | {"user_id": "never seen"},
        {"events": request_of(world, 7)["events"]},
    )
    assert known["items"] == stranger["items"] == nameless["items"]
    assert (known["user_id"], stranger["user_id"], nameless["user_id"]) == ("u007", "never seen", None)


def test_no_events_get_a_fallback_that_says_which(world: World, served: ServedRanker) -> None:
    popular = np.argsort(-served.fallbacks.popularity, kind="stable")[:COUNT]
    for answer in ask(served, {}, {"events": []}, {"user_id": "u001", "segment_id": "s1"}):
        assert answer["arm"] == "cold: popularity"
        assert ids(answer) == [served.ranker.candidate_ids[place] for place in popular]
        assert answer["events"] == 0
    only_unknown = request_of(world, 3)
    for event in only_unknown["events"]:
        event["event_type"] = "gaze"
    (answer,) = ask(served, only_unknown)
    assert answer["arm"] == "cold: popularity"
    assert answer["ignored_events"]["unknown_type"] == len(only_unknown["events"])


def test_unknown_items_are_visits_and_are_counted(world: World, served: ServedRanker) -> None:
    plain = request_of(world, 5)
    strange = request_of(world, 5)
    # On the day of another event: not one more visit.
    strange["events"].append({**strange["events"][-1], "item_id": "not in the catalogue", "ts": moment(NOW - DAY // 2)})
    with_strange, without = ask(served, strange, plain)
    assert with_strange["ignored_events"]["unknown_item"] == 1
    assert with_strange["events"] == without["events"] + 1
    (nothing,) = ask(served, {"events": [{"item_id": "new", "event_type": "buy", "ts": moment(NOW - 1)}]})
    assert nothing["arm"] == "global"
    assert len(nothing["items"]) == COUNT


def test_the_order_of_events_does_not_matter(world: World, served: ServedRanker) -> None:
    rows = [request_of(world, user) for user in range(6)]
    mixed = [request_of(world, user) for user in range(6)]
    for row in mixed:
        random.Random(0).shuffle(row["events"])
    for one, other in zip(ask(served, *rows), ask(served, *mixed), strict=True):
        assert ids(one) == ids(other)


def test_what_is_not_before_now_is_left_out(world: World, served: ServedRanker) -> None:
    row = request_of(world, 9)
    later = {"item_id": "i39", "event_type": "buy", "ts": moment(NOW + 5)}
    at = {**later, "ts": moment(NOW)}
    expected, asked_before = ask(served, row, row | {"events": [later, *row["events"], at], "now": moment(NOW)})
    assert asked_before["items"] == expected["items"]
    assert asked_before["ignored_events"]["not_before_now"] == 2
    # Without `now` the latest event is the present.
    (present,) = ask(served, row | {"events": [*row["events"], later]})
    assert present["events"] == expected["events"] + 1
    assert present["items"] != expected["items"]


def test_a_day_later_everything_is_a_day_older(world: World, served: ServedRanker) -> None:
    first, second = ask(
        served, request_of(world, 11, now=moment(NOW)), request_of(world, 11, now=moment(NOW + 30 * DAY))
    )
    assert first["events"] == second["events"]
    assert first["items"] != second["items"]


def test_an_event_id_counts_once(world: World, served: ServedRanker) -> None:
    row = request_of(world, 13)
    for number, event in enumerate(row["events"]):
        event["event_id"] = str(number)
    plain, doubled = ask(served, row, row | {"events": row["events"] * 2})
    assert doubled["items"] == plain["items"]
    assert doubled["ignored_events"]["duplicate"] == len(row["events"])
    # Lines of a basket may be equal: without ids nothing tells them from repeats.
    bare = request_of(world, 13)
    (lines,) = ask(served, bare | {"events": bare["events"] * 2})
    assert lines["events"] == 2 * len(bare["events"])


def test_a_value_that_is_not_a_number_counts_as_none(world: World, served: ServedRanker) -> None:
    missing, nan = request_of(world, 15), request_of(world, 15)
    for one, other in zip(missing["events"], nan["events"], strict=True):
        one["value"], other["value"] = None, float("nan")
    assert ask(served, missing) == ask(served, nan)


def test_ten_thousand_events(world: World, served: ServedRanker) -> None:
    row = request_of(world, 17)
    old = [
        {"item_id": f"i{number % ITEMS:02}", "event_type": "buy", "ts": moment(number * 60_000_000)}
        for number in range(10_000 - len(row["events"]))
    ]
    (answer,) = ask(served, row | {"events": old + row["events"]})
    assert answer["events"] == 10_000
    assert len(answer["items"]) == COUNT


def test_length_and_seen_items(world: World, served: ServedRanker) -> None:
    row = request_of(world, 19)
    had = {event["item_id"] for event in row["events"]}
    plain, short, fresh, everything = ask(
        served, row, row | {"n": 3}, row | {"exclude_seen": True}, row | {"exclude_seen": True, "n": 1000}
    )
    assert ids(short) == ids(plain)[:3]
    assert had & set(ids(plain))
    assert not had & set(ids(fresh))
    assert set(ids(everything)) == set(served.ranker.candidate_ids) - had
    scores = [one["score"] for one in everything["items"]]
    assert scores == sorted(scores, reverse=True)


EVENT = {"event_type": "buy", "ts": "2024-01-31T12:00:00Z", "item_id": "i01"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (5, "request 1: expected keys and values, found int"),
        (None, "request 1: expected keys and values, found NoneType"),
        ({"evnts": []}, "request 1: evnts: unknown key; known here: events, user_id"),
        ({"events": None}, "request 1: events: .*valid list"),
        ({"events": [EVENT, 7]}, r"request 1: events\[1\]: expected keys and values, found int"),
        ({"events": [EVENT | {"price": 1}]}, r"request 1: events\[0\].price: unknown key; known here: event_type, ts"),
        ({"events": [{"ts": EVENT["ts"]}]}, r"request 1: events\[0\].event_type: missing; add it"),
        ({"events": [EVENT | {"ts": None}]}, r"request 1: events\[0\].ts: "),
        ({"events": [EVENT | {"ts": 1706702400}]}, r"request 1: events\[0\].ts: "),
        ({"events": [EVENT | {"ts": float("nan")}]}, r"request 1: events\[0\].ts: "),
        ({"events": [EVENT | {"ts": "yesterday"}]}, r"request 1: events\[0\].ts: not an ISO 8601 time: 'yesterday'"),
        ({"events": [EVENT | {"ts": "2024-01-31"}]}, r"request 1: events\[0\].ts: a time without an offset from UTC"),
        ({"events": [EVENT | {"item_id": 12}]}, r"request 1: events\[0\].item_id: .*valid string"),
        ({"events": [EVENT | {"item_id": float("nan")}]}, r"request 1: events\[0\].item_id: .*valid string"),
        ({"events": [EVENT | {"value": "3"}]}, r"request 1: events\[0\].value: .*valid number"),
        ({"user_id": 7}, "request 1: user_id: .*valid string"),
        ({"n": 0}, "request 1: n: .*greater than or equal to 1"),
        ({"n": 1001}, "request 1: n: .*less than or equal to 1000"),
        ({"n": 2.5}, "request 1: n: .*valid integer"),
        ({"exclude_seen": "no"}, "request 1: exclude_seen: .*valid boolean"),
        ({"now": "soon"}, "request 1: now: not an ISO 8601 time"),
        ({"segments": {"s1": float("nan")}}, "request 1: segments.s1: "),
        ({"segments": {"s1": 0.7, "s2": 0.7}}, "request 1: segments: probabilities sum to 1.4"),
        ({"segment_id": "s1", "segments": {}}, "request 1: segment_id and segments: give one of them"),
        ({"segment_id": "s9"}, "request 1: segment 's9' is not one of this ranker's; known here: s1, s2"),
    ],
)
def test_a_mistake_names_the_row_and_the_key(served: ServedRanker, row: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as found:
        served.recommend(read_requests([{}, row]))
    assert "\n" not in str(found.value)
