"""Lloyd's passes over everybody, in shards: each adds up the users of each cluster, and centres move to the means of all.

How users are cut into shards and in which order sums are added never depends on where shards are worked on, so neither do the
centres, to the last bit, on processors of one kind. What does not live here: where the first centres come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segflow.arrow import matrix, vector_column
from segflow.compute import IN_PROCESS, Engine, Reference
from segflow.segments.population import Points
from segflow.segments.threads import one_thread

Centres = NDArray[np.float32]
Sums = tuple[NDArray[np.float64], NDArray[np.int64]]

# Users of one piece of work.
_SHARD = 65_536
# Users whose distances are computed at once: their vectors stay in the processor's cache.
_CHUNK = 2_048


def moved(points: Points, centers: Points, passes: int, engine: Engine = IN_PROCESS) -> Centres:
    """The centres (k, D) after at most so many of Lloyd's passes over points (U, D), fewer if they stay where they are.

    A centre that is nobody's nearest stays. Distances are float32, and so are sums of up to a few thousand users; sums of more
    are float64. (Lloyd, IEEE Transactions on Information Theory 28(2), 1982.)
    """
    shards = [
        engine.exchange.put(pa.table({"vector": vector_column(points[start : start + _SHARD])}))
        for start in range(0, len(points), _SHARD)
    ]
    centers = centers.astype(np.float32)
    # Taken off all vectors: what users have in common would cost the digits of what tells them apart.
    shift = centers.mean(axis=0)
    for _ in range(passes):
        before = centers
        centers = _means(engine.map(partial(_sums, before, shift), shards), before, shift)
        if np.array_equal(centers, before):
            break
    return centers


def _means(parts: Sequence[Sums], before: Centres, shift: Centres) -> Centres:
    """Added up in the order of the shards: another one would change the last bits."""
    sums, counts = np.zeros(before.shape), np.zeros(len(before), np.int64)
    for of_shard, users in parts:
        sums += of_shard
        counts += users
    means = shift + sums / np.maximum(counts, 1)[:, None]
    return np.where(counts[:, None] > 0, means, before).astype(np.float32)


def _sums(centers: Centres, shift: Centres, shard: Reference) -> Sums:
    """Of each centre's nearest users, the sum of their vectors less `shift`, and how many they are: (k, D), (k,)."""
    points = matrix(shard.get()["vector"])
    around = centers - shift
    lengths = np.einsum("kd,kd->k", around, around)[:, None]
    sums, counts = np.zeros(centers.shape), np.zeros(len(centers), np.int64)
    with one_thread():
        for start in range(0, len(points), _CHUNK):
            chunk = points[start : start + _CHUNK] - shift
            # Squared distances less the squared length of the user's vector, which is the same for every centre.
            scores = (-2 * around) @ chunk.T + lengths
            mine = (scores == scores.min(axis=0)).astype(np.float32)
            users = mine.sum(axis=1)
            if users.sum() > len(chunk):
                # Of centres that are equally near, the first one.
                mine[np.cumsum(mine, axis=0) > 1] = 0
                users = mine.sum(axis=1)
            sums += mine @ chunk
            counts += users.astype(np.int64)
    return sums, counts
