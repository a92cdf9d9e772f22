"""Which texts are together in sessions, and more often than chance.

Lives here: baskets of distinct texts, their pairs, and draws of pairs. Does not live here: what is learned from pairs
(see ``adaptation``).

Source of the weights: positive pointwise mutual information (Church & Hanks 1990), as in word vectors (Levy & Goldberg
2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

# A session of n items has n² / 2 pairs; beyond this many items it says little and costs much.
_SESSION_ITEMS = 50


@dataclass(frozen=True)
class Pairs:
    """Unordered pairs of texts that are together more often than chance.

    left, right: (P,) indices of texts, left < right; weight: (P,) above zero; linked: (T, T) symmetric, true where two
    texts are such a pair or might be one, so that they are no example of what is unrelated.
    """

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    linked: sparse.csr_matrix

    def __len__(self) -> int:
        return len(self.left)

    def draw(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """(count, 2) pairs in proportion to their weight, with replacement, either text first."""
        steps = np.cumsum(self.weight)
        chosen = np.searchsorted(steps, rng.random(count) * steps[-1], side="right")
        pairs = np.column_stack([self.left[chosen], self.right[chosen]])
        return np.where(rng.random(count)[:, None] < 0.5, pairs, pairs[:, ::-1])

    def linked_among(self, texts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """(n, n): which of these texts may be related to one another."""
        return np.asarray(self.linked[texts][:, texts].toarray(), bool)


def baskets_of(
    items: pa.ListArray, item_ids: Sequence[str], texts: npt.NDArray[np.int64], count: int
) -> sparse.csr_matrix:
    """(S, count) of ones: which distinct texts each session holds.

    items: S lists of item ids; texts: (I,) the text of each of ``item_ids`` as an index below ``count``, or -1 for none. Of a
    very long session its first items count. Items that are not in ``item_ids`` are left out.
    """
    found = pc.index_in(items.flatten(), pa.array(item_ids, pa.string())).fill_null(-1).to_numpy(zero_copy_only=False)
    sizes = items.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    owner = np.repeat(np.arange(len(items)), sizes)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    text = np.append(texts, -1)[found]
    kept = (text >= 0) & (place < _SESSION_ITEMS)
    ones = np.ones(int(kept.sum()), np.float32)
    baskets = sparse.csr_matrix((ones, (owner[kept], text[kept])), shape=(len(items), count))
    baskets.data[:] = 1
    return baskets


def pairs_of(baskets: sparse.csr_matrix) -> Pairs:
    """The pairs of texts that are together in ``baskets`` more often than chance.

    A pair is seen by drawing a text of a session and then another one of the same session. It counts with its pointwise
    mutual information, one sight taken off as luck, times the root of how often it is seen: so popular pairs do not
    drown the rest, and rare ones are no accident.
    """
    sizes = np.asarray(baskets.sum(1)).ravel()
    baskets = baskets[sizes > 1]
    each = sparse.diags(1.0 / (sizes[sizes > 1] - 1.0))
    # Every text of a session takes part with weight one, however many others there are: else large baskets would make
    # everything look related to everything.
    together = sparse.triu(baskets.T @ each @ baskets, k=1).tocoo()
    alone = np.asarray(baskets.sum(0), np.float64).ravel()
    left, right, seen = together.row.astype(np.int64), together.col.astype(np.int64), together.data.astype(np.float64)
    expected = alone[left] * alone[right] / max(alone.sum(), 1.0)
    likely = seen > expected
    linked = sparse.csr_matrix((likely[likely], (left[likely], right[likely])), shape=together.shape)
    information = np.log(seen / (expected + 1.0))
    kept = information > 0
    weight = information[kept] * np.sqrt(seen[kept])
    return Pairs(left[kept], right[kept], weight, (linked + linked.T).tocsr())
