"""The behaviour model: a causal transformer over a user's moments, pre-trained on the log itself.

A *moment* is everything one user did at one timestamp. Its events have no order among themselves (the lines of a
basket, say), so they are pooled into one input vector and predicted together as one set: no event of a moment is ever
used to predict another one of the same moment.

Lives here: moments, the network, its pre-training and the user states it gives. Does not live here: how items get their
text vectors, and how states are turned into a ranking.

Sources: self-attentive sequential recommendation (Kang & McAuley 2018), linear attention biases (Press et al. 2022),
logQ-corrected sampled softmax (Bengio & Senecal 2008; Yi et al. 2019), discrete-time survival with right-censoring
(Tutz & Schmid 2016).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from segflow.config import BehaviorConfig
from segflow.errors import UserError
from segflow.representation.sequences import MICROSECONDS_PER_DAY, EventSequences

_MINUTE = 60_000_000
# Edges in minutes between the buckets of a time gap: from one minute to a year, about two per factor of four.
_GAP_EDGES = np.geomspace(1, 60 * 24 * 365, 19)
# Edges in days between the buckets of the time to the next session: 1 hour to 64 days, doubling.
_WAIT_EDGES = np.array([1 / 24, 0.25, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 10, 14, 21, 28, 42, 64])
_VALUE_BUCKETS = 16


@dataclass(frozen=True)
class _Moments:
    """The log grouped into M moments, with what comes after each of them."""

    offsets: npt.NDArray[np.int64]  # (U + 1,) first moment of each user
    events: npt.NDArray[np.int64]  # (M + 1,) first event of each moment
    times: npt.NDArray[np.int64]  # (M,) microseconds
    gaps: npt.NDArray[np.int64]  # (M,) bucket of the gap since the moment before; 0 for a user's first
    follows: npt.NDArray[np.bool_]  # (M,) whether the same user has another moment
    next_session: npt.NDArray[np.int64]  # (M,) start of the user's next session in microseconds; -1 if none


def _moments(sequences: EventSequences, session_gap_minutes: float) -> _Moments:
    users = sequences.user_of_event
    times = sequences.times
    starts = np.ones(len(times), bool)
    starts[1:] = (np.diff(times) != 0) | (np.diff(users) != 0)
    first = np.flatnonzero(starts)
    owner, when = users[first], times[first]
    same = np.zeros(len(first), bool)
    same[1:] = owner[1:] == owner[:-1]
    gap = np.zeros(len(first))
    gap[1:] = np.diff(when) / _MINUTE
    buckets = np.where(same, 1 + np.searchsorted(_GAP_EDGES, gap), 0)
    opens = ~same | (gap > session_gap_minutes)
    # Walk backwards: the next session of a moment starts at the next moment that opens one, if the user is the same.
    following = np.full(len(first) + 1, len(first))
    following[:-1] = np.where(opens, np.arange(len(first)), len(first))
    following = np.minimum.accumulate(following[::-1])[::-1][1:]
    inside = np.minimum(following, max(len(first) - 1, 0))
    valid = (following < len(first)) & (owner[inside] == owner) if len(first) else np.zeros(0, bool)
    return _Moments(
        offsets=np.searchsorted(owner, np.arange(len(sequences.user_ids) + 1)).astype(np.int64),
        events=np.append(first, len(times)).astype(np.int64),
        times=when,
        gaps=buckets.astype(np.int64),
        follows=np.append(same[1:], False) if len(first) else np.zeros(0, bool),
        next_session=np.where(valid, when[inside], -1) if len(first) else np.zeros(0, np.int64),
    )


def _expand(starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> tuple[np.ndarray, np.ndarray]:
    """All indices of the ranges [start, stop), one after the other, and the number of the range each belongs to."""
    lengths = stops - starts
    owner = np.repeat(np.arange(len(starts)), lengths)
    index = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(starts, lengths)
    return index, owner


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
        return x + self.dropout(self.down(F.gelu(self.up(self.norm_forward(x)))))


class _Network(nn.Module):
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
        self.gap = nn.Embedding(len(_GAP_EDGES) + 2, width)
        self.value = nn.Embedding(_VALUE_BUCKETS, width)
        self.input_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(width, config.heads, config.dropout) for _ in range(config.layers))
        self.output_norm = nn.LayerNorm(width)
        self.next_item = nn.Linear(width, width)
        self.next_type = nn.Linear(width, types)
        self.returns = nn.Linear(width, 1)
        self.wait = nn.Linear(width, len(_WAIT_EDGES) + 1)
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
        return F.embedding(index, self.item) + self.text(self.item_vectors[index])

    def forward(self, batch: _Batch) -> Tensor:
        """States of all positions, (windows, length, width)."""
        table = torch.cat([self.items(batch.item_set), self.item.new_zeros(1, self.item.shape[1])])
        events = F.embedding(batch.items, table) + self.event_type(batch.types) + self.value(batch.values)
        windows, length = batch.gaps.shape
        pooled = events.new_zeros(windows * length, events.shape[1]).index_add_(0, batch.moment_of_event, events)
        # Sum over sqrt(n): a large basket speaks louder than a small one, but not n times as loud.
        pooled = pooled * batch.sizes.rsqrt()[:, None]
        x = self.input_norm(pooled.view(windows, length, -1)) + self.gap(batch.gaps)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, self.bias[:, :length, :length])
        return self.output_norm(x)


@dataclass(frozen=True)
class _Batch:
    """Windows of moments, padded on the right to one length (causal attention never looks there)."""

    moments: npt.NDArray[np.int64]  # (windows, length) moment index, -1 where padded
    gaps: Tensor  # (windows, length)
    sizes: Tensor  # (windows * length,) events in each moment, at least 1
    item_set: Tensor  # (n,) the distinct items of the batch
    items: Tensor  # (events,) position in item_set; n stands for "no item"
    types: Tensor
    values: Tensor
    moment_of_event: Tensor  # (events,) position in windows * length


def _batch(
    sequences: EventSequences, moments: _Moments, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
) -> _Batch:
    """Windows of moments [start, stop) as one padded batch."""
    length = int((stops - starts).max())
    index = starts[:, None] + np.arange(length)[None, :]
    index = np.where(index < stops[:, None], index, -1)
    flat = index.ravel()
    real = np.flatnonzero(flat >= 0)
    first, last = moments.events[flat[real]], moments.events[flat[real] + 1]
    events, owner = _expand(first, last)
    sizes = np.ones(flat.size, np.float32)
    sizes[real] = last - first
    items = sequences.items[events]
    item_set, position = np.unique(items, return_inverse=True)
    has_none = bool(len(item_set)) and item_set[0] < 0
    item_set = item_set[1:] if has_none else item_set
    position = np.where(items < 0, len(item_set), position - int(has_none))
    buckets = np.log2(1 + np.maximum(sequences.values[events], 0)) * 2
    return _Batch(
        moments=index,
        gaps=torch.from_numpy(np.where(index >= 0, moments.gaps[np.maximum(index, 0)], 0)),
        sizes=torch.from_numpy(sizes),
        item_set=torch.from_numpy(item_set.astype(np.int64)),
        items=torch.from_numpy(position.astype(np.int64)),
        types=torch.from_numpy(sequences.types[events].astype(np.int64)),
        values=torch.from_numpy(np.minimum(buckets.astype(np.int64), _VALUE_BUCKETS - 1)),
        moment_of_event=torch.from_numpy(real[owner]),
    )


class _Tasks:
    """The pre-training losses of a batch; everything after ``end_us`` counts as unknown."""

    def __init__(
        self, network: _Network, sequences: EventSequences, moments: _Moments, config: BehaviorConfig, split: int
    ) -> None:
        self.network, self.sequences, self.moments, self.config = network, sequences, moments, config
        items = sequences.items[(sequences.items >= 0) & (sequences.times < split)]
        self.count = len(sequences.item_ids)
        share = np.bincount(items, minlength=self.count) + 1.0
        self.share = share / share.sum()

    def losses(self, batch: _Batch, positions: npt.NDArray[np.bool_], end_us: int, rng: np.random.Generator) -> dict:
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
            events, owner = _expand(self.moments.events[after], self.moments.events[after + 1])
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
        with torch.autocast("cpu", torch.bfloat16, enabled=_bfloat16()):
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
        return F.cross_entropy(self.network.next_type(states), torch.from_numpy(shares))

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
            losses["return"] = F.binary_cross_entropy_with_logits(self.network.returns(states[decided])[:, 0], target)
        log_share = torch.log_softmax(self.network.wait(states), dim=1)
        bucket = torch.from_numpy(np.searchsorted(_WAIT_EDGES, waited))
        exact = log_share.gather(1, bucket[:, None])[:, 0]
        # A censored wait says only "not yet": the probability of this bucket and all later ones.
        later = torch.flip(torch.logcumsumexp(torch.flip(log_share, [1]), dim=1), [1]).gather(1, bucket[:, None])[:, 0]
        losses["wait"] = -torch.where(torch.from_numpy(seen), exact, later).mean()
        return losses


def _bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (else it would be slower than float32)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _windows(moments: _Moments, context: int, shift: npt.NDArray[np.int64]) -> tuple[np.ndarray, np.ndarray]:
    """Cut each user's moments into windows of at most ``context``, the first one ``shift`` moments shorter."""
    begin, end = moments.offsets[:-1], moments.offsets[1:]
    pieces = (end - begin + shift + context - 1) // context
    number, user = _expand(np.zeros_like(pieces), pieces)
    start = begin[user] - shift[user] + number * context
    stop = np.minimum(start + context, end[user])
    start = np.maximum(start, begin[user])
    real = stop > start
    return start[real], stop[real]


def _batches(starts: np.ndarray, stops: np.ndarray, batch_moments: int) -> Iterator[np.ndarray]:
    """Group windows of like length, so that padding is rare and shapes repeat; yields window numbers."""
    order = np.argsort(starts - stops, kind="stable")
    position = 0
    while position < len(order):
        longest = int(stops[order[position]] - starts[order[position]])
        size = max(1, batch_moments // longest)
        yield order[position : position + size]
        position += size


@dataclass(frozen=True)
class BehaviorModel:
    """A pre-trained network with the catalogue and event types it was trained for."""

    network: _Network
    config: BehaviorConfig
    event_types: tuple[str, ...]

    @property
    def width(self) -> int:
        """Size of a user state."""
        return self.config.width

    def states(
        self, sequences: EventSequences, cuts: npt.NDArray[np.int64], users: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """(Q,) cuts in microseconds and (Q,) user indices -> (Q, width + 1) float32.

        Row q is user ``users[q]`` after all events strictly before ``cuts[q]``; the last column is 1, or the whole row is
        zero when there was no such event.
        """
        self._check(sequences)
        moments = _moments(sequences, self.config.session_gap_minutes)
        # One searchsorted for all users: times rise within a user, and users are made to follow one another.
        low, high = moments.offsets[users], moments.offsets[users + 1]
        stops = np.array(
            [a + np.searchsorted(moments.times[a:b], c) for a, b, c in zip(low, high, cuts, strict=True)], int
        )
        starts = np.maximum(low, stops - self.config.context)
        out = np.zeros((len(users), self.width + 1), np.float32)
        filled = np.flatnonzero(stops > starts)
        self.network.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=_bfloat16()):
            for chosen in _batches(starts[filled], stops[filled], 4 * self.config.batch_moments):
                rows = filled[chosen]
                states = self.network(_batch(sequences, moments, starts[rows], stops[rows])).float().numpy()
                out[rows, :-1] = states[np.arange(len(rows)), stops[rows] - starts[rows] - 1]
                out[rows, -1] = 1.0
        return out

    def item_vectors(self) -> npt.NDArray[np.float32]:
        """(I, width) float32 vectors of the catalogue's items in the space the states are trained to point at."""
        with torch.inference_mode():
            return self.network.items(torch.arange(len(self.network.item))).numpy()

    def queries(self, states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(Q, width + 1) states -> (Q, width) next-item queries; their product with ``item_vectors`` ranks the items."""
        with torch.inference_mode():
            return self.network.next_item(torch.from_numpy(states[:, :-1])).numpy() * states[:, -1:]

    def to_bytes(self) -> bytes:
        """Safetensors, with the configuration and event types as metadata."""
        tensors = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        tensors["item_vectors"] = self.network.item_vectors.contiguous()
        metadata = {"config": self.config.model_dump_json(), "event_types": json.dumps(self.event_types)}
        return save_tensors(tensors, metadata)

    @classmethod
    def from_bytes(cls, data: bytes) -> BehaviorModel:
        """The inverse of ``to_bytes``."""
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        config = BehaviorConfig.model_validate_json(header["config"])
        event_types = tuple(json.loads(header["event_types"]))
        tensors = load_tensors(data)
        network = _Network(tensors.pop("item_vectors"), len(event_types), config)
        network.load_state_dict(tensors)
        return cls(network.eval(), config, event_types)

    def _check(self, sequences: EventSequences) -> None:
        if len(sequences.item_ids) != len(self.network.item) or sequences.event_types != self.event_types:
            raise UserError(
                f"behaviour model: made for {len(self.network.item)} items and event types {list(self.event_types)}, "
                f"got {len(sequences.item_ids)} and {list(sequences.event_types)}; train it again for this catalogue"
            )


def fit_behavior_model(
    sequences: EventSequences,
    item_vectors: npt.NDArray[np.float32],
    config: BehaviorConfig,
    seed: int,
    log: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
) -> BehaviorModel:
    """Pre-train on ``sequences``; the last ``validation_days`` decide when to stop and are never trained on.

    Args:
        sequences: the events before the snapshot.
        item_vectors: (I, D) float32 text vectors in the order of ``sequences.item_ids``.
        log: called after each epoch with its number and the losses.
    """
    if len(item_vectors) != len(sequences.item_ids):
        raise UserError(f"item_vectors: {len(item_vectors)} rows for {len(sequences.item_ids)} items; pass one each")
    if not len(sequences.times):
        raise UserError("behaviour model: no events before the snapshot; choose a later week or check the event filter")
    torch.manual_seed(seed)
    network = _Network(torch.from_numpy(np.ascontiguousarray(item_vectors)), len(sequences.event_types), config)
    end = int(sequences.times.max()) + 1
    split = end - int(config.validation_days * MICROSECONDS_PER_DAY)
    trainer = _Trainer(network, sequences, config, split, end, seed)
    best, best_loss, waited = network.state_dict(), math.inf, 0
    for epoch in range(config.epochs):
        training = trainer.train(epoch)
        validation = trainer.validate()
        log(epoch, {f"train_{k}": v for k, v in training.items()} | {f"valid_{k}": v for k, v in validation.items()})
        if validation["loss"] < best_loss:
            best_loss, waited = validation["loss"], 0
            best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        else:
            waited += 1
        if waited >= config.patience:
            break
    network.load_state_dict(best)
    return BehaviorModel(network.eval(), config, sequences.event_types)


class _Trainer:
    """Epochs over windows; AdamW with one warm-up and one linear decay over all epochs."""

    def __init__(
        self, network: _Network, sequences: EventSequences, config: BehaviorConfig, split: int, end: int, seed: int
    ) -> None:
        self.network, self.sequences, self.config, self.split, self.end = network, sequences, config, split, end
        self.moments = _moments(sequences, config.session_gap_minutes)
        self.tasks = _Tasks(network, sequences, self.moments, config, split)
        self.rng = np.random.default_rng(seed)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
        )
        self.step, self.steps = 0, config.epochs * max(1, -(-len(self.moments.times) // config.batch_moments))

    def train(self, epoch: int) -> dict[str, float]:
        """One pass over every moment before the split, in windows that begin elsewhere each time."""
        self.network.train()
        users = len(self.moments.offsets) - 1
        starts, stops = _windows(self.moments, self.config.context, self.rng.integers(0, self.config.context, users))
        groups = list(_batches(starts, stops, self.config.batch_moments))
        sums: dict[str, float] = {}
        for number in self.rng.permutation(len(groups)):
            chosen = groups[number]
            batch = _batch(self.sequences, self.moments, starts[chosen], stops[chosen])
            positions = (batch.moments >= 0) & (self.moments.times[batch.moments] < self.split)
            if not positions.any():
                continue
            progress = min(1.0, self.step / self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * min(1.0, progress / 0.1 + 0.01, (1.02 - progress))
            loss, parts = self._loss(batch, positions, self.split)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.step += 1
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value / len(groups)
        return sums

    def validate(self) -> dict[str, float]:
        """Mean losses of the moments that are followed by one in the validation days."""
        self.network.eval()
        moments, config = self.moments, self.config
        ahead = np.append(moments.times[1:], 0)
        wanted = np.where(moments.follows, (ahead >= self.split), moments.times >= self.split)
        starts, stops = _windows(moments, config.context, np.zeros(len(moments.offsets) - 1, np.int64))
        # Windows that end at the user's last moment, so that every validated moment has as much past as there is.
        begin, end = moments.offsets[:-1], moments.offsets[1:]
        starts, stops = np.maximum(begin, end - config.context), end
        starts, stops = starts[end > begin], stops[end > begin]
        sums, weight = {}, 0
        rng = np.random.default_rng(0)
        with torch.inference_mode():
            for chosen in _batches(starts, stops, 2 * config.batch_moments):
                batch = _batch(self.sequences, moments, starts[chosen], stops[chosen])
                positions = (batch.moments >= 0) & wanted[batch.moments]
                if positions.any():
                    _, parts = self._loss(batch, positions, self.end, rng)
                    weight += positions.sum()
                    for name, value in parts.items():
                        sums[name] = sums.get(name, 0.0) + value * positions.sum()
        if not sums:
            return {"loss": math.inf}
        return {name: float(value / weight) for name, value in sums.items()}

    def _loss(
        self, batch: _Batch, positions: npt.NDArray[np.bool_], end: int, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=_bfloat16()):
            losses = self.tasks.losses(batch, positions, end, self.rng if rng is None else rng)
        loss = torch.stack(list(losses.values())).mean()
        return loss, {"loss": float(loss.detach())} | {name: float(value.detach()) for name, value in losses.items()}
