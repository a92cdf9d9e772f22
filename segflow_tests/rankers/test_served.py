"""The bundle: its lists are those of the batch, and damaged files are told. Requests: `test_served_requests.py`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segflow.config import RecommendationConfig
from segflow.errors import UserError
from segflow.rankers.attributes import fit_attribute_model
from segflow.rankers.cold_lists import Strangers, cold_rows, judged_steps
from segflow.rankers.deltas import Grouped
from segflow.rankers.recommend import Ranked, recommendation_rows
from segflow.rankers.rules import rules_of
from segflow.rankers.served import MANIFEST, ServedRanker, Variant, restrict
from segflow.rankers.snapshot import RankingWeek
from segflow_tests.rankers.conftest import COUNT, SEGMENTS, USERS, World
from segflow_tests.rankers.serving import CATALOGUE, ask, ids, request_of, shown_of

EDGES = pa.schema([("user_id", pa.string()), ("other_id", pa.string()), ("weight", pa.float64())])


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


def test_another_bundle_in_its_place_and_files_elsewhere_are_refused(served: ServedRanker, tmp_path: Path) -> None:
    digest = served.save(tmp_path / "whole")
    assert restrict(tmp_path / "whole", tmp_path / "one", SEGMENTS, digest) == digest
    with pytest.raises(UserError, match=r"manifest\.json: is damaged, another one"):
        restrict(tmp_path / "whole", tmp_path / "two", SEGMENTS, "0" * 64)
    # A manifest that names a file outside, with digests that hold.
    forged = json.loads((tmp_path / "whole" / MANIFEST).read_text(encoding="utf-8"))["manifest"]
    (tmp_path / "outside").write_bytes(b"x")
    forged["files"]["../outside"] = hashlib.sha256(b"x").hexdigest()
    text = json.dumps(forged, sort_keys=True)
    whole = {"manifest": forged, "digest": hashlib.sha256(text.encode()).hexdigest()}
    (tmp_path / "whole" / MANIFEST).write_text(json.dumps(whole, sort_keys=True), encoding="utf-8")
    for use in (
        lambda: ServedRanker.load(tmp_path / "whole"),
        lambda: restrict(tmp_path / "whole", tmp_path / "deep" / "er", []),
    ):
        with pytest.raises(UserError, match=r"manifest\.json: is damaged"):
            use()
    assert not (tmp_path / "deep" / "outside").exists()


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
