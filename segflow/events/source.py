"""Sources as views: the rows of all files, each with its file and row number, and how the files differ.

No meaning is given to columns here; that is the mapping's work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import duckdb

from segflow.config import Input
from segflow.errors import UserError
from segflow.events.files import SourceFile, files, fingerprint, foreign, reading
from segflow.events.readers import OVERFLOW, Layout, layouts
from segflow.sql import identifier, literal

__all__ = [
    "Contents",
    "SourceFile",
    "columns",
    "contents",
    "drift",
    "files",
    "fingerprint",
    "foreign",
    "reading",
    "register",
]


@dataclass(frozen=True)
class Contents:
    """What the chosen files of a source hold. files: those with rows, and the empty ones."""

    layouts: list[Layout]
    empty: list[SourceFile]

    @property
    def columns(self) -> dict[str, str]:
        """All columns with their types; VARCHAR where the files differ in type."""
        merged: dict[str, str] = {}
        for layout in self.layouts:
            for name, kind in layout.columns.items():
                merged[name] = kind if merged.get(name, kind) == kind else "VARCHAR"
        return merged


def contents(
    connection: duckdb.DuckDBPyConnection,
    source: Input,
    only: Collection[str] | None = None,
    mapped: Collection[str] | None = None,
) -> Contents:
    """Look at the files of `source`, or at those named in `only`. For `mapped` see `readers.layouts`.

    Raises UserError when there is no file, when the files are of several formats or unreadable, or hold no row at all.
    """
    found = files(source.path, source.format)
    chosen = found if only is None else [file for file in found if file.name in only]
    read, empty = layouts(connection, source, chosen, mapped) if chosen else ([], [])
    if not read and only is None:
        raise UserError(
            f"{source.path}: the log is empty: {len(found)} file(s) without a row; correct `path` or wait for data"
        )
    return Contents(read, empty)


def register(
    connection: duckdb.DuckDBPyConnection,
    view: str,
    source: Input,
    only: Collection[str] | None = None,
    mapped: Collection[str] | None = None,
    prefix: str = "",
) -> list[SourceFile]:
    """Create `view` over the files of `source`, with `source_file` (after `prefix`) and `source_row` beside their columns.

    Files that differ in columns are joined by column name; a column whose type differs is text. `only` restricts the view
    to files of these names; when none of them holds a row, the view is that of all files, without rows. `mapped` is for
    files that are read as events besides: rows with too many fields, which are kept there, are passed over here.

    Returns the files with rows. Raises UserError as `contents` does.
    """
    found = contents(connection, source, only, mapped)
    template = found if found.layouts else contents(connection, source, None, mapped)
    query = _union(template.layouts, prefix)
    with reading(source.path):
        nothing = "" if found.layouts else " WHERE false"
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {identifier(view)} AS SELECT * FROM ({query}){nothing}")
    return [file for layout in found.layouts for file in layout.files]


def drift(connection: duckdb.DuckDBPyConnection, source: Input, only: Collection[str] | None = None) -> dict[str, str]:
    """File name -> how the file differs from the commonest columns, for every file that does; also which are empty."""
    return differences(contents(connection, source, only))


def differences(found: Contents) -> dict[str, str]:
    """As `drift`, for files that were looked at already."""
    said = {file.name: "empty: no row" for file in found.empty}
    usual = max(found.layouts, key=lambda layout: len(layout.files), default=None)
    for layout in found.layouts:
        if usual is not None and layout is not usual:
            said.update(dict.fromkeys((file.name for file in layout.files), _difference(usual.columns, layout.columns)))
    return dict(sorted(said.items()))


def columns(connection: duckdb.DuckDBPyConnection, view: str) -> dict[str, str]:
    """Column name -> DuckDB type of a view."""
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {identifier(view)}").fetchall()}


def text_of(column: str, kind: str) -> str:
    """The text of a column, so that a number gives the same text whatever type a file stores it in: 12, never 12.0."""
    name = identifier(column)
    if kind in ("DOUBLE", "FLOAT"):
        # Not-a-number is how data frames write a missing value, and whole numbers beside one.
        return (
            f"CASE WHEN isnan({name}) THEN NULL WHEN {name} = trunc({name}) AND abs({name}) < 9007199254740992 "
            f"THEN CAST(TRY_CAST({name} AS BIGINT) AS VARCHAR) ELSE CAST({name} AS VARCHAR) END"
        )
    return name if kind == "VARCHAR" else f"CAST({name} AS VARCHAR)"


def _union(parts: Sequence[Layout], prefix: str) -> str:
    named: dict[str, str] = {}
    for layout in parts:
        for name in (*layout.columns, *layout.late):
            named.setdefault(name.lower(), name)
    kinds = {key: {_folded(layout).get(key, "") for layout in parts} - {""} for key in named}
    selects = []
    for layout in parts:
        present, fields = _folded(layout), []
        for key, name in named.items():
            mixed = len(kinds[key]) > 1
            value = "NULL" if key not in present else text_of(name, present[key]) if mixed else identifier(name)
            fields.append(f"{value} AS {identifier(name)}")
        file = f"{literal(prefix)} || source_file" if prefix else "source_file"
        whole = f" WHERE {OVERFLOW} IS NULL" if layout.overflow else ""
        selects.append(
            f"SELECT {', '.join([*fields, f'{file} AS source_file'])}, source_row FROM ({layout.rows}){whole}"
        )
    return " UNION ALL ".join(selects)


def _folded(layout: Layout) -> dict[str, str]:
    return {name.lower(): kind for name, kind in {**dict.fromkeys(layout.late, "VARCHAR"), **layout.columns}.items()}


def _difference(usual: dict[str, str], own: dict[str, str]) -> str:
    retyped = [f"{name} {kind} -> {own[name]}" for name, kind in usual.items() if name in own and own[name] != kind]
    said = {"missing": _names(usual, own), "extra": _names(own, usual), "retyped": retyped}
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in said.items() if names)


def _names(those: Iterable[str], without: Collection[str]) -> list[str]:
    return [name for name in those if name not in without]
