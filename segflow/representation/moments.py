"""Moments: a user's log grouped by timestamp, and the packed batches of them that the behaviour model reads.

A *moment* is everything one user did at one timestamp. Its events have no order among themselves (the lines of a
basket, say). Lives here: finding moments, cutting them into windows, batching windows. Does not live here: anything
learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segflow.representation.devices import CPU, moved
from segflow.representation.sequences import EventSequences

MINUTE = 60_000_000
HOUR = 60 * MINUTE
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
    hours: npt.NDArray[np.int64]  # (M,) hour of the day in UTC, 0 to 23
    weekdays: npt.NDArray[np.int64]  # (M,) weekday in UTC, Monday is 0
    follows: npt.NDArray[np.bool_]  # (M,) whether the same user has another moment
    next_session: npt.NDArray[np.int64]  # (M,) start of the user's next session in microseconds; -1 if none


def find_moments(sequences: EventSequences, session_gap_minutes: float) -> Moments:
    """Group the log by user and timestamp; a session ends with a silence of more than ``session_gap_minutes``."""
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
        hours=when // HOUR % 24,
        # The first of January 1970 was a Thursday.
        weekdays=(when // (24 * HOUR) + 3) % 7,
        follows=np.append(same[1:], False) if len(first) else np.zeros(0, bool),
        next_session=np.where(valid, when[inside], -1) if len(first) else np.zeros(0, np.int64),
    )


def expand(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All indices of the ranges [start, stop), one after the other, and the number of the range each belongs to."""
    lengths = stops - starts
    owner = np.repeat(np.arange(len(starts)), lengths)
    index = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(starts, lengths)
    return index, owner


@dataclass(frozen=True)
class Batch:
    """Windows of moments, packed one behind the other; windows of one length are neighbours.

    Tensors are on the device that reads them. P positions are the moments of all windows, E events are those of all positions.
    """

    moments: npt.NDArray[np.int64]  # (P,) number of the moment
    shapes: tuple[tuple[int, int], ...]  # (windows, length) of each run of windows of one length
    counts: npt.NDArray[np.int64]  # (P,) events in each moment
    gaps: Tensor  # (P,)
    hours: Tensor  # (P,)
    weekdays: Tensor  # (P,)
    sizes: Tensor  # (P,) the counts, as floats
    starts: Tensor  # (P,) first of the moment's events below
    items: npt.NDArray[np.int64]  # (E,) index in the catalogue; -1 for no item
    types: Tensor  # (E,)
    values: Tensor  # (E,) bucket

    @property
    def last(self) -> npt.NDArray[np.int64]:
        """Position of each window's last moment, in the order of the windows."""
        lengths = np.concatenate([np.full(windows, length) for windows, length in self.shapes])
        return np.cumsum(lengths) - 1


def make_batch(
    sequences: EventSequences,
    moments: Moments,
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    device: torch.device = CPU,
) -> Batch:
    """Windows of moments [start, stop), none empty and none shorter than the one after it, as one packed batch on ``device``."""
    lengths, first, windows = np.unique(starts - stops, return_index=True, return_counts=True)
    assert (np.diff(first) > 0).all(), "windows must come longest first"
    index, _ = expand(starts, stops)
    begin, end = moments.events[index], moments.events[index + 1]
    events, _ = expand(begin, end)
    sizes = end - begin
    # A missing value counts as none.
    doubled = np.log2(1 + np.fmax(sequences.values[events], 0)) * 2
    return Batch(
        moments=index,
        shapes=tuple(zip(windows.tolist(), (-lengths).tolist(), strict=True)),
        counts=sizes,
        gaps=moved(moments.gaps[index], device),
        hours=moved(moments.hours[index], device),
        weekdays=moved(moments.weekdays[index], device),
        sizes=moved(sizes.astype(np.float32), device),
        starts=moved(np.cumsum(sizes) - sizes, device),
        items=sequences.items[events].astype(np.int64),
        types=moved(sequences.types[events].astype(np.int64), device),
        values=moved(np.fmin(doubled, VALUE_BUCKETS - 1).astype(np.int64), device),
    )


def windows_of(
    begin: npt.NDArray[np.int64],
    end: npt.NDArray[np.int64],
    context: int,
    shift: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut the moments [begin, end) of each user into windows of at most ``context``, the first ``shift`` shorter."""
    pieces = (end - begin + shift + context - 1) // context
    number, user = expand(np.zeros_like(pieces), pieces)
    start = begin[user] - shift[user] + number * context
    stop = np.minimum(start + context, end[user])
    start = np.maximum(start, begin[user])
    real = stop > start
    return start[real], stop[real]


def batches_of(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], batch_moments: int
) -> list[npt.NDArray[np.int64]]:
    """Numbers of the windows of each batch: about ``batch_moments`` moments of windows of like length, longest first.

    Few distinct lengths in a batch mean few attention products.
    """
    order = np.argsort(starts - stops, kind="stable")
    batch = (np.cumsum((stops - starts)[order]) - 1) // batch_moments
    return np.split(order, np.flatnonzero(np.diff(batch)) + 1) if len(order) else []


def full_batches(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], batch_moments: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Starts and stops of the windows of each batch, as ``batches_of``, with exactly ``batch_moments`` moments in all but one.

    A window that does not fit is cut in two. Matrices of one shape at every step run twice as fast as others.
    """
    order = np.argsort(starts - stops, kind="stable")
    behind = np.cumsum((stops - starts)[order])
    total = int(behind[-1]) if len(behind) else 0
    edges = np.unique(np.concatenate([[0], behind, np.arange(0, total, batch_moments)]))
    left, right = edges[:-1], edges[1:]
    window = np.searchsorted(behind, left, side="right")
    stop = stops[order][window] - (behind[window] - right)
    start = stop - (right - left)
    batch = left // batch_moments
    sorted_ = np.lexsort((start - stop, batch))
    cuts = np.flatnonzero(np.diff(batch[sorted_])) + 1
    return list(zip(np.split(start[sorted_], cuts), np.split(stop[sorted_], cuts), strict=True)) if total else []
