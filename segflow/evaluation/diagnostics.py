"""What the ranker lives by: the same ranker without the order of things, and how much is known of each test user.

What lives here: what needs models or event histories, for `ranking_results`. What does not: the figures that are made of its rows
(groups.py, controls.py).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from segflow.evaluation.controls import SHUFFLED
from segflow.evaluation.protocol import Arm, ranker_arms
from segflow.rankers.examples import Examples
from segflow.rankers.global_ranker import GlobalRanker
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.moments import expand, find_moments
from segflow.representation.sequences import MICROSECONDS_PER_DAY, MICROSECONDS_PER_WEEK, EventSequences


def shuffled_arm(week: RankingWeek, examples: Examples, ranker: GlobalRanker, seed: int) -> Arm:
    """The global ranker for test users whose histories were shuffled before the behaviour model read them.

    Whether there is a sequence at all (Klenitskiy, Volodkevich, Pembek & Vasilev 2024, "Does It Look Sequential? An Analysis
    of Datasets for Evaluation of Sequential Recommendations", RecSys): where the order of a history tells nothing, ranking
    is as good without it. Only the state of the backbone changes. Counts, recency, trends and the simple scorers stay as
    they are, so this is what the order adds *beside them*.
    """
    cut = week.start_us + MICROSECONDS_PER_WEEK
    history = shuffled_moments(week.sequences.before(cut), seed)
    cuts = np.full(len(examples), cut, np.int64)
    states = week.backbone.states(history, cuts, examples.users, "last")
    (arm,) = ranker_arms(ranker, replace(examples, states=states), {SHUFFLED: None})
    return arm


def shuffled_moments(sequences: EventSequences, seed: int) -> EventSequences:
    """Each user's moments in random order: a timestamp stays, what happened at it is that of another of the user's moments.

    Events of one moment stay together. The behaviour model reads the last moments, which then come from anywhere in
    the history.
    """
    moments = find_moments(sequences, session_gap_minutes=0.0)
    owner = np.repeat(np.arange(len(sequences.user_ids)), np.diff(moments.offsets))
    order = np.lexsort((np.random.default_rng(seed).random(len(owner)), owner))
    events, place = expand(moments.events[order], moments.events[order + 1])
    return replace(
        sequences,
        items=sequences.items[events],
        types=sequences.types[events],
        values=sequences.values[events],
        times=moments.times[place],
    )


def active_days(sequences: EventSequences, cut_us: int) -> npt.NDArray[np.int64]:
    """(U,) days (UTC) before `cut_us` on which each user had any event."""
    before = sequences.before(cut_us)
    day = before.times // MICROSECONDS_PER_DAY
    first, span = (int(day.min()), int(np.ptp(day)) + 1) if len(day) else (0, 1)
    distinct = np.unique(before.user_of_event * span + day - first)
    return np.bincount(distinct // span, minlength=len(sequences.user_ids))
