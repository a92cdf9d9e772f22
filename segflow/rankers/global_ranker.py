"""The global ranker: trained on everyone, and the base that segment rankers add to.

An item is scored in one of two ways (repeat or explore, after RepeatNet, Ren et al. 2019). An item the user never had:
popularity, co-occurrence, and the user's state pointing at the item's vector. An item the user already had: a small
network over the user's own frequency, rhythm and recency with it, mixed with those same three. Both are trained
together on the weeks before the snapshot; the weights are averaged over the steps (Polyak & Juditsky 1992), and the
snapshot's own week decides when to stop.

Lives here: the network, its loss, its training and its bytes. Does not live here: what differs between segments.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segflow.config import RankerConfig
from segflow.errors import UserError
from segflow.rankers.examples import Batch, Examples
from segflow.rankers.features import CONTEXT_FEATURES, PAIR_FEATURES

_AVERAGING = 0.98  # a step's share of the averaged weights fades to a third within fifty steps


class Frozen(NamedTuple):
    """What the global ranker found of B users over C candidates, and what somebody who adds to it may weigh anew."""

    users: Tensor  # (B,) index of each user in the sequences
    scores: Tensor  # (B, C)
    states: Tensor  # (B, S)
    explore: Tensor  # (B, C, E) standardized inputs of the explore head: popularity of 7 and 28 days, co-occurrence
    hidden: Tensor  # (P, H) last hidden layer of the repeat head for each pair
    pair_row: Tensor  # (P,)
    pair_item: Tensor  # (P,)


class Added(Protocol):
    """What is added to frozen scores."""

    def added(self, frozen: Frozen, item_vectors: Tensor) -> Tensor:
        """(B, C) what to add to ``frozen.scores``; ``item_vectors`` (C, W) are those of the ranker."""
        ...


class RankerNetwork(nn.Module):
    """Scores of all candidates for a batch of examples."""

    item_vectors: Tensor
    center: Tensor
    scale: Tensor

    def __init__(self, item_vectors: Tensor, states: int, hidden: int) -> None:
        super().__init__()
        candidates, width = item_vectors.shape
        inputs = len(PAIR_FEATURES) + len(CONTEXT_FEATURES)
        self.register_buffer("item_vectors", item_vectors)
        self.register_buffer("center", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.item_bias = nn.Parameter(torch.zeros(candidates))
        self.repeat_bias = nn.Parameter(torch.zeros(candidates))
        self.query = nn.Parameter(torch.zeros(states, width))
        self.explore = nn.Parameter(torch.tensor([0.5, 0.5, 3.0]))  # popularity (7 and 28 days), co-occurrence
        self.mix = nn.Parameter(torch.zeros(2))  # co-occurrence and state, for items the user already had
        self.repeat_in = nn.Linear(inputs, hidden)
        self.repeat_out = nn.Linear(hidden, 1)

    def forward(self, batch: Batch) -> Tensor:
        """(B, C) scores."""
        query = batch.states @ self.query
        affinity = query @ self.item_vectors.T
        popularity = batch.log_popularity @ self.explore[:2]
        scores = affinity + (popularity + self.item_bias)[batch.cut] + batch.cooccurrence * self.explore[2]
        row, item = batch.pair_row, batch.pair_item
        again = self.repeat_out(self.repeat_hidden(batch))[:, 0] + self.repeat_bias[item]
        again = again + self.mix[0] * batch.cooccurrence[row, item] + self.mix[1] * affinity[row, item]
        again = again + popularity[batch.cut[row], item]
        return scores.index_put((row, item), again)

    def repeat_hidden(self, batch: Batch) -> Tensor:
        """(P, hidden) what the repeat network sees in each pair."""
        values = torch.cat([batch.pair_values, batch.context[batch.pair_row]], dim=1)
        return torch.relu(self.repeat_in((values - self.center) / self.scale))


def ranking_loss(scores: Tensor, batch: Batch, new_weight: float) -> Tensor:
    """Softmax loss of each wanted item against the unwanted ones, averaged within users, then over users.

    The other wanted items are no competitors: with them in the denominator no ranking is good enough, and NDCG@10 is
    lower. ``new_weight`` times the same loss over only the items new to the user is added: else repeats drown them.
    """
    row, item = batch.target_row, batch.target_item
    new = torch.ones(scores.shape, dtype=torch.bool)
    new[batch.pair_row, batch.pair_item] = False
    unwanted = scores.index_put((row, item), scores.new_tensor(-torch.inf))
    loss = _against(scores[row, item], unwanted, row)
    if not new_weight:
        return loss
    fresh = new[row, item]
    row, item = row[fresh], item[fresh]
    return loss + new_weight * _against(scores[row, item], unwanted.masked_fill(~new, -torch.inf), row)


def _against(wanted: Tensor, unwanted: Tensor, row: Tensor) -> Tensor:
    """Mean over users, and within a user over the wanted, of softplus(log sum exp(unwanted) - wanted)."""
    counts = torch.bincount(row, minlength=len(unwanted))
    losses = functional.softplus(torch.logsumexp(unwanted, dim=1)[row] - wanted) / counts[row]
    return losses.sum() / (counts > 0).sum().clamp(min=1)


@dataclass(frozen=True)
class GlobalRanker:
    """A trained network and the ids of the candidates it ranks."""

    network: RankerNetwork
    candidate_ids: tuple[str, ...]

    @property
    def item_vectors(self) -> Tensor:
        """(C, W) the vectors that the state query points at."""
        return self.network.item_vectors

    def frozen(self, examples: Examples, rows: npt.NDArray[np.int64]) -> Frozen:
        """What somebody who adds to this ranker reads of the examples ``rows``, without gradients."""
        with torch.no_grad():
            batch = examples.batch(rows)
            explore = torch.cat([batch.log_popularity[batch.cut], batch.cooccurrence[..., None]], dim=2)
            return Frozen(
                torch.from_numpy(examples.users[rows]),
                self.network(batch),
                batch.states,
                explore,
                self.network.repeat_hidden(batch),
                batch.pair_row,
                batch.pair_item,
            )

    def score(
        self, examples: Examples, rows: npt.NDArray[np.int64], deltas: Added | None = None
    ) -> npt.NDArray[np.float32]:
        """(rows, C) float32 scores of the examples ``rows``; pass a block of users at a time."""
        with torch.inference_mode():
            if deltas is None:
                return self.network(examples.batch(rows)).numpy()
            frozen = self.frozen(examples, rows)
            return (frozen.scores + deltas.added(frozen, self.item_vectors)).numpy()

    def to_bytes(self) -> bytes:
        """Safetensors with the candidates as metadata."""
        tensors = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        return save_tensors(tensors, {"candidate_ids": json.dumps(self.candidate_ids)})

    @classmethod
    def from_bytes(cls, data: bytes) -> GlobalRanker:
        """The inverse of ``to_bytes``."""
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        tensors = load_tensors(data)
        network = RankerNetwork(tensors["item_vectors"], len(tensors["query"]), len(tensors["repeat_in.weight"]))
        network.load_state_dict(tensors)
        return cls(network.eval(), tuple(json.loads(header["candidate_ids"])))


def fit_global_ranker(
    training: Examples,
    validation: Examples,
    item_vectors: npt.NDArray[np.float32],
    candidate_ids: tuple[str, ...],
    config: RankerConfig,
    seed: int,
    log: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
) -> GlobalRanker:
    """Train on ``training``; of the averaged weights keep those with the lowest loss on ``validation``.

    Args:
        item_vectors: (C, width) float32 vectors of the candidates from the frozen backbone.
        log: called at each check with the step and the losses.
    """
    if not len(training):
        raise UserError("global ranker: no user had a candidate item in the training weeks; choose a later week")
    torch.manual_seed(seed)
    network = RankerNetwork(torch.from_numpy(item_vectors), training.states.shape[1], config.hidden)
    _standardize(network, training)
    large = [network.item_bias, network.repeat_bias, network.query]
    small = [network.explore, network.mix, *network.repeat_in.parameters(), *network.repeat_out.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": large, "lr": config.learning_rate / 10, "weight_decay": config.weight_decay},
            {"params": small, "lr": config.learning_rate, "weight_decay": 0.0},
        ]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_at(step, config.steps))
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGING))
    averaged, best, lowest = average.module, {}, np.inf
    for step, rows in enumerate(shuffled(np.arange(len(training)), config, seed, config.steps), 1):
        batch = training.batch(rows)
        loss = ranking_loss(network(batch), batch, config.new_item_weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(network)
        if step % config.check_every == 0 or step == config.steps:
            held_out = mean_loss(averaged, validation, config) if len(validation) else float(loss.detach())
            log(step, {"train_loss": float(loss.detach()), "valid_loss": held_out})
            if held_out < lowest:
                lowest, best = held_out, {name: value.clone() for name, value in averaged.state_dict().items()}
    network.load_state_dict(best)
    return GlobalRanker(network.eval(), candidate_ids)


def learning_rate_at(step: int, steps: int) -> float:
    """Share of the peak learning rate: a short warm-up, then a linear decay to a twentieth."""
    return min(1.0, (step + 1) / 20) * (1 - 0.95 * min(1.0, step / steps))


def shuffled(rows: npt.NDArray[np.int64], config: RankerConfig, seed: int, steps: int) -> list[npt.NDArray[np.int64]]:
    """``steps`` batches of ``rows``: every row once before any row twice."""
    rng = np.random.default_rng(seed)
    size = min(config.batch_users, len(rows))
    passes = -(-steps * size // len(rows))
    order = np.concatenate([rng.permutation(rows) for _ in range(passes)])
    return [order[step * size : (step + 1) * size] for step in range(steps)]


def _standardize(network: RankerNetwork, training: Examples) -> None:
    values = np.concatenate([training.values, training.context[training.had.user_of_pair]], axis=1)
    if len(values):
        network.center.copy_(torch.from_numpy(values.mean(0)))
        network.scale.copy_(torch.from_numpy(values.std(0) + 1e-3))


def mean_loss(network: nn.Module, examples: Examples, config: RankerConfig) -> float:
    """Mean ranking loss over all examples."""
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(examples), 512):
            batch = examples.batch(np.arange(start, min(start + 512, len(examples))))
            total += float(ranking_loss(network(batch), batch, config.new_item_weight)) * len(batch.states)
    return total / len(examples)
