"""Files in a folder or an object store, by the same calls. The table format is no concern here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake.fs import DeltaStorageHandler


def file_system(root: str, options: Mapping[str, str]) -> pafs.FileSystem:
    """What lies below `root`, a path or an object-store URI with the same options that Delta tables take."""
    if "://" in root:
        return pafs.PyFileSystem(_Objects(root, options=dict(options) or None))
    return pafs.SubTreeFileSystem(root, pafs.LocalFileSystem())


class _Objects(DeltaStorageHandler):
    """deltalake's files take bytes alone; Arrow hands on buffers too."""

    def open_output_stream(self, path: str, metadata: dict[str, str] | None = None) -> pa.PythonFile:
        return pa.PythonFile(_Taking(self._handler.open_output_stream(path, metadata)))


class _Taking:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        written: int = self._file.write(bytes(data))
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
