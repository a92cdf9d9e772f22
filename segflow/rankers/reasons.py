"""Why an item is in a list: a claim that holds in the data, and of those that hold the one that moved the score most.

Lives here: the claims, which of them is given, and its words. Does not live here: scores and lists.

What moved a score is told by a surrogate (after Ribeiro et al. 2016): least squares of the ranker's scores, within users, on
the few things that a claim can speak of. It knows nothing of how the ranker is built, so it serves any. A claim is given
only where its thing raised the score above that of the user's usual item; where none did, the reason says no more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segflow.rankers.facts import Facts
from segflow.tables.rankers import REASONS

Score = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]
_OFTEN, _DUE, _AGAIN, _TOGETHER, _LIKE, _SEGMENT, _POPULAR, _PROFILE, *_ = range(len(REASONS))
OFTEN_DAYS = 3
"""Days with an item from which a user has it often."""

_LEAST = 0.05
_BLOCK = 1024
_SAMPLE_USERS, _SAMPLE_PAIRS = 512, 3_000_000


@dataclass(frozen=True)
class Surrogate:
    """Least squares of scores on parts: ``usual`` are the parts' means, ``explained`` is the R² within users.

    ``spread`` is the standard deviation of a user's scores.
    """

    weights: npt.NDArray[np.float64]
    usual: npt.NDArray[np.float64]
    explained: float
    spread: float

    @classmethod
    def of(
        cls, parts: npt.NDArray[np.float64], scores: npt.NDArray[np.floating], owner: npt.NDArray[np.int64]
    ) -> Surrogate:
        """Fit to (n, k) parts and (n,) scores of the users ``owner``."""
        count = np.maximum(np.bincount(owner, minlength=1), 1)

        def within(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
            return np.asarray(values, np.float64) - (np.bincount(owner, values, minlength=len(count)) / count)[owner]

        columns = np.stack([within(column) for column in parts.T], axis=1)
        target = within(scores)
        weights = np.linalg.lstsq(columns.T @ columns, columns.T @ target, rcond=None)[0].astype(np.float64)
        total = float(target @ target)
        rest = target - columns @ weights
        usual: npt.NDArray[np.float64] = parts.sum(axis=0) / max(len(parts), 1)
        explained = 1 - float(rest @ rest) / total if total else 0.0
        return cls(weights, usual, explained, (total / max(len(scores), 1)) ** 0.5)

    def moved(self, parts: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """(n, k) by how much each part raised the score; 0 where that is little beside how much scores differ."""
        moved = (parts - self.usual) * self.weights
        return np.where(moved > _LEAST * self.spread, moved, 0.0)


@dataclass(frozen=True)
class Reasons:
    """One reason for each recommended item: code, the other item that it names, words; and the surrogates' R²."""

    code: pa.Array
    item: pa.Array
    text: pa.Array
    explained: dict[str, float]


def reasons_of(
    facts: Facts,
    score: Score,
    users: npt.NDArray[np.int64],
    items: npt.NDArray[np.int64],
    titles: Mapping[str, str],
    segment_names: Mapping[str, str],
) -> Reasons:
    """The reason for each recommended (user, item), users ascending.

    Args:
        score: users -> (users, C) scores that the lists were made of.
        titles: item id -> title; an item without one is called by its id.
        segment_names: segment -> name; a segment without one is called by its id.
    """
    again, new = _surrogates(facts, score)
    codes, others = [], []
    words: list[str] = []
    names = [titles.get(item) or item for item in facts.item_ids]
    for block in _blocks(users):
        code, other, pair = _reasons(facts, again, new, users[block], items[block])
        codes.append(code)
        others.append(other)
        words.extend(_words(facts, users[block], code, other, pair, names, segment_names))
    code = np.concatenate([np.zeros(0, np.int64), *codes])
    other = np.concatenate([np.zeros(0, np.int64), *others])
    return Reasons(
        code=pa.array(REASONS, pa.string()).take(pa.array(code)),
        item=pa.array(facts.item_ids, pa.string()).take(pa.array(other, mask=other < 0)),
        text=pa.array(words, pa.string()),
        explained={"had": again.explained, "new": new.explained},
    )


def _surrogates(facts: Facts, score: Score) -> tuple[Surrogate, Surrogate]:
    """Of items that the user had, and of new ones, from a fixed sample of users."""
    count, width = len(facts.group), len(facts.item_ids)
    most = min(count, _SAMPLE_USERS, max(1, _SAMPLE_PAIRS // width))
    sample = np.unique(np.linspace(0, count - 1, most).astype(np.int64))
    scores = np.concatenate([np.zeros((0, width), np.float32), *(score(part) for part in np.array_split(sample, 8))])
    pair, row = facts.had.take(sample)
    again = Surrogate.of(_had_parts(facts, pair), scores[row, facts.had.items[pair]], row)
    row, item = np.nonzero(~facts.had.dense(sample, width))
    parts = [_new_parts(facts, sample[row[k : k + 2**17]], item[k : k + 2**17])[0] for k in range(0, len(row), 2**17)]
    return again, Surrogate.of(np.concatenate([np.zeros((0, 3)), *parts]), scores[row, item], row)


def _reasons(
    facts: Facts, again: Surrogate, new: Surrogate, users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Code, the item named (-1 for none), and the pair of user and item (-1 for a new item)."""
    pair = facts.pair_of(users, items)
    code, other = np.full(len(items), _PROFILE), np.full(len(items), -1)
    old = np.flatnonzero(pair >= 0)
    moved = again.moved(_had_parts(facts, pair[old]))
    often = facts.days[pair[old]] >= OFTEN_DAYS
    code[old] = _first(moved, np.stack([often, facts.due[pair[old]]], axis=1), [_OFTEN, _DUE], _AGAIN)
    fresh = np.flatnonzero(pair < 0)
    parts, together, like = _new_parts(facts, users[fresh], items[fresh])
    group = facts.group[users[fresh]]
    of_segment, of_all = facts.popular[group, items[fresh]], facts.popular[-1, items[fresh]]
    holds = np.stack([together >= 0, like >= 0, of_segment | of_all], axis=1)
    found = _first(new.moved(parts), holds, [_TOGETHER, _LIKE, _SEGMENT], _PROFILE)
    outside = (group == len(facts.popular) - 1) | ~of_segment
    code[fresh] = np.where((found == _SEGMENT) & outside, _POPULAR, found)
    other[fresh] = np.select([found == _TOGETHER, found == _LIKE], [together, like], -1)
    return code, other, pair


def _first(
    moved: npt.NDArray[np.float64], holds: npt.NDArray[np.bool_], codes: list[int], otherwise: int
) -> npt.NDArray[np.int64]:
    """The code of the part that raised the score most among those whose claim holds."""
    moved = np.where(holds, moved, 0)
    return np.where(moved.max(axis=1) > 0, np.array(codes)[moved.argmax(axis=1)], otherwise)


def _had_parts(facts: Facts, pair: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.stack([np.log(facts.frequency[pair] + 0.02), facts.due[pair]], axis=1).astype(np.float64)


def _new_parts(
    facts: Facts, users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(n, 3) parts of new items, and the items that the first two name (-1 for none); users ascending."""
    together, partner = facts.partners.of(facts.had, users, items)
    alike, nearest = facts.nearest.of(facts.had, users, items)
    share = facts.log_share[facts.group[users], items]
    return np.stack([together, alike, share], axis=1).astype(np.float64), partner, nearest


def _blocks(users: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Slices of rows that hold a thousand users each, or fewer."""
    edges = np.searchsorted(users, np.arange(0, users.max(initial=-1) + 1 + _BLOCK, _BLOCK))
    for start, stop in pairwise(edges.tolist()):
        if stop > start:
            yield slice(start, stop)


def _words(
    facts: Facts,
    users: npt.NDArray[np.int64],
    code: npt.NDArray[np.int64],
    other: npt.NDArray[np.int64],
    pair: npt.NDArray[np.int64],
    names: list[str],
    segment_names: Mapping[str, str],
) -> Iterator[str]:
    segments = [segment_names.get(segment, segment) for segment in facts.segments]
    days, since, every = (values[pair].tolist() for values in (facts.days, facts.since, facts.interval))
    groups = facts.group[users].tolist()
    for row, (one, item) in enumerate(zip(code.tolist(), other.tolist(), strict=True)):
        if one == _OFTEN:
            yield f"You often choose it: on {days[row]} days so far, last {_ago(since[row])}"
        elif one == _DUE:
            yield f"Due again: last {_ago(since[row])}, usually every {every[row]:.0f} days"
        elif one == _AGAIN:
            yield f"You chose it {_ago(since[row])}"
        elif one == _TOGETHER:
            yield f"Often chosen with {names[item]}"
        elif one == _LIKE:
            yield f"Like {names[item]}"
        elif one == _SEGMENT:
            yield f"Popular in {segments[groups[row]]}"
        else:
            yield "Popular in the last four weeks" if one == _POPULAR else "Chosen by the ranker for you"


def _ago(days: int) -> str:
    return f"{days} day{'s' if days != 1 else ''} ago"
