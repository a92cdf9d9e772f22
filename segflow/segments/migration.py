"""Who moved where: the picture of users going from last week's segments to this week's.

What does not live here: the matching that says which segment continues which (`ledger.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from segflow.segments.drawing import INK, NOBODY, WIDTH, Picture, blank, colours, drawn, panel, spread, wrapped, write
from segflow.segments.ledger import NEWCOMERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]

_LEAVERS = "left"
_GUTTER, _BAR, _GAP, _TOP = 176.0, 12.0, 9.0, 26.0
_LINE = 12.5
_SAID = {"emerge": "new", "split": "new, by a split", "merge": "new, by a merger"}


@dataclass(frozen=True)
class Flows:
    """Users by where they were and where they are: (segment or `new`, segment or `left`) -> users."""

    users: Mapping[tuple[str, str], int]

    @classmethod
    def of(cls, ledger: Sequence[Row]) -> Flows:
        """From the rows of `segment_ledger` of one week. Nothing if no segment was there before."""
        found = {
            (source, row["segment_id"]): users
            for row in ledger
            for source, users in json.loads(row["migration"]).items()
        }
        for row in ledger:
            if row["previous_users"]:
                stayed = sum(users for (source, _), users in found.items() if source == row["segment_id"])
                if gone := row["previous_users"] - stayed:
                    found[row["segment_id"], _LEAVERS] = gone
        known = any(row["previous_users"] for row in ledger)
        return cls(found if known else {})

    def side(self, place: int) -> dict[str, int]:
        """Users of each end of the flows: 0 before, 1 now; segments in order of id, those in none last."""
        total: dict[str, int] = {}
        for ends, users in self.users.items():
            total[ends[place]] = total.get(ends[place], 0) + users
        return {one: total[one] for one in sorted(total, key=lambda one: (one in (NEWCOMERS, _LEAVERS), one))}


def migration_flow(ledger: Sequence[Row], week: date, min_cell: int) -> Picture | None:
    """Bands from the segments of the snapshot before `week` to those of `week`; None when there were none before.

    ledger: rows of `segment_ledger` of this and of earlier weeks. Bands of fewer than `min_cell` users are not drawn.
    """
    rows = [row for row in ledger if row["week"] == week]
    flows = Flows.of(rows)
    if not flows.users:
        return None
    names, before = names_of(ledger, week), names_before(ledger, week)
    left, right = flows.side(0), flows.side(1)
    total = sum(left.values())
    drawn_height = max(230.0, 40.0 * max(len(left), len(right)))
    scale = (drawn_height - _GAP * (max(len(left), len(right)) - 1)) / total
    height = drawn_height + _TOP + 24
    figure = blank(height)
    axes = panel(figure, 0, 0, WIDTH, height)
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    paint = colours({*left, *right} - {NEWCOMERS, _LEAVERS}) | {NEWCOMERS: NOBODY, _LEAVERS: NOBODY}
    starts = _tops(left, scale, drawn_height)
    ends = _tops(right, scale, drawn_height)
    _bands(axes, flows, starts, ends, scale, paint, min_cell)
    events = {
        row["segment_id"]: _SAID[row["event"]] for row in rows if row["cluster"] is not None and row["event"] in _SAID
    }
    _bars(axes, left, starts, scale, paint, {**before, NEWCOMERS: "In no segment before"}, {}, min_cell, -1)
    _bars(axes, right, ends, scale, paint, {**names, _LEAVERS: "In no segment now"}, events, min_cell, 1)
    for x, text, side in ((_GUTTER, "Before", "right"), (WIDTH - _GUTTER, "Now", "left")):
        write(axes, x, 10, text, ha=side, fontweight="bold", fontsize=11.5)
    return drawn("migration", "Who moved where", _caption(flows, rows, before, names, min_cell), figure)


def names_of(ledger: Sequence[Row], week: date) -> dict[str, str]:
    """The living segments of a week and their names."""
    return {row["segment_id"]: row["name"] for row in ledger if row["week"] == week and row["cluster"] is not None}


def names_before(ledger: Sequence[Row], week: date) -> dict[str, str]:
    """The living segments of the latest earlier week that has any, and their names then."""
    earlier = [row["week"] for row in ledger if row["week"] < week]
    return names_of(ledger, max(earlier)) if earlier else {}


def _tops(side: Mapping[str, int], scale: float, height: float) -> dict[str, float]:
    """Upper edge of the bar of each end; the whole side stands in the middle."""
    y = _TOP + (height - scale * sum(side.values()) - _GAP * (len(side) - 1)) / 2
    found = {}
    for one, users in side.items():
        found[one] = y
        y += scale * users + _GAP
    return found


def _bands(
    axes: Axes, flows: Flows, starts: Mapping[str, float], ends: Mapping[str, float], scale: float,
    paint: Mapping[str, str], min_cell: int,
) -> None:  # fmt: skip
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    left, right = dict(starts), dict(ends)
    x0, x1 = _GUTTER + _BAR, WIDTH - _GUTTER - _BAR
    middle = (x0 + x1) / 2
    for source in starts:
        for target in ends:
            users = flows.users.get((source, target), 0)
            a, b, thick = left[source], right[target], scale * users
            left[source], right[target] = a + thick, b + thick
            if users < min_cell:
                continue
            points = [
                (x0, a), (middle, a), (middle, b), (x1, b),
                (x1, b + thick), (middle, b + thick), (middle, a + thick), (x0, a + thick), (x0, a),
            ]  # fmt: skip
            codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
            colour = paint[source] if source != NEWCOMERS else paint[target]
            axes.add_patch(PathPatch(Path(points, codes), facecolor=colour, edgecolor="none", alpha=0.42))


def _bars(
    axes: Axes, side: Mapping[str, int], tops: Mapping[str, float], scale: float, paint: Mapping[str, str],
    names: Mapping[str, str], events: Mapping[str, str], min_cell: int, direction: int,
) -> None:  # fmt: skip
    from matplotlib.patches import Rectangle

    x = _GUTTER if direction < 0 else WIDTH - _GUTTER - _BAR
    labels = []
    for one, users in side.items():
        axes.add_patch(Rectangle((x, tops[one]), _BAR, max(scale * users, 1.0), facecolor=paint[one], edgecolor="none"))
        figures = f"{users:,} users" if users >= min_cell else f"fewer than {min_cell} users"
        figures += f" ({events[one]})" if one in events else ""
        labels.append(f"{wrapped(names.get(one, one), 25, 2)}\n{figures}")
    middles = [tops[one] + scale * users / 2 for one, users in side.items()]
    heights = [_LINE * (label.count("\n") + 1) + 3 for label in labels]
    high = axes.get_ylim()[0]
    edge = x - 5 if direction < 0 else x + _BAR + 5
    for one, label, middle, y in zip(side, labels, middles, spread(middles, heights, _TOP - 8, high - 4), strict=True):
        axes.plot([edge + 2 * -direction, edge + 9 * direction], [middle, y], color=paint[one], linewidth=1)
        write(axes, edge + 12 * direction, y, label, ha="right" if direction < 0 else "left", fontsize=9.5, color=INK)


def _caption(
    flows: Flows, ledger: Sequence[Row], before: Mapping[str, str], names: Mapping[str, str], min_cell: int
) -> str:
    both = {ends: users for ends, users in flows.users.items() if NEWCOMERS not in ends and _LEAVERS not in ends}
    stayed = sum(users for (source, target), users in both.items() if source == target)
    sentences = [
        "Left are the segments as they were at the snapshot before, right as they are now; each band is a group of users, "
        "the thicker the more."
    ]
    if both:
        sentences.append(
            f"Of the users who are in a segment at both times, {stayed / sum(both.values()):.0%} are in the same one."
        )
    sentences += [
        f"“{before.get(row['segment_id'], row['segment_id'])}” ended ({_ENDED[row['event']]})."
        for row in ledger
        if row["cluster"] is None
    ]
    sentences += [
        f"“{names.get(row['segment_id'], row['segment_id'])}” is {_SAID[row['event']]}."
        for row in ledger
        if row["cluster"] is not None and row["event"] in _SAID
    ]
    if any(users < min_cell for users in flows.users.values()):
        sentences.append(f"Groups of fewer than {min_cell} users are not drawn.")
    return " ".join(sentences)


_ENDED = {"split": "it split", "merge": "it was absorbed by another", "vanish": "its users are in no segment any more"}
