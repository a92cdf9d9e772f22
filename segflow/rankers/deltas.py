"""Deltas: what groups of users add to the frozen scores of the global ranker.

A delta is a low-rank change of the query that a user's state makes (LoRA, Hu et al. 2022), a bias for each item that is new to
the user, other weights of the explore inputs, and other weights of the repeat head's hidden layer. It is added to scores
that are computed once, so that no group runs the global network again. The deltas of G groups are stacked along the first
dimension; a single group is a stack of one.

Lives here: who belongs to which group, what a delta adds, and its bytes. Does not live here: training and gates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn import functional

from segflow.rankers.global_ranker import Frozen
from segflow.rankers.losses import entries_of


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


def taken(frozen: Frozen, rows: Tensor) -> Frozen:
    """What the global ranker found of the users in ``rows`` of ``frozen`` alone."""
    pairs, pair_row = entries_of(rows, frozen.pair_row, len(frozen.users))
    return Frozen(
        users=frozen.users[rows],
        scores=frozen.scores[rows],
        states=frozen.states[rows],
        explore=frozen.explore[rows],
        hidden=frozen.hidden[pairs],
        pair_row=pair_row,
        pair_item=frozen.pair_item[pairs],
    )


@dataclass(frozen=True)
class Deltas:
    """Deltas of G groups: S numbers in a state, W in an item vector, E explore inputs, H hidden units, C candidates."""

    down: Tensor  # (G, S, rank)
    up: Tensor  # (G, rank, W)
    bias: Tensor  # (G, C) for users who never had the item
    explore: Tensor  # (G, E)
    repeat: Tensor  # (G, H)
    gate: Tensor  # (G,) 0: the global ranker as it is; 1: the full delta

    def __len__(self) -> int:
        return len(self.gate)

    def added(self, frozen: Frozen, item_vectors: Tensor, weights: Tensor) -> Tensor:
        """(B, C) the sum of what each group adds, times the (B, G) ``weights`` of the groups and their gates.

        Args:
            item_vectors: (C, W) of the global ranker.
        """
        weights = weights * self.gate
        low = torch.einsum("bs,gsr,bg->bgr", frozen.states, self.down, weights).flatten(1)
        added = low @ (self.up @ item_vectors.T).flatten(0, 1) + weights @ self.bias
        added = added + (frozen.explore @ (weights @ self.explore)[:, :, None])[:, :, 0]
        again = ((frozen.hidden @ self.repeat.T) * weights[frozen.pair_row]).sum(1)
        again = again - (weights[frozen.pair_row] * self.bias.T[frozen.pair_item]).sum(1)
        pair = frozen.pair_row * added.shape[1] + frozen.pair_item
        return added.flatten().index_add(0, pair, again).view_as(added)

    def copy(self) -> Deltas:
        """The same numbers in tensors of their own."""
        return Deltas(*(getattr(self, field.name).clone() for field in fields(self)))

    def only(self, group: int) -> Deltas:
        """The stack of one group."""
        return Deltas(*(getattr(self, field.name)[group : group + 1] for field in fields(self)))

    @classmethod
    def stacked(cls, parts: Iterable[Deltas]) -> Deltas:
        """Several stacks one behind the other."""
        parts = list(parts)
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def to_bytes(self) -> bytes:
        """Safetensors of the stack."""
        return save_tensors({field.name: getattr(self, field.name).contiguous() for field in fields(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Deltas:
        """The inverse of ``to_bytes``."""
        return cls(**load_tensors(data))


@dataclass(frozen=True)
class Grouped:
    """Deltas and who gets which: what ``GlobalRanker.score`` adds for each user."""

    deltas: Deltas
    membership: Membership

    def added(self, frozen: Frozen, item_vectors: Tensor) -> Tensor:
        """(B, C) what the groups of these users add; zero for users of no group."""
        weights = self.membership.weights(frozen.users, len(self.deltas))
        return self.deltas.added(frozen, item_vectors, weights)
