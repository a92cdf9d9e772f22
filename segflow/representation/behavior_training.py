"""The training loop of the behaviour model: epochs, the two optimizers, early stopping and resuming.

Several processes may train together (``process_group``): each looks at its own windows of a batch, and its losses count by the
share that it has of the batch's positions. So they learn what one process does, but for the order of sums and the units that
dropout leaves out.

Lives here: how the network is trained. Does not live here: what on (``pretraining``), the finished model (``behavior``).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segflow.config import BehaviorConfig
from segflow.errors import UserError
from segflow.representation.behavior_network import Network
from segflow.representation.checkpoints import Checkpoint
from segflow.representation.devices import moved, rounded
from segflow.representation.moments import (
    Batch,
    batches_of,
    expand,
    find_moments,
    full_batches,
    make_batch,
    windows_of,
)
from segflow.representation.pretraining import Plan, PretrainingTasks
from segflow.representation.process_group import ALONE, Group
from segflow.representation.sequences import MICROSECONDS_PER_DAY, EventSequences

Log = Callable[[int, dict[str, float]], None]
_BETAS = (0.9, 0.98)


@dataclass(frozen=True)
class Span:
    """Training ends at ``split_us``, validation at ``end_us``; microseconds since 1970."""

    split_us: int
    end_us: int

    @classmethod
    def of(cls, sequences: EventSequences, config: BehaviorConfig) -> Span:
        """The last ``validation_days`` of the log are for validation. Raises UserError if nothing is left before."""
        if not len(sequences.times):
            raise UserError(
                "behaviour model: no events before the snapshot; choose a later week or check the event filter"
            )
        end = int(sequences.times.max()) + 1
        split = end - int(config.validation_days * MICROSECONDS_PER_DAY)
        if not (sequences.times < split).any():
            raise UserError(
                f"behaviour model: all events lie within the last {config.validation_days:g} days, which are kept for early "
                "stopping; choose a later week or lower behavior.validation_days"
            )
        return cls(split, end)


def run_digest(
    sequences: EventSequences,
    item_vectors: npt.NDArray[np.float32],
    config: BehaviorConfig,
    seed: int,
    group: Group = ALONE,
) -> str:
    """A digest of all that decides a training but the kind of device: two runs of one digest are the same run."""
    processes = "" if group.alone else f" {group.size} processes"
    digest = hashlib.sha256(
        f"{config.model_dump_json()} {seed} {torch.__version__} {torch.get_num_threads()}{processes}".encode()
    )
    for field in fields(sequences):
        value = getattr(sequences, field.name)
        digest.update(repr(value).encode() if isinstance(value, tuple) else np.ascontiguousarray(value).data.cast("B"))
    digest.update(np.ascontiguousarray(item_vectors).data.cast("B"))
    return digest.hexdigest()


class Trainer:
    """Epochs over windows; AdamW with one warm-up and one linear decay over all epochs.

    It works where the network is when the trainer is made; there the network stays.
    """

    def __init__(
        self,
        network: Network,
        sequences: EventSequences,
        config: BehaviorConfig,
        span: Span,
        seed: int,
        group: Group = ALONE,
    ) -> None:
        self.network, self.sequences, self.config, self.span = network, sequences, config, span
        self.seed, self.group, self.device = seed, group, network.device
        self.moments = find_moments(sequences, config.session_gap_minutes)
        self.tasks = PretrainingTasks(network, sequences, self.moments, config, span.split_us)
        self.rng = np.random.default_rng(seed)
        self.dense = [one for one in network.parameters() if one.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.dense, lr=config.learning_rate, weight_decay=config.weight_decay, betas=_BETAS, fused=True
        )
        self.rows = _RowAdamW([network.item_bias, *([network.item] if network.has_ids else [])], config.weight_decay)
        self._seen = moved(self.tasks.seen, self.device)
        known = np.concatenate([[0], np.cumsum(self.moments.times < span.split_us)])
        begin = self.moments.offsets[:-1]
        self._before_split = begin, begin + np.diff(known[self.moments.offsets])
        self.step, self.steps = 0, config.epochs * max(1, -(-len(self.moments.times) // config.batch_moments))

    def fit(self, log: Log, checkpoint: Checkpoint | None) -> None:
        """Train until the validation loss stops falling; the network ends with the weights of the best epoch."""
        best = self._state_of_network()
        curve: list[dict[str, float]] = []
        if checkpoint is not None and (found := checkpoint.load()) is not None:
            best, curve = self._restore(*found)
            for epoch, metrics in enumerate(curve):
                log(epoch, metrics)
        while len(curve) < self.config.epochs and _waited(curve) < self.config.patience:
            metrics = self._epoch()
            if not curve or metrics["valid_loss"] < min(one["valid_loss"] for one in curve):
                best = self._state_of_network()
            curve.append(metrics)
            log(len(curve) - 1, metrics)
            if checkpoint is not None and self.group.leads:
                checkpoint.save(*self._state(best, curve))
        self.network.load_state_dict(best)
        if checkpoint is not None and self.group.leads:
            checkpoint.remove()

    def train(self) -> dict[str, float]:
        """One pass over every moment before the split, in windows that begin elsewhere each time."""
        self.network.train()
        if not self.group.alone:
            self.group.draw_apart(self.seed, self.step)
        begin, end = self._before_split
        starts, stops = windows_of(
            begin, end, self.config.context, self.rng.integers(0, self.config.context, len(begin))
        )
        mixed = self.rng.permutation(len(starts))
        groups = full_batches(starts[mixed], stops[mixed], self.config.batch_moments)
        found = [self._learn(*groups[number]) for number in self.rng.permutation(len(groups))]
        learned = [losses for losses in found if losses]
        if not learned:
            weighted = ", ".join(name for name, weight in self.config.tasks.items() if weight)
            raise UserError(
                f"behaviour model: no moment of the log has anything to predict for behavior.tasks ({weighted}); give another "
                "task a weight, such as `return: 1`"
            )
        self._settle_unseen()
        if not self.group.alone:
            self.group.require_same(self.network.state_dict())
        names = dict.fromkeys(name for losses in learned for name in losses)
        return {name: sum(losses.get(name, 0.0) for losses in learned) / len(learned) for name in names}

    def validate(self) -> dict[str, float]:
        """Mean losses of the moments whose outcome, a next moment or still none, lies in the validation days."""
        self.network.eval()
        moments, config, end = self.moments, self.config, self.span.end_us
        ahead = np.append(moments.times[1:], 0)
        wanted = ~moments.follows | (ahead >= self.span.split_us)
        # Windows that end at the user's last moment, so that every validated moment has as much past as there is.
        begin, stops = moments.offsets[:-1], moments.offsets[1:]
        starts, stops = np.maximum(begin, stops - config.context)[stops > begin], stops[stops > begin]
        batches = batches_of(starts, stops, 2 * config.batch_moments)
        sums: dict[str, float] = {}
        weight = 0.0
        rng = np.random.default_rng(0)
        with torch.inference_mode():
            for number, chosen in enumerate(batches):
                batch = make_batch(self.sequences, moments, starts[chosen], stops[chosen], self.device)
                scored = wanted[batch.moments]
                if not scored.any():
                    continue
                # Planned by every process, since random numbers are drawn for all batches in a row.
                plan = self.tasks.plan(batch, scored, end, rng)
                if number % self.group.size == self.group.rank:
                    losses = self._losses(batch, plan, end)
                    weight += scored.sum() if losses else 0
                    for name, value in _read(losses).items():
                        sums[name] = sums.get(name, 0.0) + value * scored.sum()
        if not self.group.alone:
            sums, weight = self._added(sums, weight)
        if not sums:
            return {"loss": math.inf}
        return {name: float(value / weight) for name, value in sums.items()}

    def _added(self, sums: dict[str, float], weight: float) -> tuple[dict[str, float], float]:
        """What all processes found; a name that none of them has is left out."""
        names = ["loss", *self.config.tasks]
        found = self.group.add({name: sums.get(name, 0.0) for name in names} | {"weight": weight})
        there = self.group.add({name: float(name in sums) for name in names})
        return {name: found[name] for name in names if there[name]}, found["weight"]

    def _epoch(self) -> dict[str, float]:
        began = time.perf_counter()
        training = self.train()
        begin, end = self._before_split
        speed = float((end - begin).sum()) / (time.perf_counter() - began)
        figures = {"learning_rate": self._rate(), "positions_per_second": speed}
        validation = self.validate()
        return (
            {f"train_{name}": value for name, value in training.items()}
            | {f"valid_{name}": value for name, value in validation.items()}
            | figures
        )

    def _learn(self, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> dict[str, float]:
        """One training step on these windows; the mean losses, none if no task has anything to predict in them."""
        batch = make_batch(self.sequences, self.moments, starts, stops, self.device)
        plan = self.tasks.plan(batch, np.ones(len(batch.moments), bool), self.span.split_us, self.rng)
        at = moved(plan.items, self.device)
        leaves = [table.detach()[at].requires_grad_() for table in self.rows.tables]
        self.optimizer.zero_grad()
        if self.group.alone:
            losses = self._losses(batch, plan, self.span.split_us, leaves)
            if losses:
                losses["loss"].backward()
            parts = _read(losses)
        else:
            parts = self._descend_together(starts, stops, batch, plan, leaves)
        if not parts:
            self.step += 1
            return parts
        if not math.isfinite(parts["loss"]):
            raise UserError(
                f"behaviour model: the loss is {parts['loss']} at training step {self.step + 1}; "
                f"lower behavior.learning_rate ({self.config.learning_rate:g})"
            )
        nn.utils.clip_grad_norm_([*self.dense, *leaves], 1.0)
        rate = self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.step += 1
        learned = moved(np.flatnonzero(self.tasks.seen[plan.items]), self.device)
        self.rows.update(at[learned], leaves, learned, rate, self.step)
        return parts

    def _descend_together(
        self,
        starts: npt.NDArray[np.int64],
        stops: npt.NDArray[np.int64],
        batch: Batch,
        plan: Plan,
        leaves: list[Tensor],
    ) -> dict[str, float]:
        """Gradients and mean losses of the whole batch, of which this process works on every so many-th window."""
        end, tasks = self.span.split_us, self.tasks
        whole = tasks.counts(batch, plan, end)
        if not whole:
            return {}
        parts = dict.fromkeys(("loss", *whole), 0.0)
        own = slice(self.group.rank, None, self.group.size)
        if len(starts[own]):
            lengths = stops - starts
            before = np.cumsum(lengths) - lengths
            positions, _ = expand(before[own], before[own] + lengths[own])
            some = make_batch(self.sequences, self.moments, starts[own], stops[own], self.device)
            of_some = plan.only(positions)
            counts = tasks.counts(some, of_some, end)
            found = self._task_losses(some, of_some, end, leaves)
            shared = {name: value * (counts[name] / whole[name]) for name, value in found.items()}
            if shared:
                loss = tasks.total(shared, among=whole)
                loss.backward()
                parts |= _read({"loss": loss, **shared})
        sums = self.group.add_gradients([*self.dense, *leaves], list(parts.values()))
        return dict(zip(parts, sums, strict=True))

    def _losses(self, batch: Batch, plan: Plan, end_us: int, leaves: Sequence[Tensor] = ()) -> dict[str, Tensor]:
        losses = self._task_losses(batch, plan, end_us, leaves)
        return {"loss": self.tasks.total(losses), **losses} if losses else {}

    def _task_losses(self, batch: Batch, plan: Plan, end_us: int, leaves: Sequence[Tensor] = ()) -> dict[str, Tensor]:
        with rounded(self.device):
            return self.tasks.losses(batch, plan, self.network.items(plan.items, *leaves), end_us)

    @torch.no_grad()
    def _settle_unseen(self) -> None:
        """An item without an event is the average item, told apart by its text, and as rare as the rarest."""
        if self.network.has_ids and self._seen.any():
            self.network.item[~self._seen] = self.network.item[self._seen].mean(0)
        if self._seen.any():
            self.network.item_bias[~self._seen] = self.network.item_bias[self._seen].min()

    def _rate(self) -> float:
        progress = min(1.0, self.step / self.steps)
        return self.config.learning_rate * min(1.0, progress / 0.1 + 0.01, 1.02 - progress)

    def _state_of_network(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    def _state(
        self, best: Mapping[str, Tensor], curve: list[dict[str, float]]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next epoch depends on."""
        tensors = {"random": torch.get_rng_state()}
        if self.device.type != "cpu":
            tensors["random_of_card"] = torch.get_device_module(self.device).get_rng_state(self.device)
        tensors |= {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
        for table, pair in enumerate(self.rows.moments):
            tensors |= {f"rows.{table}.{place}": tensor for place, tensor in enumerate(pair)}
        return tensors, {"curve": curve, "step": self.step, "random": self.rng.bit_generator.state}

    def _restore(
        self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
        """The inverse of ``_state``; the best weights so far and the learning curve.

        What was trained on another kind of device goes on here, but dropout draws other random numbers than there.
        """

        def below(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}

        torch.set_rng_state(tensors["random"])
        if self.device.type != "cpu" and "random_of_card" in tensors:
            torch.get_device_module(self.device).set_rng_state(tensors["random_of_card"], self.device)
        self.rng.bit_generator.state = state["random"]
        self.step = state["step"]
        self.network.load_state_dict(below("network."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in below("optimizer.").items():
            number, _, kind = name.partition(".")
            moments.setdefault(int(number), {})[kind] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        for table, pair in enumerate(self.rows.moments):
            for place, tensor in enumerate(pair):
                tensor.copy_(tensors[f"rows.{table}.{place}"])
        return below("best."), state["curve"]


def _read(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """The numbers, in one exchange with the device: each would wait for all that it still has to do."""
    if not losses:
        return {}
    return dict(zip(losses, torch.stack([one.detach() for one in losses.values()]).tolist(), strict=True))


def _waited(curve: list[dict[str, float]]) -> int:
    """Epochs since the best one."""
    losses = [metrics["valid_loss"] for metrics in curve]
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0


class _RowAdamW:
    """AdamW that works on the rows of a step only: a large catalogue costs what a step uses of it.

    The moments of a row stand still while it is not used, as in TensorFlow's LazyAdam.
    """

    def __init__(self, tables: list[nn.Parameter], weight_decay: float) -> None:
        self.tables, self.weight_decay = [table.detach() for table in tables], weight_decay
        self.moments = [(torch.zeros_like(table), torch.zeros_like(table)) for table in self.tables]

    @torch.no_grad()
    def update(self, at: Tensor, leaves: list[Tensor], learned: Tensor, rate: float, step: int) -> None:
        """Move the rows ``at`` (n,) against the gradients of the ``learned`` (n,) rows of ``leaves``; step counts from 1."""
        for table, moments, leaf in zip(self.tables, self.moments, leaves, strict=True):
            if leaf.grad is None:
                continue
            gradient = leaf.grad[learned]
            first = moments[0][at].lerp_(gradient, 1 - _BETAS[0])
            second = moments[1][at].mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
            moments[0][at], moments[1][at] = first, second
            scale = second.div(1 - _BETAS[1] ** step).sqrt_().add_(1e-8)
            table[at] = (
                table[at]
                .mul_(1 - rate * self.weight_decay)
                .addcdiv_(first, scale, value=-rate / (1 - _BETAS[0] ** step))
            )
