"""The network of the behaviour model and the losses of its pre-training tasks.

Lives here: layers, heads and losses. Does not live here: the training loop and the user states (see ``behavior``).

Sources: self-attentive sequential recommendation (Kang & McAuley 2018), linear attention biases (Press et al. 2022),
logQ-corrected sampled softmax (Bengio & Senecal 2008; Yi et al. 2019), discrete-time survival with right-censoring
(Tutz & Schmid 2016).
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from segflow.config import BehaviorConfig
from segflow.representation.moments import GAP_EDGES, VALUE_BUCKETS, Batch, Moments, expand
from segflow.representation.sequences import MICROSECONDS_PER_DAY, EventSequences

# Edges in days between the buckets of the time to the next session: 1 hour to 64 days, doubling.
WAIT_EDGES = np.array([1 / 24, 0.25, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 10, 14, 21, 28, 42, 64])


class _Block(nn.Module):
    """One pre-norm transformer layer with explicit causal attention."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.norm_forward = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.query_key_value(self.norm_attention(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(width // self.heads) + bias, dim=-1)
        mixed = (weights.to(value.dtype) @ value).transpose(1, 2).reshape(batch, length, width)
        x = x + self.dropout(self.out(mixed))
        return x + self.dropout(self.down(functional.gelu(self.up(self.norm_forward(x)))))


class Network(nn.Module):
    """Moments in, states out, and the heads of the four pre-training tasks."""

    def __init__(self, item_vectors: Tensor, types: int, config: BehaviorConfig) -> None:
        super().__init__()
        width = config.width
        self.item_vectors: Tensor
        self.register_buffer("item_vectors", item_vectors, persistent=False)
        self.item = nn.Parameter(torch.randn(len(item_vectors), width) * 0.1)
        self.text = nn.Linear(item_vectors.shape[1], width, bias=False)
        self.item_bias = nn.Parameter(torch.zeros(len(item_vectors)))
        self.event_type = nn.Embedding(types, width)
        self.gap = nn.Embedding(len(GAP_EDGES) + 2, width)
        self.value = nn.Embedding(VALUE_BUCKETS, width)
        self.input_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(width, config.heads, config.dropout) for _ in range(config.layers))
        self.output_norm = nn.LayerNorm(width)
        self.next_item = nn.Linear(width, width)
        self.next_type = nn.Linear(width, types)
        self.returns = nn.Linear(width, 1)
        self.wait = nn.Linear(width, len(WAIT_EDGES) + 1)
        # One head looks at the whole context evenly, the others fade at different speeds.
        slopes = torch.cat([torch.zeros(1), 2.0 ** -torch.linspace(1, 6, config.heads)])[: config.heads]
        distance = torch.arange(config.context)[:, None] - torch.arange(config.context)[None, :]
        bias = torch.where(distance < 0, -1e4, -slopes[:, None, None] * distance)
        self.bias: Tensor
        self.register_buffer("bias", bias, persistent=False)
        self._start_as_item_average()

    @torch.no_grad()
    def _start_as_item_average(self) -> None:
        """Begin with a state that is the average of the items so far, pointing at those same items.

        From the usual random start, a log of this size never got past popularity within the time allowed.
        """
        width = self.next_item.in_features
        nn.init.eye_(self.next_item.weight)
        first = cast(_Block, self.blocks[0])
        nn.init.eye_(first.query_key_value.weight[2 * width :])
        first.query_key_value.weight[: 2 * width] *= 0.1
        nn.init.eye_(first.out.weight)
        # With the default scale, the type and value of an event would drown its item.
        nn.init.normal_(self.event_type.weight, std=0.02)
        nn.init.normal_(self.value.weight, std=0.02)
        nn.init.normal_(self.gap.weight, std=0.3)

    def items(self, index: Tensor) -> Tensor:
        """(n,) item indices -> (n, width) vectors: what the log taught about the item plus what its text says."""
        return functional.embedding(index, self.item) + self.text(self.item_vectors[index])

    def forward(self, batch: Batch) -> Tensor:
        """States of all positions, (windows, length, width)."""
        table = torch.cat([self.items(batch.item_set), self.item.new_zeros(1, self.item.shape[1])])
        events = functional.embedding(batch.items, table) + self.event_type(batch.types) + self.value(batch.values)
        windows, length = batch.gaps.shape
        pooled = events.new_zeros(windows * length, events.shape[1]).index_add_(0, batch.moment_of_event, events)
        # Sum over sqrt(n): a large basket speaks louder than a small one, but not n times as loud.
        pooled = pooled * batch.sizes.rsqrt()[:, None]
        x = self.input_norm(pooled.view(windows, length, -1)) + self.gap(batch.gaps)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, self.bias[:, :length, :length])
        return self.output_norm(x)


class PretrainingTasks:
    """The pre-training losses of a batch; everything after ``end_us`` counts as unknown."""

    def __init__(
        self, network: Network, sequences: EventSequences, moments: Moments, config: BehaviorConfig, split: int
    ) -> None:
        self.network, self.sequences, self.moments, self.config = network, sequences, moments, config
        items = sequences.items[(sequences.items >= 0) & (sequences.times < split)]
        self.count = len(sequences.item_ids)
        share = np.bincount(items, minlength=self.count) + 1.0
        self.share = share / share.sum()

    def losses(self, batch: Batch, positions: npt.NDArray[np.bool_], end_us: int, rng: np.random.Generator) -> dict:
        """Mean loss of each task over the chosen (windows, length) positions."""
        states = self.network(batch).float()
        chosen = torch.from_numpy(np.flatnonzero(positions.ravel()))
        index = batch.moments.ravel()[chosen.numpy()]
        states = states.reshape(-1, states.shape[-1])[chosen]
        losses = {}
        known = self.moments.follows[index] & (
            self.moments.times[np.minimum(index + 1, len(self.moments.times) - 1)] < end_us
        )
        after, which = index[known] + 1, torch.from_numpy(np.flatnonzero(known))
        if len(after):
            events, owner = expand(self.moments.events[after], self.moments.events[after + 1])
            losses["next_item"] = self._next_item(states[which], events, owner, rng)
            if len(self.sequences.event_types) > 1:
                losses["next_type"] = self._next_type(states[which], events, owner)
        losses.update(self._return(states, index, end_us))
        return losses

    def _next_item(self, states: Tensor, events: np.ndarray, owner: np.ndarray, rng: np.random.Generator) -> Tensor:
        items = self.sequences.items[events]
        events, owner, items = events[items >= 0], owner[items >= 0], items[items >= 0].astype(np.int64)
        weight = torch.from_numpy((1.0 / np.bincount(owner, minlength=len(states)))[owner].astype(np.float32))
        sampled = self.count > self.config.negatives
        pool = rng.choice(self.count, self.config.negatives, p=self.share) if sampled else np.arange(self.count)
        network, pool_index = self.network, torch.from_numpy(pool)
        queries = network.next_item(states)
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16()):
            logits = queries @ network.items(pool_index).T
        logits = logits.float() + network.item_bias[pool_index]
        if sampled:
            logits = logits - torch.from_numpy(np.log(self.config.negatives * self.share[pool])).float()
        total = torch.logsumexp(logits, dim=1)
        rows, wanted = torch.from_numpy(owner), torch.from_numpy(items)
        if sampled:
            distinct, position = torch.unique(wanted, return_inverse=True)
            positive = (queries[rows] * network.items(distinct)[position]).sum(1) + network.item_bias[wanted]
            loss = torch.logaddexp(total[rows], positive) - positive
        else:
            loss = total[rows] - logits[rows, wanted]
        return (loss * weight).sum() / weight.sum()

    def _next_type(self, states: Tensor, events: np.ndarray, owner: np.ndarray) -> Tensor:
        shares = np.zeros((len(states), len(self.sequences.event_types)), np.float32)
        np.add.at(shares, (owner, self.sequences.types[events]), 1.0)
        shares /= shares.sum(1, keepdims=True)
        return functional.cross_entropy(self.network.next_type(states), torch.from_numpy(shares))

    def _return(self, states: Tensor, index: np.ndarray, end_us: int) -> dict[str, Tensor]:
        """Whether the next session starts within the horizon, and when; both right-censored at the end of the log."""
        now, then = self.moments.times[index], self.moments.next_session[index]
        seen = (then >= 0) & (then < end_us)
        waited = np.where(seen, then - now, end_us - now) / MICROSECONDS_PER_DAY
        back = seen & (waited <= self.config.horizon_days)
        losses = {}
        decided = torch.from_numpy(np.flatnonzero(back | (waited > self.config.horizon_days)))
        if len(decided):
            target = torch.from_numpy(back.astype(np.float32))[decided]
            losses["return"] = functional.binary_cross_entropy_with_logits(
                self.network.returns(states[decided])[:, 0], target
            )
        log_share = torch.log_softmax(self.network.wait(states), dim=1)
        bucket = torch.from_numpy(np.searchsorted(WAIT_EDGES, waited))
        exact = log_share.gather(1, bucket[:, None])[:, 0]
        # A censored wait says only "not yet": the probability of this bucket and all later ones.
        later = torch.flip(torch.logcumsumexp(torch.flip(log_share, [1]), dim=1), [1]).gather(1, bucket[:, None])[:, 0]
        losses["wait"] = -torch.where(torch.from_numpy(seen), exact, later).mean()
        return losses


def use_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (else it would be slower than float32)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
