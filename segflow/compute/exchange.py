"""The exchange of engines with several machines: files in a folder or object store that all of them see.

Each table is an Arrow IPC stream. Its name is drawn at random and told once it is whole, so nobody meets half of one. Each
engine has a folder of its own below `compute.exchange`, which goes away with it; that of a killed process stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import pyarrow as pa
import pyarrow.fs as pafs

from segflow.compute.engine import Reference
from segflow.errors import UserError
from segflow.storage.places import file_system

_FOLDER = "step-"


@dataclass(frozen=True)
class FileReference:
    """A table in a file below `root`, a path or an object-store URI with its options."""

    root: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def get(self) -> pa.Table:
        """The table, read anew."""
        with file_system(self.root, self.options).open_input_stream(self.name) as source:
            return pa.ipc.open_stream(source).read_all()


@dataclass(frozen=True)
class FileExchange:
    """Tables as files in a folder below `root`."""

    root: str
    folder: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def put(self, table: pa.Table) -> Reference:
        """See `Exchange`."""
        name = f"{self.folder}/{uuid4().hex}.arrow"
        with (
            file_system(self.root, self.options).open_output_stream(name) as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table)
        return FileReference(self.root, name, self.options)


@contextmanager
def exchange_below(root: str, options: Mapping[str, str]) -> Iterator[FileExchange]:
    """An exchange in a new folder below `root`, which is removed with all that is in it.

    Raises UserError when nothing can be written there.
    """
    folder = f"{_FOLDER}{uuid4().hex}"
    try:
        place = file_system(root, options)
        place.create_dir(folder)
    except OSError as error:
        raise UserError(
            f"compute.exchange: {root}: cannot be written: {' '.join(str(error).split())}; name a folder or an object store "
            "that every node of the engine sees"
        ) from error
    try:
        yield FileExchange(root, folder, dict(options))
    finally:
        place.delete_dir(folder)


def remove_left(root: str, options: Mapping[str, str]) -> list[str]:
    """Remove the folders of processes that were killed, while no other is at work. Returns what was there."""
    place = file_system(root, options)
    found = place.get_file_info(pafs.FileSelector("", allow_not_found=True))
    left = sorted(one.base_name for one in found if one.base_name.startswith(_FOLDER))
    for name in left:
        place.delete_dir(name)
    return [f"{root.rstrip('/')}/{name}" for name in left]
