"""The files of a source, wherever they lie: found, named, sized and opened.

What stands in them is the readers' work.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs

from segflow.config import Input
from segflow.errors import UserError

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
_NOT_THE_FILE = (
    duckdb.OutOfMemoryException,
    duckdb.InterruptException,
    duckdb.InternalException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
)
_HIVE = re.compile(r"(?:^|/)([^/=]+)=([^/]*)(?=/)")


@dataclass(frozen=True)
class SourceFile:
    """One file. Its name counts from the folder that the setting names, so another file never renames it.

    path: absolute path or URI. size: bytes. modified: nanoseconds since 1970.
    """

    path: str
    name: str
    size: int
    modified: int
    filesystem: fs.FileSystem = field(repr=False, compare=False)
    place: str = field(repr=False, compare=False)  # what its file system calls it

    @property
    def format(self) -> str | None:
        """parquet, csv or json as the name tells, or None."""
        return format_of(self.name)

    @property
    def compressed(self) -> bool:
        """Whether the bytes are packed by gzip or zstd."""
        return self.name.lower().endswith(_COMPRESSIONS)

    @property
    def hive(self) -> dict[str, str]:
        """The columns that folders named `column=value` stand for."""
        return {key: unquote(value) for key, value in _HIVE.findall(self.name)}

    def stream(self) -> pa.NativeFile:
        """Its bytes from the start, unpacked."""
        return self.filesystem.open_input_stream(self.place)


def files(path: str, format: str = "auto") -> list[SourceFile]:
    """The files that `path` names, sorted by name: a file, a folder (at any depth), a glob, an object-store URI, or
    `package:NAME/path`. In folders, hidden files count for nothing, and with format `auto` neither do files of unknown kind.

    Raises UserError when there are none or they cannot be listed.
    """
    found, _ = _listed(path, format)
    return found


def foreign(path: str, format: str = "auto") -> list[str]:
    """Names of the files in the folder that are neither hidden nor of a known kind, and hence not read."""
    _, others = _listed(path, format)
    return others


def fingerprint(inputs: Sequence[Input]) -> str:
    """A digest of the names, sizes and modification times of the files of `inputs`; content is not read."""
    digest = hashlib.sha256()
    for one in inputs:
        for file in files(one.path, one.format):
            digest.update(f"{file.name}:{file.size}:{file.modified};".encode())
    return digest.hexdigest()


def facts(one: Input) -> dict[str, tuple[int, int]]:
    """File name -> size and modification time of the files of `one`: others, once a file was replaced or written."""
    return {file.name: (file.size, file.modified) for file in files(one.path, one.format)}


@contextmanager
def unchanged(inputs: Sequence[Input]) -> Iterator[None]:
    """What the block reads of `inputs`, however often, is of one state of each file, and of all files that were there first.

    Raises UserError, which names a file that was replaced, written or taken away meanwhile; also instead of an error of our own
    that comes of it.
    """
    before = [facts(one) for one in inputs]

    def require() -> None:
        for one, then in zip(inputs, before, strict=True):
            now = facts(one)
            if name := next((name for name in then if now.get(name) != then[name]), None):
                raise UserError(f"{name}: was changed while it was read; when it is completely written, run again")

    try:
        yield
    except UserError:
        raise
    except Exception:
        require()
        raise
    require()


def format_of(name: str) -> str | None:
    """parquet, csv or json as the file name tells, or None."""
    path = Path(name.lower())
    return _FORMATS.get((path.with_suffix("") if path.suffix in _COMPRESSIONS else path).suffix)


def readable(connection: duckdb.DuckDBPyConnection, file: SourceFile) -> str:
    """The name under which `connection` can open the file; an object store is made known to it first."""
    if "://" not in file.path:
        return re.sub(r"([*?\[])", r"[\1]", file.path)
    protocol = _protocol(file.path)
    if not connection.filesystem_is_registered(protocol):
        connection.register_filesystem(_Store(file.filesystem, protocol))
    return f"{protocol}://{file.place}"


def places(path: str, format: str = "auto") -> tuple[list[str], list[str]]:
    """Folders or prefixes below which the files of `path` lie, as a connection opens them; and files to which links lead."""
    if "://" in path and not path.startswith("file://"):
        return [f"{_protocol(path)}://"], []
    found = [Path(file.path) for file in files(path, format)]
    local = unquote(urlsplit(path).path) if path.startswith("file://") else path
    folder = Path(_fixed(local)).absolute()
    if not folder.is_dir():
        return [], [str(file) for file in found]
    return [str(folder)], [str(file) for file in found if not file.resolve().is_relative_to(folder.resolve())]


def _protocol(uri: str) -> str:
    """What DuckDB calls the object store of an address."""
    scheme, store, *_ = urlsplit(uri)
    return "store" + hashlib.sha256(f"{scheme}://{store}".encode()).hexdigest()[:16]


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns what engines and disks say about unreadable files into one line: the file, the place in it and the mend.

    Want of memory, an interruption and mistakes in our own statements stay what they are.
    """
    try:
        yield
    except _NOT_THE_FILE:
        raise
    except (duckdb.Error, pa.ArrowException, OSError, UnicodeError) as error:
        # Engines quote the row in which they failed; it may name a person, and causes are kept with a failed run.
        raise UserError(_explain(path, str(error))) from None


class _Store(ArrowFSWrapper):
    """A pyarrow file system as DuckDB takes them. Credentials are those that pyarrow finds in the environment."""

    cachable = False

    def __init__(self, filesystem: fs.FileSystem, protocol: str):
        super().__init__(filesystem)
        self._protocol = protocol

    @property
    def protocol(self) -> str:
        return self._protocol

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return path.split("://", 1)[-1] if isinstance(path, str) else path


def _listed(path: str, format: str) -> tuple[list[SourceFile], list[str]]:
    """The files that count, and the names of those that do not."""
    if path.startswith("file://"):
        path = unquote(urlsplit(path).path)
    with reading(path):
        if path.startswith("package:"):
            found, folder = [_local(_packaged(path), None)], False
        else:
            found, folder = _remote(path) if "://" in path else _on_disk(path)
    if not found and not folder:
        raise UserError(f"{path}: no such file; correct `path` in the source section of the settings")
    found = sorted(found, key=lambda file: file.name)
    if not folder:
        return found, []
    shown = [
        file for file in found if not re.search(r"(^|/)[_.](?![^/]*=)", file.name) and not file.name.endswith(".crc")
    ]
    known = shown if format != "auto" else [file for file in shown if file.format]
    if not known:
        raise UserError(f"{path}: the folder holds no Parquet, CSV or JSON file; put the log there or correct the path")
    return known, [file.name for file in shown if file not in known]


def _on_disk(path: str) -> tuple[list[SourceFile], bool]:
    """The files, and whether a folder was meant."""
    place = Path(path).absolute()
    if place.is_file():
        return [_local(place, None)], False
    if place.is_dir():
        return [_local(file, place) for file in place.rglob("*") if file.is_file()], True
    root = Path(_fixed(str(place)))
    return [_local(Path(file), root) for file in glob(str(place), recursive=True) if Path(file).is_file()], False


def _local(file: Path, root: Path | None) -> SourceFile:
    facts = file.stat()
    name = file.relative_to(root).as_posix() if root else file.name
    return SourceFile(str(file), name, facts.st_size, facts.st_mtime_ns, fs.LocalFileSystem(), str(file))


def _remote(uri: str) -> tuple[list[SourceFile], bool]:
    fixed = _fixed(uri)
    store, root = fs.FileSystem.from_uri(fixed)
    root = root.rstrip("/")
    facts = store.get_file_info(root)
    if facts.type == fs.FileType.File:
        return [SourceFile(uri, facts.base_name, facts.size, facts.mtime_ns, store, root)], False
    wanted = _pattern(uri[len(fixed) :].lstrip("/")) if fixed != uri else None
    found = [
        SourceFile(f"{fixed.rstrip('/')}/{name}", name, one.size, one.mtime_ns, store, one.path)
        for one in store.get_file_info(fs.FileSelector(root, allow_not_found=True, recursive=True))
        if one.type == fs.FileType.File
        for name in [one.path.removeprefix(f"{root}/")]
        if wanted is None or wanted.fullmatch(name)
    ]
    return found, wanted is None and bool(found)


def _fixed(path: str) -> str:
    """The folder of `path` that holds no wildcard; all of a path without one."""
    wild = re.search(r"[*?\[]", path)
    return path[: wild.start()].rsplit("/", 1)[0] if wild else path


def _pattern(wild: str) -> re.Pattern[str]:
    """A glob over names: `*` stays within a folder, `**/` goes through any number of them."""
    # Each part is translated as a whole name, with an end that would not let the next part follow.
    whole = [re.sub(r"\\[Zz]$", "", fnmatch.translate(part)).replace(".*", "[^/]*") for part in wild.split("/")]
    parts = ["(?:.*/)?" if part == "**" else one + "/" for part, one in zip(wild.split("/"), whole, strict=True)]
    return re.compile("".join(parts).removesuffix("/"))


def _packaged(path: str) -> Path:
    package, _, inside = path.removeprefix("package:").partition("/")
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None or found.origin is None:
        raise UserError(f"{path}: the package is not installed; run `pip install segflow[demo]`")
    folder = Path(found.origin).parent
    file = folder / inside
    if not file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path}: lies outside the package; name a file of it")
    if not file.is_file():
        raise UserError(
            f"{path}: the installed package has no file {inside}; run `pip install --force-reinstall {package}`"
        )
    return file


# What an engine's message says -> what the user does about it.
_MENDS = {
    "Expected Number of Columns": "correct that line, or set `csv.delimiter` and `csv.quote`",
    "unterminated quote": "close that quote, or set `csv.quote` and `csv.escape`",
    "not utf-8": "set `csv.encoding`, for instance to latin-1",
    "Maximum line size": "a quote may be left open before it; close it, or set `csv.quote`",
    "invalid state": "a line may end unlike the others; end all lines alike, with LF or with CRLF",
    "Permission denied": "allow reading it",
    "JSON": "correct or remove that record",
}


def _explain(path: str, message: str) -> str:
    message = re.sub(r"store[0-9a-f]{16}://", "", message)
    lines = [line.strip() for line in message.strip().splitlines()] or ["unreadable"]
    named = re.search(r"""(?:^\s*file = |file:? ["']|stream: )([^"'\n]+)""", message, re.MULTILINE)
    where = named.group(1) if named else path
    number = re.search(r"CSV Error on Line: (\d+)", message)
    cause = next((line for line in lines if any(key in line for key in _MENDS)), lines[0])
    cause = re.sub(r"^(\w+ )*Error: ", "", cause).rstrip(". ")
    remote = "check the address, and the credentials in the environment"
    otherwise = remote if "://" in path else "replace it by a whole file of that kind"
    mend = next((mend for key, mend in _MENDS.items() if key in cause), otherwise)
    kind = f" as {kind}" if (kind := format_of(where)) else ""
    place = f"line {number.group(1)}: " if number else ""
    suspect = f"{newest} was written last: " if not named and (newest := _newest(path)) else ""
    return f"{where}: cannot be read{kind}: {place}{cause}; {suspect}{mend}"


def _newest(path: str) -> str:
    """Of several files on disk, the name of the last written one; empty for a single one, or if they cannot be listed."""
    if "://" in path or path.startswith("package:"):
        return ""
    try:
        found = [file for file in _on_disk(path)[0] if file.format]
    except OSError:
        return ""
    return max(found, key=lambda file: file.modified).name if len(found) > 1 else ""
