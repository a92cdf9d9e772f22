"""The benchmark itself: small sizes run, and targets hold or not by what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segflow.config import TextConfig
from segflow.datasets.shop import Shop
from segflow.representation.encoder import Encoder
from segflow_tests.benchmarks.bench_representation import encoding, of_log, of_texts, pooling, same_vectors
from segflow_tests.benchmarks.encoder_job import FEWEST, MOST, Compared, compare, session_texts
from segflow_tests.benchmarks.vectors_job import Pooled, pooled

_GOOD = Compared(100, 4000, 1.0, 2.6, 0.99995, 0.99999, 4e11, 1e12, 5e11, "bfloat16")
_LOG = Pooled(1000, 50, 20, 100, 1.0, 2.0, 90.0, 30, 1.05, 1.0)


def test_texts_are_those_of_a_seed_and_of_the_lengths_asked_for() -> None:
    encoder = Encoder.load(TextConfig(max_tokens=256, precision="float32"))
    texts = session_texts(encoder, 300)
    lengths = [len(one) for one in encoder.tokens(texts)]
    assert (len(set(texts)) > 290, min(lengths) >= FEWEST, max(lengths) <= MOST) == (True, True, True)
    assert max(lengths) > 10 * min(lengths)
    assert session_texts(encoder, 300) == texts != session_texts(encoder, 300, seed=1)


def test_the_encoder_gives_the_vectors_of_sentence_transformers() -> None:
    found = compare(TextConfig(max_tokens=256), 100, threads=1)
    assert same_vectors(found)
    assert 0 < found.share_of_peak < 1.5
    assert "100 texts" in of_texts(found)


def test_a_small_log_is_pooled(tmp_path: Path) -> None:
    found = pooled(tmp_path, Shop(events=2_000, users=50, items=40, days=5), days=3, sampled=20, threads=1)
    assert (found.items, found.days, found.sampled) == (40, 3, 20)
    assert found.sessions > found.users > 40
    assert "sessions of" in of_log(found)


@pytest.mark.parametrize(
    ("changed", "held"),
    [
        ({}, [True, True, True]),
        ({"theirs": 2.4}, [False, True, True]),
        ({"theirs": 2.4, "precision": "float32"}, [True, True, True]),
        ({"least_cosine": 0.9998}, [True, False, True]),
        ({"flops": 3e11}, [True, True, False]),
    ],
)
def test_targets_of_the_encoder_hold_by_what_was_measured(changed: dict[str, object], held: list[bool]) -> None:
    assert [target.held for target in encoding(replace(_GOOD, **changed))] == held  # type: ignore[arg-type]


def test_targets_of_a_log_hold_by_what_was_measured() -> None:
    assert [target.held for target in pooling(_LOG)] == [True, True]
    assert [target.held for target in pooling(replace(_LOG, theirs=79.0, one_by_one=1.2))] == [False, False]
