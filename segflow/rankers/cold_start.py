"""What to show users of whom little or nothing is known: segment -> content -> social -> popularity.

One idea in four steps. What a group of known users had lately is the mean of their decayed days with each item; a thin
group is drawn to what lies below it, which counts like `shrinkage` further members (the posterior mean under a conjugate
prior; Gelman et al. 2013, Bayesian Data Analysis, ch. 5). The groups of the steps, from general to preferred:

- popularity: everybody;
- social: the user's contacts, by the strength of the tie;
- content: for each item the user had, those who had it too, by how lately (conditional probability of item-to-item
  recommendation; Deshpande & Karypis 2004), averaged over the user's items. It holds the item itself, hence repeats;
- segment: the members of the user's segments, by the user's membership probabilities. Placed by its events, or by its
  attributes alone: the two are trusted apart.

A step whose shrinkage is infinite is off, and so it is for users that it knows nothing of: they get what lies below.
Scores of all steps are expected decayed days, so they compare within a list whatever the step.

Lives here: the fitted groups, what is known of a cold user, and scoring. Does not live here: which steps earn their place
(`cold_validation.py`), segments from attributes (`attributes.py`), and items without events (`new_items.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import inf, isfinite

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from scipy import sparse

from segflow.rankers.features import Features

Floats = npt.NDArray[np.float32]

STEPS = ("segment", "content", "social", "popularity")
HALF_LIFE_DAYS = 14.0
"""Age at which a day with an item counts half. Between 7 and 120 it decides little."""

_SEGMENT, _CONTENT, _SOCIAL, _POPULARITY = range(len(STEPS))
_BLOCK = 4096
_FEWEST_DAYS = np.float32(1e-30)


@dataclass(frozen=True)
class Shrinkage:
    """How many members what lies below counts like, for each step; infinite: the step is off.

    Content alone is on by itself: it needs nothing but events. The others have to show what they are worth.
    """

    social: float = inf
    content: float = 30.0
    attributes: float = inf  # the segment of users without events
    segment: float = inf  # the segment of users with events

    def __post_init__(self) -> None:
        for one in fields(self):
            if not getattr(self, one.name) > 0:
                raise ValueError(f"shrinkage {one.name} must be above zero, got {getattr(self, one.name)}")


@dataclass(frozen=True)
class ColdUsers:
    """What is known of B users before the cut; where nothing is, the row is empty.

    Attributes:
        days: (B, C) decayed days with each candidate.
        segments: (B, S) membership probabilities; a row may sum to less than one.
        contacts: (B, U) strength of the tie to each user that the groups were made of.
    """

    days: sparse.csr_array
    segments: Floats | None = None
    contacts: sparse.csr_array | None = None

    def __len__(self) -> int:
        return int(self.days.shape[0])


@dataclass(frozen=True)
class Fallbacks:
    """Sums of decayed days over groups of known users, and how many members the groups have.

    Attributes:
        popularity: (C,) mean decayed days of everybody.
        by_item: (C, C) row i: sum over the users by their decayed days with item i; of_item: (C,) sum of the latter.
        by_segment: (S, C) row s: sum over the members by their probability; of_segment: (S,) sum of the latter.
        days: (U, C) decayed days of each user, which contacts are looked up in; none after a round trip through bytes,
            which name no user, and social is off then.
    """

    popularity: Floats
    by_item: Floats
    of_item: Floats
    by_segment: Floats
    of_segment: Floats
    shrinkage: Shrinkage = field(default_factory=Shrinkage)
    days: sparse.csr_array | None = None

    def to_bytes(self) -> bytes:
        """Safetensors of everything but single users' days."""
        strengths = np.array([getattr(self.shrinkage, one.name) for one in fields(Shrinkage)])
        return save_tensors({name: getattr(self, name) for name in _ARRAYS} | {"shrinkage": strengths})

    @classmethod
    def from_bytes(cls, data: bytes) -> Fallbacks:
        """The inverse of ``to_bytes``."""
        tensors = load_tensors(data)
        return cls(**{name: tensors[name] for name in _ARRAYS}, shrinkage=Shrinkage(*tensors["shrinkage"].tolist()))


_ARRAYS = ("popularity", "by_item", "of_item", "by_segment", "of_segment")


def known_days(features: Features) -> sparse.csr_array:
    """(U, C) float32 decayed days of each user with each candidate, by the half-life that the features were made with."""
    shape = (len(features.pairs.offsets) - 1, len(features.popularity))
    return sparse.csr_array((features.frequency, features.pairs.items, features.pairs.offsets), shape=shape)


def fit_fallbacks(
    days: sparse.csr_array,
    segments: Floats | None = None,
    shrinkage: Shrinkage | None = None,
    users: npt.NDArray[np.int64] | None = None,
) -> Fallbacks:
    """The groups of known users.

    Args:
        days: (U, C) what they had before the cut (`known_days` of features with a half-life of HALF_LIFE_DAYS).
        segments: (U, S) their membership probabilities.
        users: rows to learn from; all if not given. Nothing of the others is kept.
    """
    count, items = days.shape
    rows = np.arange(count) if users is None else np.sort(users)
    by_item = np.zeros((items, items), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = days[rows[start : start + _BLOCK]].toarray().astype(np.float32, copy=False)
        by_item += block.T @ block
    learned = sparse.diags_array(np.isin(np.arange(count), rows).astype(np.float32)).tocsr() @ days
    learned.eliminate_zeros()
    members = np.zeros((count, 0), np.float32) if segments is None else segments
    total = np.asarray(learned.sum(axis=0), np.float64)
    return Fallbacks(
        popularity=(total / max(len(rows), 1)).astype(np.float32),
        by_item=by_item,
        of_item=total.astype(np.float32),
        by_segment=np.ascontiguousarray((learned.T @ members).T, np.float32),
        of_segment=members[rows].sum(axis=0, dtype=np.float64).astype(np.float32),
        shrinkage=shrinkage or Shrinkage(),
        days=learned,
    )


def fallback_scores(known: Fallbacks, users: ColdUsers) -> tuple[Floats, npt.NDArray[np.int8]]:
    """(B, C) expected decayed days, and (B,) the step in STEPS that each user's answer comes from."""
    scores = np.repeat(known.popularity[None], len(users), axis=0)
    step = np.full(len(users), _POPULARITY, np.int8)
    trust = known.shrinkage
    if users.contacts is not None and known.days is not None and isfinite(trust.social):
        # A contact of whom nothing is known says nothing.
        active = (np.diff(known.days.indptr) > 0).astype(np.float32)
        strength = np.asarray(users.contacts @ active)
        found = np.flatnonzero(strength > 0)
        sums = (users.contacts[found] @ known.days).toarray()
        scores[found] = (sums + trust.social * scores[found]) / (strength[found] + trust.social)[:, None]
        step[found] = _SOCIAL
    weight = np.asarray(users.days.sum(axis=1))
    # An item that nobody else has says nothing of what else to show.
    eventful = (np.asarray(users.days @ (known.of_item > 0).astype(np.float32)) > 0) & (weight > 0)
    if isfinite(trust.content) and eventful.any():
        shares = users.days[eventful].toarray().astype(np.float32) / weight[eventful, None]
        scores[eventful] = _drawn(scores[eventful], shares, known.by_item, known.of_item, trust.content)
        step[eventful] = _CONTENT
    if users.segments is not None:
        placed = users.segments.sum(axis=1) > 0
        for chosen, drawn in ((placed & (weight > 0), trust.segment), (placed & (weight == 0), trust.attributes)):
            if isfinite(drawn) and chosen.any():
                mixture = users.segments[chosen]
                scores[chosen] = _drawn(scores[chosen], mixture, known.by_segment, known.of_segment, drawn)
                step[chosen] = _SEGMENT
    return scores.astype(np.float32, copy=False), step


def log_scores(days: Floats) -> Floats:
    """Expected days as scores that rules add to: their logarithms, as those of the rankers are."""
    return np.log(np.maximum(days, _FEWEST_DAYS))


def _drawn(below: Floats, mixture: Floats, sums: Floats, members: Floats, shrinkage: float) -> Floats:
    """Means of groups drawn to ``below`` (B, C), mixed: (B, G) shares of the groups, (G, C) sums, (G,) members."""
    whole = members + np.float32(shrinkage)
    # What the shares lack to one, and what the shrinkage takes of each group, goes to what lies below.
    rest = 1 - mixture @ (members / whole)
    return mixture @ (sums / whole[:, None]) + rest[:, None] * below


def contact_weights(edges: pa.Table, users: Sequence[str], known: Sequence[str]) -> sparse.csr_array:
    """(B, U) strength of the ties of ``users`` to ``known`` users, from rows of `user_edges`; other ties are left out."""
    row, place = ({user: number for number, user in enumerate(some)} for some in (users, known))
    columns = (edges[name].to_pylist() for name in ("user_id", "other_id", "weight"))
    ties = {
        (row[user], place[other]): weight
        for user, other, weight in zip(*columns, strict=True)
        if user in row and other in place
    }
    values, cells = np.array([*ties.values()], np.float32), np.array([*ties], np.int64).reshape(-1, 2)
    made = sparse.csr_array((values, (cells[:, 0], cells[:, 1])), shape=(len(users), len(known)))
    made.sort_indices()
    return made
