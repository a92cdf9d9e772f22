"""Which steps of the fallback chain earn their place: known users are made cold, and the week that follows judges.

Lives here: hiding what is known of users, scoring them under every setting, and the choice. Does not live here: the chain.

Users are cold in turns: those of one fold are scored by groups of all users but them. Each step is judged on users of
whom nothing is known but what it needs, against what they would get without it, by NDCG@10 over all candidates. A step is
on if the paired 95 % interval of its gain lies above zero; else it stays off, whatever its best setting promised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf

import numpy as np
import numpy.typing as npt
from scipy import sparse

from segflow.rankers.cold_start import (
    HALF_LIFE_DAYS,
    STEPS,
    ColdUsers,
    Fallbacks,
    Floats,
    Shrinkage,
    fallback_scores,
    fit_fallbacks,
    known_days,
)
from segflow.rankers.features import ItemHistory
from segflow.rankers.top import top_items
from segflow.representation.sequences import MICROSECONDS_PER_WEEK

Rows = npt.NDArray[np.int64]
_Values = tuple[Rows, npt.NDArray[np.float64]]

GRID = (3.0, 30.0, 300.0)
"""Shrinkages that are tried for each step."""
OFF = Shrinkage(content=inf)

_CUTOFF = 10
_SURE = 1.96
_STEP_OF_CASE = {"social": "social", "content": "content", "attributes": "segment", "segment": "segment"}


@dataclass(frozen=True)
class Placement:
    """Segments as users outside a fold know them.

    Attributes:
        members: (U, S) membership probabilities; only the rows of users outside the fold are read.
        by_events: (B, C) days of cold users -> (B, S); if not given, the mean over the users who had the same items.
        by_attributes: rows of cold users -> (B, S), a zero row for users without attributes.
    """

    members: Floats
    by_events: Callable[[sparse.csr_array], Floats] | None = None
    by_attributes: Callable[[Rows], Floats] | None = None


@dataclass(frozen=True)
class Simulated:
    """B cold users whose next week is known.

    Attributes:
        known: the groups without these users.
        cases: setting of Shrinkage -> the users as they are if nothing is known but what this step needs.
        wanted: (B, C) what they had in the week.
        rows: (B,) who they are; a user who is asked in several weeks counts once, with the mean.
    """

    known: Fallbacks
    cases: Mapping[str, ColdUsers]
    wanted: npt.NDArray[np.bool_]
    rows: Rows


@dataclass(frozen=True)
class Trial:
    """A step under its best shrinkage, on cold users it knows something of: mean NDCG@10 with it and without it."""

    step: str
    shrinkage: float
    users: int
    ndcg: float
    below: float
    error: float  # standard error of the paired difference

    @property
    def earned(self) -> bool:
        """Whether the paired 95 % interval of the gain lies above zero."""
        return self.ndcg - self.below > _SURE * self.error


def simulated_week(
    history: ItemHistory,
    cut_us: int,
    *,
    place: Callable[[Rows], Placement] | None = None,
    contacts: sparse.csr_array | None = None,
    folds: int = 5,
    limit: int = 2000,
    seed: int = 0,
) -> Iterator[Simulated]:
    """Users who had something in the week from ``cut_us`` (a midnight), as if they had come to it with little or nothing.

    Args:
        place: rows of the users outside a fold -> the segments as these know them.
        contacts: (U, U) strength of ties.
        limit: most users that are made cold, drawn by ``seed``.
    """
    days = known_days(history.at(cut_us, HALF_LIFE_DAYS))
    week = history.had(cut_us, cut_us + MICROSECONDS_PER_WEEK)
    asked = np.random.default_rng(seed).permutation(np.flatnonzero(np.diff(week.offsets)))[:limit]
    for part in np.array_split(asked, folds):
        cold = np.sort(part)
        rest = np.setdiff1d(np.arange(history.users), cold)
        one = last_items(history, cut_us, cold, 1, seed)
        nothing = sparse.csr_array(one.shape, dtype=np.float32)
        cases = {"content": ColdUsers(one)}
        if contacts is not None:
            cases["social"] = ColdUsers(nothing, contacts=contacts[cold])
        members = None
        if place is not None:
            placement = place(rest)
            members = placement.members
            by_events = placement.by_events or _by_owners(days[rest], members[rest])
            cases["segment"] = ColdUsers(one, by_events(one))
            if placement.by_attributes is not None:
                cases["attributes"] = ColdUsers(nothing, placement.by_attributes(cold))
        yield Simulated(fit_fallbacks(days, members, users=rest), cases, week.dense(cold, days.shape[1]), cold)


def last_items(history: ItemHistory, cut_us: int, users: Rows, count: int, seed: int) -> sparse.csr_array:
    """(B, C) a one at each of the ``count`` items that a user had last before the cut; those of one day by chance."""
    user, item, day = history.known(cut_us)
    # Drawn for every row, so that a user's items do not depend on who else is asked.
    chance = np.random.default_rng(seed).random(len(user))
    own = np.isin(user, users)
    user, item, day, chance = user[own], item[own], day[own], chance[own]
    order = np.lexsort((chance, day, user))
    user, item = user[order], item[order]
    # Rows of a user end with the latest.
    latest = np.searchsorted(user, user, side="right") - np.arange(len(user)) <= count
    shape = (history.users, len(history.candidates))
    ones = np.ones(int(latest.sum()), np.float32)
    made = sparse.csr_array((ones, (user[latest], item[latest])), shape=shape)[users]
    # An item had on several of these days counts for each of them.
    made.sum_duplicates()
    return made


def choose_shrinkage(simulated: Iterable[Simulated]) -> tuple[Shrinkage, list[Trial]]:
    """The chain of the steps that earned their place, and how each was judged; from general to preferred."""
    mean = {key: _per_user(parts) for key, parts in _judged(simulated).items()}
    chosen, trials = OFF, []
    for case in ("social", "content", "attributes", "segment"):
        below = replace(OFF, content=chosen.content) if case == "segment" else OFF
        if (case, below) not in mean or len(mean[case, below]) < 2:
            continue
        tried = {strength: mean[case, replace(below, **{case: strength})] for strength in GRID}
        best = GRID[int(np.argmax([one.mean() for one in tried.values()]))]
        gain = tried[best] - mean[case, below]
        error = float(gain.std(ddof=1) / len(gain) ** 0.5)
        base = float(mean[case, below].mean())
        trials.append(Trial(case, best, len(gain), float(tried[best].mean()), base, error))
        if trials[-1].earned:
            chosen = replace(chosen, **{case: best})
    return chosen, trials


def _judged(simulated: Iterable[Simulated]) -> dict[tuple[str, Shrinkage], list[_Values]]:
    """NDCG@10 of the users of each case under each setting, part by part."""
    found: dict[tuple[str, Shrinkage], list[_Values]] = {}
    for one in simulated:
        for case, users in one.cases.items():
            reached = step_reached(one.known, users, case)
            wanted, rows = one.wanted[reached], one.rows[reached]
            for setting in _settings(case):
                scores, _ = fallback_scores(replace(one.known, shrinkage=setting), users)
                found.setdefault((case, setting), []).append((rows, ndcg(scores[reached], wanted)))
    return found


def step_reached(known: Fallbacks, users: ColdUsers, case: str) -> npt.NDArray[np.bool_]:
    """(B,) users whom the step knows something of."""
    _, step = fallback_scores(replace(known, shrinkage=replace(OFF, **{case: GRID[0]})), users)
    return step == STEPS.index(_STEP_OF_CASE[case])


def ndcg(scores: Floats, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """(B,) NDCG@10 with binary gains (Järvelin & Kekäläinen 2002); every row has something wanted. Ties in item order."""
    places, _ = top_items(scores, _CUTOFF)
    gains = 1 / np.log2(np.arange(2, places.shape[1] + 2))
    ideal = np.cumsum(gains)[np.minimum(wanted.sum(axis=1), len(gains)) - 1]
    return np.take_along_axis(wanted, places, axis=1) @ gains / ideal


def _settings(case: str) -> list[Shrinkage]:
    """With and without the step; the segment of users with events lies above content as it may be chosen."""
    below = [replace(OFF, content=strength) for strength in (*GRID, inf)] if case == "segment" else [OFF]
    return [*below, *(replace(one, **{case: strength}) for one in below for strength in GRID)]


def _by_owners(days: sparse.csr_array, members: Floats) -> Callable[[sparse.csr_array], Floats]:
    """Segments of users by their items: those of the users who had an item, by how lately, averaged over the items."""
    segments, weight = days.T @ members, np.asarray(days.sum(axis=0))
    share = (segments / np.maximum(weight, 1e-9)[:, None]).astype(np.float32)

    def by_events(cold: sparse.csr_array) -> Floats:
        return np.asarray(cold @ share / np.maximum(cold.sum(axis=1), 1e-9)[:, None], np.float32)

    return by_events


def _per_user(parts: list[_Values]) -> npt.NDArray[np.float64]:
    """The mean of each user over the weeks in which it was asked, in the order of the rows."""
    users, place = np.unique(np.concatenate([rows for rows, _ in parts]), return_inverse=True)
    values = np.concatenate([values for _, values in parts])
    return np.bincount(place, values, minlength=len(users)) / np.maximum(np.bincount(place, minlength=len(users)), 1)
