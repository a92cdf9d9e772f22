"""Moments: a user's log grouped by timestamp, and the padded batches of them that the behaviour model reads.

A *moment* is everything one user did at one timestamp. Its events have no order among themselves (the lines of a
basket, say). Lives here: finding moments, cutting them into windows, batching windows. Does not live here: anything
learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segflow.representation.sequences import EventSequences

MINUTE = 60_000_000
# Edges in minutes between the buckets of a time gap: from one minute to a year, about two per factor of four.
GAP_EDGES = np.geomspace(1, 60 * 24 * 365, 19)
VALUE_BUCKETS = 16


@dataclass(frozen=True)
class Moments:
    """The log grouped into M moments, with what comes after each of them."""

    offsets: npt.NDArray[np.int64]  # (U + 1,) first moment of each user
    events: npt.NDArray[np.int64]  # (M + 1,) first event of each moment
    times: npt.NDArray[np.int64]  # (M,) microseconds
    gaps: npt.NDArray[np.int64]  # (M,) bucket of the gap since the moment before; 0 for a user's first
    follows: npt.NDArray[np.bool_]  # (M,) whether the same user has another moment
    next_session: npt.NDArray[np.int64]  # (M,) start of the user's next session in microseconds; -1 if none


def find_moments(sequences: EventSequences, session_gap_minutes: float) -> Moments:
    users = sequences.user_of_event
    times = sequences.times
    starts = np.ones(len(times), bool)
    starts[1:] = (np.diff(times) != 0) | (np.diff(users) != 0)
    first = np.flatnonzero(starts)
    owner, when = users[first], times[first]
    same = np.zeros(len(first), bool)
    same[1:] = owner[1:] == owner[:-1]
    gap = np.zeros(len(first))
    gap[1:] = np.diff(when) / MINUTE
    buckets = np.where(same, 1 + np.searchsorted(GAP_EDGES, gap), 0)
    opens = ~same | (gap > session_gap_minutes)
    # Walk backwards: the next session of a moment starts at the next moment that opens one, if the user is the same.
    following = np.full(len(first) + 1, len(first))
    following[:-1] = np.where(opens, np.arange(len(first)), len(first))
    following = np.minimum.accumulate(following[::-1])[::-1][1:]
    inside = np.minimum(following, max(len(first) - 1, 0))
    valid = (following < len(first)) & (owner[inside] == owner) if len(first) else np.zeros(0, bool)
    return Moments(
        offsets=np.searchsorted(owner, np.arange(len(sequences.user_ids) + 1)).astype(np.int64),
        events=np.append(first, len(times)).astype(np.int64),
        times=when,
        gaps=buckets.astype(np.int64),
        follows=np.append(same[1:], False) if len(first) else np.zeros(0, bool),
        next_session=np.where(valid, when[inside], -1) if len(first) else np.zeros(0, np.int64),
    )


def expand(starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> tuple[np.ndarray, np.ndarray]:
    """All indices of the ranges [start, stop), one after the other, and the number of the range each belongs to."""
    lengths = stops - starts
    owner = np.repeat(np.arange(len(starts)), lengths)
    index = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(starts, lengths)
    return index, owner


@dataclass(frozen=True)
class Batch:
    """Windows of moments, padded on the right to one length (causal attention never looks there)."""

    moments: npt.NDArray[np.int64]  # (windows, length) moment index, -1 where padded
    gaps: Tensor  # (windows, length)
    sizes: Tensor  # (windows * length,) events in each moment, at least 1
    item_set: Tensor  # (n,) the distinct items of the batch
    items: Tensor  # (events,) position in item_set; n stands for "no item"
    types: Tensor
    values: Tensor
    moment_of_event: Tensor  # (events,) position in windows * length


def make_batch(
    sequences: EventSequences, moments: Moments, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
) -> Batch:
    """Windows of moments [start, stop) as one padded batch."""
    length = int((stops - starts).max())
    index = starts[:, None] + np.arange(length)[None, :]
    index = np.where(index < stops[:, None], index, -1)
    flat = index.ravel()
    real = np.flatnonzero(flat >= 0)
    first, last = moments.events[flat[real]], moments.events[flat[real] + 1]
    events, owner = expand(first, last)
    sizes = np.ones(flat.size, np.float32)
    sizes[real] = last - first
    items = sequences.items[events]
    item_set, position = np.unique(items, return_inverse=True)
    has_none = bool(len(item_set)) and item_set[0] < 0
    item_set = item_set[1:] if has_none else item_set
    position = np.where(items < 0, len(item_set), position - int(has_none))
    buckets = np.log2(1 + np.maximum(sequences.values[events], 0)) * 2
    return Batch(
        moments=index,
        gaps=torch.from_numpy(np.where(index >= 0, moments.gaps[np.maximum(index, 0)], 0)),
        sizes=torch.from_numpy(sizes),
        item_set=torch.from_numpy(item_set.astype(np.int64)),
        items=torch.from_numpy(position.astype(np.int64)),
        types=torch.from_numpy(sequences.types[events].astype(np.int64)),
        values=torch.from_numpy(np.minimum(buckets.astype(np.int64), VALUE_BUCKETS - 1)),
        moment_of_event=torch.from_numpy(real[owner]),
    )


def windows_of(moments: Moments, context: int, shift: npt.NDArray[np.int64]) -> tuple[np.ndarray, np.ndarray]:
    """Cut each user's moments into windows of at most ``context``, the first one ``shift`` moments shorter."""
    begin, end = moments.offsets[:-1], moments.offsets[1:]
    pieces = (end - begin + shift + context - 1) // context
    number, user = expand(np.zeros_like(pieces), pieces)
    start = begin[user] - shift[user] + number * context
    stop = np.minimum(start + context, end[user])
    start = np.maximum(start, begin[user])
    real = stop > start
    return start[real], stop[real]


def group_by_length(starts: np.ndarray, stops: np.ndarray, batch_moments: int) -> Iterator[np.ndarray]:
    """Group windows of like length, so that padding is rare and shapes repeat; yields window numbers."""
    order = np.argsort(starts - stops, kind="stable")
    position = 0
    while position < len(order):
        longest = int(stops[order[position]] - starts[order[position]])
        size = max(1, batch_moments // longest)
        yield order[position : position + size]
        position += size
