"""Segment rankers: what one group of users adds to the frozen global ranker.

A delta is a low-rank change of the state query (LoRA, Hu et al. 2022) and own mixing weights, trained on the cached
states of the group's users alone. It is gated by n / (n + gate_users), the shrinkage of a group mean, so that a thin
group stays with the global ranker. A group's delta depends on nothing but its own users: one trained alone equals the
same one trained with all others. The control arms (one group of everybody, random groups) come from the same function
and get the same number of steps.

Lives here: training deltas, scoring with them and their bytes. Does not live here: who belongs to which segment.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from segflow.config import RankerConfig
from segflow.rankers.examples import Examples
from segflow.rankers.global_ranker import Delta, GlobalRanker, learning_rate_at, ranking_loss, shuffled


def train_deltas(
    ranker: GlobalRanker, training: Examples, assignment: npt.NDArray[np.int64], config: RankerConfig, seed: int
) -> dict[int, Delta]:
    """One delta for each group in ``assignment``: (U,) group of each user, -1 for none.

    A group without a training example gets a delta that changes nothing.
    """
    groups = assignment[training.users]
    codes = [int(code) for code in np.unique(assignment[assignment >= 0])]
    return {code: _train(ranker, training, np.flatnonzero(groups == code), config, seed) for code in codes}


def _train(
    ranker: GlobalRanker, training: Examples, rows: npt.NDArray[np.int64], config: RankerConfig, seed: int
) -> Delta:
    network = ranker.network
    generator = torch.Generator().manual_seed(seed)
    (states, width), hidden = network.query.shape, network.repeat_out.in_features
    users = len(np.unique(training.users[rows]))
    delta = Delta(
        down=torch.randn(states, config.delta_rank, generator=generator) / states**0.5,
        up=torch.zeros(config.delta_rank, width),
        explore=torch.zeros(3),
        repeat=torch.zeros(hidden),
        gate=users / (users + config.gate_users) if users else 0.0,
    )
    if not users:
        return delta
    weights = [delta.down, delta.up, delta.explore, delta.repeat]
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=config.delta_learning_rate, weight_decay=config.delta_weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_at(step, config.delta_steps))
    for batch_rows in shuffled(rows, config, seed, config.delta_steps):
        batch, frozen = training.batch(batch_rows), ranker.frozen(training, batch_rows)
        scores = frozen.scores + delta.added(frozen, ranker.item_vectors)
        loss = ranking_loss(scores, batch, config.new_item_weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    for weight in weights:
        weight.requires_grad_(False)
    return delta


def score_with_deltas(
    ranker: GlobalRanker,
    deltas: Mapping[int, Delta],
    assignment: npt.NDArray[np.int64],
    examples: Examples,
    rows: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """(rows, C) scores, each user's with the delta of its group; users of no group get the global ranker's."""
    groups = assignment[examples.users[rows]]
    scores = np.empty((len(rows), examples.candidates), np.float32)
    for code in np.unique(groups):
        chosen = np.flatnonzero(groups == code)
        scores[chosen] = ranker.score(examples, rows[chosen], deltas.get(int(code)))
    return scores


def delta_to_bytes(delta: Delta) -> bytes:
    """Safetensors of one group's delta."""
    tensors = {name: getattr(delta, name).contiguous() for name in ("down", "up", "explore", "repeat")}
    return save_tensors(tensors | {"gate": torch.tensor(delta.gate, dtype=torch.float64)})


def delta_from_bytes(data: bytes) -> Delta:
    """The inverse of ``delta_to_bytes``."""
    tensors = load_tensors(data)
    return Delta(gate=float(tensors.pop("gate")), **tensors)
