"""Ways to make a ranker of each segment, each on the same frozen scores, and what each gains over its own controls.

A method gets several divisions of the users at once (the segments, everybody as one group, random groups of the segments'
sizes) and says what it would add to the scores of the test users in each. All that a method learns comes from the weeks
before the snapshot; the snapshot week chooses gates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segflow.config import RankerConfig
from segflow.evaluation.metrics import ranking_metrics
from segflow.rankers.deltas import Deltas, Membership
from segflow.rankers.examples import Examples
from segflow.rankers.features import Pairs
from segflow.rankers.global_ranker import Frozen, GlobalRanker, learning_rate_at
from segflow.rankers.losses import RowLosses
from segflow.rankers.segment_rankers import GATES, choose_gate, gated, train_deltas

PLACEBOS = 5
SEED = 0
_BLOCK = 256

Added = npt.NDArray[np.float32]
_PARTS = ("training", "validation", "test")


class Kept:
    """The frozen parts of all examples of a week in float16: the global network runs once, whatever is tried on them."""

    def __init__(self, ranker: GlobalRanker, parts: Sequence[Examples]) -> None:
        self.item_vectors = ranker.item_vectors
        self._parts = {id(part): _halved(ranker, part) for part in parts}

    def frozen(self, examples: Examples, rows: npt.NDArray[np.int64]) -> Frozen:
        """As ``GlobalRanker.frozen``."""
        whole, pairs = self._parts[id(examples)]
        pair, pair_row = pairs.take(rows)
        return Frozen(
            users=torch.from_numpy(examples.users[rows]),
            scores=whole["scores"][rows].float(),
            states=whole["states"][rows],
            explore=whole["explore"][rows].float(),
            hidden=whole["hidden"][pair].float(),
            pair_row=torch.from_numpy(pair_row),
            pair_item=torch.from_numpy(pairs.items[pair]),
        )


def _halved(ranker: GlobalRanker, examples: Examples) -> tuple[dict[str, Tensor], Pairs]:
    found: dict[str, list[Tensor]] = {"scores": [], "states": [], "explore": [], "hidden": []}
    for rows in blocks(len(examples)):
        frozen = ranker.frozen(examples, rows)
        for name, kept in found.items():
            part = getattr(frozen, name)
            kept.append(part if name == "states" else part.half())
    return {name: torch.cat(kept) for name, kept in found.items()}, examples.had


def blocks(size: int) -> list[npt.NDArray[np.int64]]:
    """Row numbers, some hundred at a time."""
    return np.array_split(np.arange(size), -(-size // _BLOCK))


@dataclass(frozen=True)
class Case:
    """A week that methods are tried on, and its test users."""

    ranker: Kept
    training: Examples
    validation: Examples
    test: Examples
    had: Pairs  # of all users, before the snapshot
    config: RankerConfig

    def ndcg(self, added: Added | None) -> npt.NDArray[np.float64]:
        """(test users, 2) NDCG@10 over all and over new items, with ``added`` on the global scores."""
        found = []
        for rows in blocks(len(self.test)):
            scores = self.ranker.frozen(self.test, rows).scores.numpy()
            scores = scores if added is None else scores + added[rows]
            wanted = self.test.wanted.dense(rows, self.test.candidates)
            had = self.test.had.dense(rows, self.test.candidates)
            both = (ranking_metrics(scores, wanted, exclude, cutoffs=(10,))["ndcg_10"] for exclude in (None, had))
            found.append(np.stack(list(both), axis=1))
        return np.concatenate(found)


@dataclass(frozen=True)
class Arm:
    """A division of the users: (U, G) probability of each group; rows of users of no group are zero."""

    probability: npt.NDArray[np.float32]

    @property
    def membership(self) -> Membership:
        """The likeliest group and its probability."""
        likely = self.probability.argmax(1)
        share = self.probability.max(1)
        return Membership(torch.from_numpy(np.where(share > 0, likely, -1)), torch.from_numpy(share))

    def dealt(self, seed: int) -> Arm:
        """The same rows dealt to other users: a placebo."""
        return Arm(self.probability[np.random.default_rng(seed).permutation(len(self.probability))])


def arms_of(segments: Arm) -> dict[str, Arm]:
    """The segments and their controls."""
    everybody = Arm((segments.probability.sum(1, keepdims=True) > 0).astype(np.float32))
    placebos = {f"placebo {number}": segments.dealt(number) for number in range(1, PLACEBOS + 1)}
    return {"segments": segments, "everybody": everybody, **placebos}


Method = Callable[[Case, Sequence[Arm]], list[Added]]


def deltas(free: Sequence[str] | None, soft: bool, case: Case, arms: Sequence[Arm]) -> list[Added]:
    """Gated deltas with only the parts ``free``; ``soft``: mixed by all probabilities, else by that of the own group."""
    members = [arm.membership for arm in arms]
    trained = train_deltas(case.ranker, case.training, members, case.config, SEED, free)
    found = gated(case.ranker, trained, case.training, case.validation, members, case.config)
    return [_of_deltas(case, one, arm, soft) for one, arm in zip(found, arms, strict=True)]


def _of_deltas(case: Case, found: Deltas, arm: Arm, soft: bool) -> Added:
    parts = []
    for rows in blocks(len(case.test)):
        frozen = case.ranker.frozen(case.test, rows)
        weights = arm.membership.weights(frozen.users, len(found))
        weights = torch.from_numpy(arm.probability)[frozen.users] if soft else weights
        parts.append(found.added(frozen, case.ranker.item_vectors, weights).numpy())
    return np.concatenate(parts)


class _Shifted:
    """A ranker whose frozen scores hold what everybody's delta adds."""

    def __init__(self, ranker: Kept, everybody: Deltas) -> None:
        self._ranker, self._everybody, self.item_vectors = ranker, everybody, ranker.item_vectors

    def frozen(self, examples: Examples, rows: npt.NDArray[np.int64]) -> Frozen:
        """As ``GlobalRanker.frozen``."""
        frozen = self._ranker.frozen(examples, rows)
        added = self._everybody.added(frozen, self.item_vectors, torch.ones(len(rows), 1))
        return frozen._replace(scores=frozen.scores + added)


def hierarchical(case: Case, arms: Sequence[Arm]) -> list[Added]:
    """Everybody's delta first, and the groups' deltas on top of it: both start at nothing, so a group shrinks to everybody."""
    everybody = Membership.certain(np.zeros(len(arms[0].probability), np.int64))
    (shared,) = train_deltas(case.ranker, case.training, [everybody], case.config, SEED)
    (shared,) = gated(case.ranker, [shared], case.training, case.validation, [everybody], case.config)
    above = replace(case, ranker=_Shifted(case.ranker, shared))
    base = _of_deltas(case, shared, Arm(np.ones((len(everybody.group), 1), np.float32)), soft=False)
    return [base + own for own in deltas(None, False, above, arms)]


def local_ease(regularization: float, rounds: int, case: Case, arms: Sequence[Arm]) -> list[Added]:
    """EASE of each group's users in place of everybody's; users go to the group that explains them best, and again.

    Source: GLSLIM (Christakopoulou & Karypis 2016), with EASE (Steck 2019) for SLIM. How much of the difference to
    everybody's EASE is added is chosen on the snapshot week, like a gate.
    """
    users = len(arms[0].probability)
    had = case.had.dense(np.arange(users), case.training.candidates, np.float32(1))
    common = _ease(had, regularization)
    found = []
    for arm in arms:
        group = arm.membership.group.numpy().copy()
        groups = arm.probability.shape[1]
        for number in range(rounds + 1):
            local = [_ease(had[group == code], regularization) for code in range(groups)]
            if number < rounds and groups > 1:
                misses = np.stack([((had - had @ weights) ** 2).sum(1) for weights in local])
                group = np.where(group >= 0, misses.argmin(0), -1)
        found.append(_gated_ease(case, common, local, group))
    return found


def _ease(had: npt.NDArray[np.float32], regularization: float) -> npt.NDArray[np.float32]:
    gram = had.T @ had
    gram[np.diag_indices(len(gram))] += np.float32(regularization)
    precision = np.linalg.inv(gram)
    weights = (-precision / np.diag(precision)).astype(np.float32)
    np.fill_diagonal(weights, 0)
    return weights


def _gated_ease(
    case: Case,
    common: npt.NDArray[np.float32],
    local: Sequence[npt.NDArray[np.float32]],
    group: npt.NDArray[np.int64],
) -> Added:
    def difference(part: Examples) -> Tensor:
        had = part.had.dense(np.arange(len(part)), part.candidates, np.float32(1))
        out = np.zeros_like(had)
        for code, weights in enumerate(local):
            own = group[part.users] == code
            out[own] = had[own] @ (weights - common)
        return torch.from_numpy(3 * np.where(had > 0, 0, out).astype(np.float32))

    added, losses = difference(case.validation), []
    for rows in blocks(len(case.validation)):
        frozen = case.ranker.frozen(case.validation, rows)
        judge = RowLosses.of(case.validation.batch(rows), case.validation.candidates)
        of_gate = torch.stack([judge(frozen.scores + gate * added[rows]) for gate in GATES])
        losses.append(of_gate @ of_gate.new_tensor([1.0, case.config.new_item_weight]))
    return choose_gate(-torch.cat(losses, dim=1).T) * difference(case.test).numpy()


def segment_feature(rank: int, case: Case, arms: Sequence[Arm]) -> list[Added]:
    """One model for everybody that is told the segment: a vector of each segment points at items by weights that all share."""
    found = []
    for arm in arms:
        number, width = arm.probability.shape[1], case.ranker.item_vectors.shape[1]
        generator = torch.Generator().manual_seed(SEED)
        of_segment = (torch.randn(number, rank, generator=generator) / rank**0.5).requires_grad_()
        shared = torch.zeros(rank, width, requires_grad=True)
        bias = torch.zeros(case.training.candidates, requires_grad=True)
        chance = torch.from_numpy(arm.probability)
        config = case.config
        optimizer = torch.optim.AdamW(
            [of_segment, shared, bias], lr=config.delta_learning_rate, weight_decay=config.delta_weight_decay
        )
        rng = np.random.default_rng(SEED)
        order = np.concatenate([rng.permutation(len(case.training)) for _ in range(config.delta_passes)])
        for step, rows in enumerate(np.array_split(order, config.delta_steps)):
            frozen = case.ranker.frozen(case.training, rows)
            judge = RowLosses.of(case.training.batch(rows), case.training.candidates)
            added = chance[frozen.users] @ of_segment @ shared @ case.ranker.item_vectors.T + bias
            means = judge(frozen.scores + added).sum(0) / judge.asked.sum(0).clamp(min=1)
            optimizer.zero_grad()
            (means @ means.new_tensor([1.0, config.new_item_weight])).backward()
            for group in optimizer.param_groups:
                group["lr"] = config.delta_learning_rate * learning_rate_at(step, config.delta_steps)
            optimizer.step()
        with torch.no_grad():
            added = chance[case.test.users] @ of_segment @ shared @ case.ranker.item_vectors.T + bias
        found.append(added.numpy())
    return found


METHODS: Mapping[str, Method] = {
    "low-rank deltas, mixed by membership": partial(deltas, None, True),
    "low-rank deltas over everybody's": hierarchical,
    "mixing weights": partial(deltas, ("explore", "repeat"), False),
    "last layer": partial(deltas, ("bias", "explore", "repeat"), False),
    "item biases": partial(deltas, ("bias",), True),
    "local EASE, re-assigned": partial(local_ease, 300.0, 2),
    "segment as a feature": partial(segment_feature, 4),
}
