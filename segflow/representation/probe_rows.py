"""What the probe found: one row per candidate and task, and the names of candidates.

Lives here, apart from `probe`, because whoever only shows or reads scores must not import what trains them (torch, scikit-learn).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from segflow.config import View

_AND = " + "


@dataclass(frozen=True)
class ProbeRow:
    """The score of a candidate in a task, with its interval; differences are to `aggregated`, over the same resamples."""

    candidate: str
    kind: str
    task: str
    metric: str
    users: int
    score: float
    low: float
    high: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    chosen: bool
    columns: int

    @property
    def views(self) -> list[View]:
        """The views that a view or fusion is made of."""
        return views_in(self.candidate)


def candidate_of(views: Sequence[str]) -> str:
    """The name of a view or of a fusion of several."""
    return _AND.join(views)


def views_in(candidate: str) -> list[View]:
    """The views that the name of a view or fusion lists; the inverse of `candidate_of`."""
    return [cast(View, name) for name in candidate.split(_AND)]
