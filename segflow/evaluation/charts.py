"""Charts of the report as inline SVG, coloured by the page's own style sheet, each with its data for the interactive form.

What lives here: geometry and markup of each chart. What does not: the choice of what is drawn (drawings.py), how a page makes
a chart interactive (interactive.py) and the colours (chart.css.jinja, pages/page.css.jinja). Every text goes through
`Markup.format`, and data through `htmlsafe_json_dumps`, which escape it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from segflow.pages import environment, light_colours

_WIDTH = 900
_LABEL_WIDTH = 262
_VALUE_WIDTH = 215
_ROW_HEIGHT = 30
_CAPTION_SPACE = 34
_NARROW_SPACE = 8
_BOTTOM = 34

_KINDS = {
    "segments": "rankers per segment",
    "global": "one ranker for everyone",
    "control": "control, same extra training",
    "baseline": "simple baseline",
}


@dataclass(frozen=True)
class Interval:
    """One row of a dot-and-whisker plot; `kind` becomes a CSS class, `text` stands at the right.

    `facts` are further figures, a name and a text each, told where one points at the row.
    """

    label: str
    mean: float
    low: float
    high: float
    kind: str
    text: str
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def aloud(self) -> str:
        """All that the row says, in one line."""
        return "; ".join([f"{self.label}: {self.text}", *(f"{name} {text}" for name, text in self.facts)])


@dataclass(frozen=True)
class Line:
    """A vertical reference line with its caption."""

    value: float
    caption: str
    kind: str


def interval_plot(rows: Sequence[Interval], lines: Sequence[Line], title: str) -> Markup:
    """Dot-and-whisker plot, one row per interval on a common axis.

    `title` says in words what is drawn; a screen reader says it, and the rows after it. Rows of several kinds get a legend.
    """
    values = [value for row in rows for value in (row.low, row.high)] + [line.value for line in lines]
    ticks = axis_ticks(min(values), max(values))
    left, right = _LABEL_WIDTH, _WIDTH - _VALUE_WIDTH
    span = ticks[-1] - ticks[0]

    def x(value: float) -> float:
        return round(left + (value - ticks[0]) / span * (right - left), 1)

    top = _CAPTION_SPACE if lines else _NARROW_SPACE
    bottom = top + _ROW_HEIGHT * len(rows)
    height = bottom + _BOTTOM
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            _WIDTH, height, f"{title}: " + "; ".join(f"{row.label} {row.text}" for row in rows)
        )
    ]
    for tick in ticks:
        parts.append(
            Markup('<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(x(tick), top, bottom)
            + Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                x(tick), bottom + 20, f"{tick + 0.0:.{digits}f}".replace("-", "−")
            )
        )
    parts.extend(_reference(line, x(line.value), top, bottom) for line in lines)
    for position, row in enumerate(rows):
        parts.append(_interval_row(row, x(row.low), x(row.mean), x(row.high), top + _ROW_HEIGHT * (position + 0.5)))
    data = {
        "form": "intervals",
        "title": title,
        "axis": [ticks[0], ticks[-1]],
        "rows": [{**asdict(row), "aloud": row.aloud} for row in rows],
        "lines": [asdict(line) for line in lines],
    }
    return _plot(Markup("").join([*parts, Markup("</svg>")]), data, [row.kind for row in rows])


@dataclass(frozen=True)
class Point:
    """One point of a curve; `label` stands beside it, `text` is its tooltip."""

    x: float
    y: float
    label: str
    text: str


def curve_plot(points: Sequence[Point], axes: tuple[str, str], title: str) -> Markup:
    """Points joined in their order; `axes` name what goes right and up, `title` says in words what is drawn."""
    left, right, top, bottom = 90, _WIDTH - 120, 26, 250
    across = axis_ticks(min(point.x for point in points), max(point.x for point in points))
    up = axis_ticks(min(point.y for point in points), max(point.y for point in points))

    def place(point: Point) -> tuple[float, float]:
        x = left + (point.x - across[0]) / (across[-1] - across[0]) * (right - left)
        y = bottom - (point.y - up[0]) / (up[-1] - up[0]) * (bottom - top)
        return round(x, 1), round(y, 1)

    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            _WIDTH, bottom + 46, f"{title}: " + "; ".join(point.text for point in points)
        )
    ]
    for tick in across:
        x, _ = place(Point(tick, up[0], "", ""))
        parts.append(
            Markup('<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(x, top, bottom)
            + Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{:.4g}</text>').format(x, bottom + 18, tick)
        )
    for tick in up:
        _, y = place(Point(across[0], tick, "", ""))
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(left, right, y=y)
            + Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{:.4g}</text>').format(left - 8, y + 4, tick)
        )
    parts.append(
        Markup('<text class="caption" x="{}" y="{}" text-anchor="end">{}</text>').format(right, bottom + 38, axes[0])
        + Markup('<text class="caption" x="{}" y="{}">{}</text>').format(left, top - 10, axes[1])
    )
    places = [place(point) for point in points]
    joined = " ".join(f"{x},{y}" for x, y in places)
    parts.append(Markup('<g class="segments"><polyline class="whisker" fill="none" points="{}"/>').format(joined))
    for point, (x, y) in zip(points, places, strict=True):
        parts.append(
            Markup('<g><title>{}</title><circle cx="{}" cy="{}" r="5"/></g>').format(point.text, x, y)
            + Markup('<text class="value" x="{}" y="{}">{}</text>').format(x + 9, y - 7, point.label)
        )
    data = {
        "form": "curve",
        "title": title,
        "across": [across[0], across[-1]],
        "up": [up[0], up[-1]],
        "axes": axes,
        "points": [{**asdict(point), "aloud": point.text} for point in points],
    }
    return _plot(Markup("").join([*parts, Markup("</g></svg>")]), data, [])


def _plot(drawing: Markup, data: dict[str, Any], kinds: Sequence[str]) -> Markup:
    """The drawing with its data; a page that can run scripts shows the interactive form of them in its place."""
    named = Markup("").join(
        Markup('<li class="{0}" data-kind="{0}">{1}</li>').format(kind, _KINDS.get(kind, kind))
        for kind in sorted(set(kinds), key=lambda kind: (*_KINDS, kind).index(kind))
    )
    legend = Markup('<ul class="legend">{}</ul>').format(named) if len(set(kinds)) > 1 else Markup("")
    return Markup('<div class="plot">{}{}<script type="application/json">{}</script></div>').format(
        drawing, legend, htmlsafe_json_dumps(data, allow_nan=False, sort_keys=False)
    )


def standalone(chart: Markup) -> str:
    """The drawing of a chart as an SVG file of its own: on white, with the colours of a light page."""
    found = re.search(r'<svg class="chart" viewBox="0 0 (\d+) (\d+)".*</svg>', chart, re.DOTALL)
    if found is None:
        raise ValueError("a chart holds a drawing")
    style = light_colours() + environment("segflow.evaluation").get_template("chart.css.jinja").render()
    start = f'<svg xmlns="http://www.w3.org/2000/svg" width="{found[1]}" height="{found[2]}"'
    font = 'text { font-family: system-ui, "Liberation Sans", sans-serif; } svg.chart { background: var(--panel); }'
    return found[0].replace("<svg", start, 1).replace(">", f"><style>{style}{font}</style>", 1)


def _reference(line: Line, x: float, top: int, bottom: int) -> Markup:
    return Markup('<line class="reference {3}" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
        x, top - 8, bottom, line.kind
    ) + Markup('<text class="caption {}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        line.kind, x, top - 14, "start" if line.kind == "needed" else "end", line.caption
    )


def _interval_row(row: Interval, low: float, mean: float, high: float, y: float) -> Markup:
    return (
        Markup('<g class="{}"><title>{}</title>').format(row.kind, row.aloud)
        + Markup('<text class="label" x="{}" y="{}" text-anchor="end">{}</text>').format(
            _LABEL_WIDTH - 14, y + 4.5, shortened(row.label, 30)
        )
        + Markup('<line class="whisker" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(low, high, y=y)
        + Markup('<line class="cap" x1="{x}" x2="{x}" y1="{}" y2="{}"/>').format(y - 4, y + 4, x=low)
        + Markup('<line class="cap" x1="{x}" x2="{x}" y1="{}" y2="{}"/>').format(y - 4, y + 4, x=high)
        + Markup('<circle cx="{}" cy="{}" r="5"/>').format(mean, y)
        + Markup('<text class="value" x="{}" y="{}">{}</text></g>').format(
            _WIDTH - _VALUE_WIDTH + 14, y + 4.5, row.text
        )
    )


def sparkline(values: Sequence[float], description: str) -> Markup:
    """A small line over time, scaled from 0 to its largest value; empty for fewer than two values."""
    if len(values) < 2:
        return Markup("")
    top = max(values) or 1.0
    points = [(4 + 92 * i / (len(values) - 1), 24 - 20 * value / top) for i, value in enumerate(values)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup(
        '<svg class="spark" viewBox="0 0 100 28" role="img" aria-label="{}">'
        '<polyline points="{}"/><circle cx="{:.1f}" cy="{:.1f}" r="3"/></svg>'
    ).format(description, path, *points[-1])


def axis_ticks(low: float, high: float) -> list[float]:
    """Four to nine round values (1, 2 or 5 times a power of ten apart) that enclose low and high."""
    size = max(abs(low), abs(high), 1e-9)
    # A range too small to be told apart in the labels gets a readable axis around it.
    span = high - low if high - low > 1e-6 * size else 0.1 * size
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * position for position in range(first, max(last, first + 1) + 1)]


def shortened(text: str, length: int) -> str:
    """The text, cut with an ellipsis when longer than `length` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
