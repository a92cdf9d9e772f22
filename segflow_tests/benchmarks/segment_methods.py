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
from segflow.config.rankers import SegmentMethod
from segflow.evaluation.metrics import ranking_metrics
from segflow.rankers.deltas import GroupDeltas, Membership
from segflow.rankers.examples import Examples
from segflow.rankers.features import Pairs
from segflow.rankers.global_ranker import Frozen, GlobalRanker
from segflow.rankers.local_ease import had_before, local_ease
from segflow.rankers.scorers.cooccurrence import solve_ease
from segflow.rankers.segment_rankers import fit_segment_rankers, gated, train_deltas

PLACEBOS = 5
SEED = 0
_BLOCK = 256

Added = npt.NDArray[np.float32]
_PARTS = ("training", "validation", "test")


class Kept:
    """The frozen parts of all examples of a week in float16: the global network runs once, whatever is tried on them."""

    def __init__(self, ranker: GlobalRanker, parts: Sequence[Examples]) -> None:
        self.item_vectors = ranker.item_vectors
        self._network = ranker.network
        self._parts = {id(part): _halved(ranker, part) for part in parts}

    def frozen(self, examples: Examples, rows: npt.NDArray[np.int64], scores: Tensor | None = None) -> Frozen:
        """As ``GlobalRanker.frozen``."""
        whole, pairs = self._parts[id(examples)]
        pair, pair_row = pairs.take(rows)
        return Frozen(
            users=torch.from_numpy(examples.users[rows]),
            scores=whole["scores"][rows].float(),
            states=whole["states"][rows],
            explore=whole["explore"][:, rows].float(),
            hidden=whole["hidden"][pair].float(),
            pair_row=torch.from_numpy(pair_row),
            pair_item=torch.from_numpy(pairs.items[pair]),
            network=self._network,
            batch=lambda own: examples.batch(rows[own.numpy()]),
        )


def _halved(ranker: GlobalRanker, examples: Examples) -> tuple[dict[str, Tensor], Pairs]:
    found: dict[str, list[Tensor]] = {"scores": [], "states": [], "explore": [], "hidden": []}
    for rows in blocks(len(examples)):
        frozen = ranker.frozen(examples, rows)
        for name, kept in found.items():
            part = getattr(frozen, name)
            kept.append(part if name == "states" else part.half())
    return {name: torch.cat(kept, dim=1 if name == "explore" else 0) for name, kept in found.items()}, examples.had


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


def of_product(method: SegmentMethod, soft: bool, case: Case, arms: Sequence[Arm]) -> list[Added]:
    """``rankers.segment_method``; ``soft``: mixed by all probabilities, else by that of the own group."""
    config = case.config.model_copy(update={"segment_method": method})
    members = [arm.membership for arm in arms]
    found = fit_segment_rankers(case.ranker, case.training, case.validation, members, config, SEED)
    return [_of_deltas(case, one, arm, soft) for one, arm in zip(found, arms, strict=True)]


def _of_deltas(case: Case, found: GroupDeltas, arm: Arm, soft: bool) -> Added:
    parts = []
    for rows in blocks(len(case.test)):
        frozen = case.ranker.frozen(case.test, rows)
        weights = arm.membership.weights(frozen.users, len(found))
        weights = torch.from_numpy(arm.probability)[frozen.users] if soft else weights
        parts.append(found.added(frozen, case.ranker.item_vectors, weights).numpy())
    return np.concatenate(parts)


class _Shifted:
    """A ranker whose frozen scores hold what everybody's delta adds."""

    def __init__(self, ranker: Kept, everybody: GroupDeltas) -> None:
        self._ranker, self._everybody, self.item_vectors = ranker, everybody, ranker.item_vectors

    def frozen(self, examples: Examples, rows: npt.NDArray[np.int64], scores: Tensor | None = None) -> Frozen:
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
    return [base + own for own in of_product("deltas", False, above, arms)]


def moved_ease(rounds: int, case: Case, arms: Sequence[Arm]) -> list[Added]:
    """`ease` of users who go to the group whose weights explain best what they had, and of that again (GLSLIM)."""
    had = had_before(case.training).toarray()
    common = had @ solve_ease(had.T @ had, case.config.cooccurrence_regularization)
    found = []
    for arm in arms:
        start, groups = arm.membership.group.numpy(), arm.probability.shape[1]
        group, movable = start.copy(), np.flatnonzero(had.any(1) & (start[: len(had)] >= 0))
        for _ in range(rounds if groups > 1 else 0):
            shares = [torch.from_numpy((group == code).astype(np.float32)) for code in range(groups)]
            local = local_ease(case.training, shares, case.config)
            misses = np.stack([((had - common - had @ more.numpy()) ** 2).sum(1) for more in local])
            group[movable] = misses[:, movable].argmin(0)
        moved = Arm((group[:, None] == np.arange(groups)).astype(np.float32))
        found.extend(of_product("ease", False, case, [moved]))
    return found


METHODS: Mapping[str, Method] = {
    "low-rank deltas, mixed by membership": partial(of_product, "deltas", True),
    "low-rank deltas over everybody's": hierarchical,
    "mixing weights": partial(of_product, "weights", False),
    "last layer": partial(of_product, "last_layer", False),
    "item biases": partial(of_product, "bias", True),
    "all weights": partial(of_product, "full", False),
    "segment as a feature": partial(of_product, "feature", False),
    "local EASE": partial(of_product, "ease", False),
    "local EASE, re-assigned": partial(moved_ease, 2),
}
