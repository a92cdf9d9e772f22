"""What each materialized partition was made from, and whether that has changed since.

Every materialization records a digest of its content and a digest of its inputs: the code version and the content digests of
the upstream partitions that it read. A partition is up to date when its inputs, digested again, are the same.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from segflow.defs.materializes import Plan
    from segflow.defs.partitions import Window
    from segflow.tables import Table

CONTENT = "segflow/content"
INPUTS = "segflow/inputs"
UPSTREAM = "segflow/upstream"
ASPECTS = "segflow/aspects"
CODE = "segflow/code"
TABLE_VERSION = "segflow/table_version"
_PAGE = 500


@dataclass(frozen=True)
class Made:
    """What the latest materialization of a partition recorded.

    order: later materializations have greater numbers. aspects: digests of parts of the content; None if the asset records none.
    upstream: table -> digest of what was read of it; empty for one that was made before this was recorded. run: its Dagster run.
    """

    content: str
    inputs: str
    table_version: int
    code: str
    order: int
    aspects: Mapping[str, str] | None = None
    upstream: Mapping[str, str] = field(default_factory=dict)
    run: str = ""

    def digest(self, aspect: str | None) -> str:
        """Of a part of the content, `none` if there is no such part; without an aspect of all of it."""
        return self.content if aspect is None else (self.aspects or {}).get(aspect, "none")


@dataclass(frozen=True)
class ReadTable:
    """What a step reads of a table.

    version: that holds all of it; content: digest of the partitions' content; partitions: their keys in order of time.
    """

    table: Table
    version: int
    content: str
    partitions: Sequence[str]


@lru_cache(maxsize=100_000)
def partition_day(key: str) -> date:
    """The day or week that a partition key stands for; for week|segment keys the week."""
    return date.fromisoformat(key.split("|")[-1] if not key[:4].isdigit() else key.split("|")[0])


class Provenance:
    """A reading of the event log; assets that are materialized meanwhile must be forgotten with `forget`.

    records: what materializations recorded, by their place in the log, where it never changes: whoever reads the same log again
        and again passes the same mapping.
    """

    def __init__(self, instance: dg.DagsterInstance, records: MutableMapping[int, Made | None] | None = None):
        self._instance = instance
        self._latest: dict[str, Mapping[str, int]] = {}
        self._in_order: dict[str, tuple[list[date], list[str]]] = {}
        self._made: MutableMapping[int, Made | None] = {} if records is None else records
        self._contents: dict[tuple[str, str, str], str] = {}
        self._outside: dict[str, str] = {}

    def made(self, asset: str) -> Mapping[str, Made]:
        """Partition key (empty for an asset without partitions) -> what its latest materialization recorded."""
        return self._of(asset, self._ids(asset))

    def keys(self, asset: str, days: tuple[date, date] | None = None) -> Collection[str]:
        """The partition keys that were made, of all days and weeks or of the half-open range `days`."""
        ids = self._ids(asset)
        if days is None:
            return ids
        if asset not in self._in_order:
            pairs = sorted((partition_day(name), name) for name in ids)
            self._in_order[asset] = ([day for day, _ in pairs], [name for _, name in pairs])
        found, names = self._in_order[asset]
        return names[bisect_left(found, days[0]) : bisect_left(found, days[1])]

    def aspect(self, asset: str, name: str, days: tuple[date, date]) -> dict[str, str]:
        """Partition key -> digest of the part `name` of its content, of the half-open range `days` and where it was recorded."""
        made = self._of(asset, self.keys(asset, days))
        return {key: one.aspects[name] for key, one in made.items() if one.aspects and name in one.aspects}

    def forget(self, asset: str) -> None:
        """Read `asset` afresh the next time."""
        self._latest.pop(asset, None)
        self._in_order.pop(asset, None)
        self._contents.clear()

    def read_ahead(self, plan: Plan, keys: Sequence[str]) -> None:
        """Read in one go what `inputs` of all `keys` of `plan` will ask for."""
        days = [partition_day(key) for key in keys if key]
        for table, window in plan.reads.items():
            self._of(table.name, self._within(table.name, window, (min(days), max(days)) if days else None))

    def inputs(self, plan: Plan, key: str) -> str:
        """Digest of what the partition `key` of `plan` would be made from now."""
        digest = hashlib.sha256(plan.code_version.encode())
        if plan.observes is not None:
            digest.update(self._observed(plan).encode())
        for name, chosen in self._chosen(plan, key):
            digest.update(f"{name}:{chosen}".encode())
        return digest.hexdigest()[:16]

    def contents(self, plan: Plan, key: str) -> dict[str, str]:
        """Upstream table -> digest of the content that the partition `key` of `plan` would read now."""
        found: dict[str, str] = {}
        for table, window in plan.reads.items():
            # Plans share windows, so the same is asked for many times.
            asked = (table.name, window.name, key)
            if asked not in self._contents:
                chosen = str(self._selected(table.name, window, key))
                self._contents[asked] = hashlib.sha256(chosen.encode()).hexdigest()[:16]
            found[table.name] = self._contents[asked]
        return found

    def read(self, plan: Plan, keys: Sequence[str]) -> Iterator[ReadTable]:
        """What the partitions `keys` of `plan` read together, table by table; nothing of a table that was never made."""
        days = [partition_day(key) for key in keys if key]
        for table, window in sorted(plan.reads.items(), key=lambda one: one[0].name):
            made = self._of(table.name, self._within(table.name, window, (min(days), max(days)) if days else None))
            if made:
                contents = "|".join(f"{key}:{made[key].content}" for key in sorted(made))
                yield ReadTable(
                    table,
                    max(one.table_version for one in made.values()),
                    hashlib.sha256(contents.encode()).hexdigest()[:16],
                    sorted(made, key=lambda key: (partition_day(key), key) if key else (date.min, key)),
                )

    def stale(self, plan: Plan, keys: Sequence[str]) -> list[str]:
        """Those of `keys` that were never made, or not from what is there now; none that retention is done with."""
        from segflow.defs.kept import Over

        over = set(Over.read().among(plan, keys))
        keys = [key for key in keys if key not in over]
        made = {table.name: self.made(table.name) for table in plan.tables}
        self.read_ahead(plan, keys)
        return [
            key
            for key in keys
            if any(key not in own or own[key].inputs != self.inputs(plan, key) for own in made.values())
        ]

    def _chosen(self, plan: Plan, key: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Upstream table -> the partitions inside its window, each with the digest of its content."""
        for table, window in sorted(plan.reads.items(), key=lambda one: one[0].name):
            yield table.name, self._selected(table.name, window, key)

    def _selected(self, asset: str, window: Window, key: str) -> list[tuple[str, str]]:
        """The partitions of `asset` inside the window around `key`, each with the digest of the part of it that counts."""
        day = partition_day(key) if key else None
        made = self._of(asset, self._within(asset, window, (day, day) if day else None))
        aspect = window.aspect if key else None
        return [(name, made[name].digest(aspect(key, name) if aspect else None)) for name in sorted(made)]

    def _within(self, asset: str, window: Window, days: tuple[date, date] | None) -> Collection[str]:
        """The partitions of `asset` inside the window around the first to the last of `days`."""
        return self.keys(asset, window.days(*days) if window.days and days else None)

    def _observed(self, plan: Plan) -> str:
        if plan.name not in self._outside:
            assert plan.observes is not None
            self._outside[plan.name] = plan.observes()
        return self._outside[plan.name]

    def _ids(self, asset: str) -> Mapping[str, int]:
        """Partition key -> where the log keeps its latest materialization."""
        if asset not in self._latest:
            key, kind = dg.AssetKey(asset), dg.DagsterEventType.ASSET_MATERIALIZATION
            latest = self._instance.event_log_storage.get_latest_storage_id_by_partition(key, kind)
            if not latest:
                newest = self._instance.fetch_materializations(key, limit=1).records
                latest = {one.partition_key or "": one.storage_id for one in newest}
            self._latest[asset] = latest
        return self._latest[asset]

    def _of(self, asset: str, keys: Collection[str]) -> dict[str, Made]:
        """What the latest materializations of these partitions recorded.

        Each is read once, and no other: of years of days, a step looks at a few.
        """
        ids, known = self._ids(asset), self._made
        wanted = sorted(ids[key] for key in keys if ids[key] not in known)
        for start in range(0, len(wanted), _PAGE):
            some = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), storage_ids=wanted[start : start + _PAGE])
            known.update(_recorded(self._instance.fetch_materializations(some, limit=_PAGE).records))
        return {key: made for key in keys if (made := known.get(ids[key])) is not None}


def _recorded(records: Sequence[dg.EventLogRecord]) -> dict[int, Made | None]:
    """Place in the log -> what a materialization recorded; None for one that was not made by a step."""
    made: dict[int, Made | None] = {}
    for record in records:
        event = record.asset_materialization
        values = {name: str(value.value) for name, value in (event.metadata if event else {}).items()}
        made[record.storage_id] = (
            Made(
                values[CONTENT],
                values[INPUTS],
                int(values[TABLE_VERSION]),
                values.get(CODE, ""),
                record.storage_id,
                json.loads(values[ASPECTS]) if ASPECTS in values else None,
                json.loads(values.get(UPSTREAM, "{}")),
                record.run_id,
            )
            if CONTENT in values and INPUTS in values
            else None
        )
    return made
