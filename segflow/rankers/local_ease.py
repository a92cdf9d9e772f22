"""EASE of each group's users, where the global ranker reads that of everybody.

A group's item-to-item weights are ridge regressions of what its own users had (EASE, Steck 2019). Their difference to
everybody's is added to what the network reads of EASE, and the network is run once more: how far it trusts EASE it learned at
cuts in the past, so nothing is learned in steps. A gate mixes both, as the local and the global model of GLSLIM are mixed
(Christakopoulou & Karypis 2016), but users stay in their segments.

Lives here: what these deltas are and how they are fitted. Does not live here: everybody's EASE (``scorers``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from segflow.config import RankerConfig
from segflow.rankers.deltas import GroupDeltas
from segflow.rankers.examples import Batch, Examples
from segflow.rankers.global_ranker import Frozen
from segflow.rankers.own_networks import run_anew
from segflow.rankers.scorers import COOCCURRENCE
from segflow.rankers.scorers.cooccurrence import solve_ease

_BLOCK = 4096


@dataclass(frozen=True)
class LocalEase(GroupDeltas):
    """Item-to-item weights above everybody's, of the n items that most users had; in half precision, since they are many."""

    kind: ClassVar[str] = "ease"

    items: Tensor  # (G, n) candidates, the same for every group
    more: Tensor  # (G, n, n) float16

    @classmethod
    def nothing(cls, example: Frozen, training: Examples, config: RankerConfig, seed: int) -> Self:
        """As of all deltas."""
        items = _items(had_before(training), config)
        more = torch.zeros(1, len(items), len(items), dtype=torch.float16)
        return cls(gate=torch.ones(1), items=torch.from_numpy(items)[None], more=more)

    def added(self, frozen: Frozen, item_vectors: Tensor, weights: Tensor) -> Tensor:
        """As of all deltas."""

        def score(group: int, batch: Batch) -> Tensor:
            had = torch.zeros(batch.inputs.shape[:2])
            had[batch.pair_row, batch.pair_item] = 1
            inputs, items = batch.inputs.clone(), self.items[group]
            inputs[:, items, COOCCURRENCE] += had[:, items] @ self.more[group].float()
            with torch.no_grad():
                scores: Tensor = frozen.network(replace(batch, inputs=inputs))
            return scores

        return run_anew(frozen, weights * self.gate, score)


def local_ease(training: Examples, shares: Sequence[Tensor], config: RankerConfig) -> Iterator[Tensor]:
    """For each group (n, n) float32 weights above everybody's; zero for a group without users.

    Args:
        shares: for each group (U,) how surely each user of the sequences belongs to it.
    """
    had, ridge = had_before(training), config.cooccurrence_regularization
    had = had[:, _items(had, config)]
    everybody = solve_ease(_together(had, np.ones(had.shape[0], np.float32)), ridge)
    for share in shares:
        own = _together(had, share.numpy())
        yield torch.from_numpy(solve_ease(own, ridge) - everybody if own.any() else np.zeros_like(everybody))


def had_before(training: Examples) -> sparse.csr_array:
    """(U, C) float32, 1 where a user had the item by the end of the last week that the user has an example of.

    Users of no example had nothing here: what teaches a group is what teaches it by any other method.
    """
    order = np.lexsort((training.cut, training.users))
    last = order[np.append(np.diff(training.users[order]) > 0, True)]
    parts = []
    for pairs in (training.had, training.wanted):
        index, owner = pairs.take(last)
        parts.append((training.users[last[owner]], pairs.items[index]))
    users, items = (np.concatenate(column) for column in zip(*parts, strict=True))
    shape = (int(training.users.max()) + 1, training.candidates)
    had = sparse.csr_array((np.ones(len(users), np.float32), (users, items)), shape=shape)
    had.data[:] = 1
    return had


def _items(had: sparse.csr_array, config: RankerConfig) -> npt.NDArray[np.int64]:
    """(n,) the candidates that most users had, ascending."""
    users = np.asarray(had.sum(axis=0)).ravel()
    return np.sort(np.argsort(-users, kind="stable")[: config.cooccurrence_items])


def _together(had: sparse.csr_array, share: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n, n) how many users had each two items, each user counted by ``share``; who counts nothing is not looked at."""
    own = np.flatnonzero(share[: had.shape[0]] > 0)
    gram = np.zeros((had.shape[1], had.shape[1]), np.float32)
    for start in range(0, len(own), _BLOCK):
        rows = own[start : start + _BLOCK]
        block = had[rows].toarray()
        gram += (block * share[rows, None]).T @ block
    return gram
