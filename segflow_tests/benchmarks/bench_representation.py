"""`make bench-representation`: how fast texts, sessions and users become vectors, and event sequences a model.

The peers are sentence-transformers as it comes, and RecTools' SASRec.

Prints what was asked for with whether it held. Nothing here asserts a time; only vectors that point elsewhere are a failure.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from segflow.config import TextConfig
from segflow.datasets.shop import Shop
from segflow_tests.benchmarks.bench_events import Target
from segflow_tests.benchmarks.encoder_job import Compared, compare
from segflow_tests.benchmarks.training_job import Trained, training_speeds
from segflow_tests.benchmarks.vectors_job import Pooled, pooled

THREADS = 2
LEAST_COSINE = 0.9999
_DAYS = 30
_SAMPLED = 2_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if the encoder's vectors are not those of sentence-transformers."""
    parser = argparse.ArgumentParser(prog="bench-representation", description=__doc__)
    parser.add_argument("--texts", type=int, default=20_000, help="session texts that both encode")
    parser.add_argument("--events", type=int, default=1_000_000, help="rows of the log whose sessions are pooled")
    parser.add_argument("--users", type=int, default=3_000, help="users of the log that behaviour is learned from")
    options = parser.parse_args(arguments)
    compared = compare(TextConfig(max_tokens=256), options.texts, THREADS)
    print(of_texts(compared), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-representation-") as folder:
        found = pooled(Path(folder), Shop(events=options.events, users=options.events // 50), _DAYS, _SAMPLED, THREADS)
    print(of_log(found), flush=True)
    trained = training_speeds(options.users, THREADS)
    print(of_training(trained), flush=True)
    targets = [*encoding(compared), *pooling(found), *training(trained)]
    print()
    for target in targets:
        print(target)
    return 0 if same_vectors(compared) else 1


def of_texts(one: Compared) -> str:
    """The encoder's figures in one line."""
    return (
        f"{one.texts:,} texts of {one.tokens / one.texts:.0f} tokens: {one.texts / one.ours:.0f} texts/s in "
        f"{one.precision}, sentence-transformers {one.texts / one.theirs:.0f}; {one.flops / 1e9:.0f} of "
        f"{one.peak / 1e9:.0f} GFLOP/s "
        f"(float32: {one.float32_peak / 1e9:.0f}); cosine at least {one.least_cosine:.6f}, mean {one.mean_cosine:.6f}"
    )


def of_log(one: Pooled) -> str:
    """The log's figures in one line."""
    return (
        f"{one.sessions:,} sessions of {one.users:,} users with {one.items:,} items: {one.ours:.1f} s, {one.items_seconds:.1f} "
        f"of them for the items' texts; sentence-transformers {one.theirs:.0f} s (from {one.sampled:,} sessions)"
    )


def of_training(one: Trained) -> str:
    """The trainings' figures in one line."""
    theirs = ", ".join(f"{loss} {speed:,.0f}" for loss, speed in one.theirs.items())
    return (
        f"{one.events:,} events of {one.items:,} items, width {one.width}, {one.layers} layers, {one.length} positions: "
        f"{one.ours:,.0f} positions/s with every input and task, SASRec {theirs}"
    )


def same_vectors(one: Compared) -> bool:
    """Whether every text's vector points where it should."""
    return one.least_cosine >= LEAST_COSINE


def encoding(one: Compared) -> Iterator[Target]:
    """Texts a second beside sentence-transformers, the direction kept, and the share of the processor's peak."""
    least = 2.5 if one.precision == "bfloat16" else 1.0
    yield Target(
        f"texts/s at least {least} times sentence-transformers' ({one.precision})",
        f"{one.ratio:.2f}",
        one.ratio >= least,
    )
    yield Target(f"cosine to float32 at least {LEAST_COSINE}", f"{one.least_cosine:.6f}", same_vectors(one))
    yield Target("at least 35 % of the matrix products' peak", f"{one.share_of_peak:.0%}", one.share_of_peak >= 0.35)


def pooling(one: Pooled) -> Iterator[Target]:
    """Session and user vectors through items beside the session texts, and a day beside its share."""
    asked = "session and user vectors at least 40 times as fast as sentence-transformers over the session texts"
    yield Target(asked, f"{one.ratio:.0f}", one.ratio >= 40)
    asked = f"a day within 10 % of its share of {one.days} days, new texts aside"
    yield Target(asked, f"{one.day_over_share:.2f} of it", one.day_over_share <= 1.1)


def training(one: Trained) -> Iterator[Target]:
    """Trained positions a second beside SASRec's, by the fastest of its losses."""
    loss, speed = max(one.theirs.items(), key=lambda found: found[1])
    asked = f"trained positions/s at least those of RecTools' SASRec (fastest loss: {loss})"
    yield Target(asked, f"{one.ours / speed:.2f}", one.ours >= speed)


if __name__ == "__main__":
    sys.exit(main())
