"""The ledger as history: what is recorded of a week's segments, their names, and which weeks may be said anew.

A week that is made again is compared with what is recorded of it: segments that are still there keep the ids and names
that they got then, and if nothing became of any segment that is not recorded, the record stays as it is. The latest week
may change. A week that later ones were matched to is history, which changes only if asked for.

What does not live here: the matching (`ledger.py`) and how a name is made (`naming.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segflow import tables
from segflow.config import SegmentConfig
from segflow.errors import UserError
from segflow.segments.ledger import Group, Ledger, LedgerRow, match, number_of
from segflow.segments.naming import Namer, names_for
from segflow.segments.profiles import Contrasts, Material, segment_contrasts
from segflow.segments.snapshots import Snapshot, members

Row = dict[str, Any]

# What a row says of its segment. Numbers of clusters, names and centres may differ without another history.
_FATE = ("segment_id", "event", "users", "previous_users", "overlap", "parents", "migration", "members")
_SHOWN = 4


def ledger_rows(
    week: date,
    current: Snapshot,
    recorded: pa.Table,
    events: pa.Table,
    config: SegmentConfig,
    seed: int,
    rewrite: bool = False,
    namer: Callable[[], Namer | None] = lambda: None,
) -> pa.Table:
    """Rows of `segment_ledger` for `week`; none if the snapshot has no segments.

    recorded: all that `segment_ledger` holds, of earlier weeks, of this one and of later ones; `members` and `centre` are
    looked at for this week and the latest before it. events: user_id, item_id, event_type, ts, value, category before
    the week, from which segments are named. rewrite: change this week even if later ones were matched to it. namer:
    gives what proposes names before the template does; asked only if there is a segment to be named.

    The clusters are matched to the segments of the latest earlier week that has any. New ids go above those of all weeks.

    Raises UserError when later weeks are recorded, the fate of a segment would change, and `rewrite` is not set.
    """
    own = sorted(_of_week(recorded, week), key=lambda row: number_of(row["segment_id"]))
    before = recorded.filter(pc.less(recorded["week"], week))
    previous = _of_week(before, pc.max(before["week"]).as_py())
    matched = _matched(current, previous, own, _highest(recorded), config)
    rows = _unnamed(week, matched, current)
    if _fates(rows) == _fates(own):
        return _table([{**old, "cluster": new["cluster"]} for old, new in zip(own, rows, strict=True)])
    later = later_weeks(recorded, week)
    if later and not rewrite:
        raise UserError(_refusal(week, later, bool(own)))
    names = {row["segment_id"]: row["name"] for row in previous}

    def contrasts() -> Contrasts:
        material = Material(events, members(current, matched.ids), current.engagement)
        return segment_contrasts(material, config.profiles, seed)

    given = _given_names(matched, names, own, _taken(recorded), contrasts, namer)
    for row in rows:
        former = names.get(row["segment_id"])
        row["name"] = given.get(row["segment_id"], former)
        row["former_name"] = former if former != row["name"] else None
        row["revision"] = own[0]["revision"] + 1 if own else 0
    return _table(rows)


def later_weeks(recorded: pa.Table, week: date) -> list[date]:
    """The weeks after `week` that the ledger holds rows of."""
    return sorted(one for one in set(recorded["week"].to_pylist()) if one > week)


def spell(weeks: Sequence[date]) -> str:
    """Weeks for people: all of a few, or how many from when to when."""
    if len(weeks) <= _SHOWN:
        return ", ".join(map(str, weeks))
    return f"{len(weeks)} weeks from {weeks[0]} to {weeks[-1]}"


def _refusal(week: date, later: Sequence[date], recorded: bool) -> str:
    what = "would change" if recorded else "are not recorded yet"
    options = " ".join(f"--week {one}" for one in [week, *later][: _SHOWN + 1])
    return (
        f"segment_ledger: the segments of week {week} {what}, but those of {spell(later)} were matched to what is "
        f"recorded before them; to rewrite history, make these weeks again in order: `segflow run --rewrite-history {options}"
        f'{" …" if len(later) > _SHOWN else ""}`, or tag the runs or the backfill with segflow/rewrite_history: "true"'
    )


def _highest(recorded: pa.Table) -> int:
    return max((number_of(one) for one in recorded["segment_id"].unique().to_pylist()), default=0)


def _taken(recorded: pa.Table) -> set[str]:
    names = {*recorded["name"].to_pylist(), *recorded["former_name"].to_pylist()}
    return {one for one in names if one is not None}


def _fates(rows: Sequence[Row]) -> list[list[Any]]:
    return [[row[name] for name in _FATE] for row in rows]


def _of_week(recorded: pa.Table, week: date | None) -> list[Row]:
    rows: list[Row] = recorded.filter(pc.equal(recorded["week"], pa.scalar(week, pa.date32()))).to_pylist()
    return rows


def _matched(
    current: Snapshot, previous: Sequence[Row], own: Sequence[Row], last_id: int, config: SegmentConfig
) -> Ledger:
    names, features = current.engagement.names, current.engagement.matrix
    scale = np.maximum(features.std(axis=0, dtype=np.float64), 1e-6)

    def groups(rows: Sequence[Row]) -> dict[str, Group]:
        living = [row for row in rows if row["cluster"] is not None]
        return {row["segment_id"]: Group(row["members"], _centre(row, names) / scale) for row in living}

    now = {cluster: Group(group.members, group.centroid / scale) for cluster, group in current.groups().items()}
    born = [row for row in own if row["event"] != "survive"]
    return match(groups(previous), now, last_id, config.ledger, current.unplaced, groups(born))


def _centre(row: Row, names: Sequence[str]) -> npt.NDArray[np.float64]:
    centre = dict(row["centre"])
    if missing := [name for name in names if name not in centre]:
        raise UserError(
            f"segment_ledger: {row['segment_id']} of week {row['week']} has no {missing[0]!r}, so it was recorded by another "
            "run or version; move storage.root aside and run `segflow run --force`, which makes every table again"
        )
    return np.array([centre[name] for name in names], np.float64)


def _unnamed(week: date, matched: Ledger, current: Snapshot) -> list[Row]:
    groups = current.groups()
    return [_unnamed_row(week, row, groups, current.engagement.names) for row in matched.rows] if groups else []


def _unnamed_row(week: date, row: LedgerRow, groups: Mapping[int, Group], names: Sequence[str]) -> Row:
    group = groups[row.cluster] if row.cluster is not None else None
    return {
        "week": week,
        "segment_id": row.segment_id,
        "event": row.event,
        "cluster": row.cluster,
        "users": row.users,
        "previous_users": row.previous_users,
        "overlap": row.overlap,
        "parents": row.parents,
        "migration": json.dumps(row.migration),
        "centre": list(zip(names, group.centroid.tolist(), strict=True)) if group else [],
        "members": list(group.members) if group else [],
    }


def _frozen(matched: Ledger, names: Mapping[str, str], own: Sequence[Row]) -> dict[str, str]:
    """The names that this week gave when it was recorded, of segments that it would have to name again."""
    recorded = {row["segment_id"]: row for row in own}
    return {
        row.segment_id: recorded[row.segment_id]["name"]
        for row in matched.rows
        if row.cluster is not None and row.segment_id in recorded
        if row.segment_id not in names
        or (row.changed and recorded[row.segment_id]["former_name"] == names[row.segment_id])
    }


def _given_names(
    matched: Ledger,
    names: Mapping[str, str],
    own: Sequence[Row],
    taken: Collection[str],
    contrasts: Callable[[], Contrasts],
    namer: Callable[[], Namer | None],
) -> dict[str, str]:
    """Names of the segments that were born, and of those that a split or a merge changed.

    A changed segment may get the name that it had: then the same facts still describe it best. Nobody else may.
    """
    given = _frozen(matched, names, own)
    living = [row for row in matched.rows if row.cluster is not None and row.segment_id not in given]
    changed = [row.segment_id for row in living if row.changed]
    newborn = [row.segment_id for row in living if row.segment_id not in names]
    if not changed and not newborn:
        return given
    facts, proposes = contrasts(), namer()
    for segment_id in changed:
        others = {*taken, *given.values()} - {names[segment_id]}
        given |= names_for([segment_id], facts, others, proposes)
    return given | names_for(newborn, facts, {*taken, *given.values()}, proposes)


def _table(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=tables.SEGMENT_LEDGER.arrow)
