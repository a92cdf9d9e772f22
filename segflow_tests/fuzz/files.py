"""Drawn files: properly written CSV and JSON with all that their formats allow, and the same after damage.

Nothing here reads a file.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

_PIECES = ["", " ", "a", "7", "é", "🥛", "NA", "null", "\\", "\\n", "'", '"', '""', ",", ";", "\t", "|", "#", "\x00", "\x1a",
           "\u2028", "\xa0", "-", "{", "]", "\n", "\r\n", "\ufeff", "x" * 300]  # fmt: skip
texts = st.lists(st.sampled_from(_PIECES), max_size=4).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=8
)
"""What may stand in a field: whatever a format uses as a mark, and anything else."""
times = st.sampled_from(
    ["2024-01-02 10:00:00", "2024-02-29T23:59:59Z", "2024-13-01", "", "1704189600", "soon", "2024-01-02 10:00:00+02:00"]
)
_NAMES = ["user", "time", "type", "text"]


@dataclass(frozen=True)
class Csv:
    """A file as it was meant: rows in the order of `names`, of which each may have fewer or more fields."""

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    delimiter: str
    content: bytes

    def __repr__(self) -> str:
        return f"Csv(rows={self.rows!r}, content={self.content[:600]!r})"


@st.composite
def written_csv(draw: st.DrawFn) -> Csv:
    """CSV by the book: fields quoted where they must be or by whim, one kind of line end, a byte order mark or none."""
    delimiter = draw(st.sampled_from([",", ",", ";", "\t", "|"]))
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    whim = draw(st.booleans())
    extra = draw(st.lists(st.sampled_from(["more", "Ünder", "a b", "source_file", "source_extra_0", "source_overflow",
                                           "filename", "time_2", '"', "select"]), unique=True, max_size=2))  # fmt: skip
    names = draw(st.permutations([*_NAMES, *extra]))
    rows = draw(st.lists(_fields(names), min_size=1, max_size=6))

    def spelled(field: str) -> str:
        if whim or any(mark in field for mark in (delimiter, '"', "\n", "\r")):
            return '"' + field.replace('"', '""') + '"'
        return field

    lines = [delimiter.join(map(spelled, row)) for row in (tuple(names), *rows)]
    text = draw(st.sampled_from(["", "", "", end])) + end.join(lines) + draw(st.sampled_from([end, end, ""]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig"]))
    return Csv(tuple(names), tuple(rows), delimiter, text.encode(encoding))


def _fields(names: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    whole = st.tuples(*(times if name == "time" else texts for name in names))
    short = st.tuples(whole, st.integers(2, len(names))).map(lambda drawn: drawn[0][: drawn[1]])
    long = st.tuples(whole, st.lists(texts, min_size=1, max_size=3)).map(lambda drawn: (*drawn[0], *drawn[1]))
    return st.one_of(whole, whole, whole, short, long)


_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(allow_nan=False, allow_infinity=False),
        texts,
        times,
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
_records = st.dictionaries(
    st.sampled_from([*_NAMES, "user", "time", "more", "User", "", "é", "source_file", "a b", '"', "json", "x.y"]),
    _values,
    max_size=6,
)


@dataclass(frozen=True)
class Json:
    """A file as it was meant: its values in order."""

    values: tuple[Any, ...]
    content: bytes

    def __repr__(self) -> str:
        return f"Json(values={self.values!r}, content={self.content[:600]!r})"


@st.composite
def written_json(draw: st.DrawFn) -> Json:
    """JSON by the book: a value a line, an array, or values spread over lines; nearly always objects."""
    # What a file is, is told by how it begins.
    values = [draw(_records), *draw(st.lists(_records | st.none(), max_size=5))]
    form = draw(st.sampled_from(["lines", "lines", "lines", "array", "spread"]))
    ascii_only = draw(st.booleans())

    def spelled(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, indent=indent)

    if form == "array":
        text = spelled(values, draw(st.sampled_from([None, 1])))
    elif form == "spread":
        # Where the first value takes one line, all are taken for lines, and null belongs in lines.
        values = [{"user": "u"}, *(value for value in values[1:] if value is not None)]
        text = "\n".join(spelled(value, 1) for value in values)
    else:
        end = draw(st.sampled_from(["\n", "\r\n", "\n\n"]))
        text = end.join(map(spelled, values)) + draw(st.sampled_from([end, ""]))
    # Behind a byte order mark, the engine takes lines with null for a broken file.
    bom = "utf-8" if None in values else draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig"]))
    return Json(tuple(values), text.encode(bom))


_BYTES = st.one_of(
    st.sampled_from([b"\n", b"\r", b"\r\n", b'"', b",", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc3", b"\\", b"{", b"}", b"[", b"]",
                     b":", b"\\ud800", b"NaN", b"1e999", b"null", b'"user":1,', b",,,,,,,,,,,,,,", b"\x1f\x8b"]),
    st.binary(min_size=1, max_size=3),
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes with something put in, taken out, repeated or replaced, up to three times."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        until = draw(st.integers(at, min(len(content), at + 40)))
        change = draw(st.sampled_from(["put in", "take out", "replace", "repeat", "cut"]))
        new = {
            "put in": content[at:until] + draw(_BYTES) + content[at:until][:0],
            "take out": b"",
            "replace": draw(_BYTES),
            "repeat": content[at:until] * 2,
            "cut": b"",
        }[change]
        content = content[:at] + new + (b"" if change == "cut" else content[until:])
    return content


def _zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKINGS = {
    "": lambda content: content,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".zst": _zstd,
}


def unpacked(content: bytes) -> bytes | None:
    """What gzip says the bytes hold; None if they are no whole gzip file."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return None


def damaged_packing(content: bytes) -> st.SearchStrategy[bytes]:
    """A gzip file that is damaged, cut, followed by something else, or in several members."""
    packed = gzip.compress(content, mtime=0)
    half = len(content) // 2
    members = gzip.compress(content[:half], mtime=0) + gzip.compress(content[half:], mtime=0)
    return st.one_of(
        damaged(packed),
        st.integers(1, len(packed)).map(lambda cut: packed[:-cut]),
        st.binary(min_size=1, max_size=9).map(lambda more: packed + more),
        st.just(members),
    )
