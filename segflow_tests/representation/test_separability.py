"""Each view finds the segments that only it can see, and none of the others does: an ablation on three planted logs."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from segflow.config import BehaviorConfig, TextConfig, UserEmbeddingConfig
from segflow.representation.behavior import fit_behavior_model
from segflow.representation.encoder import Encoder
from segflow.representation.histories import Histories
from segflow.representation.sequences import EventSequences
from segflow.representation.views import UserViews, ViewSources, fuse_views, make_views, session_pools
from segflow_tests.representation.separable import END, SEGMENTS, Kind, SeparableLog, separable_log

MATCHING = {"text": "text", "rhythm": "engagement", "order": "behavior"}
CONFIG = UserEmbeddingConfig()
SMALL = {"width": 16, "layers": 1, "heads": 2, "context": 24, "epochs": 6, "batch_moments": 512, "learning_rate": 0.01}


@cache
def log_of(kind: Kind) -> SeparableLog:
    return separable_log(kind)


@cache
def item_vectors(kind: Kind) -> np.ndarray:
    texts = list(log_of(kind).item_texts.values())
    distinct = sorted(set(texts))
    vectors = Encoder.load(TextConfig()).encode(distinct)
    return vectors[[distinct.index(text) for text in texts]]


@cache
def views_of(kind: Kind, *inputs: str) -> UserViews:
    """Views of a log; the behaviour model is given `inputs` only."""
    log = log_of(kind)
    ids = list(log.item_texts)
    sequences = EventSequences.from_arrow(log.events, ids, ("cart", "purchase", "search", "view"))
    behavior = BehaviorConfig(inputs=list(inputs), **SMALL)
    model = fit_behavior_model(sequences, item_vectors(kind), behavior, seed=0)
    pools = {"text": [session_pools(log.sessions, ids, item_vectors(kind))]}
    return make_views(ViewSources([Histories(log.events, log.sessions, sequences)], pools, model), END, CONFIG)


def found(kind: Kind, views: UserViews, view: str) -> float:
    """Adjusted Rand index of k-means on one view, fused as it is for segments, with the planted segments."""
    vectors = fuse_views(views, [view], CONFIG).matrix
    labels = KMeans(SEGMENTS, n_init=10, random_state=0).fit_predict(vectors)
    return float(adjusted_rand_score(log_of(kind).truth, labels))


@pytest.mark.parametrize("kind", MATCHING)
@pytest.mark.parametrize("view", ["text", "behavior", "engagement"])
def test_planted_segments_are_seen_by_the_matching_view_only(kind: Kind, view: str):
    index = found(kind, views_of(kind, "item", "event_type"), view)
    if MATCHING[kind] == view:
        assert index >= 0.8
    else:
        assert index < 0.2


def test_with_all_its_inputs_the_behavior_model_sees_the_rhythm_too():
    """The ablation above keeps hours and gaps from the model; by default it is given them, and its view is no longer blind."""
    everything = BehaviorConfig().inputs
    blind = found("rhythm", views_of("rhythm", "item", "event_type"), "behavior")
    assert found("rhythm", views_of("rhythm", *everything), "behavior") > blind + 0.2
