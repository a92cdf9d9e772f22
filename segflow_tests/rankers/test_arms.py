"""The trained arms of the test: which there are, and what a repeat of the training has in common with the first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from segflow.config import RankerConfig
from segflow.rankers.arms import Division, Members, Repeat, control_divisions, fit_divisions, repeat, repeat_seed
from segflow.rankers.global_ranker import fit_global_ranker
from segflow.rankers.segment_rankers import read_deltas
from segflow.rankers.snapshot import RankingWeek
from segflow_tests.rankers.conftest import CONFIG, SNAPSHOT, World

FEW = CONFIG.model_copy(update={"placebos": 2, "steps": 20, "delta_steps": 6})


@pytest.fixture(scope="module")
def week(world: World) -> RankingWeek:
    return RankingWeek(world.log, world.backbone, world.history, SNAPSHOT, FEW)


@pytest.fixture(scope="module")
def members(world: World) -> Members:
    """Two segments of unlike sizes, and some users of none."""
    known = [str(user) for user in world.log.user_ids[:50]]
    return {user: ("s001" if number % 5 else "s002", 0.5 + number / 200) for number, user in enumerate(known)}


@pytest.fixture(scope="module")
def repeats(week: RankingWeek, members: Members, tmp_path_factory: pytest.TempPathFactory) -> list[Repeat]:
    """By the same seed twice, and by another one."""
    return [_repeated(week, members, tmp_path_factory.mktemp("checkpoints"), seed) for seed in (1000, 1000, 2000)]


def _repeated(week: RankingWeek, members: Members, folder: Path, seed: int) -> Repeat:
    return repeat(week, members, seed, lambda seed: folder / f"{seed}.safetensors")


def test_controls_are_everybody_placebos_of_the_same_sizes_and_one_model_told_the_segment(members: Members) -> None:
    everybody, *placebos, told = control_divisions(members, FEW, seed=3)
    assert (everybody.arm, everybody.groups) == ("global_extra", ["everybody"])
    assert set(everybody.members) == set(members)
    assert [one.arm for one in placebos] == ["placebo_1", "placebo_2"]
    sizes = Counter(segment for segment, _ in members.values())
    for one in placebos:
        assert Counter(group for group, _ in one.members.values()) == sizes
        assert one.members != members
    assert placebos[0].members != placebos[1].members
    assert (told.arm, told.members, told.method) == ("segment_feature", members, "feature")
    assert {one.method for one in (everybody, *placebos)} == {"deltas"}


def test_the_model_told_the_segment_is_left_out_where_segments_are_that_already(members: Members) -> None:
    feature = FEW.model_copy(update={"segment_method": "feature"})
    assert [one.arm for one in control_divisions(members, feature, 0)] == ["global_extra", "placebo_1", "placebo_2"]
    assert control_divisions({}, FEW, 0) == []


def test_default_arms_are_enough_to_tell() -> None:
    config = RankerConfig()
    assert config.placebos >= 5
    assert config.repeats >= 2


def test_seeds_of_repeats_are_those_of_no_placebo_and_fit_their_column() -> None:
    placebos = range(1, 51)
    dealt = [repeat_seed(7, number) + placebo for number in range(51) for placebo in (0, *placebos)]
    assert len(set(dealt)) == len(dealt)
    assert 0 <= repeat_seed(2**31 - 1, 50) < 2**31


def test_groups_hold_their_users_and_are_the_same_beside_others(
    world: World, week: RankingWeek, members: Members
) -> None:
    segments = Division("segments", members, "deltas")
    alone = fit_divisions(world.ranker, week, [segments], seed=0)
    beside = fit_divisions(world.ranker, week, [*control_divisions(members, FEW, 0), segments], seed=0)
    assert beside[-2:] == alone
    assert [one.group_id for one in alone] == ["s001", "s002"]
    for one in alone:
        assert one.shares == {user: share for user, (group, share) in members.items() if group == one.group_id}
    kinds = {one.arm: read_deltas([one.model]).kind for one in beside}
    assert kinds.pop("segment_feature") == "feature"
    assert set(kinds.values()) == {"deltas"}
    assert fit_divisions(world.ranker, week, [], seed=0) == []


def test_a_ranker_does_not_depend_on_the_members_of_other_segments(
    world: World, week: RankingWeek, members: Members
) -> None:
    left = next(user for user, (group, _) in members.items() if group == "s002")
    shares = {user: (group, share if group == "s001" else share / 2) for user, (group, share) in members.items()}
    changed = {user: member for user, member in shares.items() if user != left}
    before, others = (
        fit_divisions(world.ranker, week, [Division("segments", some, "deltas")], seed=0) for some in (members, changed)
    )
    own = {user: member for user, member in changed.items() if member[0] == "s001"}
    (alone,) = fit_divisions(world.ranker, week, [Division("segments", own, "deltas")], seed=0)
    assert before[0] == others[0] == alone
    assert before[1].model != others[1].model


def test_a_repeat_trains_everything_by_its_seed(week: RankingWeek, members: Members, repeats: list[Repeat]) -> None:
    one, same, other = repeats
    arms = ["segments", "segments", "global_extra"] + ["placebo_1"] * 2 + ["placebo_2"] * 2 + ["segment_feature"] * 2
    assert [group.arm for group in one.groups] == arms
    assert one.groups == same.groups
    assert one.ranker.to_bytes() == same.ranker.to_bytes()
    assert one.ranker.to_bytes() != other.ranker.to_bytes()
    plain = fit_global_ranker(
        week.training, week.validation(), week.item_vectors, week.candidate_ids, FEW, seed=one.seed
    )
    assert plain.to_bytes() == one.ranker.to_bytes()
    for before, after in zip(one.groups, other.groups, strict=True):
        assert before.model != after.model
        dealt = before.arm.startswith("placebo")
        assert (before.shares != after.shares) == dealt, "only random groups are other users"
    assert min(one.global_seconds, one.group_seconds) > 0


def test_a_repeat_without_segments_is_that_of_the_global_ranker(
    week: RankingWeek, repeats: list[Repeat], tmp_path: Path
) -> None:
    found = _repeated(week, {}, tmp_path, 1000)
    assert found.groups == []
    assert found.ranker.to_bytes() == repeats[0].ranker.to_bytes()
    assert not list(tmp_path.iterdir()), "a finished training leaves no checkpoint"
