"""An unknown file or folder as sources: what lies there, in which format, and what a reader has to be told about it.

What stands in the columns is not looked at.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import duckdb

from segflow.config import CsvDialect, Input
from segflow.errors import UserError
from segflow.events.files import SourceFile, files, format_of, reading
from segflow.events.readers import layouts

_DATA = re.compile(r"[-+]?\d+(\.\d+)?|\d{4}-\d\d-\d\d.*")


def sources(connection: duckdb.DuckDBPyConnection, path: Path) -> list[Input]:
    """What differs in columns at `path`, each as a source: a file is one, and so is a folder of files that are alike.

    Raises UserError when nothing with a row is there, or when no path names just the files that are alike.
    """
    if path.is_file():
        return [source_at(path)]
    groups: dict[tuple[str | None, ...], list[Path]] = {}
    entries = [one for one in sorted(path.iterdir()) if not one.name.startswith((".", "_")) and _holds_data(one)]
    for entry in entries:
        source = source_at(entry)
        found, _ = layouts(connection, source, files(source.path, source.format))
        if found:
            groups.setdefault((format_of(entry.name), *sorted(found[0].columns)), []).append(entry)
    if not groups:
        raise UserError(f"{path}: the folder holds no Parquet, CSV or JSON file with a row; put the log there")
    if len(groups) == 1:
        first = next(iter(groups.values()))[0]
        return [source_at(first).model_copy(update={"path": str(path if len(entries) > 1 else first)})]
    return [source_at(group[0]).model_copy(update={"path": _together(path, group)}) for group in groups.values()]


def _holds_data(entry: Path) -> bool:
    if entry.is_file():
        return format_of(entry.name) is not None
    return any(format_of(file.name) is not None for file in entry.rglob("*") if file.is_file())


def _together(folder: Path, group: Sequence[Path]) -> str:
    """A path that names just these files."""
    if len(group) == 1:
        return str(group[0])
    names = [one.name for one in group]
    pattern = f"{_shared(names)}*{_shared([name[::-1] for name in names])[::-1]}"
    if sorted(folder.glob(pattern)) != sorted(group):
        raise UserError(
            f"{folder}: {names[0]}, {names[1]} and others have the same columns but no name that tells them from the rest; "
            "put them into a folder of their own"
        )
    return str(folder / pattern)


def _shared(names: Sequence[str]) -> str:
    """What all names begin with."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike)


def source_at(path: Path) -> Input:
    """How to read what is at `path`, with whatever the reader cannot tell by itself."""
    if path.is_dir():
        inside = next(file for file in sorted(path.rglob("*")) if file.is_file() and format_of(file.name) is not None)
        return source_at(inside).model_copy(update={"path": str(path)})
    with reading(str(path)):
        file = files(str(path), "csv")[0]
        with file.stream() as stream:
            start = stream.read(65_536)
    known = format_of(path.name)
    kind: Literal["parquet", "csv", "json"] = "csv"
    if known == "parquet" or start.startswith(b"PAR1"):
        kind = "parquet"
    elif known == "json" or (known is None and start.lstrip()[:1] in (b"{", b"[")):
        kind = "json"
    dialect = _dialect(file, start) if kind == "csv" else CsvDialect()
    return Input(path=str(path), format="auto" if known else kind, csv=dialect)


def _dialect(file: SourceFile, start: bytes) -> CsvDialect:
    """What has to be said about a CSV file: an encoding that is not UTF-8, a delimiter of two letters, a missing header."""
    told: dict[str, Any] = {}
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        told["encoding"] = "utf-16"
    else:
        try:
            codecs.getincrementaldecoder("utf-8")().decode(start)
        except UnicodeDecodeError:
            told["encoding"] = "latin-1"
    text = codecs.getincrementaldecoder(told.get("encoding", "utf-8-sig"))("replace").decode(start)
    line = next((one for one in text.splitlines() if one.strip()), "")
    if "::" in line:
        told |= {"delimiter": "::", "quote": ""}
        fields = line.split("::")
    else:
        fields = next(csv.reader([line], delimiter=max(",\t;|", key=line.count)), [])
    if any(_DATA.fullmatch(one.strip()) for one in fields):
        told["columns"] = [f"column_{number}" for number in range(1, len(fields) + 1)]
    return CsvDialect(**told)
