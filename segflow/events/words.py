"""Texts of which few are different, as numbers and a list of words: Arrow's dictionaries, in one piece.

A column of many pieces has a list for each of them, and every look at the words takes all of the lists.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

WORDS = pa.dictionary(pa.int32(), pa.string())


def coded(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts, dictionaries of any kind, or nothing at all, as WORDS in one piece."""
    if pa.types.is_null(texts.type):
        return pa.chunked_array([pa.nulls(len(texts), WORDS)])
    if not pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_encode()
    return in_one_piece(texts if texts.type == WORDS else texts.cast(WORDS))


def in_one_piece(words: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same words with one list."""
    pieces: list[pa.DictionaryArray] = []
    for _, alike in groupby(words.chunks, key=_Listed):
        those = list(alike)
        indices = pa.chunked_array([one.indices for one in those]).combine_chunks()
        pieces.append(pa.DictionaryArray.from_arrays(indices, those[0].dictionary, safe=False))
    if len(pieces) < 2:
        return pa.chunked_array(pieces, words.type)
    unified = pa.chunked_array(pieces).unify_dictionaries()
    indices = pa.chunked_array([piece.indices for piece in unified.chunks]).combine_chunks()
    return pa.chunked_array([pa.DictionaryArray.from_arrays(indices, known(unified), safe=False)])


class _Listed:
    """A piece by its list of words. Looking words up costs far more than seeing that two lists are the same."""

    def __init__(self, piece: pa.DictionaryArray):
        self._words = piece.dictionary

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Listed) and bool(self._words.equals(other._words))

    __hash__ = None  # type: ignore[assignment]


def known(words: pa.ChunkedArray) -> pa.Array:
    """The list of the words, which are in one piece."""
    return words.chunk(0).dictionary if words.num_chunks else pa.array([], pa.string())


def codes(words: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """(rows,) each row's place in the list of the words, which are in one piece; -1 for a missing one."""
    if not words.num_chunks:
        return np.empty(0, np.int32)
    indices = words.chunk(0).indices
    found: npt.NDArray[np.int32] = (indices.fill_null(-1) if indices.null_count else indices).to_numpy()
    return found


def in_alphabetical_order(codes: npt.NDArray[Any], names: pa.Array) -> tuple[npt.NDArray[np.int32], pa.Array]:
    """The codes of the same words in the sorted list, and that list. None may be missing."""
    order = pc.array_sort_indices(names)
    places = np.empty(len(order), np.int32)
    places[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
    return places[codes], names.take(order)
