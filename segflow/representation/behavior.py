"""The behaviour model: a causal transformer over a user's moments, pre-trained on the log itself.

A moment's events have no order, so they are pooled into one input vector and predicted together as one set: no event of
a moment is ever used to predict another one of the same moment.

Lives here: the finished model, user states, bytes. Does not live here: the layers (``behavior_network``), the tasks
(``pretraining``), the training loop (``behavior_training``), smaller variants (``compression``), how items get their text
vectors, and how states become a ranking.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from segflow.config import BehaviorConfig
from segflow.errors import UserError
from segflow.representation.behavior_network import Network
from segflow.representation.behavior_training import Log, Span, Trainer, run_digest
from segflow.representation.checkpoints import Checkpoint, DamagedError, pack, unpack
from segflow.representation.devices import CPU, find_device, moved, rounded
from segflow.representation.moments import batches_of, find_moments, make_batch
from segflow.representation.process_group import Group
from segflow.representation.quantization import dequantize, quantize
from segflow.representation.sequences import EventSequences
from segflow.representation.training_processes import Processes, Training, train

Variant = Literal["full", "int8", "pruned"]
ONE_PROCESS = Processes()


@dataclass(frozen=True)
class BehaviorModel:
    """A pre-trained network with the catalogue size and event types it was trained for.

    The weights of the ``int8`` variant are multiples of a step size per row: they are stored as bytes.
    """

    network: Network
    config: BehaviorConfig
    event_types: tuple[str, ...]
    variant: Variant = "full"

    @property
    def width(self) -> int:
        """Size of a user state."""
        return self.config.width

    def states(
        self,
        sequences: EventSequences,
        cuts: npt.NDArray[np.int64],
        users: npt.NDArray[np.int64],
        state: Literal["last", "mean"] | None = None,
    ) -> npt.NDArray[np.float32]:
        """(Q,) cuts in microseconds and (Q,) user indices -> (Q, width + 1) float32.

        Row q is user ``users[q]`` after all events strictly before ``cuts[q]``; the last column is 1, or the whole
        row is zero when there was no such event. ``state`` is `behavior.state` unless it is given: the state after the
        last moment, or the mean over the moments of the window.
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
        with torch.inference_mode(), rounded(self.network.device):
            items = self.network.items(np.unique(sequences.items[sequences.items >= 0]).astype(np.int64))
            for chosen in batches_of(starts[filled], stops[filled], 4 * self.config.batch_moments):
                rows = filled[chosen]
                batch = make_batch(sequences, moments, starts[rows], stops[rows], self.network.device)
                found = self.network(batch, items).cpu().numpy()
                if (state or self.config.state) == "last":
                    out[rows, :-1] = found[batch.last]
                else:
                    lengths = (stops - starts)[rows]
                    out[rows, :-1] = np.add.reduceat(found, batch.last + 1 - lengths) / lengths[:, None]
                out[rows, -1] = 1.0
        return out

    def item_vectors(self) -> npt.NDArray[np.float32]:
        """(I, width) float32 vectors of the catalogue's items in the space the states are trained to point at."""
        with torch.inference_mode():
            return self.network.items(np.arange(len(self.network.item_bias))).vectors.cpu().numpy()

    def queries(self, states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(Q, width + 1) states -> (Q, width) next-item queries; their product with ``item_vectors`` ranks."""
        with torch.inference_mode():
            asked = moved(states[:, :-1], self.network.device)
            answers: npt.NDArray[np.float32] = self.network.next_item(asked).cpu().numpy()
            return answers * states[:, -1:]

    def to_bytes(self) -> bytes:
        """Safetensors, with the configuration and event types as metadata."""
        tensors = self.network.state_dict() | {"item_vectors": self.network.item_vectors}
        if self.variant == "int8":
            tensors = quantize(tensors)
        values = {
            "config": self.config.model_dump(mode="json"),
            "event_types": self.event_types,
            "variant": self.variant,
        }
        return pack(tensors, values)

    @classmethod
    def from_bytes(cls, data: bytes, device: torch.device = CPU) -> BehaviorModel:
        """The inverse of ``to_bytes``, for use on ``device``.

        Raises UserError for bytes that are cut, changed, or hold NaN.
        """
        try:
            tensors, values = unpack(data)
        except DamagedError as error:
            raise UserError(f"behaviour model: the stored model {error}; materialize behavior_model again") from error
        config = BehaviorConfig.model_validate(values["config"])
        event_types = tuple(values["event_types"])
        if values["variant"] == "int8":
            tensors = dequantize(tensors)
        network = Network.of(tensors, len(event_types), config).to(device)
        return cls(network, config, event_types, values["variant"])

    def _check(self, sequences: EventSequences) -> None:
        items = len(self.network.item_bias)
        if len(sequences.item_ids) != items or sequences.event_types != self.event_types:
            raise UserError(
                f"behaviour model: made for {items} items and event types {list(self.event_types)}, "
                f"got {len(sequences.item_ids)} and {list(sequences.event_types)}; train it again for this catalogue"
            )


def fit_behavior_model(
    sequences: EventSequences,
    item_vectors: npt.NDArray[np.float32],
    config: BehaviorConfig,
    seed: int,
    log: Log = lambda epoch, metrics: None,
    checkpoint: Path | None = None,
    processes: Processes = ONE_PROCESS,
) -> BehaviorModel:
    """Pre-train on ``sequences``; the last ``validation_days`` decide when to stop and are never trained on.

    Args:
        sequences: the events before the snapshot.
        item_vectors: (I, D) float32 text vectors in the order of ``sequences.item_ids``.
        log: called after each epoch with its number, the losses, the learning rate and the positions trained a second.
        checkpoint: file that holds the last epoch while training goes on. A training of the same data, settings and
            seed that was interrupted goes on from there and ends with the same weights.
        processes: how many share the work. Another number changes the last bits, and what dropout leaves out.

    It is trained on a graphics card where there is one, on one for each process; the model comes back on the CPU.

    Raises UserError when there is nothing to train on, vectors do not fit the catalogue or hold NaN, the loss becomes
    NaN, or there are cards but fewer than processes, and LostProcessError when one of several processes is lost.
    """
    if len(item_vectors) != len(sequences.item_ids):
        raise UserError(f"item_vectors: {len(item_vectors)} rows for {len(sequences.item_ids)} items; pass one each")
    if not np.isfinite(item_vectors).all():
        row = int(np.flatnonzero(~np.isfinite(item_vectors).all(1))[0])
        raise UserError(f"item_vectors: row {row} (item {sequences.item_ids[row]}) holds NaN; encode the items again")
    span = Span.of(sequences, config)
    if processes.count > 1:
        return BehaviorModel.from_bytes(
            train(_fit_together, sequences, item_vectors, config, seed, log, checkpoint, processes)
        )
    return _fit(sequences, item_vectors, config, seed, log, checkpoint, span, Group(device=find_device()))


def _fit(
    sequences: EventSequences,
    item_vectors: npt.NDArray[np.float32],
    config: BehaviorConfig,
    seed: int,
    log: Log,
    checkpoint: Path | None,
    span: Span,
    group: Group,
) -> BehaviorModel:
    torch.manual_seed(seed)
    network = Network(torch.from_numpy(np.ascontiguousarray(item_vectors)), len(sequences.event_types), config)
    run = run_digest(sequences, item_vectors, config, seed, group) if checkpoint else ""
    try:
        trainer = Trainer(network.to(group.device), sequences, config, span, seed, group)
        trainer.fit(log, Checkpoint(checkpoint, run) if checkpoint else None)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"behaviour model: its graphics card has no memory left; lower behavior.batch_moments ({config.batch_moments}), or "
            "hide the card (CUDA_VISIBLE_DEVICES=-1) to train on the processor"
        ) from error
    return BehaviorModel(network.eval().to(CPU), config, sequences.event_types)


def _fit_together(
    sequences: EventSequences, item_vectors: npt.NDArray[np.float32], training: Training, group: Group, log: Log
) -> bytes:
    """What each of several processes does."""
    config, span = training.config, Span.of(sequences, training.config)
    return _fit(sequences, item_vectors, config, training.seed, log, training.checkpoint, span, group).to_bytes()
