"""Leave-one-out under the time split, for a look beside figures of the literature; it decides nothing.

Much of the literature holds out one item a user and asks for it alone (leave-one-out, He et al. 2017), mostly the last of the
whole log, which lets rankers learn from what others did later. Here all users share a cut, and the target is the first
interaction after it (Gusak et al. 2025, arXiv:2507.16289): the user's first event of the test week with a candidate item. Lines
of one basket have no order among themselves, so which of them is first is up to the source. All candidates are ranked, those that
the user had too.

Lives here: the targets, and the metrics of each arm from the scores of the test. Does not live here: the test (protocol.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segflow import tables
from segflow.rankers.examples import Examples
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.sequences import MICROSECONDS_PER_WEEK

CUTOFF = 10


@dataclass(frozen=True)
class ArmLeaveOneOut:
    """One arm: means over `users` users, of all weeks and seeds that were given."""

    arm: str
    users: int
    hit_10: float
    ndcg_10: float
    mrr_10: float


class LeaveOneOut:
    """Where each arm puts the one item that each example wants; to be shown the scores as they are made.

    targets: (E,) candidate positions.
    """

    def __init__(self, targets: npt.NDArray[np.int64]) -> None:
        self._targets = targets
        self._ranks: dict[tuple[str, int], npt.NDArray[np.int64]] = {}

    def __call__(self, arm: str, seed: int, rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> None:
        """Take the (rows, C) scores of the examples `rows`. Who has one that is no number is given nothing."""
        ranks = self._ranks.setdefault((arm, seed), np.zeros(len(self._targets), np.int64))
        ranks[rows] = target_ranks(scores, self._targets[rows])

    def table(self, week: date) -> pa.Table:
        """Rows of the table `leave_one_out`."""
        found = [
            {"week": week, "arm": arm, "seed": seed, "users": len(ranks), **_metrics(ranks)}
            for (arm, seed), ranks in self._ranks.items()
        ]
        return pa.Table.from_pylist(found, schema=tables.LEAVE_ONE_OUT.arrow)


def first_items(week: RankingWeek, examples: Examples) -> npt.NDArray[np.int64]:
    """(E,) the candidate that each of the test's examples (`week.after()`) had first in the test week."""
    start = week.start_us + MICROSECONDS_PER_WEEK
    events = week.sequences.between(start, start + MICROSECONDS_PER_WEEK)
    position = np.full(len(events.item_ids) + 1, -1, np.int64)
    position[week.history.candidates] = np.arange(len(week.history.candidates))
    items = position[events.items]
    users, first = np.unique(events.user_of_event[items >= 0], return_index=True)
    found: npt.NDArray[np.int64] = items[items >= 0][first][np.searchsorted(users, examples.users)]
    return found


def target_ranks(scores: npt.NDArray[np.float32], targets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(U,) place of the target (1 is best) among the (U, C) scores, equal ones by candidate order; 0 if one is no number."""
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    ahead = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < targets[:, None]))
    return np.where(np.isfinite(scores).all(axis=1), 1 + ahead.sum(axis=1), 0)


def _metrics(ranks: npt.NDArray[np.int64]) -> dict[str, float]:
    found = (ranks > 0) & (ranks <= CUTOFF)
    place = np.where(found, ranks, 1)
    return {
        "hit_10": float(found.mean()),
        # One relevant item: the ideal gain is 1.
        "ndcg_10": float((found / np.log2(place + 1)).mean()),
        "mrr_10": float((found / place).mean()),
    }


def averaged(rows: Iterable[Mapping[str, Any]]) -> list[ArmLeaveOneOut]:
    """Each arm over rows of several weeks and seeds, every user's week alike; the best NDCG@10 first."""
    of_arm: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        of_arm.setdefault(row["arm"], []).append(row)
    found = []
    for arm, own in of_arm.items():
        users = np.array([row["users"] for row in own], np.float64)
        means = {
            name: float(users @ [row[name] for row in own] / users.sum()) for name in ("hit_10", "ndcg_10", "mrr_10")
        }
        tested = sum({row["week"]: row["users"] for row in own}.values())
        found.append(ArmLeaveOneOut(arm, tested, **means))
    return sorted(found, key=lambda one: (-one.ndcg_10, one.arm))
