"""Days and weeks that retention is done with: what was made of them stays as it is and is not made again.

Their inputs are gone; made again, they would come out empty. Lives here: which these are. Does not live here: removing anything
(`segflow.erasure.retain`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from segflow import tables
from segflow.defs.partitions import CONFIG, DAILY
from segflow.errors import UserError

if TYPE_CHECKING:
    from segflow.defs.materializes import Plan

_RAW = {tables.RAW_EVENTS, tables.QUARANTINED_EVENTS}


@dataclass(frozen=True)
class Over:
    """raw: days before it have no raw rows any more; weeks: weekly tables are over before it. None: nothing is."""

    raw: date | None = None
    weeks: date | None = None

    @classmethod
    def read(cls, file: str | None = None) -> Over:
        """What the log of retention says. Raises UserError when it cannot be read."""
        place = Path(file or CONFIG.retention.log)
        if not place.exists():
            return cls()
        try:
            lines = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines() if line.strip()]
            found = {
                name: [date.fromisoformat(line[f"{name}_before"]) for line in lines if line.get(f"{name}_before")]
                for name in ("raw", "weeks")
            }
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{place}: is not a log as `segflow retain` writes it; restore it from a backup") from error
        return cls(max(found["raw"], default=None), max(found["weeks"], default=None))

    def before(self, plan: Plan) -> date | None:
        """The first day or week of which `plan` may be made; None for any."""
        if plan.partitions is None:
            return None
        if plan.partitions is DAILY:
            return self.raw if _RAW & {*plan.tables, *plan.reads} else None
        return self.weeks

    def among(self, plan: Plan, keys: Sequence[str]) -> list[str]:
        """Those of `keys` that are over for `plan`."""
        from segflow.defs.provenance import partition_day

        first = self.before(plan)
        return [] if first is None else [key for key in keys if key and partition_day(key) < first]

    def require_none(self, plan: Plan, keys: Sequence[str]) -> None:
        """Raises UserError when one of `keys` is over: made again, it would come out empty."""
        if found := self.among(plan, keys):
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise UserError(
                f"{plan.name} {found[0]}{more}: what it is made from was removed by `segflow retain`; choose days and weeks from "
                f"{self.before(plan)} on, or make the project anew from its sources"
            )
