"""What Dagster is told of a step: a materialization for each table, with checks, figures and the provenance of each partition.

Lives here: what is recorded and how it is spelled. Does not live here: reading and writing (``step``), and what provenance
means (``provenance``).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from segflow.defs.metadata import COLUMN_LINEAGE, column_lineage, docs_link, readable, table_schema
from segflow.defs.partitions import CONFIG
from segflow.defs.provenance import ASPECTS, CODE, CONTENT, INPUTS, TABLE_VERSION, UPSTREAM
from segflow.storage import ViolationsError, Written
from segflow.storage.checks import CHECKS
from segflow.tables import Table
from segflow.tracking import Child

if TYPE_CHECKING:
    from segflow.defs.materializes import Plan
    from segflow.defs.step import Partition


class Results:
    """Collected while a step runs, and told at its end.

    keys: the run's partition keys, `partitions` the same as storage knows them; inputs: key -> digest of what it is made from;
    upstream: key -> the same by table.
    """

    def __init__(
        self,
        plan: Plan,
        keys: Sequence[str],
        partitions: Sequence[Partition],
        inputs: Mapping[str, str],
        upstream: Mapping[str, Mapping[str, str]],
    ):
        self._plan = plan
        self._keys = keys
        self._partitions = partitions
        self._inputs = inputs
        self._upstream = upstream
        self._written: dict[str, Written] = {}
        self._aspects: dict[str, dict[str, dict[str, str]]] = {}
        self._notes: dict[str, Any] = {}
        self._checks: list[dg.AssetCheckResult] = []

    def wrote(self, written: Written) -> None:
        """Partitions of a table were replaced; a table may be written in parts."""
        before = self._written.get(written.table.name)
        self._written[written.table.name] = before + written if before else written

    def aspects(self, table: Table, digests: Mapping[str, Mapping[str, str]]) -> None:
        """Digests of parts of what was written, by partition key and name of the part."""
        self._aspects.setdefault(table.name, {}).update({key: dict(parts) for key, parts in digests.items()})

    def note(self, values: Mapping[str, Any]) -> None:
        """Figures of the whole step."""
        self._notes.update(readable(values))

    def check(
        self, name: str, passed: bool, message: str, figures: Mapping[str, Any], severity: dg.AssetCheckSeverity
    ) -> None:
        """The outcome of a check of this asset's own."""
        asset = self._plan.tables[0].name
        self._checks.append(
            dg.AssetCheckResult(
                passed=passed,
                check_name=name,
                asset_key=asset,
                severity=severity,
                metadata={**self._span, **figures},
                description=message,
            )
        )

    @property
    def rows(self) -> int:
        """Rows written, of all tables."""
        return sum(written.total_rows for written in self._written.values())

    @property
    def outputs(self) -> dict[str, str]:
        """Tags of what was written: of each table its version and a digest of the content."""
        return {
            tag: value
            for name, written in self._written.items()
            for tag, value in (
                (f"segflow.table_version.{name}", str(written.version)),
                (f"segflow.content.{name}", _combined(written)),
            )
        }

    def as_run(self, number: int, name: str, tags: Mapping[str, str]) -> Child:
        """The MLflow run of the partition with this number: of each table its rows, version and content."""
        partition, told = self._partitions[number], dict(tags)
        for table, written in self._written.items():
            told[f"segflow.table_version.{table}"] = str(written.version)
            told[f"segflow.content.{table}"] = written.digests[partition]
        rows = {f"rows/{table}": float(written.rows[partition]) for table, written in self._written.items()}
        return Child(name, told, {"rows": sum(rows.values()), **(rows if len(rows) > 1 else {})})

    def tell(
        self, context: dg.AssetExecutionContext, addresses: Mapping[str, str], runs: Mapping[str, str]
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        """Everything Dagster is told. addresses: table name -> where it lies; runs: partition key -> its MLflow run's page."""
        yield from self._checks
        known = {*self._plan.reads, *self._plan.tables}
        for name, written in self._written.items():
            for check in CHECKS:
                figures = {**self._span, "rows": written.total_rows}
                yield dg.AssetCheckResult(passed=True, check_name=check, asset_key=name, metadata=figures)
            facts = [
                {**self._of_partition(written, one, key), "mlflow_run": dg.MetadataValue.url(runs[key])}
                for one, key in zip(self._partitions, self._keys, strict=True)
            ]
            # Of a range, the latest partition shows it: a year of days need not say it a year of times.
            facts[-1][COLUMN_LINEAGE] = column_lineage(written.table, known)
            if len(facts) > 1:
                for key, own in zip(self._keys, facts, strict=True):
                    context.add_asset_metadata(own, name, key)
            of_table: dict[str, Any] = {
                TABLE_VERSION: written.version,
                "dagster/column_schema": table_schema(written.table),
                "dagster/uri": addresses[name],
                **docs_link(written.table, CONFIG),
            }
            yield dg.MaterializeResult(
                asset_key=name,
                data_version=dg.DataVersion(_combined(written)),
                metadata={**of_table, **(facts[0] if len(facts) == 1 else {}), **self._shown_notes()},
            )

    def failed(self, error: ViolationsError) -> Iterator[dg.AssetCheckEvaluation]:
        """The checks that stopped the step, so that the UI shows which rule was broken.

        As evaluations of no materialization: Dagster would tie a result to the latest one of the partition, and show it and go
        by it only if no other partition was made since.
        """
        for one in self._checks:
            yield _evaluation(
                str(one.check_name), self._plan.tables[0].name, one.passed, one.metadata, one.severity, one.description
            )
        for violation in error.found:
            table, _, rule = violation.message.partition(": ")
            figures = {"rule": rule, "rows": violation.rows, "partition": violation.where or self._all}
            yield _evaluation(violation.check, table, False, figures, dg.AssetCheckSeverity.ERROR, violation.message)

    @property
    def _all(self) -> str:
        """The partitions of the run in words."""
        return self._keys[0] if len(self._keys) == 1 else f"{self._keys[0]} … {self._keys[-1]}"

    @property
    def _span(self) -> dict[str, Any]:
        """What a check tells of the partitions that it looked at; nothing for an asset without partitions.

        Dagster 1.13 keeps the outcome of a check by partition only for runs of one partition.
        """
        return {"partition": self._all} if self._plan.partitions else {}

    def _shown_notes(self) -> dict[str, Any]:
        """The notes. They are figures of the whole run, so on a partition of a range they are marked as the run's."""
        if len(self._keys) == 1:
            return self._notes
        return {"run/partitions": self._all} | {f"run/{name}": value for name, value in self._notes.items()}

    def _of_partition(self, written: Written, partition: Partition, key: str) -> dict[str, Any]:
        parts = self._aspects.get(written.table.name)
        return {
            # That a partition has no parts is known too.
            **({} if parts is None else {ASPECTS: json.dumps(parts.get(key, {}))}),
            **({UPSTREAM: json.dumps(self._upstream[key])} if self._upstream[key] else {}),
            "dagster/row_count": written.rows[partition],
            CODE: self._plan.code_version,
            CONTENT: written.digests[partition],
            INPUTS: self._inputs[key],
        }


def _evaluation(
    check: str,
    asset: str,
    passed: bool,
    figures: Mapping[str, Any],
    severity: dg.AssetCheckSeverity,
    description: str | None,
) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset),
        check_name=check,
        passed=passed,
        metadata=figures,
        severity=severity,
        description=description,
        # What only warns stops nothing.
        blocking=severity == dg.AssetCheckSeverity.ERROR,
    )


def image(svg: str) -> str:
    """The picture as an address that holds it."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _combined(written: Written) -> str:
    """One digest of all partitions of a run: Dagster takes one data version for a range."""
    digests = list(written.digests.values())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
