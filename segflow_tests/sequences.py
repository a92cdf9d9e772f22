"""Event sequences of made-up logs, from plain rows: what tests and benchmarks of the rankers plant.

Lives here: the arrays and the ids. Does not live here: who does what when.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segflow.representation.sequences import EventSequences


def sequences_of(rows: npt.ArrayLike, users: int, items: int) -> EventSequences:
    """The log of (user, microseconds, item) rows in any order: one event type, each event of value one.

    Users are `u000` and so on, items `i00`, in the order of their numbers; some may have no row.
    """
    user, time, item = np.unstack(np.asarray(rows, np.int64).reshape(-1, 3), axis=1)
    order = np.lexsort((item, time, user))
    return EventSequences(
        user_ids=_ids("u", users, 3),
        offsets=np.searchsorted(user[order], np.arange(users + 1)).astype(np.int64),
        items=item[order].astype(np.int32),
        types=np.zeros(len(order), np.int8),
        times=time[order],
        values=np.ones(len(order), np.float32),
        item_ids=_ids("i", items, 2),
        event_types=("buy",),
    )


def _ids(letter: str, count: int, digits: int) -> npt.NDArray[np.str_]:
    """As many digits as the last one needs, so that ids ascend as numbers do."""
    digits = max(digits, len(str(count - 1)))
    return np.array([f"{letter}{number:0{digits}}" for number in range(count)])
