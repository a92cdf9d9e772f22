"""The global ranker: trained on everyone, and the base that segment rankers add to.

It is trained on the weeks before the snapshot. Weights are averaged over the steps (Polyak & Juditsky 1992), and the
snapshot's own week decides which average is kept.

Lives here: the loss, the training, the trained ranker and its bytes. Does not live here: the network
(``ranker_network``), and what differs between segments.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segflow.config import RankerConfig
from segflow.errors import UserError
from segflow.rankers.examples import Batch, Examples
from segflow.rankers.features import ITEM_FEATURES
from segflow.rankers.ranker_network import RankerNetwork
from segflow.rankers.scorers import COOCCURRENCE, SCORERS
from segflow.representation.checkpoints import Checkpoint, DamagedError, pack, unpack

Log = Callable[[int, dict[str, float]], None]
_AVERAGING = 0.98  # a step's share of the averaged weights fades to a third within fifty steps
_PASSES = 20  # more passes over few examples only learn them by heart
_GRADIENT = 1.0
_STANDARDIZED = 1_000_000  # rows of users and candidates that means and spreads are taken of
_BLOCK = 256
_EXPLORE = [len(SCORERS) + ITEM_FEATURES.index(f"log_buyers_{days}d") for days in (7, 28)] + [COOCCURRENCE]


class Frozen(NamedTuple):
    """What the global ranker found of B users over C candidates, and what somebody who adds to it may weigh anew."""

    users: Tensor  # (B,) index of each user in the sequences
    scores: Tensor  # (B, C)
    states: Tensor  # (B, S)
    explore: Tensor  # (E, B, C) standardized inputs of the explore head: popularity of 7 and 28 days, co-occurrence
    hidden: Tensor  # (P, H) last hidden layer of the repeat head for each pair
    pair_row: Tensor  # (P,)
    pair_item: Tensor  # (P,)
    network: RankerNetwork  # what scored them
    batch: Callable[[Tensor], Batch]  # what the network read of those of the B users, for who runs it anew


class Added(Protocol):
    """What is added to frozen scores."""

    def added(self, frozen: Frozen, item_vectors: Tensor) -> Tensor:
        """(B, C) what to add to ``frozen.scores``; ``item_vectors`` (C, W) are those of the ranker."""
        ...


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

    @torch.no_grad()
    def frozen(self, examples: Examples, rows: npt.NDArray[np.int64], scores: Tensor | None = None) -> Frozen:
        """What somebody who adds to this ranker reads of the examples ``rows``, without gradients.

        Args:
            scores: (rows, C) if they are known, which spares most of the work: the explore head is not run.
        """
        network = self.network
        pair, row = examples.had.take(rows)
        pair_row, pair_item = torch.from_numpy(row), torch.from_numpy(examples.had.items[pair])
        if scores is None:
            scores, inputs, hidden = network.parts(examples.batch(rows))
            explore = torch.stack([inputs[:, :, column] for column in _EXPLORE])
        else:
            explore, inputs = map(torch.from_numpy, examples.inputs(rows, _EXPLORE, row, pair_item.numpy()))
            center, scale = (one[_EXPLORE, None, None] for one in (network.inputs.center, network.inputs.scale))
            explore.sub_(center).div_(scale)
            context = network.context(torch.from_numpy(examples.context[rows]))[pair_row]
            hidden = network.repeat_hidden(torch.from_numpy(examples.values[pair]), context, network.inputs(inputs))
        return Frozen(
            users=torch.from_numpy(examples.users[rows]),
            scores=scores,
            states=torch.from_numpy(examples.states[rows]),
            explore=explore,
            hidden=hidden,
            pair_row=pair_row,
            pair_item=pair_item,
            network=network,
            batch=lambda own: examples.batch(rows[own.numpy()]),
        )

    def score(
        self,
        examples: Examples,
        rows: npt.NDArray[np.int64],
        deltas: Added | None = None,
        frozen: Frozen | None = None,
    ) -> npt.NDArray[np.float32]:
        """(rows, C) float32 scores of the examples ``rows``; pass a block of users at a time.

        Args:
            frozen: what ``frozen`` gave for the same rows before, which spares running the network.
        """
        with torch.inference_mode():
            if deltas is None and frozen is None:
                return self.network(examples.batch(rows)).numpy()
            frozen = frozen or self.frozen(examples, rows)
            scores = frozen.scores if deltas is None else frozen.scores + deltas.added(frozen, self.item_vectors)
            return scores.numpy()

    def to_bytes(self) -> bytes:
        """Safetensors with the candidates as metadata."""
        return pack(self.network.state_dict(), {"candidate_ids": self.candidate_ids})

    @classmethod
    def from_bytes(cls, data: bytes) -> GlobalRanker:
        """The inverse of ``to_bytes``. Raises UserError for bytes that are cut, changed, or hold NaN."""
        try:
            tensors, values = unpack(data)
        except DamagedError as error:
            raise UserError(f"global ranker: the stored model {error}; materialize global_ranker again") from error
        sizes = (len(tensors[name]) for name in ("query", "repeat_in.bias", "explore_out"))
        network = RankerNetwork(tensors["item_vectors"], *sizes)
        network.load_state_dict(tensors)
        return cls(network.eval(), tuple(values["candidate_ids"]))


def fit_global_ranker(
    training: Examples,
    validation: Examples,
    item_vectors: npt.NDArray[np.float32],
    candidate_ids: tuple[str, ...],
    config: RankerConfig,
    seed: int,
    log: Log = lambda step, metrics: None,
    checkpoint: Path | None = None,
) -> GlobalRanker:
    """Train on ``training``; of the averaged weights keep those with the lowest loss on ``validation``.

    Args:
        item_vectors: (C, width) float32 vectors of the candidates from the frozen backbone.
        log: called at each check with the step and the losses.
        checkpoint: file that holds the state at the last check while training goes on. A training of the same data,
            settings and seed that was interrupted goes on from there and ends with the same weights.

    Raises UserError when there is nothing to train on or the loss becomes NaN.
    """
    if not len(training):
        raise UserError("global ranker: no user had a candidate item in the training weeks; choose a later week")
    torch.manual_seed(seed)
    network = RankerNetwork(
        torch.from_numpy(item_vectors), training.states.shape[1], config.hidden, config.explore_hidden
    )
    run = _run_digest(training, validation, item_vectors, config, seed) if checkpoint else ""
    _Trainer(network, training, validation, config, seed).fit(log, Checkpoint(checkpoint, run) if checkpoint else None)
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


def mean_loss(network: nn.Module, examples: Examples, config: RankerConfig) -> float:
    """Mean ranking loss over all examples."""
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(examples), _BLOCK):
            batch = examples.batch(np.arange(start, min(start + _BLOCK, len(examples))))
            total += float(ranking_loss(network(batch), batch, config.new_item_weight)) * len(batch.states)
    return total / len(examples)


class _Trainer:
    """Steps of AdamW with one warm-up and one linear decay."""

    def __init__(
        self, network: RankerNetwork, training: Examples, validation: Examples, config: RankerConfig, seed: int
    ) -> None:
        self.network, self.training, self.validation, self.config = network, training, validation, config
        self.steps = min(config.steps, max(1, _PASSES * len(training) // min(config.batch_users, len(training))))
        self.batches = shuffled(np.arange(len(training)), config, seed, self.steps)
        _standardize(network, training, self.batches)
        biases = [network.item_bias, network.repeat_bias]
        slow = {id(one) for one in (*biases, network.query)}
        # Rates of what has one row an item or a state lie below those of the few weights that all share.
        groups = [
            {"params": biases, "share": 0.2},
            {"params": [network.query], "share": 0.5},
            {"params": [one for one in network.parameters() if id(one) not in slow], "share": 1.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGING))
        self.best: dict[str, Tensor] = {}
        self.curve: list[dict[str, float]] = []

    def fit(self, log: Log, checkpoint: Checkpoint | None) -> None:
        """Train; the network ends with the averaged weights of the best check."""
        if checkpoint is not None and (found := checkpoint.load()) is not None:
            self._restore(*found)
            for metrics in self.curve:
                log(int(metrics["step"]), _losses(metrics))
        done = int(self.curve[-1]["step"]) if self.curve else 0
        for step in range(done, self.steps):
            loss = self._learn(step)
            if (step + 1) % self.config.check_every == 0 or step + 1 == self.steps:
                self._check(step + 1, loss)
                log(step + 1, _losses(self.curve[-1]))
                if checkpoint is not None:
                    checkpoint.save(*self._state())
        self.network.load_state_dict(self.best)
        if checkpoint is not None:
            checkpoint.remove()

    def _learn(self, step: int) -> float:
        batch = self.training.batch(self.batches[step])
        loss = ranking_loss(self.network(batch), batch, self.config.new_item_weight)
        if not math.isfinite(float(loss.detach())):
            raise UserError(
                f"global ranker: the loss is {float(loss.detach())} at training step {step + 1}; "
                f"lower rankers.learning_rate ({self.config.learning_rate:g})"
            )
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), _GRADIENT)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * group["share"] * learning_rate_at(step, self.steps)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return float(loss.detach())

    def _check(self, step: int, loss: float) -> None:
        averaged = self.average.module
        held_out = mean_loss(averaged, self.validation, self.config) if len(self.validation) else loss
        if all(held_out < metrics["valid_loss"] for metrics in self.curve):
            self.best = {name: value.clone() for name, value in averaged.state_dict().items()}
        self.curve.append({"step": step, "train_loss": loss, "valid_loss": held_out})

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next step depends on."""
        parts = {"network": self.network.state_dict(), "average": self.average.state_dict(), "best": self.best}
        for number, moments in self.optimizer.state_dict()["state"].items():
            parts[f"optimizer.{number}"] = moments
        tensors = {f"{part}.{name}": one for part, named in parts.items() for name, one in named.items()}
        return tensors, {"curve": self.curve}

    def _restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """The inverse of ``_state``."""

        def below(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}

        self.network.load_state_dict(below("network."))
        self.average.load_state_dict(below("average."))
        self.best, self.curve = below("best."), state["curve"]
        whole = self.optimizer.state_dict()
        numbers = [number for group in whole["param_groups"] for number in group["params"]]
        whole["state"] = {number: below(f"optimizer.{number}.") for number in numbers}
        self.optimizer.load_state_dict(whole)


def _losses(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in ("train_loss", "valid_loss")}


def _standardize(network: RankerNetwork, training: Examples, batches: list[npt.NDArray[np.int64]]) -> None:
    """Means and spreads of the training examples; those of candidates, which are many, of some."""
    network.pairs.fit(training.values)
    network.context.fit(training.context)
    rows = np.concatenate(batches)[: max(1, _STANDARDIZED // training.candidates)]
    network.inputs.fit(training.batch(rows).inputs.flatten(0, 1).numpy())


def _run_digest(
    training: Examples, validation: Examples, item_vectors: npt.NDArray[np.float32], config: RankerConfig, seed: int
) -> str:
    """A digest of all that decides a training: two runs of one digest are the same run. Scores follow from the rest."""
    digest = hashlib.sha256(f"{config.model_dump_json()} {seed} {torch.__version__} {torch.get_num_threads()}".encode())
    digest.update(np.ascontiguousarray(item_vectors).data.cast("B"))
    for one in (training, validation):
        for array in (one.users, one.cut, one.states, one.context, one.trends, one.values):
            digest.update(np.ascontiguousarray(array).data.cast("B"))
        for pairs in (one.had, one.wanted):
            digest.update(pairs.offsets.data.cast("B"))
            digest.update(pairs.items.data.cast("B"))
    return digest.hexdigest()
