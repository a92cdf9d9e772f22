"""Serving: do lists over the bundle equal those of the batch, what does int8 cost, and how long does one user wait over HTTP.

On the last test week of the protocol. The ranker is trained as a weekly run trains it; nothing is chosen here. What was asked
for is in `bench_rankers.py`; `python -m segflow_tests.benchmarks.serving_job` prints the figures alone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segflow.config import BehaviorConfig, RankerConfig, TextConfig
from segflow.evaluation.metrics import ranking_metrics
from segflow.evaluation.statistics import Estimate, estimate
from segflow.rankers.global_ranker import GlobalRanker, fit_global_ranker
from segflow.rankers.recommend import recommend
from segflow.rankers.requests import read_requests
from segflow.rankers.served import ServedRanker, Variant
from segflow.rankers.snapshot import RankingWeek
from segflow.representation.behavior import fit_behavior_model
from segflow.representation.encoder import Encoder
from segflow.representation.sequences import MICROSECONDS_PER_WEEK
from segflow.tracking.serving import write_model
from segflow_tests.benchmarks.ranking_protocol import Protocol, Window, complete_journey

COUNT = 20
REQUESTS = 600
_WARM = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STARTED = 240.0

Row = dict[str, Any]


@dataclass(frozen=True)
class Latency:
    """Milliseconds from sending a request of one user to having read the answer, over one kept connection."""

    requests: int
    median: float
    p99: float
    events: float
    bytes: float

    def __str__(self) -> str:
        return (
            f"p50 {self.median:.1f} ms, p99 {self.p99:.1f} ms over {self.requests} requests of one user "
            f"({self.events:.0f} events and {self.bytes / 1000:.0f} kB on average)"
        )


@dataclass(frozen=True)
class Variants:
    """One way to store the bundle: its files' size, NDCG@10 of its lists, and what a request takes."""

    name: Variant
    megabytes: float
    ndcg: float
    latency: Latency

    def __str__(self) -> str:
        return f"{self.name:5} {self.megabytes:6.1f} MB  NDCG@10 {self.ndcg:.4f}  {self.latency}"


@dataclass(frozen=True)
class Served:
    """What was measured; `same_lists`: users whose list of the batch is served item for item; `loss`: int8 minus full."""

    users: int
    same_lists: int
    same_places: float
    variants: list[Variants]
    loss: Estimate

    def lines(self) -> Iterator[str]:
        """The figures, for people."""
        yield (
            f"lists of {COUNT} served as in the batch: {self.same_lists:,} of {self.users:,} users, "
            f"{self.same_places:.2%} of all places"
        )
        yield from map(str, self.variants)
        yield f"int8 - full: {self.loss.mean:+.5f} [{self.loss.low:+.5f}, {self.loss.high:+.5f}] NDCG@10"


def trained(protocol: Protocol, vectors: npt.NDArray[np.float32]) -> tuple[RankingWeek, GlobalRanker]:
    """The ranker of the week before the last test window; vectors: (I, d) of the texts of all items."""
    sequences, start = protocol.log.sequences, protocol.test[-1].start_us - MICROSECONDS_PER_WEEK
    backbone = fit_behavior_model(sequences.before(start), vectors, BehaviorConfig(), seed=0)
    week = RankingWeek(sequences, backbone, protocol.history, start, RankerConfig())
    ranker = fit_global_ranker(
        week.training, week.validation(), week.item_vectors, week.candidate_ids, week.config, seed=0
    )
    return week, ranker


def measure(protocol: Protocol, week: RankingWeek, ranker: GlobalRanker) -> Served:
    """All figures; asks every user of the window in process, and some of them over HTTP."""
    window = protocol.test[-1]
    served = ServedRanker.of(week, ranker, count=COUNT)
    rows = requests_of(week, window.users)
    batch = _batch(week, ranker, window.users)
    variants, ndcg, lists = [], {}, {}
    with tempfile.TemporaryDirectory() as folder:
        names: tuple[Variant, ...] = ("full", "int8")
        for name in names:
            bundle = Path(folder) / name
            served.save(bundle, name)
            lists[name] = served_lists(ServedRanker.load(bundle), rows)
            ndcg[name] = _ndcg(window, lists[name], len(week.candidate_ids))
            size = sum(file.stat().st_size for file in bundle.iterdir()) / 1e6
            variants.append(Variants(name, size, float(ndcg[name].mean()), over_http(bundle, rows[:REQUESTS])))
    same = lists["full"] == batch
    loss = estimate((ndcg["int8"] - ndcg["full"])[:, None], confidence=0.95, power=0.8, samples=5000, seed=0)[0]
    return Served(len(rows), int(same.all(axis=1).sum()), float(same.mean()), variants, loss)


def requests_of(week: RankingWeek, users: npt.NDArray[np.int64]) -> list[Row]:
    """What a caller would send at the start of the test week."""
    log = week.sequences.before(week.start_us + MICROSECONDS_PER_WEEK)
    types, found = log.event_types, []
    for user in users:
        rows = range(log.offsets[user], log.offsets[user + 1])
        events = [
            {
                "item_id": str(log.item_ids[log.items[row]]),
                "event_type": types[log.types[row]],
                "ts": (_EPOCH + timedelta(microseconds=int(log.times[row]))).isoformat(),
                "value": round(float(log.values[row]), 4),
            }
            for row in rows
        ]
        found.append({"user_id": str(log.user_ids[user]), "events": events})
    return found


def served_lists(served: ServedRanker, rows: Sequence[Row]) -> npt.NDArray[np.int64]:
    """(rows, COUNT) candidates, each user asked alone."""
    place = {item: number for number, item in enumerate(served.ranker.candidate_ids)}
    answers = served.recommend(read_requests(rows))
    return np.array([[place[one["item_id"]] for one in answer["items"]] for answer in answers])


def _batch(week: RankingWeek, ranker: GlobalRanker, users: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    examples = week.after(only_with_targets=False)
    return recommend(lambda rows: ranker.score(examples, rows), users, COUNT)[0]


def _ndcg(window: Window, lists: npt.NDArray[np.int64], candidates: int) -> npt.NDArray[np.float64]:
    """(users,) NDCG@10 of the lists."""
    scores = np.zeros((len(lists), candidates), np.float32)
    np.put_along_axis(scores, lists, np.arange(COUNT, 0, -1, dtype=np.float32)[None], axis=1)
    return ranking_metrics(scores, window.wanted.dense(window.users, candidates), cutoffs=(10,))["ndcg_10"]


def over_http(bundle: Path, rows: Sequence[Row]) -> Latency:
    """One user after the other asks `mlflow models serve` on the loopback address; one worker, as it starts by default."""
    bodies = [json.dumps({"inputs": [row]}).encode() for row in rows]
    with serving(bundle) as port:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        for body in bodies[:_WARM]:
            _ask(connection, body)
        waits = [_ask(connection, body) for body in bodies]
    median, p99 = np.percentile(waits, [50, 99])
    events = np.mean([len(row["events"]) for row in rows])
    return Latency(len(waits), float(median), float(p99), float(events), float(np.mean([len(body) for body in bodies])))


def _ask(connection: HTTPConnection, body: bytes) -> float:
    began = time.perf_counter()
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    took = time.perf_counter() - began
    if response.status != 200:
        raise RuntimeError(f"HTTP {response.status}: {content[-300:]!r}")
    return 1000 * took


@contextmanager
def serving(bundle: Path) -> Iterator[int]:
    """`mlflow models serve` of the bundle on a free port of 127.0.0.1."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        write_model(bundle, model, {"events": []})
        with mlflow_serve(str(model), Path(folder)) as port:
            yield port


@contextmanager
def mlflow_serve(model: str, folder: Path, **environment: str) -> Iterator[int]:
    """The server on a free port, in a process group of its own, which is ended as a whole: the command starts uvicorn."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # uvicorn is looked for on the PATH, as in an activated environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PYTHONPATH": str(Path(__file__).parents[2]), "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": path}
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(port)],
            env={**os.environ, **own, **environment},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_for(server, port, log)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _STARTED
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise RuntimeError(f"mlflow models serve did not come up: {log.read_text()[-1000:]}")


def main() -> None:
    """Train, measure and print."""
    torch.set_num_threads(1)
    protocol = Protocol(complete_journey())
    vectors = Encoder.load(TextConfig()).encode(list(protocol.log.texts))
    for line in measure(protocol, *trained(protocol, vectors)).lines():
        print(line)


if __name__ == "__main__":
    main()
