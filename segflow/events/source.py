"""Reading sources: Parquet, CSV or JSON lines as a DuckDB view with the file and row number of every row.

No meaning is given to columns here; that is the mapping's work.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
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
            raise UserError(
                f"{path}: the folder holds no Parquet, CSV or JSON file; put the log there or correct the path"
            )
        return found
    found = sorted(glob(path, recursive=True))
    if not found:
        raise UserError(f"{path}: no such file; correct `path` in the source section of the settings")
    return found


def register(connection: duckdb.DuckDBPyConnection, view: str, path: str, format: str = "auto") -> list[str]:
    """Create `view` over the files of `path`, with `source_file` and `source_row` beside their own columns.

    Files that differ in columns are joined by column name. `source_file` is relative to the files' common folder, so a
    copied log keeps its identity. Returns the files.

    Raises UserError when there is no file, when the files are of several formats or unreadable, or hold no row.
    """
    files = resolve(path)
    if format == "auto" and len(kinds := sorted({_format_of(file) or "unknown" for file in files})) > 1:
        raise UserError(
            f"{path}: holds files of several formats ({', '.join(kinds)}); name those of one, as in {path}/*.csv"
        )
    kind = format if format != "auto" else _format_of(files[0])
    if kind is None:
        raise UserError(f"{files[0]}: cannot tell the format from the name; set `format` to parquet, csv or json")
    base = len(_common_folder(files))
    try:
        selected = _select(connection, kind, files, base)
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {identifier(view)} AS {selected}")
        empty = not connection.execute(f"SELECT * FROM {identifier(view)} LIMIT 1").fetchall()
    except (duckdb.Error, UnicodeDecodeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: cannot be read as {kind}: {first}") from error
    if empty:
        raise UserError(
            f"{path}: the log is empty: {len(files)} file(s) without a row; correct `path` or wait for data"
        )
    return files


def fingerprint(paths: Sequence[str]) -> str:
    """A digest of the names, sizes and modification times of the files that `paths` name; content is not read."""
    digest = hashlib.sha256()
    for path in paths:
        for file in resolve(path):
            facts = Path(file).stat() if "://" not in file else None
            digest.update(f"{Path(file).name}:{facts and (facts.st_size, facts.st_mtime_ns)}".encode())
    return digest.hexdigest()


def columns(connection: duckdb.DuckDBPyConnection, view: str) -> dict[str, str]:
    """Column name -> DuckDB type of a view."""
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {identifier(view)}").fetchall()}


def _select(connection: duckdb.DuckDBPyConnection, kind: str, files: list[str], base: int) -> str:
    if kind == "parquet":
        return (
            f"SELECT * EXCLUDE (filename, file_row_number), substr(filename, {base + 1}) AS source_file, "
            f"file_row_number AS source_row "
            f"FROM read_parquet({literal(files)}, filename = true, file_row_number = true, union_by_name = true)"
        )
    # Row numbers must count inside each file, in file order; text is cast later, field by field, so that one bad value
    # costs one row and not the file.
    parts = (
        f"SELECT *, {literal(file[base:])} AS source_file, row_number() OVER () - 1 AS source_row "
        f"FROM {_csv(file) if kind == 'csv' else _json(connection, file)}"
        for file in files
    )
    return " UNION ALL BY NAME ".join(parts)


def _csv(file: str) -> str:
    # Short rows end in missing values. Without `skip` the reader takes a later line for the header when the first rows
    # are odd; reading in one thread is what lets it pad rows and keep line breaks inside quotes.
    return (
        f"read_csv({literal(file)}, all_varchar = true, header = true, skip = 0, null_padding = true, parallel = false)"
    )


def _json(connection: duckdb.DuckDBPyConnection, file: str) -> str:
    # Only the names are inferred: guessed types fail on the first value, in row 30,000, that does not fit them.
    described = connection.execute(
        f"DESCRIBE SELECT * FROM read_json({literal(file)}, sample_size = -1, maximum_depth = 1)"
    ).fetchall()
    typed = ", ".join(f"{identifier(column[0])}: 'VARCHAR'" for column in described)
    return f"read_json({literal(file)}, columns = {{{typed}}})"


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
        raise UserError(
            f"{path}: the installed package has no file {inside}; run `pip install --force-reinstall {package}`"
        )
    return file
