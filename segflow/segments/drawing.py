"""From a matplotlib figure to an SVG that lives in a page: its ink is the page's, light or dark, its text is text.

What lives here: the shape of a picture, colours, the making of SVG, and placing labels. What does not: what is drawn
(`pictures.py`).
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 600.0  # points; the scale of all letters
NOBODY = "#8b949e"  # who is in no segment
INK, PAPER = "#1b1c1e", "#fdfefd"  # stand for the page's own colours until the SVG is written

# Okabe and Ito (2008), without black and yellow, and four more that differ from them in lightness. All can be seen on
# white and on black. Colour never stands alone: what it means is written beside it.
_PALETTE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#c98a00", "#56a5d8", "#8a63d2", "#8f8f2e", "#a8563c", "#3f8f8f",
    "#b8547f", "#6f7f5f",
)  # fmt: skip

_INKS = {INK: "currentColor", PAPER: "var(--panel, Canvas)"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same measures everywhere
    "font.size": 11.0,
    "path.simplify": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_TAG = re.compile(r"<[^>]*>")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FONTS = re.compile(r"'DejaVu Sans'[^;\"]*")


@dataclass(frozen=True)
class Picture:
    """A drawing for a page. The caption says in plain words what one sees, and is what a screen reader reads."""

    name: str
    title: str
    caption: str
    svg: str  # one <svg> element of a page: transparent, its ink the colour of the text around it

    def standalone(self) -> str:
        """The same on white, as a file of its own."""
        svg = self.svg
        for stand_in, ink in _INKS.items():
            svg = svg.replace(ink, stand_in)
        # Without a size of its own an image is shown in that of a thumbnail.
        size = re.sub(r'.*?viewBox="0 0 (\d+) (\d+)".*', r'width="\1" height="\2"', svg, count=1, flags=re.DOTALL)
        return svg.replace("<svg", f"<svg {_NAMESPACES} {size}", 1).replace('style="', 'style="background: #fff; ', 1)


def drawn(name: str, title: str, caption: str, figure: Figure) -> Picture:
    """The figure as a picture. The same figure gives the same bytes."""
    clean = " ".join(_CONTROL.sub(" ", caption).split())
    return Picture(name, title, clean, _svg(figure, name, clean))


def blank(height: float) -> Figure:
    """An empty figure of the common width, `height` points high."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        return Figure(figsize=(WIDTH / 72, height / 72), dpi=72, facecolor="none")


def panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in points from the lower left corner."""
    import matplotlib

    points = figure.get_size_inches() * 72
    with matplotlib.rc_context(_STYLE):
        return figure.add_axes(
            (left / points[0], bottom / points[1], width / points[0], height / points[1]), facecolor="none"
        )


def write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """A text whose position is the middle of its left edge, unless `style` says otherwise."""
    # Names come from data: a dollar sign is no formula.
    axes.text(x, y, text, parse_math=False, **{"va": "center", "ha": "left", "color": INK, "fontsize": 10.5, **style})


def colours(ids: Iterable[str]) -> dict[str, str]:
    """A colour for each segment, by the number in its id, so that it stays the same from week to week.

    Only where two would share a colour does the later one take the next that is free.
    """
    found: dict[str, str] = {}
    for one in sorted(set(ids)):
        start = int(re.sub(r"\D", "", one) or 1) - 1
        order = [_PALETTE[(start + step) % len(_PALETTE)] for step in range(len(_PALETTE))]
        found[one] = next((colour for colour in order if colour not in found.values()), order[0])
    return found


def wrapped(text: str, width: int, lines: int = 3) -> str:
    """The text without control characters, in at most `lines` lines of about `width` letters."""
    clean = " ".join(_CONTROL.sub(" ", text).split())
    return "\n".join(textwrap.wrap(clean, width, max_lines=lines, placeholder=" …")) or "–"


def spread(wanted: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Middles of labels of these sizes on a line, near the `wanted` places, none over another.

    Labels keep their order. They stay between low and high if they fit at all.
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    room = max(high - low, sum(sizes))
    placed = [0.0] * len(wanted)
    edge = low
    for i in order:
        placed[i] = max(wanted[i], edge + sizes[i] / 2)
        edge = placed[i] + sizes[i] / 2
    edge = low + room
    for i in reversed(order):
        placed[i] = min(placed[i], edge - sizes[i] / 2)
        edge = placed[i] - sizes[i] / 2
    return placed


def _svg(figure: Figure, name: str, caption: str) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser has other fonts: a letter that is missing here is there.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", file.getvalue(), flags=re.DOTALL)
    body = svg[svg.index("<svg") :].partition(">")[2]
    # Without references an id is of no use, and in a page with several pictures it would not be the only one.
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="([^"]+)"', lambda found: found.group(0) if found.group(1) in used else "", body)
    body = re.sub(r"\s*\n\s*", " ", _TAG.sub(_tidy, body)).strip()
    width, height = (round(inches * 72) for inches in figure.get_size_inches())
    return (
        '<svg class="picture" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label={quoteattr(caption)} '
        f'style="stroke-linejoin: round; stroke-linecap: butt">{body}'
    )


def _tidy(tag: re.Match[str]) -> str:
    text = _LONG_NUMBER.sub(lambda number: f"{float(number.group()):.2f}", tag.group())
    text = _FONTS.sub("system-ui, 'Liberation Sans', sans-serif", text)
    for stand_in, ink in _INKS.items():
        text = text.replace(stand_in, ink)
    return text
