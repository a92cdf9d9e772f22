"""What the settings promise of a stage's memory, stated before it is measured, and whether measurements keep to it.

A bound is what the settings give, plus what is held of each event, user or item whatever they say. Only bounds that are meant to
hold on any log are here; what the other stages take is extrapolated from measurements (`scale_growth`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from segflow.config import BehaviorConfig, ComputeConfig, RankerConfig

_GIGABYTE = 1_000_000_000
_LIBRARIES = int(0.45 * _GIGABYTE)
"""Dagster, MLflow, DuckDB, Arrow and Delta, imported."""
_TORCH = int(0.9 * _GIGABYTE)
"""The same with torch, and its buffers for batches of many shapes."""
_DUCKDB = int(float(ComputeConfig().memory_limit.removesuffix("GB")) * _GIGABYTE)
_SPAN = 300 * ComputeConfig().rows_at_once
"""Rows of one span, outside DuckDB: as Arrow, as arrays, and once more while they are written."""
_HISTORY = 300
"""Bytes of an event in the rankers' window: a row while it is read, sequences, days with an item, features of one cut."""


@dataclass(frozen=True)
class Bound:
    """At most `fixed` bytes, and so many more for each event (up to `most_events`), user and item."""

    settings: str
    fixed: int
    event: int = 0
    user: int = 0
    item: int = 0
    most_events: int | None = None

    def bytes(self, events: int, users: int, items: int) -> int:
        """Of a log of this size."""
        counted = events if self.most_events is None else min(events, self.most_events)
        return self.fixed + self.event * counted + self.user * users + self.item * items


_OF_DAYS = Bound("compute.memory_limit, compute.rows_at_once", _LIBRARIES + _DUCKDB + _SPAN)
_RANKERS = Bound(
    "compute.memory_limit, rankers.example_memory",
    # Training examples and those of the validation week, each within the limit.
    _TORCH + _DUCKDB + 2 * RankerConfig().example_memory * 1_000_000,
    event=_HISTORY,
)
BOUNDS: Mapping[str, Bound] = {
    **dict.fromkeys(("raw events", "events", "sessions", "days of users"), _OF_DAYS),
    "item vectors": Bound("text.batch_tokens", _TORCH + int(0.5 * _GIGABYTE), item=6_000),
    "session vectors": Bound(_OF_DAYS.settings, _OF_DAYS.fixed, item=6_000),
    # Two streams in order, each within DuckDB's memory; a vector of 470 numbers a user, three times while it is written.
    "user views": Bound(_OF_DAYS.settings, _TORCH + 2 * _DUCKDB + 2 * _SPAN, user=3 * 470 * 4, item=6_000),
    "behaviour model": Bound(
        "compute.memory_limit, behavior.events", _TORCH + _DUCKDB, event=_HISTORY, most_events=BehaviorConfig().events
    ),
    "global ranker": _RANKERS,
    "lists": _RANKERS,
}


def bound_of(results: Mapping[str, Any], stage: str, events: int) -> int | None:
    """Bytes that a stage may take at a size of the shape of `results`; None where nothing is promised."""
    shape = results["shape"]
    one = BOUNDS.get(stage)
    return None if one is None else one.bytes(events, events // shape["events_per_user"], shape["items"])


def bound_rows(results: Mapping[str, Any]) -> Iterator[list[str]]:
    """Of every stage with a bound: the settings, what they allow, the same and what was measured at each size, if it held."""
    sizes = sorted(map(int, results["sizes"]))
    for stage, one in BOUNDS.items():
        ran = [events for events in sizes if stage in results["sizes"][str(events)]["stages"]]
        if not ran:
            continue
        peaks = [results["sizes"][str(events)]["stages"][stage]["peak"] for events in ran]
        allowed = [bound_of(results, stage, events) or 0 for events in ran]
        held = all(peak <= most for peak, most in zip(peaks, allowed, strict=True))
        grows = [f"{count} {what}" for what in ("event", "user", "item") if (count := getattr(one, what))]
        yield [
            stage,
            one.settings,
            f"{one.fixed / 1e9:.1f}" + (f" + bytes: {', '.join(grows)}" if grows else ""),
            " / ".join(f"{most / 1e9:.1f}" for most in allowed),
            " / ".join(f"{peak / 1e9:.1f}" for peak in peaks),
            "yes" if held else "no",
        ]
