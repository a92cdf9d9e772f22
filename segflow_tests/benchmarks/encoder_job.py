"""The encoder beside sentence-transformers as it comes, on the same texts; and beside the products that the processor can do.

What is measured is only timed and compared here; what was asked for is in `bench_representation.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from segflow.config import TextConfig
from segflow.datasets.shop import Shop, make_items
from segflow.representation.encoder import Encoder, Vectors
from segflow.representation.language_model import locate

FEWEST, MOST = 5, 120
"""Tokens of a session text."""

_VERBS = np.array(["view", "cart", "purchase"])
_MEAN_EVENTS = 5
# Both take turns, so that a busy moment of the machine is not held against one of them.
_TURNS = 4
# A busy moment must not pass for the peak.
_PEAK_SECONDS = 3.0


@dataclass(frozen=True)
class Compared:
    """Seconds of both over the same texts, the cosines between their vectors, and the encoder's share of the peak.

    flops: of the encoder's matrix products a second; peak: what the processor does of them alone, in the same precision;
    float32_peak: the same in float32, in which sentence-transformers computes.
    """

    texts: int
    tokens: int
    ours: float
    theirs: float
    least_cosine: float
    mean_cosine: float
    flops: float
    peak: float
    float32_peak: float
    precision: str

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours

    @property
    def share_of_peak(self) -> float:
        return self.flops / self.peak


def session_texts(encoder: Encoder, count: int, seed: int = 0) -> list[str]:
    """`count` journeys through the made-up shop, such as `view Juno silk scarf; cart …`, of 5 to 120 tokens."""
    rng = np.random.default_rng(seed)
    titles, _, brands = make_items(Shop(seed=seed), rng).titles()
    words = np.array([f"{brand} {title}" for title, brand in zip(titles, brands, strict=True)])
    texts: list[str] = []
    while len(texts) < count:
        made = [
            "; ".join(
                f"{verb} {word}" for verb, word in zip(rng.choice(_VERBS, size), rng.choice(words, size), strict=True)
            )
            for size in rng.geometric(1 / _MEAN_EVENTS, count)
        ]
        lengths = map(len, encoder.tokens(made))
        texts += [text for text, length in zip(made, lengths, strict=True) if FEWEST <= length <= MOST]
    return texts[:count]


def compare(config: TextConfig, count: int, threads: int, seed: int = 0) -> Compared:
    """Encode `count` session texts by both. Sentence-transformers runs in float32 with its own batches."""
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    encoder = Encoder.load(config, threads)
    theirs = SentenceTransformer(str(locate(config.encoder)), device=str(next(encoder.model.parameters()).device))
    texts = session_texts(encoder, count, seed)
    for encode in (encoder.encode, theirs.encode):
        encode(texts[:64])
    seconds, found = [0.0, 0.0], []
    for part in np.array_split(np.array(texts, object), _TURNS):
        ours, took = timed(lambda part=part: encoder.encode(list(part)))
        expected, their_took = timed(lambda part=part: theirs.encode(list(part), show_progress_bar=False))
        seconds[0] += took
        seconds[1] += their_took
        found.append(_cosines(ours, expected))
    cosines = np.concatenate(found)
    tokens = sum(map(len, encoder.tokens(texts)))
    peak = matmul_peak(encoder.model, config.batch_tokens, encoder.precision)
    return Compared(
        texts=count,
        tokens=tokens,
        ours=seconds[0],
        theirs=seconds[1],
        least_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        flops=tokens * _flops_per_token(encoder.model) / seconds[0],
        peak=peak,
        float32_peak=matmul_peak(encoder.model, config.batch_tokens, "float32"),
        precision=encoder.precision,
    )


def matmul_peak(model: nn.Module, tokens: int, precision: str) -> float:
    """Floating-point operations a second of the model's own products of `tokens` rows, one after the other, and nothing else."""
    kind = torch.float32 if precision == "float32" else torch.bfloat16
    layers = _products(model)
    rows = {layer.in_features: torch.randn(tokens, layer.in_features, dtype=kind) for layer in layers}
    weights = [(rows[layer.in_features], layer.weight.detach().to("cpu", kind)) for layer in layers]

    def multiply() -> None:
        for inputs, weight in weights:
            nn.functional.linear(inputs, weight)

    with torch.inference_mode():
        multiply()
        times = []
        while sum(times) < _PEAK_SECONDS or len(times) < 3:
            times.append(timed(multiply)[1])
    return tokens * _flops_per_token(model) / min(times)


def timed(job: Callable[[], object]) -> tuple[object, float]:
    """What a job gives, and its seconds."""
    began = time.perf_counter()
    return job(), time.perf_counter() - began


def _products(model: nn.Module) -> list[nn.Linear]:
    return [part for name, part in model.named_modules() if isinstance(part, nn.Linear) and "pooler" not in name]


def _flops_per_token(model: nn.Module) -> float:
    return float(sum(2 * layer.in_features * layer.out_features for layer in _products(model)))


def _cosines(left: Vectors, right: Vectors) -> np.ndarray:
    return np.einsum("nd,nd->n", left, right) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
