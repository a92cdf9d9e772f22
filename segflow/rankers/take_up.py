"""Take-up: how often users had an item that was new to them, beside how often a ranker's scores led to expect it.

The logarithm of the ratio is an item bias that is counted, not descended to. Counts are shrunk as the posterior mean of a
rate under a Gamma prior is (DuMouchel 1999), so an item of which little was expected keeps its score.

Lives here: the counts and the bias. Does not live here: whose biases they are (``segment_rankers``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segflow.rankers.examples import Examples
from segflow.rankers.losses import RowLosses

_BLOCK = 512


class TakeUp(NamedTuple):
    """Events of G groups and C candidates, of users who never had the item."""

    seen: Tensor  # (G, C)
    expected: Tensor  # (G, C)

    def bias(self, prior: float, toward: Tensor | float = 1.0) -> Tensor:
        """(G, C) log of seen over expected, shrunk to the ratio ``toward`` as if it was found in ``prior`` expected events."""
        return torch.log((self.seen + prior * toward) / (self.expected + prior))


def take_up(
    examples: Examples,
    scores: Callable[[npt.NDArray[np.int64]], Tensor],
    shares: Sequence[Tensor],
) -> TakeUp:
    """Count in the examples; of what a user newly had, each item is expected by the softmax over its new items.

    Args:
        scores: rows -> (rows, C).
        shares: for each group (U,) how surely each user of the sequences belongs to it.
    """
    counts = torch.zeros(2, len(shares), examples.candidates)
    for start in range(0, len(examples), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(examples)))
        users = torch.from_numpy(examples.users[rows])
        fresh, new = RowLosses.at(examples, rows).fresh()
        chance = torch.softmax(scores(rows).masked_fill(new == 0, -1e30), dim=1) * new
        both = torch.stack([fresh, chance * fresh.sum(1, keepdim=True)])
        for code, share in enumerate(shares):
            own = torch.nonzero(share[users] > 0)[:, 0]
            counts[:, code] += share[users[own]] @ both[:, own]
    return TakeUp(*counts)
