"""Items that nobody had yet: their scores by their texts, and how many of them a list may hold.

Lives here: the known items nearest to a new one, its score from theirs, and the cap on new items in a list. Does not live
here: scores of known items, and the vectors of texts (`representation`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from segflow.rankers.features import Pairs
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.sequences import MICROSECONDS_PER_WEEK

Floats = npt.NDArray[np.float32]
Score = Callable[[npt.NDArray[np.int64]], Floats]

NEIGHBOURS = 10
_SHARPNESS = 4  # power of the cosine: a text twice as near counts sixteen times
_BLOCK = 1024


@dataclass(frozen=True)
class NewItems:
    """The N items of the catalogue that nobody had before the week of the lists, to stand behind the C candidates.

    Attributes:
        numbers: (N,) which of the catalogue; item_ids: their ids.
        neighbours: (N, C) ``text_neighbours`` among the candidates.
        places: how many of them a list may hold.
    """

    numbers: npt.NDArray[np.int64]
    item_ids: tuple[str, ...]
    neighbours: sparse.csr_array
    places: int

    @classmethod
    def of(cls, week: RankingWeek, vectors: Floats, places: int) -> NewItems:
        """Those of the lists for the week after ``week``; none without ``places``. vectors: (I, d) of the catalogue."""
        had = week.sequences.before(week.start_us + MICROSECONDS_PER_WEEK).items
        numbers = np.setdiff1d(np.arange(len(vectors) if places else 0), had)
        neighbours = text_neighbours(vectors[week.history.candidates], vectors[numbers])
        return cls(numbers, tuple(week.sequences.item_ids[numbers].tolist()), neighbours, places)

    def beside(self, score: Score, added: Floats) -> Score:
        """Scores of candidates and, behind them, of the new items; -inf for those that a list has no place for.

        Args:
            score: rows -> (rows, C) logarithms of how likely an item is, up to a constant of the row.
            added: (C + N,) what the rules add, by which the best new items are told.
        """
        if not self.item_ids:
            return score

        def scores(rows: npt.NDArray[np.int64]) -> Floats:
            known = score(rows)
            best = known.max(axis=1, keepdims=True)
            with np.errstate(divide="ignore"):
                new = np.log(new_item_scores(np.exp(known - best), self.neighbours)) + best
            wanted = new + added[known.shape[1] :]
            new[hidden_beyond_cap(wanted, np.ones(new.shape[1], np.bool_), self.places)] = -np.inf
            return np.concatenate([known, new], axis=1)

        return scores

    def nearest_had(self, had: Pairs, rows: npt.NDArray[np.int64], new: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """For each user and new item, the candidate that the user had and that is nearest to it by text; -1 for none."""
        shape = (len(had.offsets) - 1, self.neighbours.shape[1])
        owned = sparse.csr_array((np.ones(len(had.items), np.float32), had.items, had.offsets), shape=shape)
        near = (self.neighbours[new] * owned[rows]).tocsr()
        return np.where(near.max(axis=1).toarray().ravel() > 0, near.argmax(axis=1), -1) if len(new) else new


def text_neighbours(
    vectors: Floats, new: Floats, neighbours: int = NEIGHBOURS, shrinkage: float = 1.0
) -> sparse.csr_array:
    """(N, C) float32 weights of the ``neighbours`` known items whose texts are nearest to that of each new one.

    A weight is a power of the cosine (case amplification; Breese, Heckerman & Kadie 1998). Weights of a new item sum to
    one, or to less by ``shrinkage``, which counts like further neighbours of cosine one that nobody wants: an item unlike
    all others is then expected to be wanted less. Equal cosines are taken in the order of the known items.

    Args:
        vectors: (C, d) text vectors of the known items; new: (N, d) those of the new ones.
    """
    known, count = _unit(vectors), min(neighbours, len(vectors))
    parts = []
    for start in range(0, len(new), _BLOCK):
        cosine = _unit(new[start : start + _BLOCK]) @ known.T
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
        weight = np.maximum(np.take_along_axis(cosine, nearest, axis=1), 0) ** _SHARPNESS
        total = weight.sum(axis=1, keepdims=True) + np.float32(shrinkage)
        share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
        offsets = np.arange(len(nearest) + 1) * count
        shape = (len(nearest), len(known))
        parts.append(sparse.csr_array((share.ravel(), nearest.ravel(), offsets), shape=shape))
    return sparse.vstack(parts, format="csr") if parts else sparse.csr_array((0, len(known)), dtype=np.float32)


def new_item_scores(scores: Floats, neighbours: sparse.csr_array) -> Floats:
    """(B, N) scores of the new items: the weighted mean of their neighbours' (B, C) scores.

    Means are of amounts, so scores have to be (expected days, probabilities), not logarithms.
    """
    return np.ascontiguousarray((neighbours @ scores.T).T, np.float32)


def hidden_beyond_cap(scores: Floats, new: npt.NDArray[np.bool_], cap: int) -> npt.NDArray[np.bool_]:
    """(B, C) new items that a list must not hold, because ``cap`` better new ones come first in it; ties in item order.

    Args:
        scores: (B, C) of known and new items together; new: (C,) which of them are new.
    """
    columns = np.flatnonzero(new)
    order = np.argsort(-scores[:, columns], axis=1, kind="stable")
    hidden = np.repeat(new[None], len(scores), axis=0)
    np.put_along_axis(hidden, columns[order[:, :cap]], False, axis=1)
    return hidden


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
