"""Vectors of items and sessions from their texts: which texts need encoding, and what is pooled of them.

Lives here: items through the cache, and sessions as the mean of their items. Does not live here: the language model
(``encoder``), the cache of vectors (``text_cache``), and how texts are composed (``events/catalogue``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from segflow.arrow import vector_column
from segflow.compute import IN_PROCESS, Engine
from segflow.representation.encoder import Encoder, Progress
from segflow.representation.text_cache import Looked, TextCache, keys_of

__all__ = ["Encoder", "TextCache", "encode_new", "journey_vectors", "pool_sessions"]


def encode_new(
    encoder: Encoder, items: pa.Table, cache: TextCache, progress: Progress | None = None, engine: Engine = IN_PROCESS
) -> tuple[pa.Table, Looked]:
    """Rows of `item_embeddings` for `items` (item_id, text, text_hash), and what had to be encoded.

    Each distinct text is encoded once, ever: also one that was away for a while, whatever became of the table.
    """
    looked = cache.look_up(encoder, keys_of(items["text_hash"]), items["text"], progress, engine)
    rows = pa.table(
        {
            "item_id": items["item_id"],
            "text_hash": items["text_hash"],
            "encoder": pa.repeat(encoder.name, items.num_rows),
            "vector": vector_column(looked.vectors),
        }
    )
    return rows, looked


def pool_sessions(
    items: pa.ListArray, item_ids: Sequence[str], vectors: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(S, d) float32: for each session the unit-length mean of its items' vectors, every event counting once.

    items: S lists of item ids; vectors: (I, d) for `item_ids`. A session without a known item is all zeros.
    """
    index = pc.index_in(items.flatten(), pa.array(item_ids, pa.string()))
    known = np.concatenate([[0], np.cumsum(index.is_valid().to_numpy(zero_copy_only=False))])
    ends = np.cumsum(items.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
    columns = index.drop_null().to_numpy(zero_copy_only=False)
    # The lists stand in the order of the sessions, which is that of the rows of the matrix: nothing needs to be sorted.
    rows = known[np.concatenate([[0], ends])]
    events = sparse.csr_matrix((np.ones(len(columns), np.float32), columns, rows), shape=(len(items), len(item_ids)))
    pooled = np.asarray(events @ vectors, np.float32)
    length = np.linalg.norm(pooled, axis=1, keepdims=True)
    return np.divide(pooled, length, out=np.zeros_like(pooled), where=length > 0)


def journey_vectors(
    encoder: Encoder, cache: TextCache, sessions: pa.Array | pa.ChunkedArray, engine: Engine = IN_PROCESS
) -> npt.NDArray[np.float32]:
    """(S, d) float32: the language model's reading of each session's whole text, the alternative to `pool_sessions`.

    sessions: S serialized sessions; a missing text is all zeros. Costs a pass of the language model for each new text.
    """
    return cache.vectors(encoder, pc.fill_null(sessions, "").to_pylist(), engine=engine)
