"""From a log to the probe's verdict: what words and the order of events announce, vectors tell and counts do not.

Vectors of single words stand in for the language model, whose loading would take longer than all else.
"""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest

from segflow.config import BehaviorConfig, ProbeConfig, UserEmbeddingConfig
from segflow.representation.autoencoder import autoencode
from segflow.representation.baselines import aggregated_features
from segflow.representation.behavior import fit_behavior_model
from segflow.representation.histories import Histories
from segflow.representation.probe import AGGREGATED, AUTOENCODER, outcomes_of, probe
from segflow.representation.probe_rows import ProbeRow
from segflow.representation.sequences import EventSequences
from segflow.representation.views import ViewSources, make_views, session_pools
from segflow_tests.representation.foretold import EVENT_TYPES, foretold_log

BEHAVIOR = BehaviorConfig(width=32, layers=2, heads=4, context=32, epochs=3, learning_rate=0.01)
USERS = UserEmbeddingConfig()
PROBE = ProbeConfig(autoencoder_epochs=2)


def word_vectors(texts: list[str]) -> np.ndarray:
    words = sorted({word for text in texts for word in text.split()})
    vector_of = dict(zip(words, np.random.default_rng(0).normal(size=(len(words), 32)), strict=True))
    return np.stack([sum(vector_of[word] for word in text.split()) for text in texts]).astype(np.float32)


@pytest.fixture(scope="module")
def rows() -> list[ProbeRow]:
    log = foretold_log(users=800)
    history, week = (log.events.filter(one(log.events["ts"], log.week)) for one in (pc.less, pc.greater_equal))
    sessions = log.sessions.filter(pc.less(log.sessions["start"], log.week))
    ids = list(log.item_texts)
    vectors = word_vectors(list(log.item_texts.values()))
    sequences = EventSequences.from_arrow(history, ids, EVENT_TYPES)
    model = fit_behavior_model(sequences, vectors, BEHAVIOR, seed=0)
    pools = {"text": [session_pools(sessions, ids, vectors)]}
    views = make_views(ViewSources([Histories(history, sessions, sequences)], pools, model), log.week, USERS)
    outcomes = outcomes_of(history, week, views, log.week, PROBE, seed=0)
    baselines = {
        AGGREGATED: aggregated_features(history, views.user_ids, log.week).matrix,
        AUTOENCODER: autoencode(sequences, views.user_ids, PROBE, seed=0),
    }
    return probe(views, outcomes, baselines, USERS, PROBE, seed=0)


def row_of(rows: list[ProbeRow], candidate: str, task: str) -> ProbeRow:
    return next(row for row in rows if (row.candidate, row.task) == (candidate, task))


@pytest.mark.parametrize("task", ["churn", "spend", "mean"])
def test_the_fusion_beats_aggregates_and_the_autoencoder(rows: list[ProbeRow], task: str):
    fused = row_of(rows, "text + behavior + engagement", task)
    assert fused.difference_low > 0
    assert fused.score > row_of(rows, AUTOENCODER, task).high


def test_aggregates_are_no_straw_man(rows: list[ProbeRow]):
    """They see who has been gone for long, who buys a lot, and by recent categories something of the style."""
    assert row_of(rows, AGGREGATED, "churn").low > 0.7
    assert row_of(rows, AGGREGATED, "category").low > 0.65
    assert row_of(rows, AGGREGATED, "spend").low > 0.4


def test_each_view_adds_what_only_it_can_see(rows: list[ProbeRow]):
    engagement = row_of(rows, "engagement", "category")
    assert row_of(rows, "text + engagement", "category").score > engagement.score + 0.02
    engagement = row_of(rows, "engagement", "churn")
    assert row_of(rows, "behavior + engagement", "churn").score > engagement.score + 0.02
    assert "behavior" in next(row for row in rows if row.chosen).views
