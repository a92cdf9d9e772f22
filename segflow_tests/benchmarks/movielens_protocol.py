"""MovieLens-100k, leave-one-out: a user's last rating is to be found, the one before it chooses every setting.

The log is put on a clock of each user's own: every rating takes a week, and everybody's last one falls into the same week.
Leave-one-out is then the weekly protocol: the last week is the test, the one before it the tuning week, and whatever can be
fitted to the weeks before a window can be judged here, the global ranker included. What happened before a window is what
anybody did before their own rating that is to be found, so others' ratings may be younger by the calendar, as in every
leave-one-out. The calendar itself, and with it what was popular when, is not looked at.

Lives here: the log, its clock and its two windows. Does not live here: any ranker.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from segflow.representation.sequences import MICROSECONDS_PER_WEEK, EventSequences
from segflow_tests.benchmarks.ranking_protocol import Log, Protocol, Window

_PACKAGE, _FOLDER = "recbole", Path("dataset_example", "ml-100k")


class LeaveOneOut(Protocol):
    """The protocol on a log whose users' ``k``-th last event lies ``k`` weeks before the end; all items are candidates."""

    @cached_property
    def candidates(self) -> npt.NDArray[np.int64]:
        """(I,) every item of the catalogue."""
        return np.arange(len(self.log.sequences.item_ids))

    @property
    def tuning(self) -> list[Window]:  # type: ignore[override]
        """The week of the second last events."""
        return [self._window(self._last - MICROSECONDS_PER_WEEK)]

    @property
    def test(self) -> list[Window]:  # type: ignore[override]
        """The week of the last events."""
        return [self._window(self._last)]

    def earlier(self) -> LeaveOneOut:
        """The same on the log without the last events: what it finds may be looked at as often as one likes."""
        return LeaveOneOut(Log(self.log.sequences.before(self._last), self.log.texts))

    @property
    def _last(self) -> int:
        return int(self.log.sequences.times.max())


def movielens() -> Log:
    """MovieLens-100k (GroupLens; Harper & Konstan 2015) as the package recbole carries it, which is not imported."""
    found = find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            f"{_PACKAGE}, which carries MovieLens-100k: install segflow_tests/benchmarks/peers.txt"
        )
    folder = Path(found.submodule_search_locations[0]) / _FOLDER
    ratings = pd.read_csv(folder / "ml-100k.inter", sep="\t")
    films = pd.read_csv(folder / "ml-100k.item", sep="\t", dtype=str, keep_default_na=False)
    # Columns are named with their kinds, as in `item_id:token`.
    ratings.columns, films.columns = ([name.split(":")[0] for name in frame] for frame in (ratings, films))
    films = films.astype({"item_id": int}).sort_values("item_id")
    texts = films["class"] + " > " + films["movie_title"] + " " + films["release_year"]
    return Log(own_clock(ratings, films["item_id"].tolist()), tuple(texts.str.lower()))


def own_clock(ratings: pd.DataFrame, items: Sequence[int]) -> EventSequences:
    """Ratings of user_id, item_id, rating and timestamp, in the order of the file, a week each.

    A user's are ordered by time, those of one time by their place in the file; everybody's last are in one week.
    """
    ordered = ratings.assign(user_id=ratings["user_id"].astype(str))
    rows = ordered.sort_values(["user_id", "timestamp"], kind="stable")
    users, owner = np.unique(rows["user_id"].to_numpy(np.str_), return_inverse=True)
    offsets = np.searchsorted(owner, np.arange(len(users) + 1))
    from_end = offsets[owner + 1] - 1 - np.arange(len(rows))
    return EventSequences(
        user_ids=users,
        offsets=offsets.astype(np.int64),
        items=np.searchsorted(items, rows["item_id"]).astype(np.int32),
        types=np.zeros(len(rows), np.int8),
        times=(int(from_end.max()) - from_end) * MICROSECONDS_PER_WEEK,
        values=rows["rating"].to_numpy(np.float32),
        item_ids=np.array([str(item) for item in items]),
        event_types=("rating",),
    )
