"""Reading files: what columns each has, and a query over those that have the same, with file and row number of every row.

No meaning is given to columns here; that is the mapping's work.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow.parquet as pq

from segflow.config import CsvDialect, Input
from segflow.errors import UserError
from segflow.events.files import SourceFile, format_of, readable, reading
from segflow.sql import identifier, literal

OVERFLOW = "source_overflow"
"""Fields of a CSV row beyond its header, as text; only in queries that are made for a mapping."""

_OWN = ("source_file", "source_row", OVERFLOW)
_MOST_EXTRA = 8
_MOST_KEYS = 1000
_HEAD = 65_536
# DuckDB refuses longer rows, so a quote that is left open to the end of the file can only stand in so many last bytes.
_LONGEST_ROW = 2_097_152
_JSON_SAMPLE = 200_000
_NUMBERED = re.compile(r"_\d+$")
_LINE_END = re.compile("\r\n|\n|\r")
_CODECS = {"utf-8": "utf-8-sig", "utf-16": "utf-16", "latin-1": "latin-1"}


@dataclass(frozen=True)
class Layout:
    """Files with the same columns.

    columns: name -> DuckDB type, without source_file and source_row. rows: the query over the files. late: columns that
    `rows` has besides, for records after those that were looked at. overflow: whether it has `source_overflow`.
    """

    columns: dict[str, str]
    files: tuple[SourceFile, ...]
    rows: str
    late: tuple[str, ...] = ()
    overflow: bool = False


@dataclass(frozen=True)
class _Header:
    """What is known of one file before its rows are read.

    kinds: a format's own types, only for comparison. form: the delimiter of CSV, DuckDB's `format` of JSON. blank, end: of CSV,
    the blank lines between those to skip and the first row, and what that row ends in.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    form: str = ""
    blank: int = 0
    end: str = ""


def kind_of(source: Input, files: Sequence[SourceFile]) -> str:
    """parquet, csv or json: the source's `format`, or what the names of all its files tell.

    Raises UserError when they tell nothing, or are of several kinds.
    """
    if source.format != "auto":
        return source.format
    kinds = sorted({format_of(file.name) or "unknown" for file in files})
    if len(kinds) > 1:
        raise UserError(
            f"{source.path}: holds files of several formats ({', '.join(kinds)}); "
            f"name those of one, as in {source.path}/*.csv"
        )
    if kinds == ["unknown"]:
        raise UserError(f"{files[0].path}: cannot tell the format from the name; set `format` to parquet, csv or json")
    return kinds[0]


def layouts(
    connection: duckdb.DuckDBPyConnection,
    source: Input,
    files: Sequence[SourceFile],
    mapped: Collection[str] | None = None,
) -> tuple[list[Layout], list[SourceFile]]:
    """The files by what columns they have, and the files without a row.

    mapped: columns that a mapping reads, which has two effects. They are looked for in every record of JSON, also beyond
    the first ones. And CSV rows with a few fields too many are kept, with those in `source_overflow`, where they are
    an error otherwise.

    Raises UserError naming the first file that cannot be read.
    """
    kind = kind_of(source, files)
    groups: dict[object, list[tuple[SourceFile, _Header]]] = {}
    empty = []
    for file in files:
        with reading(file.path):
            header = _header(connection, kind, file, source.csv, mapped or ())
        if header is None:
            empty.append(file)
            continue
        key = (tuple(file.hive), frozenset(zip(header.names, header.kinds, strict=True)))
        groups.setdefault(key, []).append((file, header))
    found = []
    for group in groups.values():
        members = tuple(file for file, _ in group)
        with reading(members[0].path):
            if kind == "parquet":
                found.append(_parquet(connection, members))
            else:
                found.append(_text(connection, kind, group, source.csv, mapped))
    return found, empty


def _header(
    connection: duckdb.DuckDBPyConnection, kind: str, file: SourceFile, dialect: CsvDialect, mapped: Collection[str]
) -> _Header | None:
    """The columns of a file; None when it holds no row."""
    if file.size == 0:
        return None
    if kind == "parquet":
        with file.filesystem.open_input_file(file.place) as opened:
            metadata = pq.read_metadata(opened)
        schema = metadata.schema.to_arrow_schema()
        _refuse_repeated(file, schema.names)
        return _Header(tuple(schema.names), tuple(map(str, schema.types))) if metadata.num_rows else None
    return _json_header(connection, file, mapped) if kind == "json" else _csv_header(file, dialect)


def _json_header(connection: duckdb.DuckDBPyConnection, file: SourceFile, mapped: Collection[str]) -> _Header | None:
    with file.stream() as stream:
        start = stream.read(_HEAD).removeprefix(codecs.BOM_UTF8).lstrip()
    if not start:
        return None
    # DuckDB does not see that a file is an array when a byte order mark precedes it.
    form = "array" if start.startswith(b"[") else "auto"
    # Only the names are inferred: guessed types fail on the first value, in row 30,000, that does not fit them.
    inferred = connection.execute(
        f"DESCRIBE SELECT * FROM read_json({literal(readable(connection, file))}, format = {literal(form)}, "
        f"sample_size = {_JSON_SAMPLE}, maximum_depth = 1)"
    ).fetchall()
    names = _usable(row[0] for row in inferred)
    lowered = {name.lower() for name in names}
    # What differs in case only is given a number; what is not taken for rows is one column.
    if names == ("json",) or any(
        _NUMBERED.sub("", name).lower() in lowered for name in names if _NUMBERED.search(name)
    ):
        names = _json_keys(connection, file, form, mapped)
    return _Header(names, ("VARCHAR",) * len(names), form)


def _json_keys(
    connection: duckdb.DuckDBPyConnection, file: SourceFile, form: str, mapped: Collection[str]
) -> tuple[str, ...]:
    """The commonest keys of a file whose columns the engine cannot tell: records are no objects, or have hundreds of keys, or
    keys differ in case only. Of these, the mapped or the commonest one counts.
    """
    records = (
        f"SELECT record FROM read_json({literal(readable(connection, file))}, format = {literal(form)}, "
        f"columns = {{record: 'JSON'}}, records = 'false') LIMIT {_JSON_SAMPLE}"
    )
    found = connection.execute(
        f"SELECT key FROM (SELECT unnest(json_keys(record)) AS key FROM ({records})) "
        f"GROUP BY key ORDER BY count(*) DESC, key LIMIT {_MOST_KEYS}"
    ).fetchall()
    keys = [key for (key,) in found]
    chosen = {key.lower(): key for key in (*reversed(keys), *(key for key in mapped if key in keys))}
    names = _usable(chosen.values())
    if not names:
        raise UserError(
            f'{file.path}: its records are no JSON objects with keys; write one such as {{"user": 1}} a line'
        )
    return names


def _usable(names: Iterable[str]) -> tuple[str, ...]:
    """Without those that SQL cannot spell, and that no setting can name."""
    return tuple(name for name in names if name and "\0" not in name)


def _csv_header(file: SourceFile, dialect: CsvDialect) -> _Header | None:
    with file.stream() as stream:
        start = stream.read(_HEAD)
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and dialect.encoding != "utf-16":
        raise UserError(f"{file.path}: is written in UTF-16; set `csv.encoding: utf-16` in the source's settings")
    text = codecs.getincrementaldecoder(_CODECS[dialect.encoding])("replace").decode(start)
    rest = io.StringIO(text, newline="")
    for _ in range(dialect.skip):
        rest.readline()
    above = rest.read()
    body = above.lstrip("\r\n")
    blank = len(_LINE_END.findall(above[: len(above) - len(body)]))
    if not body.strip("\r\n"):
        return None
    quote = '"' if dialect.quote is None else dialect.quote
    if len(set(_LINE_END.findall(text[: len(text) - len(body)]) + _LINE_END.findall(body)[:1])) > 1:
        # The engine would find no row at all, without a word.
        raise UserError(
            f"{file.path}: its first lines end in different ways; end all lines alike, with LF or with CRLF"
        )
    delimiter = dialect.delimiter or _delimiter(re.split(r"[\r\n]", body)[0], quote)
    names, consumed = _first_row(body, delimiter, quote)
    above_rows = text[: len(text) - len(body) + (0 if dialect.columns else consumed)]
    _refuse_stray_quote(file, above_rows, delimiter, quote, dialect.escape or quote)
    if dialect.columns:
        names = list(dialect.columns)
    else:
        if not body[consumed:].strip("\r\n") and len(start) < _HEAD:
            return None
    _refuse_repeated(file, names)
    _refuse_marks(file, delimiter, quote, dialect)
    _refuse_open_quote(file, delimiter, quote, dialect)
    return _Header(
        tuple(names), ("VARCHAR",) * len(names), delimiter, blank, "".join(_LINE_END.findall(body[:consumed])[-1:])
    )


def _delimiter(line: str, quote: str) -> str:
    bare = re.sub(f"{re.escape(quote)}[^{re.escape(quote)}]*{re.escape(quote)}", "", line) if quote else line
    return max(",\t;|", key=bare.count)


def _first_row(body: str, delimiter: str, quote: str) -> tuple[list[str], int]:
    """The fields of the first row, nameless ones numbered, and how many characters it takes."""
    if len(delimiter) > 1:
        found = _LINE_END.search(body)
        line = body[: found.end()] if found else body
        fields, consumed = [one.strip().strip(quote or None) for one in line.split(delimiter)], len(line)
    else:
        stream = io.StringIO(body, newline="")
        # One line at a time, for the position to be that behind the row.
        rows = csv.reader(
            iter(stream.readline, ""),
            delimiter=delimiter,
            quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        )
        fields, consumed = next(rows), stream.tell()
    return [name.replace("\0", "").strip() or f"column{number}" for number, name in enumerate(fields)], consumed


def _refuse_repeated(file: SourceFile, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise UserError(f"{file.path}: has two columns '{name}'; rename or remove one of them")
        seen.add(name.lower())


def _refuse_marks(file: SourceFile, delimiter: str, quote: str, dialect: CsvDialect) -> None:
    """The engine cannot read a file with marks that stand in each other; the delimiter may only be known by now."""
    escape = quote if dialect.escape is None else dialect.escape
    named = [("quote", quote), ("escape", escape), *(("missing", text) for text in dialect.missing)]
    for setting, text in named:
        marks = [delimiter, *([quote, escape] if setting == "missing" else [])]
        if any(text and mark and (mark in text or text in mark) for mark in marks):
            raise UserError(
                f"{file.path}: `csv.{setting}` in the source's settings, {text!r}, holds the delimiter {delimiter!r} or a quote, "
                "or is in them; change one of them"
            )


def _refuse_stray_quote(file: SourceFile, head: str, delimiter: str, quote: str, escape: str) -> None:
    """The engine drops all rows below a header, or a skipped line, with a field that goes on behind its quote, without a word."""
    if not quote or quote not in head:
        return
    begin, mark, other = f"(^|{re.escape(delimiter)}) *", re.escape(quote), re.escape(escape)
    inside = f"(?:[^{mark}]|{mark}{mark})*" if escape == quote else f"(?:[^{mark}{other}]|{other}.)*"
    whole = re.compile(
        f"{begin}{mark}{inside}{mark}(?= *(?:{re.escape(delimiter)}|[\r\n]|\\Z))", re.MULTILINE | re.DOTALL
    )
    if re.search(f"{begin}{mark}", whole.sub(r"\1", head), re.MULTILINE):
        raise UserError(
            f"{file.path}: in the header, or a line above it, text stands behind the quote {quote} that ends a field, or a quote "
            "is never closed; mend that line, or set `csv.quote` in the source's settings ('' for none)"
        )


def _refuse_open_quote(file: SourceFile, delimiter: str, quote: str, dialect: CsvDialect) -> None:
    """The engine drops the rows behind a quote that is never closed, without a word.

    Large packed files are not read to their end for it.
    """
    if not quote or (file.compressed and file.size > 16 * _LONGEST_ROW):
        return
    if file.compressed:
        with file.stream() as stream:
            end = stream.read()[-_LONGEST_ROW:]
    else:
        with file.filesystem.open_input_file(file.place) as opened:
            opened.seek(max(0, file.size - _LONGEST_ROW))
            end = opened.read()
    if quote.encode() not in end:
        return
    text = end.decode(_CODECS[dialect.encoding], "replace")
    before, found, after = text.replace((dialect.escape or quote) + quote, "").rpartition(quote)
    opens = found and (not before or before.endswith((delimiter, "\n", "\r")))
    if opens and after and not after.startswith((delimiter, "\n", "\r")):
        # What stands there may name a person, and messages are kept.
        lines = len(after.rstrip("\r\n").splitlines())
        raise UserError(
            f"{file.path}: the quote that opens in line {lines} from the end is never closed, so that the rows behind it cannot "
            "be told; close it, or set `csv.quote` in the source's settings"
        )


def _parquet(connection: duckdb.DuckDBPyConnection, files: tuple[SourceFile, ...]) -> Layout:
    paths = [readable(connection, file) for file in files]
    hive = literal(bool(files[0].hive))
    rows = (
        f"FROM read_parquet({literal(paths)}, filename = 'source_path', file_row_number = true, "
        f"hive_partitioning = {hive}, hive_types_autocast = false)"
    )
    described = connection.execute(f"DESCRIBE SELECT * EXCLUDE (source_path, file_row_number) {rows}").fetchall()
    columns = {row[0]: row[1] for row in described if row[0] not in _OWN and _usable(row[:1])}
    base = len(_unescaped(paths[0])) - len(files[0].name)
    selected = _listing(columns)
    return Layout(
        columns,
        files,
        f"SELECT {selected}substr(source_path, {base + 1}) AS source_file, file_row_number AS source_row {rows}",
    )


def _unescaped(path: str) -> str:
    return re.sub(r"\[([*?\[])\]", r"\1", path)


def _text(
    connection: duckdb.DuckDBPyConnection,
    kind: str,
    group: Sequence[tuple[SourceFile, _Header]],
    dialect: CsvDialect,
    mapped: Collection[str] | None,
) -> Layout:
    """CSV or JSON. Text is cast later, field by field, so that one bad value costs one row and not the file."""
    first, header = group[0]
    own = [name for name in header.names if name not in first.hive]
    extra = _extra(header.names) if kind == "csv" and mapped is not None else []
    late = () if kind == "csv" else tuple(name for name in mapped or () if name not in (*own, *first.hive))
    parts = []
    for file, one in group:
        path = literal(readable(connection, file))
        table = f"read_json({path}, format = {literal(one.form)}, columns = {_all_text([*one.names, *late])})"
        if kind == "csv":
            table = _read_csv(path, one, dialect, [*one.names, *extra])
        beyond = f", nullif(concat_ws({literal(one.form)}, {', '.join(extra)}), '') AS {OVERFLOW}"
        hive = "".join(f"{_hive(value)} AS {identifier(key)}, " for key, value in file.hive.items())
        # Row numbers must count inside each file, in file order.
        parts.append(
            f"SELECT {_listing([*own, *late])}{hive}{literal(file.name)} AS source_file, "
            f"row_number() OVER () - 1 AS source_row{beyond if extra else ''} FROM {table}"
        )
    columns = dict.fromkeys((name for name in (*own, *first.hive) if name not in _OWN), "VARCHAR")
    return Layout(columns, tuple(file for file, _ in group), " UNION ALL ".join(parts), late, bool(extra))


def _extra(names: Iterable[str]) -> list[str]:
    """Names for fields beyond the header that no column has."""
    prefix, taken = "source_extra_", {name.lower() for name in names}
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    return [f"{prefix}{number}" for number in range(_MOST_EXTRA)]


def _read_csv(path: str, header: _Header, dialect: CsvDialect, names: Sequence[str]) -> str:
    # Short rows end in missing values; reading in one thread is what lets the engine pad them and keep line breaks inside
    # quotes. It is told all of the dialect: what it would guess changes with one odd row.
    quote = '"' if dialect.quote is None else dialect.quote
    escape = quote if dialect.escape is None else dialect.escape
    # Else the engine takes the first line break for it, which may stand inside quotes; it then finds no row, without a word.
    end = f", new_line = {literal(repr(header.end)[1:-1])}" if header.end else ""
    return (
        f"read_csv({path}, auto_detect = false, columns = {_all_text(names)}, header = {literal(not dialect.columns)}, "
        f"skip = {dialect.skip + header.blank}, delim = {literal(header.form)}, quote = {literal(quote)}, "
        f"escape = {literal(escape)}, encoding = {literal(dialect.encoding)}, "
        f"nullstr = {literal(['', *dialect.missing])}, null_padding = true, parallel = false{end})"
    )


def _all_text(names: Iterable[str]) -> str:
    return "{" + ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names) + "}"


def _listing(names: Iterable[str]) -> str:
    return "".join(f"{identifier(name)}, " for name in names if name not in _OWN)


def _hive(value: str) -> str:
    return "NULL::VARCHAR" if value == "__HIVE_DEFAULT_PARTITION__" else literal(value.replace("\0", ""))
