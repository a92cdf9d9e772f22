"""A GRU autoencoder over event sequences: the learned baseline that user vectors are compared with.

A user's latest events are read into one code, from which a second GRU writes them again, last event first (Srivastava,
Mansimov and Salakhutdinov, 2015). It is trained on the history alone and knows of no outcome. It is not used downstream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from segflow.config import ProbeConfig
from segflow.representation.sequences import EventSequences

_MOST_ITEMS = 300
_BATCH_USERS = 64
_LEARNING_RATE = 5e-3
_NUMBERS = 6


def autoencode(sequences: EventSequences, users: list[str], config: ProbeConfig, seed: int) -> npt.NDArray[np.float32]:
    """(U, autoencoder_width) codes of `users`, which `sequences` may hold among others; zeros for one without events.

    An event is its item (the 300 most frequent, or other), its type, its value, the gap before it, and its hour and
    weekday (UTC). The loss is the mean of the cross-entropies of item and type and the squared error of the numbers.
    """
    log = _latest(sequences, users, config.autoencoder_events)
    torch.manual_seed(seed)
    network = _Autoencoder(log.vocabulary, len(sequences.event_types), config.autoencoder_width)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE)
    rng = np.random.default_rng(seed)
    filled = np.flatnonzero(log.lengths)
    steps = config.autoencoder_epochs * -(-len(filled) // _BATCH_USERS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=max(steps, 2))
    for _ in range(config.autoencoder_epochs):
        batches = _batches(log.lengths, rng.permutation(filled))
        for number in rng.permutation(len(batches)):
            loss = network.loss(log.batch(batches[number]))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    codes = np.zeros((len(users), config.autoencoder_width), np.float32)
    with torch.inference_mode():
        for chosen in _batches(log.lengths, filled):
            codes[chosen] = network.encode(log.batch(chosen))[0].numpy()
    return codes


@dataclass(frozen=True)
class _Batch:
    """Padded events of n users, oldest first: (n, L) items and types, (n, L, 6) numbers; lengths (n,) never rise."""

    items: Tensor
    types: Tensor
    numbers: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class _Log:
    """The latest events of the users that are read. `vocabulary` items are told apart; 0 stands for all others."""

    vocabulary: int
    items: npt.NDArray[np.int64]
    types: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    def batch(self, users: npt.NDArray[np.int64]) -> _Batch:
        lengths = self.lengths[users]
        place = np.minimum(np.arange(lengths[0])[None, :], lengths[:, None] - 1) + self.starts[users][:, None]
        return _Batch(
            torch.from_numpy(self.items[place]),
            torch.from_numpy(self.types[place]),
            torch.from_numpy(self.numbers[place]),
            torch.from_numpy(lengths),
        )


class _Autoencoder(nn.Module):
    """The event embedding, both GRUs and the heads."""

    def __init__(self, items: int, types: int, width: int) -> None:
        super().__init__()
        self.item = nn.Embedding(items, width)
        self.event_type = nn.Embedding(types, width)
        self.numbers = nn.Linear(_NUMBERS, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.decoder = nn.GRU(width, width, batch_first=True)
        self.item_head = nn.Linear(width, items)
        self.type_head = nn.Linear(width, types)
        self.number_head = nn.Linear(width, _NUMBERS)

    def encode(self, batch: _Batch) -> tuple[Tensor, Tensor]:
        """Codes (n, width) and the embedded events (n, L, width)."""
        events = torch.tanh(self.item(batch.items) + self.event_type(batch.types) + self.numbers(batch.numbers))
        _, code = self.encoder(pack_padded_sequence(events, batch.lengths, batch_first=True))
        return code[0], events

    def loss(self, batch: _Batch) -> Tensor:
        """Mean loss of writing the events again in reverse, each from the code and the true event after it."""
        code, events = self.encode(batch)
        length = events.shape[1]
        backwards = batch.lengths[:, None] - 1 - torch.arange(length)
        real = backwards >= 0
        order = backwards.clamp(min=0)
        given = torch.cat([torch.zeros_like(events[:, :1]), events.take_along_dim(order[:, :, None], 1)[:, :-1]], 1)
        states = self.decoder(given, code[None])[0][real]
        items, types = batch.items.gather(1, order)[real], batch.types.gather(1, order)[real]
        numbers = batch.numbers.take_along_dim(order[:, :, None], 1)[real]
        return (
            functional.cross_entropy(self.item_head(states), items)
            + functional.cross_entropy(self.type_head(states), types)
            + functional.mse_loss(self.number_head(states), numbers)
        ) / 3


def _latest(sequences: EventSequences, users: list[str], most: int) -> _Log:
    """The `most` latest events of each of `users`."""
    names = np.asarray(users, np.str_)
    index = np.minimum(np.searchsorted(sequences.user_ids, names), max(len(sequences.user_ids) - 1, 0))
    known = sequences.user_ids[index] == names
    stops = np.where(known, sequences.offsets[index + 1], 0)
    starts = np.where(known, np.maximum(sequences.offsets[index], stops - most), 0)
    counts = np.bincount(sequences.items + 1, minlength=len(sequences.item_ids) + 1)
    kept = np.argsort(-counts, kind="stable")[:_MOST_ITEMS]
    code = np.zeros(len(counts), np.int64)
    code[kept] = np.arange(len(kept)) + 1
    gaps = np.diff(sequences.times, prepend=sequences.times[:1]) / 3.6e9
    gaps[sequences.offsets[:-1][sequences.offsets[:-1] < len(gaps)]] = 0.0
    hours, weekdays = sequences.times / 3.6e9 % 24, sequences.times / 8.64e10 % 7
    columns = [
        *(f(2 * np.pi * part) for part in (hours / 24, weekdays / 7) for f in (np.sin, np.cos)),
        _scaled(np.log1p(np.maximum(gaps, 0))),
        _scaled(np.log1p(np.maximum(sequences.values, 0))),
    ]
    return _Log(
        len(kept) + 1,
        code[sequences.items + 1],
        sequences.types.astype(np.int64),
        np.stack(columns, axis=1).astype(np.float32),
        starts,
        stops - starts,
    )


def _scaled(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return (values - values.mean()) / max(float(values.std()), 1e-6)


def _batches(lengths: npt.NDArray[np.int64], users: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Users of like length together, so that little is padded."""
    users = users[np.argsort(-lengths[users], kind="stable")]
    return [users[start : start + _BATCH_USERS] for start in range(0, len(users), _BATCH_USERS)]
