"""The behaviour model: a causal transformer over a user's moments, pre-trained on the log itself.

A moment's events have no order, so they are pooled into one input vector and predicted together as one set: no event of
a moment is ever used to predict another one of the same moment.

Lives here: pre-training, user states, bytes. Does not live here: the layers and losses (``behavior_network``), how
items get their text vectors, and how states become a ranking.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from segflow.config import BehaviorConfig
from segflow.errors import UserError
from segflow.representation.behavior_network import Network, PretrainingTasks, use_bfloat16
from segflow.representation.moments import Batch, find_moments, group_by_length, make_batch, windows_of
from segflow.representation.sequences import MICROSECONDS_PER_DAY, EventSequences


@dataclass(frozen=True)
class BehaviorModel:
    """A pre-trained network with the catalogue and event types it was trained for."""

    network: Network
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

        Row q is user ``users[q]`` after all events strictly before ``cuts[q]``; the last column is 1, or the whole
        row is zero when there was no such event.
        """
        self._check(sequences)
        moments = find_moments(sequences, self.config.session_gap_minutes)
        low, high = moments.offsets[users], moments.offsets[users + 1]
        stops = np.array(
            [a + np.searchsorted(moments.times[a:b], c) for a, b, c in zip(low, high, cuts, strict=True)], int
        )
        starts = np.maximum(low, stops - self.config.context)
        out = np.zeros((len(users), self.width + 1), np.float32)
        filled = np.flatnonzero(stops > starts)
        self.network.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16()):
            for chosen in group_by_length(starts[filled], stops[filled], 4 * self.config.batch_moments):
                rows = filled[chosen]
                states = self.network(make_batch(sequences, moments, starts[rows], stops[rows])).float().numpy()
                out[rows, :-1] = states[np.arange(len(rows)), stops[rows] - starts[rows] - 1]
                out[rows, -1] = 1.0
        return out

    def item_vectors(self) -> npt.NDArray[np.float32]:
        """(I, width) float32 vectors of the catalogue's items in the space the states are trained to point at."""
        with torch.inference_mode():
            return self.network.items(torch.arange(len(self.network.item))).numpy()

    def queries(self, states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(Q, width + 1) states -> (Q, width) next-item queries; their product with ``item_vectors`` ranks."""
        with torch.inference_mode():
            return self.network.next_item(torch.from_numpy(states[:, :-1])).numpy() * states[:, -1:]

    def to_bytes(self) -> bytes:
        """Safetensors, with the configuration and event types as metadata."""
        tensors = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        tensors["item_vectors"] = self.network.item_vectors.contiguous()
        # One key only: safetensors writes several in an order that changes from run to run.
        settings = {"config": self.config.model_dump(mode="json"), "event_types": self.event_types}
        return save_tensors(tensors, {"segflow": json.dumps(settings, sort_keys=True)})

    @classmethod
    def from_bytes(cls, data: bytes) -> BehaviorModel:
        """The inverse of ``to_bytes``."""
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        settings = json.loads(header["segflow"])
        config = BehaviorConfig.model_validate(settings["config"])
        event_types = tuple(settings["event_types"])
        tensors = load_tensors(data)
        network = Network(tensors.pop("item_vectors"), len(event_types), config)
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
    network = Network(torch.from_numpy(np.ascontiguousarray(item_vectors)), len(sequences.event_types), config)
    end = int(sequences.times.max()) + 1
    split = end - int(config.validation_days * MICROSECONDS_PER_DAY)
    if not (sequences.times < split).any():
        raise UserError(
            f"behaviour model: all events lie within the last {config.validation_days:g} days, which are kept for early "
            "stopping; choose a later week or lower behavior.validation_days"
        )
    trainer = _Trainer(network, sequences, config, split, end, seed)
    best, best_loss, waited = network.state_dict(), math.inf, 0
    for epoch in range(config.epochs):
        training = trainer.train()
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
        self, network: Network, sequences: EventSequences, config: BehaviorConfig, split: int, end: int, seed: int
    ) -> None:
        self.network, self.sequences, self.config, self.split, self.end = network, sequences, config, split, end
        self.moments = find_moments(sequences, config.session_gap_minutes)
        self.tasks = PretrainingTasks(network, sequences, self.moments, config, split)
        self.rng = np.random.default_rng(seed)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
        )
        self.step, self.steps = 0, config.epochs * max(1, -(-len(self.moments.times) // config.batch_moments))

    def train(self) -> dict[str, float]:
        """One pass over every moment before the split, in windows that begin elsewhere each time."""
        self.network.train()
        users = len(self.moments.offsets) - 1
        starts, stops = windows_of(self.moments, self.config.context, self.rng.integers(0, self.config.context, users))
        groups = list(group_by_length(starts, stops, self.config.batch_moments))
        sums: dict[str, float] = {}
        for number in self.rng.permutation(len(groups)):
            chosen = groups[number]
            batch = make_batch(self.sequences, self.moments, starts[chosen], stops[chosen])
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
        """Mean losses of the moments whose outcome, a next moment or still none, lies in the validation days."""
        self.network.eval()
        moments, config = self.moments, self.config
        ahead = np.append(moments.times[1:], 0)
        wanted = ~moments.follows | (ahead >= self.split)
        # Windows that end at the user's last moment, so that every validated moment has as much past as there is.
        begin, end = moments.offsets[:-1], moments.offsets[1:]
        starts, stops = np.maximum(begin, end - config.context), end
        starts, stops = starts[end > begin], stops[end > begin]
        sums: dict[str, float] = {}
        weight = 0
        rng = np.random.default_rng(0)
        with torch.inference_mode():
            for chosen in group_by_length(starts, stops, 2 * config.batch_moments):
                batch = make_batch(self.sequences, moments, starts[chosen], stops[chosen])
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
        self, batch: Batch, positions: npt.NDArray[np.bool_], end: int, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16()):
            losses = self.tasks.losses(batch, positions, end, self.rng if rng is None else rng)
        loss = torch.stack(list(losses.values())).mean()
        return loss, {"loss": float(loss.detach())} | {name: float(value.detach()) for name, value in losses.items()}
