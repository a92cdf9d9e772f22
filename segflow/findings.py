"""What an examination finds: one line each, good or bad, with how to mend it. `doctor.py` gathers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. A fault stops segflow from working, a warning may surprise.

    area: what was looked at. mend: what to do about it; empty where nothing is to be done.
    """

    area: str
    state: State
    says: str
    mend: str = ""


def ok(area: str, says: str) -> Finding:
    """All is well."""
    return Finding(area, "ok", says)


def warning(area: str, says: str, mend: str) -> Finding:
    """Worth knowing."""
    return Finding(area, "warning", says, mend)


def fault(area: str, says: str, mend: str) -> Finding:
    """Has to be mended first."""
    return Finding(area, "fault", says, mend)
