"""A planted log followed week by week through the clustering and the ledger, beside what was planted.

Snapshots see a window of two weeks, in which a session of the first week counts half in the text view: a change that is
planted in week W is half of what snapshot W + 1 sees and all of what W + 2 sees. The right week of a change is said by the
vectors and the plant alone, without a clusterer: see `shown`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from sklearn.metrics import adjusted_rand_score, silhouette_score

from segflow import tables
from segflow.config import SegmentConfig, UserEmbeddingConfig
from segflow.segments.clustering import select
from segflow.segments.history import ledger_rows
from segflow.segments.population import Population
from segflow.segments.snapshots import Snapshot
from segflow_tests.segments.planted_logs import (
    ABSENT,
    MOST_SEGMENTS,
    Birth,
    Change,
    Death,
    Log,
    Merge,
    Plant,
    Split,
    Week,
    plant,
    snapshot,
)

WINDOW = 2
SNAPSHOTS = 12
VIEWS = UserEmbeddingConfig(views=["text", "engagement"], half_life_days=7.0)
_FEWEST = 20
# Two parts are apart when the planted segments score a silhouette this much higher with the parts told apart.
_CLEAR = 1.05

Row = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A snapshot: what was planted, the ledger's rows, and the segment id (U,) of every user; None has none."""

    week: int
    planted: Week
    rows: list[Row]
    segment: np.ndarray

    @property
    def ari(self) -> float:
        """Adjusted Rand index of the segments with the planted ones, over users who have a planted segment."""
        known = self.planted.truth >= 0
        return float(adjusted_rand_score(self.planted.truth[known], self.segment[known].astype(str)))

    def holder(self, planted: int) -> str | None:
        """The segment that holds more than half of a planted segment's users."""
        found = Counter(self.segment[self.planted.truth == planted].tolist()).most_common(1)
        return found[0][0] if found and 2 * found[0][1] > (self.planted.truth == planted).sum() else None


class Report(NamedTuple):
    """When the log shows a change clearly, and when the ledger reported it (None: never)."""

    change: Change
    shown: int
    reported: int | None

    @property
    def in_time(self) -> bool:
        """Whether it was reported after it happened, and at the latest when the log showed it clearly."""
        return self.reported is not None and self.change.week < self.reported <= self.shown


def story(seed: int, segments: int = 6, users: int = 900) -> Plant:
    """Fourteen weeks in which users move, leave and arrive, and a split, a merge, a birth and a death in random weeks."""
    rng = np.random.default_rng(seed)
    first, second, third, fourth = rng.permutation(segments)[:4].tolist()
    new, newer = rng.permutation(np.arange(segments, MOST_SEGMENTS))[:2].tolist()
    weeks = (WINDOW + 1 + 2 * rng.permutation(5)[:4]).tolist()
    script = (
        Split(weeks[0], first, new),
        Merge(weeks[1], second, third),
        Death(weeks[2], fourth),
        Birth(weeks[3], newer, users // 8),
    )
    return Plant(segments, users, WINDOW + SNAPSHOTS, 1.5, drift=0.01, churn=0.03, script=script, seed=seed)


def follow(asked: Plant, config: SegmentConfig) -> tuple[Log, list[Seen]]:
    """The log, and its snapshots in order, each matched to the ones before."""
    log, recorded, seen = plant(asked), tables.SEGMENT_LEDGER.arrow.empty_table(), []
    for week in range(WINDOW, asked.weeks):
        planted = snapshot(log, week, WINDOW, VIEWS)
        clustering = select(Population(planted.points, planted.engagement), config, seed=0)
        current = Snapshot.of(planted.embeddings, planted.views, clustering)
        table = ledger_rows(planted.start, current, recorded, planted.events, config, seed=0)
        recorded = pa.concat_tables([recorded, table.cast(recorded.schema)])
        rows = table.to_pylist()
        ids = {row["cluster"]: row["segment_id"] for row in rows if row["cluster"] is not None}
        labels = current.assignment.labels.tolist()
        seen.append(Seen(week, planted, rows, np.array([ids.get(label) for label in labels], object)))
    return log, seen


def kept(log: Log, asked: Plant, seen: Sequence[Seen]) -> tuple[int, int]:
    """In how many of how many cases a planted segment that goes on was held by one segment in two snapshots in a row.

    A segment that a split or birth makes counts from the snapshot on that shows it.
    """
    since = {
        one.change.into if isinstance(one.change, Split) else one.change.segment: one.shown
        for one in reports(log, asked, seen)
        if isinstance(one.change, Split | Birth)
    }
    same = cases = 0
    for before, now in pairwise(seen):
        for planted in range(MOST_SEGMENTS):
            alive = all((log.segment[week - 1] == planted).sum() >= _FEWEST for week in (before.week, now.week))
            if alive and before.week >= since.get(planted, 0):
                held = now.holder(planted)
                same += held is not None and held == before.holder(planted)
                cases += 1
    return same, cases


def reports(log: Log, asked: Plant, seen: Sequence[Seen]) -> list[Report]:
    """Every planted change with the week that shows it and the week that reports it."""
    found = []
    for change in asked.script:
        later = [one for one in seen if one.week > change.week]
        when = next(one.week for one in later if shown(change, log, one))
        before = next(one for one in seen if one.week == change.week)
        reported = next(
            (one.week for one in later if any(_reports(row, change, before, one) for row in one.rows)), None
        )
        found.append(Report(change, when, reported))
    return found


def shown(change: Change, log: Log, now: Seen) -> bool:
    """Whether a snapshot shows a change, by where its users were in the last week that they were there.

    A birth and a death: whether the segment has users in the snapshot. A split and a merge: whether the planted segments
    score a silhouette that is higher by a twentieth, or no longer so, when the two parts are told apart.
    """
    users = np.searchsorted(log.user_ids, now.planted.users)
    latest = _latest(log.segment[now.week - WINDOW : now.week, users])
    if isinstance(change, Birth | Death):
        return ((latest == change.segment).sum() >= _FEWEST) == isinstance(change, Birth)
    was = log.segment[change.week - 1, users] == change.segment
    apart = np.where(was & (latest == change.into), MOST_SEGMENTS, latest)
    together = latest.copy()
    if isinstance(change, Split):
        together[was & (latest == change.into)] = change.segment
    ratio = silhouette_score(now.planted.points, apart) / silhouette_score(now.planted.points, together)
    return bool(ratio >= _CLEAR) == isinstance(change, Split)


def unplanned(log: Log, asked: Plant, seen: Sequence[Seen]) -> list[tuple[int, Row]]:
    """Snapshot and row of everything but survival that the ledger reports, beyond the first snapshot and the script."""
    expected = set()
    for change, _, week in reports(log, asked, seen):
        before = next(one for one in seen if one.week == change.week)
        for now in (one for one in seen if one.week == week):
            touched = {before.holder(change.segment), now.holder(change.segment)}
            if isinstance(change, Split | Merge):
                touched |= {before.holder(change.into), now.holder(change.into)}
            expected |= {(week, one) for one in touched}
    return [
        (one.week, row)
        for one in seen[1:]
        for row in one.rows
        if row["event"] != "survive" and (one.week, row["segment_id"]) not in expected
    ]


def names_that_changed(seen: Sequence[Seen]) -> list[tuple[int, str]]:
    """Snapshot and id of segments that have another name than before, though they were neither split nor merged."""
    named: dict[str, str] = {}
    changed = []
    for one in seen:
        torn = _torn(one.rows)
        for row in (row for row in one.rows if row["cluster"] is not None):
            known = named.setdefault(row["segment_id"], row["name"])
            if known != row["name"] and row["segment_id"] not in torn:
                changed.append((one.week, row["segment_id"]))
            named[row["segment_id"]] = row["name"]
    return changed


def reused_ids(seen: Sequence[Seen]) -> list[tuple[int, str]]:
    """Snapshot and id of segments that go on though they had ended, or are new under an id that was given before."""
    given: set[str] = set()
    living: set[str] = set()
    found = []
    for one in seen:
        now = {row["segment_id"]: row["event"] for row in one.rows if row["cluster"] is not None}
        going_on = {name for name, event in now.items() if event == "survive"}
        found += [(one.week, name) for name in sorted((going_on - living) | ((set(now) - going_on) & given))]
        given |= set(now)
        living = set(now)
    return found


def _reports(row: Row, change: Change, before: Seen, now: Seen) -> bool:
    name, event, parents = row["segment_id"], row["event"], set(row["parents"])
    held = before.holder(change.segment)
    match change:
        case Birth():
            return bool(event == "emerge" and name == now.holder(change.segment))
        case Death():
            return bool(event == "vanish" and name == held)
        case Merge():
            return row["cluster"] is not None and parents >= {held, before.holder(change.into)}
        case Split():
            return bool(event == "split" and row["cluster"] is not None and parents == {held})


def _torn(rows: Iterable[Row]) -> set[str]:
    """Segments that lost a part which became a segment, or took in another segment."""
    rows = list(rows)
    absorbing = {row["segment_id"] for row in rows if len(row["parents"]) > 1}
    return absorbing.union(*(row["parents"] for row in rows if row["event"] == "split" and row["cluster"] is not None))


def _latest(window: np.ndarray) -> np.ndarray:
    """Of (weeks, users), where each user was in the last week that they were there."""
    there = window != ABSENT
    last = len(window) - 1 - there[::-1].argmax(axis=0)
    return window[last, np.arange(window.shape[1])]
