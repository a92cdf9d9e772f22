"""Segment rankers: each group learns from its own users only, and a gate opens only for what the held-out week confirms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segflow.rankers.deltas import Deltas, GroupDeltas, Grouped, Membership
from segflow.rankers.examples import Batch
from segflow.rankers.global_ranker import ranking_loss
from segflow.rankers.losses import RowLosses
from segflow.rankers.segment_rankers import GATES, choose_gate, fit_segment_rankers, gated, train_deltas
from segflow.rankers.snapshot import placebo_groups
from segflow_tests.rankers.conftest import CONFIG, USERS, World

THIRDS = np.arange(USERS) % 3
HALVES = np.arange(USERS) % 2
"""How the log was made: each half of the users has its own half of the catalogue."""


def _same(one: Deltas, other: Deltas) -> None:
    assert one.to_bytes() == other.to_bytes()


@pytest.fixture(scope="module")
def trained(world: World) -> Deltas:
    (deltas,) = train_deltas(world.ranker, world.training, [Membership.certain(THIRDS)], CONFIG, seed=0)
    return deltas


def test_one_group_alone_equals_the_same_group_among_others(world: World, trained: Deltas) -> None:
    before = world.ranker.to_bytes()
    alone = Membership.certain(np.where(THIRDS == 1, 0, -1))
    _same(train_deltas(world.ranker, world.training, [alone], CONFIG, seed=0)[0], trained.only(1))
    assert (trained.up[0] - trained.up[1]).abs().max() > 1e-3
    assert world.ranker.to_bytes() == before, "the global ranker is frozen"


def test_an_arm_alone_equals_the_same_arm_beside_controls(world: World, trained: Deltas) -> None:
    arms = [Membership.certain(np.zeros(USERS, int)), Membership.certain(HALVES), Membership.certain(THIRDS)]
    together = train_deltas(world.ranker, world.training, arms, CONFIG, seed=0)
    assert [len(one) for one in together] == [1, 2, 3]
    _same(together[2], trained)


def test_other_users_change_nothing(world: World, trained: Deltas) -> None:
    """Users of other groups may be anybody: here they leave."""
    fewer = Membership.certain(np.where((THIRDS == 2) & (np.arange(USERS) > 20), -1, THIRDS))
    changed = train_deltas(world.ranker, world.training, [fewer], CONFIG, seed=0)[0]
    _same(changed.only(0), trained.only(0))
    assert (changed.up[2] - trained.up[2]).abs().max() > 1e-4


def test_a_user_counts_by_membership_probability(world: World, trained: Deltas) -> None:
    whole = Membership.certain(THIRDS)
    # The same share for everybody is the same mean, though fewer counts for the biases.
    halved = replace(whole, share=whole.share / 2)
    trained_parts = ("down", "up", "explore", "repeat")
    same = train_deltas(world.ranker, world.training, [whole, halved], CONFIG, 0, free=trained_parts)
    for name in trained_parts:
        torch.testing.assert_close(getattr(same[0], name), getattr(same[1], name), atol=1e-5, rtol=1e-3)
    # Who does not belong at all is as good as left out, who belongs a little is not.
    never = replace(whole, share=torch.where(torch.arange(USERS) > 20, whole.share, 0.0))
    without = Membership.certain(np.where(np.arange(USERS) > 20, THIRDS, -1))
    little = replace(whole, share=torch.where(torch.arange(USERS) > 20, whole.share, 0.2))
    one, other, third = train_deltas(world.ranker, world.training, [never, without, little], CONFIG, seed=0)
    _same(one, other)
    assert (third.bias - one.bias).abs().max() > 1e-3
    assert (third.bias - trained.bias).abs().max() > 1e-3


def test_scores_add_up_by_group_share_and_gate(world: World, trained: Deltas) -> None:
    rows = np.arange(len(world.everybody))
    share = torch.linspace(0, 1, USERS)
    membership = Membership(torch.from_numpy(np.where(THIRDS == 2, -1, THIRDS)), share)
    gates = torch.tensor([0.5, 1.0, 0.25])
    base = world.ranker.score(world.everybody, rows)
    scores = world.ranker.score(world.everybody, rows, Grouped(replace(trained, gate=gates), membership))
    frozen = world.ranker.frozen(world.everybody, rows)
    for code in (0, 1):
        chosen = code == THIRDS
        own = trained.only(code).added(frozen, world.ranker.item_vectors, torch.ones(len(rows), 1)).numpy()
        expected = base + own * (share * gates[code]).numpy()[:, None]
        np.testing.assert_allclose(scores[chosen], expected[chosen], atol=1e-4)
    np.testing.assert_allclose(scores[THIRDS == 2], base[THIRDS == 2], atol=1e-5)
    assert np.abs(scores - base).max() > 1e-3


def test_what_a_delta_adds_is_that_of_a_plain_loop(world: World) -> None:
    rows = np.arange(4)
    frozen = world.ranker.frozen(world.test, rows)
    generator = torch.Generator().manual_seed(0)
    vectors = world.ranker.item_vectors
    sizes = {"down": (frozen.states.shape[1], 2), "up": (2, vectors.shape[1]), "bias": (len(vectors),)}
    sizes |= {"explore": (len(frozen.explore),), "repeat": (frozen.hidden.shape[1],)}
    parts = {name: torch.randn(1, *size, generator=generator) for name, size in sizes.items()}
    one = Deltas(**parts, gate=torch.tensor([0.5]))
    added = one.added(frozen, vectors, torch.ones(4, 1))
    for row in range(4):
        query = frozen.states[row] @ parts["down"][0] @ parts["up"][0]
        for item in range(len(vectors)):
            expected = query @ vectors[item] + frozen.explore[:, row, item] @ parts["explore"][0]
            pairs = torch.nonzero((frozen.pair_row == row) & (frozen.pair_item == item))[:, 0]
            own = frozen.hidden[pairs[0]] @ parts["repeat"][0] if len(pairs) else parts["bias"][0, item]
            expected = expected + own
            assert float(added[row, item]) == pytest.approx(0.5 * float(expected), abs=1e-3)


def test_gradients_in_closed_form_are_those_of_automatic_differentiation(world: World) -> None:
    rows = np.arange(40)
    frozen, losses = world.ranker.frozen(world.training, rows), RowLosses.at(world.training, rows)
    generator = torch.Generator().manual_seed(0)
    start = Deltas.nothing(frozen, world.training, CONFIG, 0)
    weights = torch.rand(40, 2, generator=generator)
    found = []
    for descend in (Deltas.descend, GroupDeltas.descend):
        generator.manual_seed(1)
        one = start.copy()
        for name in ("down", "up", "bias", "explore", "repeat"):
            getattr(one, name).copy_(0.3 * torch.randn(getattr(one, name).shape, generator=generator))
        learned = [getattr(one, name).requires_grad_() for name in ("down", "up", "explore", "repeat")]
        for _ in range(2):
            descend(one, frozen, losses, world.ranker.item_vectors, weights)
        found.append([part.grad for part in learned])
        assert one.bias.grad is None, "it is counted"
    for closed, automatic in zip(*found, strict=True):
        assert automatic.abs().max() > 1e-3
        torch.testing.assert_close(closed, automatic, rtol=1e-4, atol=1e-5 * float(automatic.abs().max()))


def test_what_is_known_of_examples_is_the_same_with_their_scores_known(world: World) -> None:
    rows = np.array([3, 50, 7, 110])
    whole = world.ranker.frozen(world.training, rows)
    again = world.ranker.frozen(world.training, rows, whole.scores)
    for name in ("users", "scores", "states", "explore", "hidden", "pair_row", "pair_item"):
        torch.testing.assert_close(getattr(again, name), getattr(whole, name), rtol=1e-6, atol=1e-6)


def test_an_arm_of_another_method_beside_changes_nothing(world: World, trained: Deltas) -> None:
    arms = [Membership.certain(THIRDS), Membership.certain(HALVES)]
    beside, told = train_deltas(world.ranker, world.training, arms, CONFIG, seed=0, methods=["deltas", "feature"])
    _same(beside, trained)
    feature = CONFIG.model_copy(update={"segment_method": "feature"})
    _same(told, train_deltas(world.ranker, world.training, arms[1:], feature, seed=0)[0])


def test_item_biases_are_those_of_a_plain_count(world: World) -> None:
    shares = torch.linspace(0.1, 1, USERS)
    arm = Membership(torch.from_numpy(HALVES), shares)
    (found,) = train_deltas(world.ranker, world.training, [arm], CONFIG, 0, free=("bias",))
    assert not found.up.any()
    prior, candidates = CONFIG.bias_prior, world.training.candidates
    seen, expected = np.zeros((3, candidates)), np.zeros((3, candidates))
    for row, user in enumerate(world.training.users):
        rows = np.array([row])
        new = ~world.training.had.dense(rows, candidates)[0]
        fresh = world.training.wanted.dense(rows, candidates)[0] & new
        chance = np.where(new, np.exp(world.ranker.score(world.training, rows)[0].astype(np.float64)), 0)
        for group, share in ((HALVES[user], float(shares[user])), (2, 1.0)):
            seen[group] += share * fresh
            expected[group] += share * fresh.sum() * chance / chance.sum() if new.any() else 0
    ratio = (seen[2] + prior) / (expected[2] + prior)
    plain = np.log((seen[:2] + prior * ratio) / (expected[:2] + prior))
    np.testing.assert_allclose(found.bias.numpy(), plain, atol=1e-4)
    assert np.abs(plain[0] - plain[1]).max() > 0.02, "each half has its own half of the catalogue"


def test_row_losses_are_those_of_the_ranking_loss(world: World) -> None:
    batch = world.test.batch(np.arange(20))
    scores = 5 * torch.randn(20, world.test.candidates, generator=torch.Generator().manual_seed(1))
    plain, closed = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    expected = ranking_loss(plain, batch, 0.3)
    judge = RowLosses.at(world.test, np.arange(20))
    found = (judge(closed).sum(0) / judge.asked.sum(0)) @ torch.tensor([1.0, 0.3])
    torch.testing.assert_close(found, expected)
    expected.backward()
    found.backward()
    torch.testing.assert_close(closed.grad, plain.grad, atol=1e-6, rtol=1e-4)


def test_row_losses_are_finite_where_there_is_no_competitor_or_no_contest() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    rest = {name: torch.zeros(0) for name in ("context", "cooccurrence", "log_popularity", "cut", "pair_values")}
    batch = Batch(
        **{name: rest.get(name, nothing) for name in Batch.__dataclass_fields__}
        | {"states": torch.zeros(3, 1)}
        # The first wants everything, the second wins by far, the third wants what it had.
        | {"target_row": torch.tensor([0, 0, 0, 1, 2]), "target_item": torch.tensor([0, 1, 2, 0, 1])}
        | {"pair_row": torch.tensor([2]), "pair_item": torch.tensor([1])}
    )
    scores = torch.tensor([[1.0, 2.0, 3.0], [900.0, 0.0, -900.0], [0.0, 0.0, 0.0]]).requires_grad_()
    judge = RowLosses.of(batch, 3)
    losses = judge(scores)
    losses.sum().backward()
    assert judge.asked.tolist() == [[1, 1], [1, 1], [1, 0]]
    torch.testing.assert_close(losses[:, 0], torch.tensor([0.0, 0.0, float(np.log(3))]), atol=1e-5, rtol=1e-5)
    assert torch.isfinite(scores.grad).all()


def test_deltas_lower_the_training_loss_of_their_group(world: World) -> None:
    (deltas,) = train_deltas(world.ranker, world.training, [Membership.certain(HALVES)], CONFIG, seed=0)
    for code in range(2):
        rows = np.flatnonzero(HALVES[world.training.users] == code)
        batch = world.training.batch(rows)
        before = ranking_loss(torch.from_numpy(world.ranker.score(world.training, rows)), batch, 0.3)
        own = Grouped(deltas.only(code), Membership.certain(np.zeros(USERS, int)))
        after = ranking_loss(torch.from_numpy(world.ranker.score(world.training, rows, own)), batch, 0.3)
        assert after < before


def test_a_gate_is_the_smallest_within_an_error_of_the_best() -> None:
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.normal(size=(400, 1)))

    def gains(*means: float) -> torch.Tensor:
        return torch.tensor(means) + noise * torch.tensor(GATES)

    assert choose_gate(gains(0.0, 0.01, 0.02, 0.03, 0.04)) == 0, "less than one standard error, 0.05"
    assert choose_gate(gains(0.0, 0.1, 0.2, 0.3, 0.4)) == 1
    assert choose_gate(gains(0.0, 0.3, 0.4, 0.4, 0.39)) == 0.5
    assert choose_gate(gains(0.0, -0.1, -0.2, -0.3, -0.4)) == 0
    assert choose_gate(gains(0.0, 1.0, 2.0, 3.0, 4.0)[:1]) == 0, "one user is no evidence"


def test_gates_are_shrunk_where_a_group_is_thin(world: World) -> None:
    """The same delta for a group of two and for the rest, and a held-out week that likes it: the training week itself."""
    first = np.where(np.arange(USERS) < 3, 0, 1)
    arm = Membership.certain(first)
    (deltas,) = train_deltas(world.ranker, world.training, [arm], CONFIG, seed=0)
    (found,) = gated(world.ranker, [deltas], world.training, world.training, [arm], CONFIG)
    assert 0 < float(found.gate[1]) <= 57 / 77 + 1e-6
    assert float(found.gate[0]) <= 3 / 23 + 1e-6
    nobody = world.validation
    empty = replace(
        nobody,
        users=nobody.users[:0],
        cut=nobody.cut[:0],
        states=nobody.states[:0],
    )
    assert gated(world.ranker, [deltas], world.training, empty, [arm], CONFIG)[0].gate.tolist() == [0, 0]


def test_the_gate_of_a_harmful_delta_is_shut(world: World) -> None:
    arm = Membership.certain(HALVES)
    (deltas,) = train_deltas(world.ranker, world.training, [arm], CONFIG, seed=0)
    # Each half gets the bias against its own half of the catalogue.
    half = np.array([int(item[1:]) >= 20 for item in world.ranker.candidate_ids])
    harm = replace(deltas, bias=torch.from_numpy(np.stack([half, ~half]) * 3.0).float())
    help_ = replace(deltas, bias=-harm.bias)
    bad, good = gated(world.ranker, [harm, help_], world.training, world.validation, [arm, arm], CONFIG)
    assert bad.gate.tolist() == [0, 0]
    assert min(good.gate.tolist()) > 0


def test_the_held_out_week_teaches_the_gate_alone(world: World) -> None:
    arm = [Membership.certain(HALVES)]
    one, other = (
        fit_segment_rankers(world.ranker, world.training, held_out, arm, CONFIG, seed=0)[0]
        for held_out in (world.validation, world.test)
    )
    _same(replace(one, gate=other.gate), other)


def test_bytes_round_trip_and_stacks(world: World, trained: Deltas) -> None:
    parts = [Deltas.from_bytes(trained.only(code).to_bytes()) for code in range(3)]
    assert Deltas.stacked(parts).to_bytes() == trained.to_bytes()


def test_membership_and_placebos() -> None:
    members = {f"u{n}": ("b" if n % 3 else "a", 0.5 + n / 100) for n in range(30)}
    found = Membership.of(["u3", "u4", "stranger", "u5"], ["b"], members)
    assert found.group.tolist() == [-1, 0, -1, 0]
    assert found.weights(torch.arange(4), 1)[:, 0].tolist() == pytest.approx([0, 0.54, 0, 0.55])
    dealt = placebo_groups(members, 1)
    assert sorted(dealt.values()) == sorted(members.values())
    assert set(dealt) == set(members)
    assert dealt != members
