"""Event histories as flat arrays: one user after the other, each user's events in time order.

Lives here: the array layout that the behaviour model and the rankers read, and the cuts that keep the future out.
Does not live here: anything learned, and anything that reads or writes tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segflow.errors import UserError

MICROSECONDS_PER_DAY = 86_400_000_000
MICROSECONDS_PER_WEEK = 7 * MICROSECONDS_PER_DAY


@dataclass(frozen=True)
class EventSequences:
    """Events of U users as parallel arrays; user u owns the rows ``offsets[u]:offsets[u + 1]``.

    Attributes:
        user_ids: (U,) str, ascending and distinct.
        offsets: (U + 1,) int64.
        items: (N,) int32, index into ``item_ids``; -1 when the event has no item.
        types: (N,) int8, index into ``event_types``.
        times: (N,) int64, microseconds since 1970 UTC, never falling within a user.
        values: (N,) float32, 0 when the event has no value.
        item_ids: (I,) str.
        event_types: the names of the event types.
    """

    user_ids: npt.NDArray[np.str_]
    offsets: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    types: npt.NDArray[np.int8]
    times: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    item_ids: npt.NDArray[np.str_]
    event_types: tuple[str, ...]

    @classmethod
    def from_arrow(cls, events: pa.Table, item_ids: npt.ArrayLike, event_types: tuple[str, ...]) -> EventSequences:
        """Build from a table with user_id, item_id, event_type, ts and value, ordered by user_id, ts and source order.

        An item outside ``item_ids`` counts as none (-1). Raises UserError when an event type is unknown or rows are
        out of order: sorting here would hide that equal timestamps have lost their source order.
        """
        catalogue = np.asarray(item_ids, dtype=np.str_)
        if len(np.unique(catalogue)) != len(catalogue):
            raise UserError("item_ids: an item is listed twice; pass each item of the catalogue once")
        users = pc.dictionary_encode(events["user_id"].cast(pa.string()).combine_chunks())
        codes = users.indices.to_numpy(zero_copy_only=False)
        user_ids = np.asarray(users.dictionary.to_pylist(), dtype=np.str_)
        times = events["ts"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
        ordered = bool(np.all(np.diff(codes) >= 0)) and bool(np.all(user_ids[:-1] < user_ids[1:]))
        if not ordered or np.any((np.diff(codes) == 0) & (np.diff(times) < 0)):
            raise UserError("events: rows are out of order; order them by user_id, ts and source order first")
        types = pc.index_in(events["event_type"], pa.array(event_types, pa.string()))
        if types.null_count:
            unknown = pc.unique(events["event_type"].filter(pc.is_null(types))).to_pylist()
            raise UserError(f"events: event_type {unknown[0]!r} is not one of {list(event_types)}; add it to the list")
        items = pc.index_in(events["item_id"].cast(pa.string()), pa.array(catalogue.tolist(), pa.string()))
        return cls(
            user_ids=user_ids,
            offsets=np.searchsorted(codes, np.arange(len(user_ids) + 1)).astype(np.int64),
            items=pc.fill_null(items, -1).to_numpy().astype(np.int32),
            types=types.to_numpy().astype(np.int8),
            times=times,
            values=pc.fill_null(events["value"].cast(pa.float32()), 0.0).to_numpy(),
            item_ids=catalogue,
            event_types=event_types,
        )

    @property
    def user_of_event(self) -> npt.NDArray[np.int64]:
        """(N,) index of the user each event belongs to."""
        return np.repeat(np.arange(len(self.user_ids)), np.diff(self.offsets))

    def before(self, cut_us: int) -> EventSequences:
        """The same users and items with only the events strictly before ``cut_us``."""
        return self._keep(self.times < cut_us)

    def between(self, start_us: int, end_us: int) -> EventSequences:
        """The same users and items with only the events in [``start_us``, ``end_us``)."""
        return self._keep((self.times >= start_us) & (self.times < end_us))

    def only(self, users: npt.NDArray[np.int64]) -> EventSequences:
        """The ``users`` (U',) alone, in that order, with all their events; items and types are numbered as before."""
        lengths = np.diff(self.offsets)[users]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        events = np.arange(offsets[-1]) + np.repeat(self.offsets[users] - offsets[:-1], lengths)
        return replace(
            self,
            user_ids=self.user_ids[users],
            offsets=offsets,
            items=self.items[events],
            types=self.types[events],
            times=self.times[events],
            values=self.values[events],
        )

    def _keep(self, mask: npt.NDArray[np.bool_]) -> EventSequences:
        kept_before = np.concatenate([[0], np.cumsum(mask)])
        return replace(
            self,
            offsets=kept_before[self.offsets].astype(np.int64),
            items=self.items[mask],
            types=self.types[mask],
            times=self.times[mask],
            values=self.values[mask],
        )
