"""The ranking loss of each user by itself, so that users can be weighed differently, with its gradient in closed form.

Lives here: the loss of a row of scores. Does not live here: how rows are averaged.

Many groups are trained on the same examples, and the loss is most of the work: the closed form takes a third of the passes
over the scores that automatic differentiation does.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from segflow.rankers.examples import Batch, Examples, Space, entries_of, starts_of

_MOST = 1e30  # stands for infinity where that would make a number undefined


class RowLosses:
    """The losses of one batch for any scores of it.

    Attributes:
        asked: (B, 2) float32: 1 where something is wanted, of all items and of those new to the user.
    """

    def __init__(self, new: Tensor, row: Tensor, item: Tensor) -> None:
        self._new, self._row, self._item = new, row, item
        counted = torch.stack([torch.ones(len(row)), new[row, item]], dim=1)
        wanted = torch.zeros(len(new), 2).index_add(0, row, counted)
        self.asked = wanted.clamp(max=1)
        self._shares = counted / wanted.clamp(min=1)[row]

    @cached_property
    def _starts(self) -> Tensor:
        return starts_of(self._row, len(self._new))

    @classmethod
    def of(cls, batch: Batch, candidates: int) -> RowLosses:
        """The losses of all examples of ``batch``."""
        new = torch.ones(len(batch.states), candidates)
        new[batch.pair_row, batch.pair_item] = 0
        return cls(new, batch.target_row, batch.target_item)

    @classmethod
    def at(cls, examples: Examples, rows: npt.NDArray[np.int64]) -> RowLosses:
        """The losses of the examples ``rows``; what a ranker would read of them, which is most of a batch, is not made."""
        pair, pair_row = examples.had.take(rows)
        target, target_row = examples.wanted.take(rows)
        new = torch.ones(len(rows), examples.candidates)
        new[torch.from_numpy(pair_row), torch.from_numpy(examples.had.items[pair])] = 0
        return cls(new, torch.from_numpy(target_row), torch.from_numpy(examples.wanted.items[target]))

    def take(self, rows: Tensor, space: Space) -> RowLosses:
        """Those of the examples ``rows`` alone, in ``space``."""
        wanted, row = entries_of(rows, self._starts)
        return RowLosses(space.rows("new", self._new, rows), row, self._item[wanted])

    def fresh(self) -> tuple[Tensor, Tensor]:
        """(B, C) 1 where a wanted item is new to the user, and 1 where any item is."""
        wanted = torch.zeros_like(self._new).index_put((self._row, self._item), self._new.new_tensor(1.0))
        return wanted * self._new, self._new

    def __call__(self, scores: Tensor) -> Tensor:
        """(B, 2) softmax loss of each example's wanted items against its unwanted ones, of all items and of new ones.

        As in ``ranking_loss``, the other wanted items are no competitors. Zero where nothing is wanted.
        """
        losses: Tensor = _RowLosses.apply(scores, self._new, self._shares, self._row, self._item)
        return losses

    def gradient_(self, scores: Tensor, weights: Tensor) -> Tensor:
        """(B, C) what the sum of the losses times ``weights`` (B, 2) changes by with each score, in the place of the scores."""
        rest, sums, behind = _contest(scores, self._new, self._row, self._item)
        slopes = torch.sigmoid(behind) * self._shares * weights[self._row]
        pulls = torch.zeros_like(sums).index_add(0, self._row, slopes) / sums
        rest.mul_(torch.addcmul(pulls[:, :1], self._new, pulls[:, 1:]))
        rest[self._row, self._item] = -slopes.sum(1)
        return rest


def _contest(scores: Tensor, new: Tensor, row: Tensor, item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In the place of the scores exp of the unwanted above their highest; its (B, 2) sums; how far each wanted is behind."""
    wanted = scores[row, item]
    scores[row, item] = -torch.inf
    top = scores.amax(dim=1, keepdim=True).clamp(min=-_MOST)
    rest = scores.sub_(top).exp_()
    sums = torch.stack([rest.sum(1), torch.linalg.vecdot(rest, new)], dim=1).clamp(min=1 / _MOST)
    return rest, sums, sums.log()[row] - (wanted - top[row, 0])[:, None]


class _RowLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, new: Tensor, shares: Tensor, row: Tensor, item: Tensor) -> Tensor:
        rest, sums, behind = _contest(scores.clone(), new, row, item)
        slopes = torch.sigmoid(behind) * shares
        ctx.save_for_backward(rest, new, torch.zeros_like(sums).index_add(0, row, slopes) / sums, slopes, row, item)
        return torch.zeros_like(sums).index_add(0, row, functional.softplus(behind) * shares)

    @staticmethod
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor | None, ...]:
        rest, new, pulls, slopes, row, item = ctx.saved_tensors
        pull = pulls * weights[0]
        gradient = (new * pull[:, 1:]).add_(pull[:, :1]).mul_(rest)
        gradient[row, item] = -(slopes * weights[0][row]).sum(1)
        return gradient, None, None, None, None
