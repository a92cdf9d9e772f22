"""What a run read, as MLflow shows it: versions of tables as dataset inputs.

The source is that of MLflow's own Delta datasets, so that what reads those finds the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_SOURCE = "delta_table"
_CONTEXT = "mlflow.data.context"
_TYPES = {
    "VARCHAR": "string",
    "INTEGER": "integer",
    "BIGINT": "long",
    "REAL": "float",
    "DOUBLE": "double",
    "BOOLEAN": "boolean",
    "DATE": "datetime",
    "TIMESTAMPTZ": "datetime",
    "BLOB": "binary",
}


@dataclass(frozen=True)
class Dataset:
    """A table as a run read it.

    uri, version: of the table; digest: of the content that was read; columns: name, DuckDB type and whether a value may be
    missing; partitions: the keys that were read, in order.
    """

    name: str
    uri: str
    version: int
    digest: str
    columns: Sequence[tuple[str, str, bool]]
    partitions: Sequence[str]


def dataset_inputs(datasets: Sequence[Dataset]) -> Iterator[DatasetInput]:
    """The datasets as MLflow's. MLflow keeps one dataset for a name and a digest, so the version is a tag of the input too."""
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag

    for one in datasets:
        source = {"path": one.uri, "delta_table_version": one.version}
        schema = [_column(*column) for column in one.columns]
        profile: dict[str, Any] = {"partitions": len(one.partitions)}
        if any(one.partitions):
            profile |= {"first_partition": one.partitions[0], "last_partition": one.partitions[-1]}
        entity = Entity(
            one.name,
            one.digest,
            _SOURCE,
            json.dumps(source),
            schema=json.dumps({"mlflow_colspec": schema}),
            profile=json.dumps(profile),
        )
        tags = [InputTag(_CONTEXT, "input"), InputTag("segflow.table_version", str(one.version))]
        yield DatasetInput(entity, tags=tags)


def _column(name: str, kind: str, nullable: bool) -> dict[str, Any]:
    return {"name": name, "required": not nullable, **_type(kind)}


def _type(kind: str) -> dict[str, Any]:
    if kind.endswith("[]"):
        return {"type": "array", "items": _type(kind.removesuffix("[]"))}
    if kind.startswith("MAP("):
        return {"type": "map", "values": _type(kind.removesuffix(")").rpartition(", ")[2])}
    return {"type": _TYPES[kind]}
