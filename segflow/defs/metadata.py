"""What Dagster shows of an asset beside what it holds: tags, owner, lineage of columns, code references, when it is late.

Lives here: what is derived from declarations and settings, known before anything runs. Does not live here: what a run tells
of what it wrote (``results``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg

from segflow import sql, tables
from segflow.config import WEEKDAYS, CalendarConfig, Config, FreshnessConfig
from segflow.tables import Table
from segflow.tables.schema import ROWS

COLUMN_LINEAGE = "dagster/column_lineage"
_PACKAGE = Path(__file__).resolve().parents[1]
_CADENCES = {"day": "daily", "week": "weekly"}


def cadence(table: Table) -> str:
    """`daily`, `weekly`, or `snapshot` for a table that is replaced as a whole."""
    return _CADENCES[table.partitions[0]] if table.partitions else "snapshot"


def tags(table: Table, stage: str) -> dict[str, str]:
    """What assets are chosen by in Dagster, as in `tag:cadence=daily`."""
    return {"stage": stage, "cadence": cadence(table)}


def asset_metadata(
    table: Table,
    known: Collection[Table],
    address: str,
    body: Callable[..., object],
    code: Sequence[str],
    config: Config,
) -> dict[str, Any]:
    """The metadata of an asset's definition.

    known: the tables that its body reads or writes; address: where its table lies; code: as for its code version.
    """
    return {
        "dagster/column_schema": table_schema(table),
        "dagster/table_name": table.name,
        "dagster/uri": address,
        COLUMN_LINEAGE: column_lineage(table, known),
        "dagster/code_references": code_references(body, code, config.metadata.repository),
        **docs_link(table, config),
    }


def table_schema(table: Table) -> dg.TableSchema:
    """The table's columns as Dagster shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                column.type,
                column.description,
                constraints=dg.TableColumnConstraints(
                    nullable=column.nullable, unique=list(table.key) == [column.name]
                ),
            )
            for column in table.columns
        ]
    )


def docs_link(table: Table, config: Config) -> dict[str, dg.MetadataValue]:
    """Where the docs describe the table, if the settings say where the docs are."""
    docs = config.metadata.docs
    return {"docs": dg.MetadataValue.url(f"{docs}#{table.name}")} if docs else {}


def column_lineage(table: Table, known: Collection[Table]) -> dg.TableColumnLineage:
    """The columns that each column is made from, as declared, of those tables that the settings let its asset read.

    The number of a table's rows is told by the columns of its key.
    """
    names = {one.name for one in known}

    def deps(origin: Sequence[str]) -> list[dg.TableColumnDep]:
        found: dict[tuple[str, str], None] = {}
        for one in origin:
            upstream, dot, column = one.partition(".")
            if dot and upstream in names:
                columns = tables.ALL[upstream].key if column == ROWS else [column]
                found |= dict.fromkeys((upstream, each) for each in columns)
        return [dg.TableColumnDep(dg.AssetKey(upstream), column) for upstream, column in found]

    return dg.TableColumnLineage({column.name: deps(column.origin) for column in table.columns})


def code_references(
    body: Callable[..., object], code: Sequence[str], repository: str | None
) -> dg.CodeReferencesMetadataValue:
    """The asset's body and its SQL statements, as files here or as addresses in the repository."""
    file, line = Path(inspect.getsourcefile(body) or ""), inspect.getsourcelines(body)[1]
    places = [(file.resolve(), line, f"segflow/{file.resolve().relative_to(_PACKAGE).as_posix()}")]
    places += [(sql.folder() / name, 1, f"sql/{name}") for name in code if name.endswith(".sql")]
    return dg.CodeReferencesMetadataValue(
        code_references=[
            dg.UrlCodeReference(url=f"{repository.rstrip('/')}/{label}#L{line}", label=label)
            if repository
            else dg.LocalFileCodeReference(file_path=str(path), line_number=line, label=label)
            for path, line, label in places
        ]
    )


def freshness(table: Table, calendar: CalendarConfig, config: FreshnessConfig) -> dg.FreshnessPolicy | None:
    """When the asset is late; None for a closed log, and for what has no day or week that could be missing.

    Dagster looks at when the asset was last materialized, whatever the partition: since the day or week ended.
    """
    if calendar.end is not None or not table.partitions:
        return None
    daily = cadence(table) == "daily"
    hours = config.days_within_hours if daily else config.weeks_within_hours
    if hours is None:
        return None
    # Cron counts the days of the week from Sunday.
    weekday = (WEEKDAYS.index(calendar.week_starts) + 1 + hours // 24) % 7
    return _due(f"0 {hours % 24} * * {'*' if daily else weekday}", hours)


@cache
def _due(cron: str, hours: int) -> dg.FreshnessPolicy:
    """Dagster walks through a cron's ticks to check one: once is enough for all assets."""
    return dg.FreshnessPolicy.cron(deadline_cron=cron, lower_bound_delta=timedelta(hours=hours))


def readable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Notes as Dagster's metadata: dictionaries and lists as JSON, paths as paths, all else as it is."""

    def one(value: Any) -> Any:
        if isinstance(value, (dict, list)):
            return dg.MetadataValue.json(value)
        return dg.MetadataValue.path(value) if isinstance(value, Path) else value

    return {name: one(value) for name, value in values.items()}
