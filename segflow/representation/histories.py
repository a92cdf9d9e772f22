"""Histories of users, some users at a time: long tables ordered by user are cut where one user ends.

Does not live here: what is made of a history (`views`), and the statements that put tables in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from segflow.representation.sequences import EventSequences


@dataclass(frozen=True)
class Histories:
    """All that some users did, and nobody else.

    events: user_id, item_id, event_type, ts, value, category (top level, or null); sessions: user_id, start, end, events,
    value. `sequences` are the same events, for the behaviour view only.
    """

    events: pa.Table
    sessions: pa.Table
    sequences: EventSequences | None = None


def whole_users(rows: pa.RecordBatchReader, at_once: int) -> Iterator[pa.Table]:
    """`rows`, ordered by user_id, as tables of about `at_once` rows that share no user; of no rows, one empty table.

    A table is at most one batch longer, unless a single user is.
    """
    waiting = rows.schema.empty_table()
    for batch in rows:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
        if len(waiting) < at_once:
            continue
        # What the last user did may go on in the next batch.
        cut = pc.index(waiting["user_id"], waiting["user_id"][-1]).as_py()
        if cut:
            yield waiting.slice(0, cut)
            waiting = waiting.slice(cut)
    yield waiting


class UpTo:
    """Rows ordered by user_id, taken as far as a user and no further."""

    def __init__(self, rows: pa.RecordBatchReader) -> None:
        self.schema = rows.schema
        self._rows = rows
        self._waiting = rows.schema.empty_table()

    def user(self, last: str) -> pa.Table:
        """The rows not yet taken of the users up to `last`, in the order of the bytes of their ids."""
        taken = []
        while True:
            here = pc.sum(pc.less_equal(self._waiting["user_id"], last)).as_py() or 0
            taken.append(self._waiting.slice(0, here))
            if here < len(self._waiting):
                self._waiting = self._waiting.slice(here)
                return pa.concat_tables(taken)
            batch = next(self._rows, None)
            if batch is None:
                self._waiting = self.schema.empty_table()
                return pa.concat_tables(taken)
            self._waiting = pa.Table.from_batches([batch])
