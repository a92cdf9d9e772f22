"""Looking for words in everything below a folder, also inside Parquet files. Nothing is asserted here."""

from __future__ import annotations

import gzip
from collections.abc import Collection
from pathlib import Path

import pyarrow.parquet as parquet


def files_with(folder: Path, *words: bytes, leaving_out: Collection[str] = ()) -> list[str]:
    """Files below the folder that hold one of the words: in their bytes, unpacked if packed or, of Parquet, in their columns.

    leaving_out: names of files that are not looked into, such as those of the source.
    """
    found = []
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name not in leaving_out:
            content = file.read_bytes()
            if file.suffix == ".parquet":
                columns = parquet.ParquetFile(file).read().itercolumns()
                buffers = (buffer for column in columns for chunk in column.chunks for buffer in chunk.buffers())
                content += b"".join(buffer.to_pybytes() for buffer in buffers if buffer is not None)
            elif content.startswith(b"\x1f\x8b"):
                content += gzip.decompress(content)
            if any(word in content for word in words):
                found.append(str(file.relative_to(folder)))
    return found
