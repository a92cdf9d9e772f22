"""Pictures of a segmentation: the map, sizes over weeks, contrasts, and how the number was chosen.

What does not live here: who moved where (`migration.py`), how figures become SVG (`drawing.py`), and the page
(`page.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from segflow.segments.drawing import (
    INK,
    NOBODY,
    PAPER,
    WIDTH,
    Picture,
    blank,
    colours,
    drawn,
    panel,
    spread,
    wrapped,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
Vectors = npt.NDArray[np.floating]

_MOST_USERS = 2_000
_MOST_FEATURES, _MOST_CATEGORIES = 10, 8
_LINE = 12.5  # points from one line of a label to the next


def segment_map(vectors: Vectors, segments: Sequence[str | None], names: Mapping[str, str], seed: int) -> Picture:
    """Users and the centres of their segments on the two widest principal components of a sample.

    vectors (U, D), with the segment of each user in the same order; None: in no segment. `names` has a name for each
    segment that is drawn; users of others are drawn as in none.
    """
    labels = np.array([one if one in names else "" for one in segments], dtype=object)
    rows = np.sort(np.random.default_rng(seed).permutation(len(labels))[:_MOST_USERS])
    pca = PCA(min(2, len(rows), vectors.shape[1]), svd_solver="full", random_state=seed).fit(vectors[rows])
    places = _in_plane(pca, vectors)
    sample = places[rows]
    low, high = np.quantile(sample, [0.005, 0.995], axis=0)
    # A picture without width has no places for its points.
    margin = np.maximum(0.06 * (high - low), 1e-6)
    figure = blank(430)
    axes = panel(figure, 8, 8, WIDTH - 16, 414)
    axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axes.set_axis_off()
    paint = colours(names) | {"": NOBODY}
    for one in ["", *sorted(names)]:
        _dots(axes, sample[labels[rows] == one], paint[one])
    _centres(
        axes, {one: places[labels == one].mean(axis=0) for one in sorted(names) if (labels == one).any()}, names, paint
    )
    share = np.nan_to_num(pca.explained_variance_ratio_).sum()
    caption = (
        f"Each dot is a user, {len(rows):,} of {len(labels):,}; users who behave alike lie close together. A ring marks the "
        f"middle of a segment. The plane shows {share:.0%} of all differences between users, so segments that overlap "
        f"here can be apart in ways that do not fit on a plane."
        + (" Grey dots belong to no segment." if (labels[rows] == "").any() else "")
    )
    return drawn("map", "Map of the segments", caption, figure)


def _in_plane(pca: PCA, vectors: Vectors) -> npt.NDArray[np.float64]:
    found = np.zeros((len(vectors), 2))
    found[:, : pca.n_components_] = pca.transform(vectors)
    return found


def _dots(axes: Axes, places: npt.NDArray[np.float64], colour: str) -> None:
    """All dots as one path of round line ends, which takes a fifth of the bytes of as many circles."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if len(places):
        ends = np.repeat(axes.transData.transform(places), 2, axis=0).round(1)
        ends[1::2, 0] += 0.1  # a line without length is not drawn everywhere
        codes = np.tile([Path.MOVETO, Path.LINETO], len(places))
        style = {"capstyle": "round", "linewidth": 4.4, "alpha": 0.65 if colour != NOBODY else 0.35}
        axes.add_patch(PathPatch(Path(ends, codes), fill=False, edgecolor=colour, transform=None, **style))


def _centres(
    axes: Axes, centres: Mapping[str, npt.NDArray[np.float64]], names: Mapping[str, str], paint: Mapping[str, str]
) -> None:
    """A ring on each centre, and its name beside it, where no other name stands."""
    inverse = axes.transData.inverted()
    bounds = axes.get_window_extent()
    taken: list[tuple[float, float, float, float]] = []
    for one, centre in sorted(centres.items(), key=lambda item: (-item[1][1], item[0])):
        axes.plot(
            *centre, marker="o", markersize=11, color=PAPER, markeredgecolor=paint[one], markeredgewidth=3.5, zorder=4
        )
        label = wrapped(names[one], 22)
        x, y = axes.transData.transform(centre)
        size = 6.4 * max(map(len, label.split("\n"))) + 8, _LINE * (label.count("\n") + 1) + 6
        box = _free_place(x, y, size, taken, (bounds.x0, bounds.y0, bounds.x1, bounds.y1))
        taken.append(box)
        middle = inverse.transform(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
        axes.plot(*np.stack([centre, middle]).T, color=paint[one], linewidth=1.4, zorder=3)
        frame = {
            "facecolor": PAPER,
            "edgecolor": paint[one],
            "alpha": 0.88,
            "boxstyle": "round,pad=0.3",
            "linewidth": 1.2,
        }
        write(axes, middle[0], middle[1], label, ha="center", bbox=frame, zorder=5, fontsize=10)


def _free_place(
    x: float,
    y: float,
    size: tuple[float, float],
    taken: Sequence[tuple[float, float, float, float]],
    bounds: tuple[float, float, float, float],
) -> tuple[float, float, float, float]:
    """The box (left, low, right, high) of a label around (x, y): the nearest place that overlaps no other label."""
    width, height = size
    best: tuple[float, tuple[float, float, float, float]] | None = None
    for across in (0.0, -0.5, 0.5, -1.0, 1.0):
        for up in (1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6):
            middle = x + across * (width + 16), y + up * (height / 2 + 9)
            middle = (
                float(np.clip(middle[0], bounds[0] + width / 2, bounds[2] - width / 2)),
                float(np.clip(middle[1], bounds[1] + height / 2, bounds[3] - height / 2)),
            )
            box = (middle[0] - width / 2, middle[1] - height / 2, middle[0] + width / 2, middle[1] + height / 2)
            overlap = sum(
                max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
                * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
                for other in taken
            )
            cost = 1e3 * overlap + abs(middle[0] - x) + abs(middle[1] - y)
            if best is None or cost < best[0]:
                best = (cost, box)
    assert best is not None
    return best[1]


def sizes_over_weeks(profiles: Sequence[Row], names: Mapping[str, str]) -> Picture:
    """Users, and share of value if the log has values, of each segment of `names` by week.

    `profiles` are rows of `segment_profiles` of one or more weeks.
    """
    weeks = sorted({row["week"] for row in profiles})
    with_value = any(row["share_of_value"] for row in profiles)
    measures = [("Users", "users"), *([("Share of value", "share_of_value")] if with_value else [])]
    height = max(170.0, 30.0 * len(names) + 20)
    figure = blank(len(measures) * (height + 54))
    paint = colours(names)
    for place, (title, column) in enumerate(measures):
        axes = panel(figure, 52, (len(measures) - 1 - place) * (height + 54) + 28, WIDTH - 260, height)
        _lines(axes, profiles, weeks, column, names, paint)
        axes.set_title(title, loc="left", fontsize=11.5, color=INK, fontweight="bold", x=-0.13)
    caption = (
        "Users who belong to each segment"
        + (", and the share of all money they bring," if with_value else "")
        + (
            f" in the week of {weeks[0]}."
            if len(weeks) == 1
            else f" from the week of {weeks[0]} to that of {weeks[-1]}."
        )
    )
    return drawn("sizes", "Size and value over the weeks" if with_value else "Size over the weeks", caption, figure)


def _lines(
    axes: Axes,
    profiles: Sequence[Row],
    weeks: Sequence[Any],
    column: str,
    names: Mapping[str, str],
    paint: Mapping[str, str],
) -> None:
    top = 1.08 * max(row[column] for row in profiles)
    axes.set(ylim=(0, top), xlim=(-0.15, max(len(weeks) - 1, 0) + 0.15))
    shown = np.unique(np.linspace(0, len(weeks) - 1, min(len(weeks), 5)).round().astype(int))
    axes.set_xticks(
        shown, [f"{weeks[i].day} {weeks[i]:%b %Y}" if i == 0 else f"{weeks[i].day} {weeks[i]:%b}" for i in shown]
    )
    axes.yaxis.set_major_formatter(
        (lambda y, _: f"{y:.0%}") if column == "share_of_value" else (lambda y, _: f"{y:,.0f}")
    )
    axes.locator_params(axis="y", nbins=5)
    axes.grid(axis="y", color=NOBODY, alpha=0.3, linewidth=0.6)
    axes.tick_params(length=0, labelsize=10, pad=6)
    last: list[tuple[float, str, str]] = []
    for one in sorted(names):
        values = {row["week"]: row[column] for row in profiles if row["segment_id"] == one}
        line = [values.get(week, np.nan) for week in weeks]
        axes.plot(range(len(weeks)), line, color=paint[one], linewidth=2.2, marker="o", markersize=4.5)
        if values:
            last.append((values[max(values)], wrapped(names[one], 27, 2), paint[one]))
    _at_the_right(axes, last)


def contrast_map(
    contrasts: Mapping[str, Sequence[Row]], names: Mapping[str, str], label: Callable[[str], str]
) -> Picture | None:
    """What each segment does more and less than the others; None when nothing was compared.

    contrasts: segment id -> its rows of kind "feature" (Hedges' g) and "category" (lift), others are passed over; label:
    feature -> what people do of whom it is high.
    """
    ids = [one for one in sorted(names) if contrasts.get(one)]
    features = _table(contrasts, ids, "feature", lambda row: row["difference"], _MOST_FEATURES)
    categories = _table(
        contrasts, ids, "category", lambda row: float(np.log(row["lift"])) if row["lift"] else None, _MOST_CATEGORIES
    )
    rows = [(wrapped(label(name), 34, 1), values, "g") for name, values in features]
    rows += [(wrapped(name.replace("_", " ").capitalize(), 34, 1), values, "lift") for name, values in categories]
    if not rows:
        return None
    left, top, row_height = 208.0, 74.0, 23.0
    gap = 12.0 if features and categories else 0.0
    width, height = (WIDTH - left - 8) / len(ids), len(rows) * row_height + gap
    figure = blank(height + top + 12)
    axes = panel(figure, 0, 0, WIDTH, height + top + 12)
    axes.set(xlim=(0, WIDTH), ylim=(height + top + 12, 0))
    axes.set_axis_off()
    for column, one in enumerate(ids):
        wide = len(ids) <= 6
        text = wrapped(names[one], int(width / 5.6), 4) if wide else one
        write(
            axes, left + (column + 0.5) * width, top - 8, text, ha="center", va="bottom", fontsize=9.5 if wide else 10
        )
    for place, (name, values, kind) in enumerate(rows):
        y = top + place * row_height + (gap if kind == "lift" else 0)
        write(axes, left - 10, y + row_height / 2, name, ha="right", fontsize=10)
        for column, one in enumerate(ids):
            if (value := values.get(one)) is not None:
                _cell(axes, left + column * width, y, width, row_height, value, kind)
    caption = (
        "What the members of each segment do more (orange) or less (blue) than all others; the stronger the colour, the "
        "larger the difference."
        + (" Plus and minus tell the difference in standard deviations: from 0.8 on it is large." if features else "")
        + (" For what they take, × 2 means twice the others' part." if categories else "")
        + (f" Columns: {', '.join(f'{one} {names[one]}' for one in ids)}." if len(ids) > 6 else "")
    )
    return drawn("contrasts", "What sets the segments apart", caption, figure)


def _cell(axes: Axes, x: float, y: float, width: float, height: float, value: float, kind: str) -> None:
    from matplotlib.patches import Rectangle

    strength = min(abs(value) / (1.5 if kind == "g" else float(np.log(3))), 1.0)
    colour = "#d55e00" if value > 0 else "#2f7fc4"
    place = (x + 1, y + 1), width - 2, height - 2
    axes.add_patch(Rectangle(*place, facecolor=colour, edgecolor="none", alpha=0.05 + 0.6 * strength))
    text = (
        f"{value:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0").replace("-", "−")
        if kind == "g"
        else f"× {np.exp(value):.1f}"
    )
    write(axes, x + width / 2, y + height / 2, text, ha="center", fontsize=9.5)


def _table(
    contrasts: Mapping[str, Sequence[Row]], ids: Sequence[str], kind: str, value: Any, most: int
) -> list[tuple[str, dict[str, float]]]:
    """The `most` things in which any segment differs most, with the value of each segment that has one."""
    found: dict[str, dict[str, float]] = {}
    for one in ids:
        for row in contrasts[one]:
            if row["kind"] == kind and (figure := value(row)) is not None:
                found.setdefault(row[kind], {})[one] = figure
    order = sorted(found, key=lambda name: (-max(map(abs, found[name].values())), name))[:most]
    return [(name, found[name]) for name in order]


def selection_curve(candidates: Sequence[Row]) -> Picture:
    """Separation and stability of every candidate by its number of segments, with what is reached without structure.

    `candidates` are rows of `segmentation` of one week.
    """
    ink = _paint(candidates)
    figure = blank(430)
    above, below = (panel(figure, 52, y, WIDTH - 212, 150) for y in (245, 46))
    apart = [_Line(rows, "silhouette", colour, "-", one.replace("_", " ")) for one, rows, colour in ink]
    nulls = [row for row in candidates if row["null_silhouette"] is not None]
    if nulls:
        apart.append(_Line(_by_k(nulls), "null_silhouette", NOBODY, "--", "shuffled data,\nno structure"))
    stable = []
    for one, rows, colour in ink:
        who = f"{one.replace('_', ' ')}, " if len(ink) > 1 else ""
        stable.append(_Line(rows, "stability_mean", colour, "-", f"{who}mean"))
        stable.append(_Line(rows, "stability_min", colour, ":", f"{who}weakest"))
    below.set(ylim=(0, 1.05), xlabel="number of segments")
    for level in (0.6, 0.75):
        below.axhline(level, color=NOBODY, linewidth=0.8, linestyle=(0, (4, 3)))
    chosen = next((row for row in candidates if row["chosen"]), None)
    _curves(above, apart, chosen, "How far apart (silhouette)")
    _curves(below, stable, chosen, "How stable (1: all come back when users are redrawn)")
    caption = (
        "Above: how far apart the segments lie, for each number of them that was tried; 0 means that they overlap."
        + (" Grey is what the same search finds in shuffled data, where there is nothing to find." if nulls else "")
        + " Below: how much of a segment comes back when it is searched for again among redrawn users; from 0.75 on it is "
        "trusted, under 0.6 it is not."
        + (f" The circle marks the choice: {chosen['k']}." if chosen else " No number was chosen.")
    )
    return drawn("selection", "How the number of segments was chosen", caption, figure)


class _Line(NamedTuple):
    rows: Sequence[Row]
    column: str
    colour: str
    style: str
    label: str

    @property
    def points(self) -> list[tuple[int, float]]:
        return [(row["k"], row[self.column]) for row in self.rows if row[self.column] is not None]


def _paint(candidates: Sequence[Row]) -> list[tuple[str, list[Row], str]]:
    """Algorithm, its candidates by rising k, and its colour."""
    algorithms = sorted({row["algorithm"] for row in candidates})
    paint = colours(f"s{number:03d}" for number in range(1, len(algorithms) + 1)).values()
    rows = [_by_k([row for row in candidates if row["algorithm"] == one]) for one in algorithms]
    return list(zip(algorithms, rows, paint, strict=True))


def _by_k(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["k"])


def _curves(axes: Axes, lines: Sequence[_Line], chosen: Row | None, title: str) -> None:
    """The lines, a circle on the chosen point of the first column, and at the right the name of each line."""
    from matplotlib.ticker import MaxNLocator

    lines = [line for line in lines if line.points]
    for line in lines:
        x, y = zip(*line.points, strict=True)
        axes.plot(x, y, color=line.colour, linestyle=line.style, marker="o", markersize=4.5, linewidth=2)
    if axes.get_autoscaley_on():
        values = [value for line in lines for _, value in line.points]
        axes.set_ylim(1.15 * min(0.0, *values), 1.15 * max(1e-3, *values))
    if chosen and (value := chosen[lines[0].column]) is not None:
        axes.axvline(chosen["k"], color=INK, linewidth=0.8, alpha=0.6)
        axes.plot(chosen["k"], value, "o", markersize=12, color="none", markeredgecolor=INK, markeredgewidth=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=NOBODY, alpha=0.3, linewidth=0.6)
    axes.tick_params(length=0, labelsize=10)
    axes.set_title(title, loc="left", fontsize=11.5, color=INK, fontweight="bold", x=-0.13)
    _at_the_right(axes, [(line.points[-1][1], line.label, line.colour) for line in lines])


def _at_the_right(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Value, text and colour of each label: beside the axes at the height of its value, none over another."""
    axes.get_ylim()  # scales the axes, so that heights are final
    bounds = axes.get_window_extent()
    heights = [_LINE * (text.count("\n") + 1) + 3 for _, text, _ in labels]
    wanted = [axes.transData.transform((0, value))[1] for value, _, _ in labels]
    middles = spread(wanted, heights, bounds.y0 - 12, bounds.y1 + 12)
    for (_, text, colour), start, middle in zip(labels, wanted, middles, strict=True):
        axes.plot([bounds.x1 + 2, bounds.x1 + 18], [start, middle], color=colour, transform=None, clip_on=False)
        write(axes, bounds.x1 + 22, middle, text, transform=None, fontsize=10)
