"""Deltas of the network's own weights: all of them (`full`), or those by which it would be told the segment (`feature`).

A group's weights are the global ranker's plus the group's, so weight decay draws them to the global ranker's and not to zero
(L2-SP, Li, Grandvalet & Davoine 2018), and the network is run once more for each user of a group, in training and scoring.

One model that is told the segment has an input more for each segment, which is one for its users and zero else (one-hot). Each
place where the network reads of the user gets them: beside the state, and in the first layer of both heads. With all other
weights frozen, the columns of a segment are moved by its own users alone, so segments can be trained one by one.

Lives here: what these deltas are. Does not live here: their training, which is that of all deltas (``segment_rankers``).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.func import functional_call

from segflow.config import RankerConfig
from segflow.rankers.deltas import GroupDeltas
from segflow.rankers.examples import Batch, Examples
from segflow.rankers.global_ranker import Frozen


def run_anew(frozen: Frozen, weights: Tensor, score: Callable[[int, Batch], Tensor]) -> Tensor:
    """(B, C) what ``score``, of a group's number and the batch of its users, says above the frozen scores, times ``weights``.

    Args:
        weights: (B, G); where a group weighs nothing it is not run.
    """
    added = torch.zeros_like(frozen.scores)
    for group in range(weights.shape[1]):
        own = torch.nonzero(weights[:, group])[:, 0]
        if len(own):
            more = score(group, frozen.batch(own)) - frozen.scores[own]
            added = added.index_add(0, own, more * weights[own, group, None])
    return added


@dataclass(frozen=True)
class _Changed(GroupDeltas):
    """Deltas that are added to weights of the network."""

    def added(self, frozen: Frozen, item_vectors: Tensor, weights: Tensor) -> Tensor:
        """As of all deltas; a gate scales what the changed network says, not the change."""

        # Detached: the global ranker learns nothing from a group.
        whole = {name: one.detach() for name, one in frozen.network.named_parameters()}

        def score(group: int, batch: Batch) -> Tensor:
            scores: Tensor = functional_call(frozen.network, whole | self.changed(whole, group), (batch,))
            return scores

        return run_anew(frozen, weights * self.gate, score)

    @abstractmethod
    def changed(self, whole: Mapping[str, Tensor], group: int) -> dict[str, Tensor]:
        """Those of the named weights of the ``whole`` network that are others in the group."""


@dataclass(frozen=True)
class OwnNetwork(_Changed):
    """All N weights of the network, one after the other in the order in which it names them."""

    kind: ClassVar[str] = "full"

    change: Tensor  # (G, N)

    @classmethod
    def nothing(cls, example: Frozen, training: Examples, config: RankerConfig, seed: int) -> Self:
        """As of all deltas."""
        count = sum(one.numel() for one in example.network.parameters())
        return cls(gate=torch.ones(1), change=torch.zeros(1, count))

    def changed(self, whole: Mapping[str, Tensor], group: int) -> dict[str, Tensor]:
        """Every weight."""
        parts = self.change[group].split([one.numel() for one in whole.values()])
        return {name: one + part.view_as(one) for (name, one), part in zip(whole.items(), parts, strict=True)}


@dataclass(frozen=True)
class SegmentInput(_Changed):
    """The weights of the input that tells the group: W numbers to the query, E and R hidden units of the two heads."""

    kind: ClassVar[str] = "feature"

    query: Tensor  # (G, W)
    explore: Tensor  # (G, E)
    repeat: Tensor  # (G, R)

    @classmethod
    def nothing(cls, example: Frozen, training: Examples, config: RankerConfig, seed: int) -> Self:
        """As of all deltas."""
        network = example.network
        sizes = (network.query.shape[1], len(network.explore_in.bias), len(network.repeat_in.bias))
        query, explore, repeat = (torch.zeros(1, size) for size in sizes)
        return cls(gate=torch.ones(1), query=query, explore=explore, repeat=repeat)

    def changed(self, whole: Mapping[str, Tensor], group: int) -> dict[str, Tensor]:
        """An input that is one for all users of the group is a change of the biases.

        The query's bias is its last row: the last number of a state is one, or zero where nothing is known of the user.
        """
        query = whole["query"]
        return {
            "query": torch.cat([query[:-1], query[-1:] + self.query[group]]),
            "explore_in.bias": whole["explore_in.bias"] + self.explore[group],
            "repeat_in.bias": whole["repeat_in.bias"] + self.repeat[group],
        }
