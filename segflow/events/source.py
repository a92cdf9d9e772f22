"""Reading sources: Parquet, CSV or JSON lines as a DuckDB view with the file and row number of every row.

No meaning is given to columns here; that is the mapping's work.
"""

from __future__ import annotations

import importlib.util
from glob import glob
from pathlib import Path

import duckdb

from segflow.errors import UserError
from segflow.sql import identifier, literal

_FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}
_COMPRESSIONS = (".gz", ".zst")


def resolve(path: str) -> list[str]:
    """The files that `path` names, in order: a file, a folder (its files at any depth), a glob, or `package:NAME/path`.

    Raises UserError when there are none.
    """
    if path.startswith("package:"):
        return [str(_packaged(path))]
    if "://" in path:
        return [path]
    place = Path(path)
    if place.is_file():
        return [str(place)]
    if place.is_dir():
        found = sorted(str(file) for file in place.rglob("*") if file.is_file() and _format_of(str(file)) is not None)
        if not found:
            raise UserError(f"{path}: the folder holds no Parquet, CSV or JSON file; put the log there or correct the path")
        return found
    found = sorted(glob(path, recursive=True))
    if not found:
        raise UserError(f"{path}: no such file; correct `path` in the source section of the settings")
    return found


def register(connection: duckdb.DuckDBPyConnection, view: str, path: str, format: str = "auto") -> list[str]:
    """Create `view` over the files of `path`, with `source_file` and `source_row` beside their own columns.

    Files that differ in columns are joined by column name. `source_file` is relative to the files' common folder, so a copied
    log keeps its identity. Returns the files.
    """
    files = resolve(path)
    kind = format if format != "auto" else _format_of(files[0])
    if kind is None:
        raise UserError(f"{files[0]}: cannot tell the format from the name; set `format` to parquet, csv or json")
    base = len(_common_folder(files))
    try:
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {identifier(view)} AS {_select(kind, files, base)}")
        connection.execute(f"SELECT * FROM {identifier(view)} LIMIT 1").fetchall()
    except (duckdb.Error, UnicodeDecodeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: cannot be read as {kind}: {first}") from error
    return files


def columns(connection: duckdb.DuckDBPyConnection, view: str) -> dict[str, str]:
    """Column name -> DuckDB type of a view."""
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {identifier(view)}").fetchall()}


def _select(kind: str, files: list[str], base: int) -> str:
    if kind == "parquet":
        return (
            f"SELECT * EXCLUDE (filename, file_row_number), substr(filename, {base + 1}) AS source_file, "
            f"file_row_number AS source_row "
            f"FROM read_parquet({literal(files)}, filename = true, file_row_number = true, union_by_name = true)"
        )
    # Row numbers must count inside each file, in file order; text is cast later, field by field, so that one bad value
    # costs one row and not the file.
    reader = "read_csv({0}, all_varchar = true, header = true)" if kind == "csv" else "read_json_auto({0})"
    parts = (
        f"SELECT *, {literal(file[base:])} AS source_file, row_number() OVER () - 1 AS source_row "
        f"FROM {reader.format(literal(file))}"
        for file in files
    )
    return " UNION ALL BY NAME ".join(parts)


def _format_of(file: str) -> str | None:
    name = Path(file.lower())
    if name.suffix in _COMPRESSIONS:
        name = name.with_suffix("")
    return _FORMATS.get(name.suffix)


def _common_folder(files: list[str]) -> str:
    folders = [file.rsplit("/", 1)[0].split("/") for file in files]
    shared = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared) + "/" if shared else ""


def _packaged(path: str) -> Path:
    package, _, inside = path.removeprefix("package:").partition("/")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise UserError(f"{path}: the package is not installed; run `pip install segflow[demo]`")
    file = Path(found.origin).parent / inside
    if not file.is_file():
        raise UserError(f"{path}: the installed package has no file {inside}; run `pip install --force-reinstall {package}`")
    return file
