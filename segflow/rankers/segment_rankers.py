"""Segment rankers: what each group of users adds to the frozen global ranker, trained for all groups in one pass.

An arm is a division of the users into groups: the segments, or a control (everybody, random groups). All arms see the same
examples in the same steps, so the global network runs once for all of them. A group's loss is the mean over its own users,
weighted by how surely they belong to it, and losses are summed over groups. Since AdamW treats every number by itself
(Loshchilov & Hutter 2019), a group trained with others is the group trained alone.

The item biases of a group are counted (``take_up``) and shrunk toward everybody's, as these are toward none, so a group with
little to tell is like everybody.

A gate says how much of a delta is used. It is chosen on the snapshot week, which no delta learns from, toward the global
ranker: the smallest that is within one standard error of the best (Breiman et al. 1984), none unless the best gain is
more than one standard error, and then shrunk by n / (n + gate_users) as a group mean is. The idea is that of GLSLIM
(Christakopoulou & Karypis 2016), where a user's own weight of the local model is learned.

All methods go this way: they differ in what a delta is, and in which parts of it are learned in the steps or counted before.

Lives here: the methods, training and gates. Does not live here: what a delta is, and who belongs to which segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segflow.config import RankerConfig
from segflow.config.rankers import SegmentMethod
from segflow.errors import UserError
from segflow.rankers.deltas import Deltas, GroupDeltas, Membership, taken
from segflow.rankers.examples import Examples
from segflow.rankers.global_ranker import Frozen, learning_rate_at
from segflow.rankers.local_ease import LocalEase, local_ease
from segflow.rankers.losses import RowLosses
from segflow.rankers.own_networks import OwnNetwork, SegmentInput
from segflow.rankers.take_up import TakeUp, take_up
from segflow.representation.checkpoints import DamagedError, unpack

GATES = (0.0, 0.25, 0.5, 0.75, 1.0)


class Method(NamedTuple):
    """What the deltas of a method are, and which parts of them are not left at nothing."""

    kind: type[GroupDeltas]
    parts: tuple[str, ...]


METHODS: Mapping[SegmentMethod, Method] = {
    "deltas": Method(Deltas, ("down", "up", "bias", "explore", "repeat")),
    "last_layer": Method(Deltas, ("bias", "explore", "repeat")),
    "bias": Method(Deltas, ("bias",)),
    "weights": Method(Deltas, ("explore", "repeat")),
    "full": Method(OwnNetwork, ("change",)),
    "feature": Method(SegmentInput, ("query", "explore", "repeat")),
    "ease": Method(LocalEase, ("more",)),
}
_KINDS = {method.kind.kind: method.kind for method in METHODS.values()}
_MEND = "materialize segment_rankers of all segments, and control_rankers, again"
_BLOCK = 512


class Freezes(Protocol):
    """A global ranker, or what stands for one."""

    @property
    def item_vectors(self) -> Tensor:
        """(C, W) the vectors that the state query points at."""
        ...

    def frozen(self, examples: Examples, rows: npt.NDArray[np.int64]) -> Frozen:
        """What is known of the examples ``rows``."""
        ...


def fit_segment_rankers(
    ranker: Freezes,
    training: Examples,
    validation: Examples,
    arms: Sequence[Membership],
    config: RankerConfig,
    seed: int,
) -> list[GroupDeltas]:
    """The deltas of each arm's groups: learned on ``training``, gated by what they gain on ``validation``."""
    trained = train_deltas(ranker, training, arms, config, seed)
    return gated(ranker, trained, training, validation, arms, config)


def train_deltas(
    ranker: Freezes,
    training: Examples,
    arms: Sequence[Membership],
    config: RankerConfig,
    seed: int,
    free: Sequence[str] | None = None,
) -> list[GroupDeltas]:
    """The deltas of each arm's groups, with gates of one. A group without an example keeps a delta that adds nothing.

    free: the parts of a delta that are learned, those of ``rankers.segment_method`` by default; the others add nothing.
    """
    kind, parts = METHODS[config.segment_method]
    parts = parts if free is None else tuple(free)
    start = kind.nothing(ranker.frozen(training, np.arange(1)), training, config, seed)
    deltas = [[start.copy() for _ in range(arm.groups)] for arm in arms]
    groups = [
        (one, torch.where(arm.group == code, arm.share, 0.0))
        for arm, of_arm in zip(arms, deltas, strict=True)
        for code, one in enumerate(of_arm)
    ]
    for name in parts:
        if name in _COUNTED:
            found = _COUNTED[name](ranker, training, [share for _, share in groups], config)
            for (one, _), values in zip(groups, found, strict=True):
                getattr(one, name).copy_(values)
    weights = [getattr(one, name).requires_grad_() for one, _ in groups for name in parts if name not in _COUNTED]
    if weights:
        _descend(ranker, training, groups, weights, config, seed)
    return [kind.stacked(of_arm) for of_arm in deltas]


def _descend(
    ranker: Freezes,
    training: Examples,
    groups: Sequence[tuple[GroupDeltas, Tensor]],
    weights: list[Tensor],
    config: RankerConfig,
    seed: int,
) -> None:
    """Learn the ``weights`` of all ``groups``, with (U,) how surely each user belongs to them, in the same steps."""
    optimizer = torch.optim.AdamW(weights, lr=config.delta_learning_rate, weight_decay=config.delta_weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_at(step, config.delta_steps))
    for rows in _slots(len(training), config, seed):
        frozen = ranker.frozen(training, rows)
        losses = RowLosses.at(training, rows)
        optimizer.zero_grad()
        for one, share in groups:
            # Sums over the group's own rows alone: to the last bit, they do not depend on which groups are trained.
            own = torch.nonzero(share[frozen.users] > 0)[:, 0]
            if len(own):
                _mean_loss(ranker, one, taken(frozen, own), losses.take(own), share, config.new_item_weight).backward()
        optimizer.step()
        schedule.step()
    for weight in weights:
        weight.requires_grad_(False)


def _item_biases(ranker: Freezes, training: Examples, shares: Sequence[Tensor], config: RankerConfig) -> Tensor:
    """(G, C) of the groups with (U,) ``shares`` of each user, shrunk to the ratio of everybody."""
    everybody = torch.ones_like(shares[0])
    found = take_up(training, lambda rows: ranker.frozen(training, rows).scores, [everybody, *shares])
    everybodys, groups = (TakeUp(found.seen[part], found.expected[part]) for part in (slice(1), slice(1, None)))
    return groups.bias(config.bias_prior, everybodys.bias(config.bias_prior).exp())


def _local_ease(
    ranker: Freezes, training: Examples, shares: Sequence[Tensor], config: RankerConfig
) -> Iterator[Tensor]:
    return local_ease(training, shares, config)


_COUNTED: Mapping[str, Callable[[Freezes, Examples, Sequence[Tensor], RankerConfig], Iterable[Tensor]]] = {
    "bias": _item_biases,
    "more": _local_ease,
}
"""Parts that are counted before the steps: of the (U,) shares of each group."""


def read_deltas(stored: Iterable[bytes]) -> GroupDeltas:
    """The stack of stored stacks, one behind the other. Raises UserError if one is damaged or they are of two kinds."""
    try:
        found = [unpack(data) for data in stored]
    except DamagedError as error:
        raise UserError(f"segment rankers: a stored model {error}; {_MEND}") from error
    kinds = {values["kind"] for _, values in found}
    if len(kinds) > 1:
        raise UserError(f"segment rankers: stored by different methods ({', '.join(sorted(kinds))}); {_MEND}")
    (kind,) = (_KINDS[name] for name in kinds)
    return kind.stacked(kind(**tensors) for tensors, _ in found)


def _mean_loss(
    ranker: Freezes, delta: GroupDeltas, frozen: Frozen, losses: RowLosses, share: Tensor, new_weight: float
) -> Tensor:
    """The mean over a group's users, weighted by how surely they belong; the delta is learned at full strength."""
    scores = frozen.scores + delta.added(frozen, ranker.item_vectors, torch.ones(len(frozen.users), 1))
    weights = share[frozen.users] @ losses.asked
    means = (share[frozen.users] @ losses(scores)) / weights.clamp(min=1e-9)
    return means @ means.new_tensor([1.0, new_weight])


def gated(
    ranker: Freezes,
    deltas: Sequence[GroupDeltas],
    training: Examples,
    validation: Examples,
    arms: Sequence[Membership],
    config: RankerConfig,
) -> list[GroupDeltas]:
    """The same deltas with the gates that ``validation`` chooses, shrunk by the number of users in ``training``."""
    losses: list[list[Tensor]] = [[] for _ in arms]
    for start in range(0, len(validation), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(validation)))
        frozen, judge = ranker.frozen(validation, rows), RowLosses.at(validation, rows)
        for found, one, arm in zip(losses, deltas, arms, strict=True):
            added = one.added(frozen, ranker.item_vectors, arm.weights(frozen.users, len(one)))
            of_gate = torch.stack([judge(frozen.scores + gate * added) for gate in GATES])
            found.append(of_gate @ of_gate.new_tensor([1.0, config.new_item_weight]))
    taught, asked = torch.from_numpy(np.unique(training.users)), torch.from_numpy(validation.users)
    gates = []
    for found, one, arm in zip(losses, deltas, arms, strict=True):
        gains = -torch.cat([torch.zeros(len(GATES), 0), *found], dim=1)
        users = [int((arm.group[taught] == code).sum()) for code in range(len(one))]
        chosen = [choose_gate(gains[:, arm.group[asked] == code].T) for code in range(len(one))]
        gates.append([gate * n / (n + config.gate_users) if n else 0.0 for gate, n in zip(chosen, users, strict=True)])
    return [replace(one, gate=torch.tensor(gate)) for one, gate in zip(deltas, gates, strict=True)]


def choose_gate(values: Tensor) -> float:
    """The smallest gate whose mean of (users, gates) ``values`` is within one paired standard error of the best."""
    if len(values) < 2:
        return 0.0
    means = values.mean(0)
    best = int(means.argmax())
    errors = (values - values[:, best : best + 1]).std(0) / len(values) ** 0.5
    return GATES[int((means >= means[best] - errors).nonzero()[0])]


def _slots(examples: int, config: RankerConfig, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """The examples of each step, the same for all arms: all of them once before any of them twice."""
    rng = np.random.default_rng(seed)
    steps = np.array_split(np.arange(config.delta_steps), config.delta_passes)
    for part in steps:
        for rows in np.array_split(rng.permutation(examples), len(part)):
            if len(rows):
                yield np.sort(rows)
