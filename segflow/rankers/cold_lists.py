"""Lists for users of whom the log holds no event: those that attributes or ties name, and nothing else.

Which of the fallback's steps answer is decided by users who are known and were made cold in the snapshot week, so ties and
attributes count only where they have shown what they are worth. Lives here: the table's rows of such users. Does not live
here: the steps (`cold_start.py`), and how they are judged (`cold_validation.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from segflow.config import RecommendationConfig
from segflow.rankers.attributes import Attributes, fit_attribute_model
from segflow.rankers.cold_start import (
    HALF_LIFE_DAYS,
    STEPS,
    ColdUsers,
    Fallbacks,
    Floats,
    Shrinkage,
    contact_weights,
    fallback_scores,
    fit_fallbacks,
    known_days,
    log_scores,
)
from segflow.rankers.cold_validation import Placement, Rows, Trial, choose_shrinkage, simulated_week
from segflow.rankers.recommend import Lists, Shown, list_rows, make_lists
from segflow.rankers.rules import Rules
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.sequences import MICROSECONDS_PER_WEEK

_BLOCK = 4096
_WORDS = {
    "contacts": "Chosen by people you know",
    "popular": "Popular lately",
    "segment": "Popular with users like you",
}


@dataclass(frozen=True)
class Strangers:
    """What is known of users beside the log.

    Attributes:
        attributes: user -> attribute -> value, of all users that have any.
        edges: rows of `user_edges`.
        members: user -> segment and membership probability, of users in the log.
        seed: of what is drawn when steps are judged.
    """

    attributes: Mapping[str, Attributes]
    edges: pa.Table
    members: Mapping[str, tuple[str, float]]
    seed: int

    def without_events(self, known: Sequence[str]) -> list[str]:
        """Users that attributes or ties name and the log does not, ascending."""
        named = {*self.attributes, *self.edges["user_id"].to_pylist()}
        return sorted(named - set(known))


@dataclass(frozen=True)
class ColdLists:
    """Rows of `recommendations` without the week, and how each step was judged."""

    rows: pa.Table
    users: int
    trials: Sequence[Trial]


def cold_rows(
    week: RankingWeek, strangers: Strangers, shown: Shown, config: RecommendationConfig, rules: Rules
) -> ColdLists | None:
    """Lists of the users without events for the week after the snapshot week; none if there are no such users."""
    known = [str(user) for user in week.sequences.user_ids]
    users = strangers.without_events(known)
    if not users:
        return None
    chain = _Chain.of(week, strangers, known)
    shrinkage, trials = chain.judged()
    fallbacks = chain.fitted(shrinkage)
    cold = chain.cold(users)

    def score(rows: Rows) -> Floats:
        return log_scores(fallback_scores(fallbacks, _taken(cold, rows))[0])

    def nothing_had(rows: Rows) -> tuple[Rows, Rows]:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)

    everybody, candidates = np.arange(len(users)), len(week.candidate_ids)
    lists = make_lists(shown.new.beside(score, rules.added), everybody, config, rules, shown.vectors, nothing_had)
    # A block at a time: scores of everybody at once may not fit.
    blocks = np.split(everybody, np.arange(_BLOCK, len(users), _BLOCK))
    step = np.concatenate([fallback_scores(fallbacks, _taken(cold, rows))[1] for rows in blocks])
    code = _reasons(fallbacks, cold, step, lists.where(lists.item < candidates))
    words = [_WORDS[one] for one in code]
    rows = list_rows(
        lists,
        week,
        shown,
        users=users,
        arms=[f"cold: {STEPS[one]}" for one in step],
        segments=["unassigned"] * len(users),
        reasons=(pa.array(code, pa.string()), pa.nulls(len(code), pa.string()), pa.array(words, pa.string())),
        nearest=np.full(int((lists.item >= candidates).sum()), -1),
    )
    return ColdLists(rows, len(np.unique(lists.row)), trials)


def judged_steps(week: RankingWeek, strangers: Strangers) -> tuple[Shrinkage, list[Trial]]:
    """The chain of the steps that earned their place in the snapshot week, and how each was judged."""
    return _Chain.of(week, strangers, [str(user) for user in week.sequences.user_ids]).judged()


@dataclass(frozen=True)
class _Chain:
    week: RankingWeek
    strangers: Strangers
    known: list[str]
    segments: list[str]

    @classmethod
    def of(cls, week: RankingWeek, strangers: Strangers, known: list[str]) -> _Chain:
        return cls(week, strangers, known, sorted({segment for segment, _ in strangers.members.values()}))

    def judged(self) -> tuple[Shrinkage, list[Trial]]:
        """The snapshot week judges: what came after it is not known yet."""
        if not self.strangers.edges.num_rows and not (self.segments and self.strangers.attributes):
            return Shrinkage(), []
        simulated = simulated_week(
            self.week.history,
            self.week.start_us,
            place=self._placed if self.segments else None,
            contacts=contact_weights(self.strangers.edges, self.known, self.known),
            seed=self.strangers.seed,
        )
        # Who has events is no such user.
        return choose_shrinkage(replace(one, cases=_without_events(one.cases)) for one in simulated)

    def fitted(self, shrinkage: Shrinkage) -> Fallbacks:
        features = self.week.history.at(self.week.start_us + MICROSECONDS_PER_WEEK, HALF_LIFE_DAYS)
        return fit_fallbacks(known_days(features), self._members(), shrinkage)

    def cold(self, users: Sequence[str]) -> ColdUsers:
        nothing = sparse.csr_array((len(users), len(self.week.candidate_ids)), dtype=np.float32)
        ties = contact_weights(self.strangers.edges, users, self.known)
        return ColdUsers(nothing, self._by_attributes(users, np.arange(len(self.known))), ties)

    def _members(self) -> Floats:
        place = {segment: number for number, segment in enumerate(self.segments)}
        members = np.zeros((len(self.known), len(self.segments)), np.float32)
        for row, user in enumerate(self.known):
            if user in self.strangers.members:
                segment, share = self.strangers.members[user]
                members[row, place[segment]] = share
        return members

    def _placed(self, rest: Rows) -> Placement:
        return Placement(
            self._members(),
            by_attributes=lambda cold: self._by_attributes([self.known[row] for row in cold], rest),
        )

    def _by_attributes(self, users: Sequence[str], taught: Rows) -> Floats:
        """(B, S) segments by attributes as the users ``taught`` have them; zero where attributes tell nothing."""
        place = {segment: number for number, segment in enumerate(self.segments)}
        teachers = [user for user in (self.known[row] for row in taught) if user in self.strangers.members]
        segment_of = {user: place[self.strangers.members[user][0]] for user in teachers}
        attributes = self.strangers.attributes
        model = fit_attribute_model(attributes, segment_of, len(place), self.strangers.seed) if place else None
        if model is None or not model.better_than_prior:
            return np.zeros((len(users), len(place)), np.float32)
        return model.probabilities([attributes.get(user, {}) for user in users])


def _without_events(cases: Mapping[str, ColdUsers]) -> dict[str, ColdUsers]:
    return {case: users for case, users in cases.items() if case in ("social", "attributes")}


def _taken(cold: ColdUsers, rows: Rows) -> ColdUsers:
    contacts, segments = cold.contacts, cold.segments
    return ColdUsers(
        cold.days[rows], None if segments is None else segments[rows], None if contacts is None else contacts[rows]
    )


def _reasons(known: Fallbacks, cold: ColdUsers, step: npt.NDArray[np.int8], lists: Lists) -> list[str]:
    """For each place of the lists what holds of it: a contact had the item, or many had, by the step."""
    of_contacts = np.zeros(len(lists.row), bool)
    if cold.contacts is not None and known.days is not None:
        for start in range(0, len(lists.row), _BLOCK):
            rows, items = lists.row[start : start + _BLOCK], lists.item[start : start + _BLOCK]
            users, place = np.unique(rows, return_inverse=True)
            of_contacts[start : start + _BLOCK] = (cold.contacts[users] @ known.days).toarray()[place, items] > 0
    names = np.where(step == STEPS.index("segment"), "segment", "popular")[lists.row]
    return np.where((step == STEPS.index("social"))[lists.row] & of_contacts, "contacts", names).tolist()
