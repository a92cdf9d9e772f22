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
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segflow.config import RankerConfig
from segflow.config.rankers import SegmentMethod
from segflow.errors import UserError
from segflow.rankers.deltas import Deltas, GroupDeltas, Membership, taken
from segflow.rankers.examples import Examples, Space, starts_of
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
_CACHED = 64  # rows of scores, and of what was found with them, that stay in the processor's cache


class Freezes(Protocol):
    """A global ranker, or what stands for one."""

    @property
    def item_vectors(self) -> Tensor:
        """(C, W) the vectors that the state query points at."""
        ...

    def frozen(self, examples: Examples, rows: npt.NDArray[np.int64], scores: Tensor | None = None) -> Frozen:
        """What is known of the examples ``rows``; ``scores`` (rows, C) if they were found before."""
        ...


def fit_segment_rankers(
    ranker: Freezes,
    training: Examples,
    validation: Examples,
    arms: Sequence[Membership],
    config: RankerConfig,
    seed: int,
    methods: Sequence[SegmentMethod] | None = None,
) -> list[GroupDeltas]:
    """The deltas of each arm's groups: learned on ``training``, gated by what they gain on ``validation``.

    methods: of each arm, `rankers.segment_method` by default.
    """
    trained = train_deltas(ranker, training, arms, config, seed, methods=methods)
    return gated(ranker, trained, training, validation, arms, config)


def train_deltas(
    ranker: Freezes,
    training: Examples,
    arms: Sequence[Membership],
    config: RankerConfig,
    seed: int,
    free: Sequence[str] | None = None,
    methods: Sequence[SegmentMethod] | None = None,
) -> list[GroupDeltas]:
    """The deltas of each arm's groups, with gates of one. A group without an example keeps a delta that adds nothing.

    free: the parts of a delta that are learned, those of the method by default; the others add nothing.
    methods: of each arm, `rankers.segment_method` by default.
    """
    methods = methods or [config.segment_method] * len(arms)
    scores = _Scores(ranker, training)
    example = ranker.frozen(training, np.arange(1))
    stacks: list[list[GroupDeltas]] = []
    of_part: dict[str, list[tuple[GroupDeltas, Tensor]]] = {}
    for arm, method in zip(arms, methods, strict=True):
        kind, parts = METHODS[method]
        start = kind.nothing(example, training, config, seed)
        stacks.append([start.copy() for _ in range(arm.groups)])
        for code, one in enumerate(stacks[-1]):
            for name in parts if free is None else free:
                of_part.setdefault(name, []).append((one, torch.where(arm.group == code, arm.share, 0.0)))
    for name in of_part.keys() & _COUNTED.keys():
        found = _COUNTED[name](scores, training, [share for _, share in of_part[name]], config)
        for (one, _), values in zip(of_part[name], found, strict=True):
            getattr(one, name).copy_(values)
    learned = {name: groups for name, groups in of_part.items() if name not in _COUNTED}
    weights = [getattr(one, name).requires_grad_() for name, groups in learned.items() for one, _ in groups]
    if weights:
        groups = {id(one): (one, share) for groups in learned.values() for one, share in groups}
        _descend(ranker, training, scores, list(groups.values()), weights, config, seed)
    return [type(of_arm[0]).stacked(of_arm) for of_arm in stacks]


def _descend(
    ranker: Freezes,
    training: Examples,
    scores: _Scores,
    groups: Sequence[tuple[GroupDeltas, Tensor]],
    weights: list[Tensor],
    config: RankerConfig,
    seed: int,
) -> None:
    """Learn the ``weights`` of all ``groups``, with (U,) how surely each user belongs to them, in the same steps."""
    optimizer = torch.optim.AdamW(weights, lr=config.delta_learning_rate, weight_decay=config.delta_weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_at(step, config.delta_steps))
    of_task, space = torch.tensor([1.0, config.new_item_weight]), Space()
    for rows in _slots(len(training), config, seed):
        frozen = ranker.frozen(training, rows, scores(rows))
        losses, starts = RowLosses.at(training, rows), starts_of(frozen.pair_row, len(rows))
        optimizer.zero_grad()
        for one, share in groups:
            # Sums over the group's own rows alone: to the last bit, they do not depend on which groups are trained.
            own = torch.nonzero(share[frozen.users] > 0)[:, 0]
            # The mean over a group's users, weighted by how surely they belong.
            shares = share[frozen.users[own]]
            counted = shares[:, None] * (of_task / (shares @ losses.asked[own]).clamp(min=1e-9))
            for part, weight in zip(own.split(_CACHED), counted.split(_CACHED), strict=True):
                if len(part):
                    some = taken(frozen, part, starts, space)
                    one.descend(some, losses.take(part, space), ranker.item_vectors, weight)
        optimizer.step()
        schedule.step()
    for weight in weights:
        weight.requires_grad_(False)


class _Scores:
    """The global scores of all examples, found when they are first asked for: each example is looked at several times."""

    def __init__(self, ranker: Freezes, examples: Examples) -> None:
        self._ranker, self._examples = ranker, examples

    def __call__(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """(rows, C)."""
        return self._all[rows]

    @cached_property
    def _all(self) -> Tensor:
        found = torch.empty(len(self._examples), self._examples.candidates)
        for start in range(0, len(found), _CACHED):
            rows = np.arange(start, min(start + _CACHED, len(found)))
            found[rows] = self._ranker.frozen(self._examples, rows).scores
        return found


def _item_biases(scores: _Scores, training: Examples, shares: Sequence[Tensor], config: RankerConfig) -> Tensor:
    """(G, C) of the groups with (U,) ``shares`` of each user, shrunk to the ratio of everybody."""
    everybody = torch.ones_like(shares[0])
    found = take_up(training, scores, [everybody, *shares])
    everybodys, groups = (TakeUp(found.seen[part], found.expected[part]) for part in (slice(1), slice(1, None)))
    return groups.bias(config.bias_prior, everybodys.bias(config.bias_prior).exp())


def _local_ease(
    scores: _Scores, training: Examples, shares: Sequence[Tensor], config: RankerConfig
) -> Iterator[Tensor]:
    return local_ease(training, shares, config)


_COUNTED: Mapping[str, Callable[[_Scores, Examples, Sequence[Tensor], RankerConfig], Iterable[Tensor]]] = {
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
