"""The code version of an asset: a hash of the SQL, the Python and the settings that make it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path

from segflow import sql
from segflow.config import Config
from segflow.tables import Table

_PACKAGE = Path(__file__).resolve().parents[1]


def code_version(tables: Sequence[Table], code: Sequence[str], settings: Sequence[str], config: Config) -> str:
    """Twelve hexadecimal digits that change when the schema, a source file or a setting changes.

    code: Python files or folders below `segflow/`, and statements below `sql/` (recognized by their ending).
    settings: sections of the configuration, or single keys by their dotted names, that decide the content; where tables lie
        or how many threads run does not.
    """
    digest = hashlib.sha256()
    for table in tables:
        digest.update(repr(table).encode())
    for name in code:
        for file in _files(name):
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    for name in settings:
        value = attrgetter(name)(config)
        content = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        digest.update(json.dumps({name: content}, sort_keys=True).encode())
    return digest.hexdigest()[:12]


def _files(name: str) -> Iterator[Path]:
    if name.endswith(".sql"):
        yield sql.folder() / name
        return
    place = _PACKAGE / name
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    if not files:
        raise FileNotFoundError(f"code_version: {place} holds no Python file")
    yield from files
