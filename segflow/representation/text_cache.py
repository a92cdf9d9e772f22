"""Vectors of every text that was ever encoded, by the text's content and the encoder: each distinct text is encoded once.

Lives here: the files and the look-up. Does not live here: the encoding, and which texts are wanted.

A folder holds one folder for each encoder name (which carries its revision), with shards that are never changed. A shard is
a head (magic, rows and width as little-endian 64-bit numbers, SHA-256 of what follows), then the texts' SHA-256 as 64
hexadecimal characters each, in order, then their vectors as float32. It appears whole, by a rename, so processes may read and
write the same cache at once. A shard that is damaged is put aside with a warning and its texts are encoded again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segflow.arrow import matrix, vector_column
from segflow.compute import IN_PROCESS, Engine, Exchange, Reference
from segflow.representation.encoder import Encoder, Progress, Vectors

Keys = npt.NDArray[np.bytes_]
"""(n,) SHA-256 of texts, as 64 hexadecimal characters each (dtype S64)."""

_HEAD = struct.Struct("<8sQQ32s")
_MAGIC = b"segvec01"
_KEY = np.dtype("S64")
# Texts of one shard: what is lost when a step is killed, what is read at most to find one of them, and what one worker encodes
# at once.
_SHARD = 8_192

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Looked:
    """What a look-up gave. vectors: (n, d) in the order asked; encoded and reused: distinct texts; seconds: of encoding."""

    vectors: Vectors
    encoded: int
    reused: int
    seconds: float

    @property
    def texts_per_second(self) -> float:
        """Texts encoded a second; 0 when none had to be."""
        return self.encoded / self.seconds if self.encoded else 0.0


class TextCache:
    """The vectors in one folder, which is made when there is something to keep."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def vectors(
        self,
        encoder: Encoder,
        texts: Sequence[str],
        progress: Progress | None = None,
        engine: Engine = IN_PROCESS,
    ) -> Vectors:
        """(n, d) float32 in the order of `texts`; only distinct texts that were never encoded are."""
        coded = pa.array(texts, pa.string()).dictionary_encode()
        distinct = coded.dictionary
        keys = np.array([hashlib.sha256(text.encode()).hexdigest() for text in distinct.to_pylist()], _KEY)
        return self.look_up(encoder, keys, distinct, progress, engine).vectors[coded.indices.to_numpy()]

    def look_up(
        self,
        encoder: Encoder,
        keys: Keys,
        texts: pa.Array | pa.ChunkedArray,
        progress: Progress | None = None,
        engine: Engine = IN_PROCESS,
    ) -> Looked:
        """The vectors of `texts`, of which `keys` are the SHA-256 in the same order. A text may stand more than once.

        engine: what encodes the texts of each new shard.
        """
        distinct, first, place = np.unique(keys, return_index=True, return_inverse=True)
        vectors = np.zeros((len(distinct), encoder.width), np.float32)
        missing = np.flatnonzero(~self._find(encoder, distinct, vectors))
        # Batches follow the order in which texts are given, so the same input gives the same vectors.
        missing = missing[np.argsort(first[missing])]
        began = time.perf_counter()
        starts = range(0, len(missing), _SHARD)
        parts = [missing[start : start + _SHARD] for start in starts]
        pieces = (
            _Texts(
                encoder,
                engine.exchange.put(pa.table({"text": texts.take(pa.array(first[part]))})),
                engine.exchange,
                _Heard(progress, start, len(missing)),
            )
            for start, part in zip(starts, parts, strict=True)
        )
        for start, part, made in zip(starts, parts, engine.imap(_encode, pieces), strict=True):
            vectors[part] = matrix(made.get()["vector"])
            self._write(encoder.name, distinct[part], vectors[part])
            if progress:
                progress(start + len(part), len(missing))
        seconds = time.perf_counter() - began
        return Looked(vectors[place.ravel()], len(missing), len(distinct) - len(missing), seconds)

    def holds(self, encoder: Encoder) -> bool:
        """Whether there is any vector of this encoder."""
        return any(self._shards(encoder.name))

    def adopt(self, encoder: Encoder, rows: pa.Table) -> None:
        """Keep the vectors that `rows` (text_hash, encoder, vector) hold of this encoder, such as those of a table."""
        rows = rows.filter(pc.equal(rows["encoder"], encoder.name))
        if not rows.num_rows:
            return
        keys, first = np.unique(keys_of(rows["text_hash"]), return_index=True)
        for start in range(0, len(keys), _SHARD):
            part = slice(start, start + _SHARD)
            self._write(encoder.name, keys[part], matrix(rows["vector"].take(pa.array(first[part]))))

    def _find(self, encoder: Encoder, keys: Keys, vectors: Vectors) -> npt.NDArray[np.bool_]:
        """Fill in the vectors of those sorted keys that are there, and say which."""
        found = np.zeros(len(keys), bool)
        for file in self._shards(encoder.name) if len(keys) else ():
            shard = _read(file)
            if shard is None or shard[1].shape[1] != encoder.width:
                _put_aside(file)
                continue
            known, stored = shard
            place = np.minimum(np.searchsorted(keys, known), len(keys) - 1)
            hits = np.flatnonzero(keys[place] == known)
            vectors[place[hits]] = stored[hits]
            found[place[hits]] = True
        return found

    def _shards(self, name: str) -> list[Path]:
        return sorted(self._place(name).glob("*.vectors"))

    def _place(self, name: str) -> Path:
        # A name may hold any character; its digest keeps two of them apart, the rest is for people.
        readable = "".join(letter if letter.isalnum() or letter in "-_.@" else "_" for letter in name)[:80]
        return self._folder / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"

    def _write(self, name: str, keys: Keys, vectors: Vectors) -> None:
        order = np.argsort(keys)
        content = np.ascontiguousarray(keys[order]).tobytes() + np.ascontiguousarray(vectors[order], "<f4").tobytes()
        head = _HEAD.pack(_MAGIC, *vectors.shape, hashlib.sha256(content).digest())
        place = self._place(name)
        place.mkdir(parents=True, exist_ok=True)
        unfinished = place / f"{uuid4().hex}.unfinished"
        unfinished.write_bytes(head + content)
        os.replace(unfinished, place / f"{hashlib.sha256(head).hexdigest()[:24]}.vectors")


def keys_of(text_hashes: pa.ChunkedArray) -> Keys:
    """A column of SHA-256 in hexadecimal characters as keys."""
    fixed = text_hashes.cast(pa.binary()).cast(pa.binary(_KEY.itemsize)).combine_chunks()
    column = fixed.combine_chunks() if isinstance(fixed, pa.ChunkedArray) else fixed
    keys: Keys = np.frombuffer(column.buffers()[1], _KEY, len(column), column.offset * _KEY.itemsize)
    return keys


def _read(file: Path) -> tuple[Keys, Vectors] | None:
    """Keys and vectors of a shard, on disk until they are looked at; None for one that is damaged."""
    if file.stat().st_size <= _HEAD.size:
        return None
    content = np.memmap(file, np.uint8, "r")
    magic, rows, width, digest = _HEAD.unpack(content[: _HEAD.size].tobytes())
    keys_end = _HEAD.size + rows * _KEY.itemsize
    if magic != _MAGIC or rows == 0 or len(content) != keys_end + 4 * rows * width:
        return None
    if hashlib.sha256(content[_HEAD.size :].data).digest() != digest:
        return None
    return content[_HEAD.size : keys_end].view(_KEY), content[keys_end:].view("<f4").reshape(rows, width)


def _put_aside(file: Path) -> None:
    aside = file.with_suffix(".damaged")
    _log.warning("text.cache: %s is damaged; it is kept as %s and its texts are encoded again", file, aside.name)
    # Another process may have been faster.
    if file.exists():
        os.replace(file, aside)


@dataclass(frozen=True)
class _Heard:
    """The progress of all texts, told while one shard is encoded; of one that is encoded in another process, when it is done."""

    progress: Progress | None
    done: int
    of: int

    def __call__(self, more: int, _: int) -> None:
        if self.progress:
            self.progress(self.done + more, self.of)

    def __reduce__(self) -> tuple[type[_Heard], tuple[None, int, int]]:
        return _Heard, (None, self.done, self.of)


@dataclass(frozen=True)
class _Texts:
    """A piece of work: texts to encode."""

    encoder: Encoder
    texts: Reference
    exchange: Exchange
    heard: _Heard


def _encode(piece: _Texts) -> Reference:
    vectors = piece.encoder.encode(piece.texts.get()["text"].to_pylist(), piece.heard)
    return piece.exchange.put(pa.table({"vector": vector_column(vectors)}))
