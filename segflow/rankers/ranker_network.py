"""The network of the global ranker: two ways to score an item, repeat and explore (RepeatNet, Ren et al. 2019).

An item the user never had: the user's state pointing at the item's vector, and what simple scorers and the item's trends
say, weighed linearly and by a small network that knows how active the user is (wide and deep, Cheng et al. 2016). An item
the user already had: a small network over the user's own frequency, rhythm and recency with it, beside all that.

Lives here: the network. Does not live here: its loss and its training (``global_ranker``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segflow.rankers.examples import Batch
from segflow.rankers.features import CONTEXT_FEATURES, ITEM_FEATURES, PAIR_FEATURES
from segflow.rankers.scorers import COOCCURRENCE, SCORERS

_INPUTS = len(SCORERS) + len(ITEM_FEATURES)
_ROWS = 16


class Standardize(nn.Module):
    """Values in units of their spread in the training examples."""

    center: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def fit(self, values: npt.NDArray[np.float32]) -> None:
        """Take mean and spread of the rows of ``values`` (n, size)."""
        if len(values):
            self.center.copy_(torch.from_numpy(values.mean(0)))
            self.scale.copy_(torch.from_numpy(values.std(0) + 1e-3))

    def forward(self, values: Tensor) -> Tensor:
        """The same shape."""
        return (values - self.center).div_(self.scale)


class RankerNetwork(nn.Module):
    """Scores of all candidates for a batch of examples."""

    item_vectors: Tensor

    def __init__(self, item_vectors: Tensor, states: int, hidden: int, explore_hidden: int) -> None:
        super().__init__()
        candidates, width = item_vectors.shape
        self.register_buffer("item_vectors", item_vectors)
        self.inputs, self.context = Standardize(_INPUTS), Standardize(len(CONTEXT_FEATURES))
        self.pairs = Standardize(len(PAIR_FEATURES))
        self.item_bias = nn.Parameter(torch.zeros(candidates))
        self.repeat_bias = nn.Parameter(torch.zeros(candidates))
        self.query = nn.Parameter(torch.zeros(states, width))
        # Training starts from popularity and co-occurrence, the rest has to earn its weight.
        start = torch.zeros(_INPUTS)
        start[len(SCORERS) :] = start[COOCCURRENCE] = 0.3
        self.explore = nn.Parameter(start)
        self.explore_in = nn.Linear(_INPUTS, explore_hidden)
        self.explore_context = nn.Linear(len(CONTEXT_FEATURES), explore_hidden, bias=False)
        self.explore_out = nn.Parameter(torch.zeros(explore_hidden))
        self.repeat_in = nn.Linear(len(PAIR_FEATURES) + len(CONTEXT_FEATURES) + _INPUTS, hidden)
        self.repeat_out = nn.Linear(hidden, 1)
        self.repeat_affinity = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch) -> Tensor:
        """(B, C) scores."""
        return self.parts(batch)[0]

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C) scores, the standardized inputs of the explore head, (P, hidden) the hidden layer of the repeat head."""
        inputs, context = self.inputs(batch.inputs), self.context(batch.context)
        affinity = batch.states @ self.query @ self.item_vectors.T
        scores = affinity + self.item_bias + inputs @ self.explore + self._deep(inputs, self.explore_context(context))
        row, item = batch.pair_row, batch.pair_item
        repeat = self.repeat_hidden(batch.pair_values, context[row], inputs[row, item])
        again = self.repeat_out(repeat)[:, 0] + self.repeat_bias[item] + self.repeat_affinity * affinity[row, item]
        return scores.index_put((row, item), again), inputs, repeat

    def repeat_hidden(self, values: Tensor, context: Tensor, inputs: Tensor) -> Tensor:
        """(P, hidden) the hidden layer of the repeat head for P pairs, of standardized context and inputs."""
        return torch.relu(self.repeat_in(torch.cat([self.pairs(values), context, inputs], dim=1)))

    def _deep(self, inputs: Tensor, context: Tensor) -> Tensor:
        """(B, C) what the small network of the explore head says.

        The hidden layer of all candidates of a large batch is by far the largest array there is. Where no gradient needs
        it, it is made of a few users at a time, which stays in the processor's cache: a third of the time, the same bits.
        """
        # Whole groups of rows: what a matrix product does with the odd rows at its end has other last bits.
        whole = 0 if torch.is_grad_enabled() else len(inputs) // _ROWS - 1
        sizes = [_ROWS] * whole + [len(inputs) - _ROWS * max(0, whole)]
        parts = zip(inputs.split(sizes), context.split(sizes), strict=True)
        return torch.cat([torch.relu(self.explore_in(one) + own[:, None]) @ self.explore_out for one, own in parts])
