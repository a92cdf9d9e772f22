"""Segment rankers of every method: trained group by group, gated, stored, served in one way, and each what it says it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn import functional

from segflow.config.rankers import SegmentMethod
from segflow.errors import UserError
from segflow.rankers.deltas import GroupDeltas, Grouped, Membership
from segflow.rankers.examples import training_cuts
from segflow.rankers.global_ranker import ranking_loss
from segflow.rankers.local_ease import had_before, local_ease
from segflow.rankers.scorers import COOCCURRENCE
from segflow.rankers.segment_rankers import fit_segment_rankers, read_deltas, train_deltas
from segflow.rankers.served import ServedRanker
from segflow.rankers.snapshot import RankingWeek
from segflow_tests.rankers.conftest import CONFIG, SNAPSHOT, USERS, World
from segflow_tests.rankers.test_served import ask, request_of

THIRDS = np.arange(USERS) % 3
HALVES = np.arange(USERS) % 2
# Of few users little is learned in twenty small steps.
FAST = CONFIG.model_copy(update={"delta_learning_rate": 0.02})


def train(world: World, method: SegmentMethod, *arms: Membership) -> list[GroupDeltas]:
    return train_deltas(world.ranker, world.training, arms, FAST.model_copy(update={"segment_method": method}), seed=0)


@pytest.fixture(scope="module", params=get_args(SegmentMethod))
def method(request: pytest.FixtureRequest) -> SegmentMethod:
    return request.param


@pytest.fixture(scope="module")
def trained(world: World, method: SegmentMethod) -> GroupDeltas:
    return train(world, method, Membership.certain(THIRDS))[0]


def test_a_group_is_the_same_alone_among_others_and_beside_controls(
    world: World, method: SegmentMethod, trained: GroupDeltas
) -> None:
    before = world.ranker.to_bytes()
    (alone,) = train(world, method, Membership.certain(np.where(THIRDS == 1, 0, -1)))
    assert alone.to_bytes() == trained.only(1).to_bytes()
    everybody, beside = train(world, method, Membership.certain(np.zeros(USERS, int)), Membership.certain(THIRDS))
    assert len(everybody) == 1
    assert beside.to_bytes() == trained.to_bytes()
    fewer = Membership.certain(np.where((THIRDS == 2) & (np.arange(USERS) > 20), -1, THIRDS))
    (changed,) = train(world, method, fewer)
    same = [changed.only(code).to_bytes() == trained.only(code).to_bytes() for code in range(3)]
    assert same == [True, True, False], "who left belonged to the last group"
    assert world.ranker.to_bytes() == before, "the global ranker is frozen"


def test_scores_are_the_global_rankers_where_a_gate_is_shut_or_a_user_in_no_group(
    world: World, trained: GroupDeltas
) -> None:
    rows = np.arange(len(world.everybody))
    base = world.ranker.score(world.everybody, rows)
    gates = torch.tensor([0.0, 0.5, 1.0])
    member = Membership(torch.from_numpy(np.where(rows < 10, -1, THIRDS)), torch.linspace(0, 1, USERS))
    scores = world.ranker.score(world.everybody, rows, Grouped(replace(trained, gate=gates), member))
    whole = world.ranker.score(world.everybody, rows, Grouped(trained, Membership.certain(THIRDS)))
    away = (rows < 10) | (THIRDS == 0)
    np.testing.assert_allclose(scores[away], base[away], atol=1e-5)
    assert (np.abs(whole - base).max(1) > 1e-4).mean() > 0.9
    used = torch.where(member.group >= 0, gates[THIRDS] * member.share, 0.0).numpy()[:, None]
    np.testing.assert_allclose(scores, base + used * (whole - base), atol=1e-4)


def test_a_group_that_nobody_taught_stays_global(world: World, method: SegmentMethod) -> None:
    config = FAST.model_copy(update={"segment_method": method})
    arm = Membership.certain(np.where(THIRDS == 1, -1, THIRDS))
    (found,) = fit_segment_rankers(world.ranker, world.training, world.validation, [arm], config, seed=0)
    rows = np.arange(20)
    own = Grouped(found.only(1), Membership.certain(np.zeros(USERS, int)))
    np.testing.assert_allclose(
        world.ranker.score(world.test, rows, own), world.ranker.score(world.test, rows), atol=1e-5
    )


def test_stored_groups_are_read_without_knowing_the_method(trained: GroupDeltas) -> None:
    parts = [trained.only(code).to_bytes() for code in range(3)]
    found = read_deltas(parts)
    assert type(found) is type(trained)
    assert found.to_bytes() == trained.to_bytes()
    with pytest.raises(UserError, match=r"cut short .*; materialize segment_rankers of all segments"):
        read_deltas([parts[0], parts[1][:-1]])


def test_groups_of_two_methods_are_not_read_as_one_arm(world: World) -> None:
    arm = Membership.certain(HALVES)
    parts = [train(world, method, arm)[0].only(0).to_bytes() for method in ("feature", "ease")]
    with pytest.raises(UserError, match=r"different methods \(ease, feature\); materialize"):
        read_deltas(parts)


def test_the_held_out_week_teaches_the_gate_alone(world: World, method: SegmentMethod) -> None:
    config, arm = FAST.model_copy(update={"segment_method": method}), [Membership.certain(HALVES)]
    one, other = (
        fit_segment_rankers(world.ranker, world.training, held_out, arm, config, seed=0)[0]
        for held_out in (world.validation, world.test)
    )
    assert replace(one, gate=other.gate).to_bytes() == other.to_bytes()


def test_a_group_learns_what_tells_its_users_from_others(world: World, method: SegmentMethod) -> None:
    """On the examples that taught: a group's own delta explains them better than another group's does."""
    (found,) = train(world, method, Membership.certain(HALVES))
    for code in range(2):
        rows = np.flatnonzero(HALVES[world.training.users] == code)
        batch = world.training.batch(rows)
        none, own, other = (
            float(ranking_loss(torch.from_numpy(world.ranker.score(world.training, rows, added)), batch, 0.5))
            for added in (None, *(Grouped(found.only(one), Membership.certain(HALVES * 0)) for one in (code, 1 - code)))
        )
        assert own <= none
        # How far scores are trusted is the same in both halves.
        assert own < other or method == "weights"


def test_a_full_fine_tune_is_the_network_with_other_weights(world: World) -> None:
    (found,) = train(world, "full", Membership.certain(HALVES))
    rows = np.flatnonzero(HALVES[world.test.users] == 1)
    network = world.ranker.network
    values = network.state_dict()
    first = 0
    for name, one in network.named_parameters():
        values[name] = one.detach() + found.change[1, first : first + one.numel()].view_as(one)
        first += one.numel()
    assert first == found.change.shape[1]
    own = type(network)(
        network.item_vectors, *(len(values[name]) for name in ("query", "repeat_in.bias", "explore_out"))
    )
    own.load_state_dict(values)
    with torch.no_grad():
        expected = own(world.test.batch(rows)).numpy()
    scores = world.ranker.score(world.test, rows, Grouped(found, Membership.certain(HALVES)))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.abs(scores - world.ranker.score(world.test, rows)).max() > 0.01


def test_a_segment_feature_is_an_input_that_is_one_for_its_users(world: World) -> None:
    """The network's formula, with the segment's number beside the state and beside what tells how active a user is."""
    (found,) = train(world, "feature", Membership.certain(HALVES))
    network, rows = world.ranker.network, np.arange(30)
    batch, told = world.test.batch(rows), functional.one_hot(torch.from_numpy(HALVES[world.test.users[rows]])).float()
    row, item = batch.pair_row, batch.pair_item
    with torch.no_grad():
        inputs, context = network.inputs(batch.inputs), torch.cat([network.context(batch.context), told], dim=1)
        states = torch.cat([batch.states, told * batch.states[:, -1:]], dim=1)
        affinity = states @ torch.cat([network.query, found.query]) @ network.item_vectors.T
        columns = torch.cat([network.explore_context.weight, found.explore.T], dim=1)
        hidden = torch.relu(network.explore_in(inputs) + (context @ columns.T)[:, None])
        scores = affinity + network.item_bias + inputs @ network.explore + hidden @ network.explore_out
        known = torch.cat([network.pairs(batch.pair_values), context[row, :-2], inputs[row, item], told[row]], dim=1)
        columns = torch.cat([network.repeat_in.weight, found.repeat.T], dim=1)
        repeat = torch.relu(known @ columns.T + network.repeat_in.bias)
        again = network.repeat_out(repeat)[:, 0] + network.repeat_bias[item]
        again = again + network.repeat_affinity * affinity[row, item]
        expected = scores.index_put((row, item), again).numpy()
    actual = world.ranker.score(world.test, rows, Grouped(found, Membership.certain(HALVES)))
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    assert np.abs(actual - world.ranker.score(world.test, rows)).max() > 1e-3


def test_local_ease_is_that_of_plain_ridge_regressions(world: World) -> None:
    ridge, shares = CONFIG.cooccurrence_regularization, torch.linspace(0.2, 1, USERS) * torch.from_numpy(HALVES)
    found, nobody = local_ease(world.training, [shares, torch.zeros(USERS)], CONFIG)
    assert not nobody.any()
    had = had_before(world.training).toarray().astype(float)
    for item in range(0, had.shape[1], 7):
        rest = np.delete(np.arange(had.shape[1]), item)
        solved = []
        for weight in (shares.numpy().astype(float), np.ones(USERS)):
            x, y = had[:, rest] * weight[:, None], had[:, item]
            solved.append(np.linalg.solve(had[:, rest].T @ x + ridge * np.eye(len(rest)), x.T @ y))
        np.testing.assert_allclose(found[rest, item], solved[0] - solved[1], atol=1e-4)
        assert found[item, item] == 0


def test_local_ease_takes_the_place_of_everybodys_in_what_the_network_reads(world: World) -> None:
    (found,) = train(world, "ease", Membership.certain(HALVES))
    rows = np.flatnonzero(HALVES[world.test.users] == 0)
    batch = world.test.batch(rows)
    had = world.test.had.dense(rows, world.test.candidates, np.float32(1))
    batch.inputs[:, :, COOCCURRENCE] += torch.from_numpy(had @ found.more[0].float().numpy())
    with torch.no_grad():
        expected = world.ranker.network(batch).numpy()
    scores = world.ranker.score(world.test, rows, Grouped(found, Membership.certain(HALVES)))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    # Only the items that most users had take part.
    few = CONFIG.model_copy(update={"cooccurrence_items": 20, "segment_method": "ease"})
    (half,) = train_deltas(world.ranker, world.training, [Membership.certain(HALVES)], few, seed=0)
    assert half.more.shape == (2, 20, 20)
    users = had_before(world.training).toarray().sum(0)
    assert users[half.items[0]].min() >= np.delete(users, half.items[0]).max()


def test_local_ease_reads_what_users_had_before_the_snapshot(world: World) -> None:
    known = had_before(world.training).toarray() > 0
    taught = np.unique(world.training.users)
    expected = world.history.had(0, SNAPSHOT).dense(taught, world.training.candidates)
    np.testing.assert_array_equal(known[taught], expected)
    assert training_cuts(SNAPSHOT, 1)[0] < SNAPSHOT


def test_served_scores_are_those_of_the_batch(
    world: World, method: SegmentMethod, trained: GroupDeltas, tmp_path: Path
) -> None:
    week = RankingWeek(world.log, world.backbone, world.history, SNAPSHOT, CONFIG)
    grouped, names = Grouped(trained, Membership.certain(THIRDS)), ["a", "b", "c"]
    ServedRanker.of(week, world.ranker, count=5, segments=names, grouped=grouped).save(tmp_path)
    users = np.arange(12)
    answers = ask(
        ServedRanker.load(tmp_path), *(request_of(world, user, segment_id=names[THIRDS[user]]) for user in users)
    )
    scores = world.ranker.score(world.everybody, users, grouped)
    best = np.sort(scores, axis=1)[:, ::-1][:, :5]
    np.testing.assert_allclose([[one["score"] for one in answer["items"]] for answer in answers], best, atol=1e-4)
    assert {answer["arm"] for answer in answers} == {"segment"}
