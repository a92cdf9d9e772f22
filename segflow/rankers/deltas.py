"""Deltas: what groups of users add to the frozen scores of the global ranker.

Whatever they are made of, the deltas of G groups are tensors stacked along the first dimension; a single group is a stack of
one. Those of the default method are a low-rank change of the query that a user's state makes (LoRA, Hu et al. 2022), a bias for
each item that is new to the user, other weights of the explore inputs, and other weights of the repeat head's hidden layer. They
are added to scores that are computed once, so that no group runs the global network again.

Lives here: who belongs to which group, what all deltas can do, and the default ones. Does not live here: deltas for which
the network is run again (``own_networks``, ``local_ease``), training and gates (``segment_rankers``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from segflow.config import RankerConfig
from segflow.rankers.examples import Examples, Space, entries_of
from segflow.rankers.global_ranker import Frozen
from segflow.rankers.losses import RowLosses
from segflow.representation.checkpoints import pack, unpack


@dataclass(frozen=True)
class Membership:
    """Which group each user of the sequences belongs to, and how surely.

    Attributes:
        group: (U,) int64 number of the group, -1 for none.
        share: (U,) float32 membership probability; that of users of no group means nothing.
    """

    group: Tensor
    share: Tensor

    @property
    def groups(self) -> int:
        """Number of groups: one more than the highest number."""
        return int(self.group.max()) + 1

    @classmethod
    def of(cls, user_ids: Iterable[str], names: Sequence[str], members: Mapping[str, tuple[str, float]]) -> Membership:
        """From user -> group and probability; the users of groups other than ``names`` are in none."""
        number = {name: code for code, name in enumerate(names)}
        found = [members.get(str(user), ("", 0.0)) for user in user_ids]
        group = torch.tensor([number.get(name, -1) for name, _ in found], dtype=torch.int64)
        share = torch.tensor([probability for _, probability in found], dtype=torch.float32)
        return cls(group, share)

    @classmethod
    def certain(cls, group: npt.ArrayLike) -> Membership:
        """Everybody wholly in the group of that number, -1 for none."""
        numbers = torch.as_tensor(np.asarray(group), dtype=torch.int64)
        return cls(numbers, (numbers >= 0).float())

    def weights(self, users: Tensor, groups: int) -> Tensor:
        """(B, G) the share that each of ``users`` (indices) has in each of ``groups`` groups."""
        group = self.group[users]
        share = torch.where(group >= 0, self.share[users], 0.0)
        return functional.one_hot(group.clamp(min=0), groups) * share[:, None]


def taken(frozen: Frozen, rows: Tensor, starts: Tensor, space: Space) -> Frozen:
    """What the global ranker found of the users in ``rows`` of ``frozen`` alone, in ``space``.

    Args:
        starts: (B + 1,) where the pairs of each user of ``frozen`` start.
    """
    pairs, pair_row = entries_of(rows, starts)
    return Frozen(
        users=frozen.users[rows],
        scores=space.rows("scores", frozen.scores, rows),
        states=frozen.states[rows],
        explore=space.rows("explore", frozen.explore, rows, dim=1),
        hidden=space.rows("hidden", frozen.hidden, pairs),
        pair_row=pair_row,
        pair_item=frozen.pair_item[pairs],
        network=frozen.network,
        batch=lambda own: frozen.batch(rows[own]),
    )


@dataclass(frozen=True)
class GroupDeltas(ABC):
    """What each of G groups adds, by any method: every field is a tensor of G rows."""

    kind: ClassVar[str]
    """Name of the class in stored bytes."""

    gate: Tensor  # (G,) 0: the global ranker as it is; 1: the full delta

    def __len__(self) -> int:
        return len(self.gate)

    @classmethod
    @abstractmethod
    def nothing(cls, example: Frozen, training: Examples, config: RankerConfig, seed: int) -> Self:
        """The stack of one group that adds nothing yet; every group starts from it."""

    @abstractmethod
    def added(self, frozen: Frozen, item_vectors: Tensor, weights: Tensor) -> Tensor:
        """(B, C) the sum of what each group adds, times the (B, G) ``weights`` of the groups and their gates.

        Args:
            item_vectors: (C, W) of the global ranker.
        """

    def descend(self, frozen: Frozen, losses: RowLosses, item_vectors: Tensor, weights: Tensor) -> None:
        """Of a stack of one group: add to the gradients of the parts that require them those of the weighted losses.

        Args:
            weights: (B, 2) of each user's losses, of all items and of new ones.
        """
        scores = frozen.scores + self.added(frozen, item_vectors, torch.ones(len(frozen.users), 1))
        (losses(scores) * weights).sum().backward()

    def copy(self) -> Self:
        """The same numbers in tensors of their own."""
        return type(self)(**{name: one.clone() for name, one in self._tensors().items()})

    def only(self, group: int) -> Self:
        """The stack of one group."""
        return type(self)(**{name: one[group : group + 1] for name, one in self._tensors().items()})

    @classmethod
    def stacked(cls, parts: Iterable[Self]) -> Self:
        """Several stacks one behind the other."""
        parts = list(parts)
        return cls(**{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)})

    def to_bytes(self) -> bytes:
        """Safetensors of the stack, which say of what kind it is."""
        return pack(self._tensors(), {"kind": self.kind})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of ``to_bytes``. Raises DamagedError for bytes that are cut, changed, or hold NaN."""
        return cls(**unpack(data)[0])

    def _tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Deltas(GroupDeltas):
    """Deltas of G groups: S numbers in a state, W in an item vector, E explore inputs, H hidden units, C candidates."""

    kind: ClassVar[str] = "deltas"

    down: Tensor  # (G, S, rank)
    up: Tensor  # (G, rank, W)
    bias: Tensor  # (G, C) for users who never had the item
    explore: Tensor  # (G, E)
    repeat: Tensor  # (G, H)

    @classmethod
    def nothing(cls, example: Frozen, training: Examples, config: RankerConfig, seed: int) -> Self:
        """As of all deltas; the way down is drawn, so that the way up can learn from the first step on."""
        candidates, width = example.network.item_vectors.shape
        states = example.states.shape[1]
        generator = torch.Generator().manual_seed(seed)
        return cls(
            down=torch.randn(1, states, config.delta_rank, generator=generator) / states**0.5,
            up=torch.zeros(1, config.delta_rank, width),
            bias=torch.zeros(1, candidates),
            explore=torch.zeros(1, len(example.explore)),
            repeat=torch.zeros(1, example.hidden.shape[1]),
            gate=torch.ones(1),
        )

    def added(self, frozen: Frozen, item_vectors: Tensor, weights: Tensor) -> Tensor:
        """As of all deltas."""
        weights = weights * self.gate
        low = torch.einsum("bs,gsr,bg->bgr", frozen.states, self.down, weights).flatten(1)
        added = low @ (self.up @ item_vectors.T).flatten(0, 1) + weights @ self.bias
        for own, values in zip((weights @ self.explore).unbind(1), frozen.explore, strict=True):
            added = torch.addcmul(added, own[:, None], values)
        again = ((frozen.hidden @ self.repeat.T) * weights[frozen.pair_row]).sum(1)
        again = again - (weights[frozen.pair_row] * self.bias.T[frozen.pair_item]).sum(1)
        pair = frozen.pair_row * added.shape[1] + frozen.pair_item
        return added.flatten().index_add(0, pair, again).view_as(added)

    @torch.no_grad()
    def descend(self, frozen: Frozen, losses: RowLosses, item_vectors: Tensor, weights: Tensor) -> None:
        """As of all deltas, in closed form: half the passes over the scores that automatic differentiation makes."""
        low, up = frozen.states @ self.down[0], self.up[0] @ item_vectors.T
        ones = torch.ones(len(low), 1)
        scores = torch.addmm(frozen.scores, torch.cat([low, ones], dim=1), torch.cat([up, self.bias]))
        for weight, values in zip(self.explore[0].tolist(), frozen.explore, strict=True):
            scores.add_(values, alpha=weight)
        pair = frozen.pair_row * scores.shape[1] + frozen.pair_item
        scores.view(-1).index_add_(0, pair, frozen.hidden @ self.repeat[0] - self.bias[0, frozen.pair_item])
        pull = losses.gradient_(scores, weights)
        found = {
            "down": lambda: frozen.states.T @ (pull @ up.T),
            "up": lambda: (low.T @ pull) @ item_vectors,
            "explore": lambda: frozen.explore.flatten(1) @ pull.view(-1),
            "repeat": lambda: pull.view(-1).index_select(0, pair) @ frozen.hidden,
        }
        for name, gradient in found.items():
            part = getattr(self, name)
            if part.requires_grad:
                part.grad = gradient()[None] if part.grad is None else part.grad.add_(gradient())


@dataclass(frozen=True)
class Grouped:
    """Deltas and who gets which: what ``GlobalRanker.score`` adds for each user."""

    deltas: GroupDeltas
    membership: Membership

    def added(self, frozen: Frozen, item_vectors: Tensor) -> Tensor:
        """(B, C) what the groups of these users add; zero for users of no group."""
        weights = self.membership.weights(frozen.users, len(self.deltas))
        return self.deltas.added(frozen, item_vectors, weights)
