"""What each materialized partition was made from, and whether that has changed since.

Every materialization records a digest of its content and a digest of its inputs: the code version and the content digests of
the upstream partitions that it read. A partition is up to date when its inputs, digested again, are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from segflow.defs.materializes import Plan

CONTENT = "segflow/content"
INPUTS = "segflow/inputs"
ASPECTS = "segflow/aspects"
CODE = "segflow/code"
TABLE_VERSION = "segflow/table_version"
_PAGE = 500


@dataclass(frozen=True)
class Made:
    """What the latest materialization of a partition recorded.

    order: later materializations have greater numbers. aspects: digests of parts of the content.
    """

    content: str
    inputs: str
    table_version: int
    code: str
    order: int
    aspects: Mapping[str, str] = field(default_factory=dict)

    def digest(self, aspect: str | None) -> str:
        """Of a part of the content, `none` if there is no such part; without an aspect of all of it."""
        return self.content if aspect is None else self.aspects.get(aspect, "none")


def partition_day(key: str) -> date:
    """The day or week that a partition key stands for; for week|segment keys the week."""
    return date.fromisoformat(key.split("|")[-1] if not key[:4].isdigit() else key.split("|")[0])


class Provenance:
    """A reading of the event log; assets that are materialized meanwhile must be forgotten with `forget`."""

    def __init__(self, instance: dg.DagsterInstance):
        self._instance = instance
        self._made: dict[str, dict[str, Made]] = {}
        self._outside: dict[str, str] = {}

    def made(self, asset: str) -> Mapping[str, Made]:
        """Partition key (empty for an asset without partitions) -> what its latest materialization recorded."""
        if asset not in self._made:
            self._made[asset] = self._read(dg.AssetKey(asset))
        return self._made[asset]

    def forget(self, asset: str) -> None:
        """Read `asset` afresh the next time."""
        self._made.pop(asset, None)

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
        return {name: hashlib.sha256(str(chosen).encode()).hexdigest()[:16] for name, chosen in self._chosen(plan, key)}

    def stale(self, plan: Plan, keys: Sequence[str]) -> list[str]:
        """Those of `keys` that were never made, or not from what is there now."""
        made = {table.name: self.made(table.name) for table in plan.tables}
        return [
            key
            for key in keys
            if any(key not in own or own[key].inputs != self.inputs(plan, key) for own in made.values())
        ]

    def _chosen(self, plan: Plan, key: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Upstream table -> the partitions inside its window, each with the digest of its content."""
        day = partition_day(key) if key else None
        for table, window in sorted(plan.reads.items(), key=lambda one: one[0].name):
            made = self.made(table.name)
            names = sorted(made)
            if window.days is not None and day is not None:
                first, last = window.days(day, day)
                names = [name for name in names if first <= partition_day(name) < last]
            aspect = window.aspect
            yield (
                table.name,
                [
                    (
                        name,
                        made[name].digest(
                            aspect(day, partition_day(name) if name else None) if aspect and day else None
                        ),
                    )
                    for name in names
                ],
            )

    def _observed(self, plan: Plan) -> str:
        if plan.name not in self._outside:
            assert plan.observes is not None
            self._outside[plan.name] = plan.observes()
        return self._outside[plan.name]

    def _read(self, key: dg.AssetKey) -> dict[str, Made]:
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        by_partition = self._instance.event_log_storage.get_latest_storage_id_by_partition(key, kind)
        if not by_partition:
            latest = self._instance.fetch_materializations(key, limit=1).records
            return _recorded(latest)
        ids = sorted(by_partition.values())
        records: list[dg.EventLogRecord] = []
        for start in range(0, len(ids), _PAGE):
            records += self._instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, storage_ids=ids[start : start + _PAGE]), limit=_PAGE
            ).records
        return _recorded(records)


def _recorded(records: Sequence[dg.EventLogRecord]) -> dict[str, Made]:
    made = {}
    for record in records:
        event = record.asset_materialization
        values = {name: str(value.value) for name, value in (event.metadata if event else {}).items()}
        if CONTENT in values and INPUTS in values:
            made[record.partition_key or ""] = Made(
                values[CONTENT],
                values[INPUTS],
                int(values[TABLE_VERSION]),
                values.get(CODE, ""),
                record.storage_id,
                json.loads(values.get(ASPECTS, "{}")),
            )
    return made
