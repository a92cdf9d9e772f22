"""Session and user vectors of a log through its distinct items, beside sentence-transformers over the session texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from segflow.config import Config
from segflow.datasets.generator import generate
from segflow.datasets.shop import Shop
from segflow.events.catalogue import items_query
from segflow.events.whole_log import write_sessions
from segflow.representation.encoder import Encoder, Vectors
from segflow.representation.language_model import locate
from segflow.representation.text import encode_new, pool_sessions
from segflow.representation.text_cache import TextCache
from segflow.representation.users import text_profiles
from segflow.settings import load
from segflow.storage import connect
from segflow_tests.benchmarks.encoder_job import timed

_REPEATS = 15
_SLICE = 16_384


@dataclass(frozen=True)
class Pooled:
    """Seconds of a log's session and user vectors through its items, and of its session texts by sentence-transformers.

    theirs: of all sessions, from a sample of `sampled` of them. items_seconds: the part of ours that the language model took.
    one_by_one and at_once: of the session vectors of the log's first days, each day on its own and all in one go.
    """

    sessions: int
    users: int
    items: int
    sampled: int
    items_seconds: float
    ours: float
    theirs: float
    days: int
    one_by_one: float
    at_once: float

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours

    @property
    def day_over_share(self) -> float:
        """The mean cost of a day over its share of all days at once."""
        return self.one_by_one / self.at_once


def pooled(folder: Path, shop: Shop, days: int, sampled: int, threads: int) -> Pooled:
    """Make the log of `shop` in `folder` and measure. Its sessions of `days` days are what single days are compared on."""
    generate(folder / "log", shop)
    config = load(folder / "log" / "segflow.yaml")
    write_sessions(config, folder / "rows")
    sessions = ds.dataset(folder / "rows" / "sessions").to_table(["day", "user_id", "start", "items", "text"])
    sessions = sessions.sort_by([("start", "ascending"), ("user_id", "ascending")])
    catalogue = _items(config)
    encoder = Encoder.load(config.text, threads)
    encoder.encode(catalogue["text"][:64].to_pylist())
    (rows, _), items_seconds = timed(lambda: encode_new(encoder, catalogue, TextCache(folder / "cache")))
    ids = rows["item_id"].to_pylist()
    vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(len(ids), -1)
    users, pooling = timed(lambda: _users(sessions, _sessions(sessions, ids, vectors), config))
    first = [day for day in sorted(sessions["day"].unique().to_pylist()) if day is not None][:days]
    apart = [sessions.filter(pc.equal(sessions["day"], day)).combine_chunks() for day in first]
    together = pa.concat_tables(apart).combine_chunks()
    _sessions(apart[0], ids, vectors)
    # The two take turns and the quickest counts: the work is the same each time, what else the machine does is not.
    singles, whole = [], []
    for _ in range(_REPEATS):
        singles.append(timed(lambda: [_streamed(day, ids, vectors) for day in apart])[1])
        whole.append(timed(lambda: _streamed(together, ids, vectors))[1])
    return Pooled(
        sessions=sessions.num_rows,
        users=len(users),
        items=len(ids),
        sampled=min(sampled, sessions.num_rows),
        items_seconds=items_seconds,
        ours=items_seconds + pooling,
        theirs=_theirs(config, sessions, sampled),
        days=len(first),
        one_by_one=min(singles),
        at_once=min(whole),
    )


def _items(config: Config) -> pa.Table:
    with connect(config.compute) as connection:
        query = items_query(connection, config.source, config.text)
        return connection.sql(f"SELECT item_id, text, text_hash FROM ({query}) ORDER BY item_id").to_arrow_table()


def _sessions(sessions: pa.Table, ids: list[str], vectors: Vectors) -> Vectors:
    return np.concatenate(list(_slices(sessions, ids, vectors)))


def _streamed(sessions: pa.Table, ids: list[str], vectors: Vectors) -> int:
    """As the pipeline does it: a slice is written and gone before the next one is made."""
    return sum(len(part) for part in _slices(sessions, ids, vectors))


def _slices(sessions: pa.Table, ids: list[str], vectors: Vectors) -> Iterator[Vectors]:
    for start in range(0, sessions.num_rows, _SLICE):
        yield pool_sessions(sessions["items"].slice(start, _SLICE).combine_chunks(), ids, vectors)


def _users(sessions: pa.Table, vectors: Vectors, config: Config) -> Vectors:
    coded = sessions["user_id"].combine_chunks().dictionary_encode()
    starts = sessions["start"].cast(pa.timestamp("us")).to_numpy().astype("datetime64[us]").astype(np.int64)
    ago = (starts.max() - starts) / 86_400_000_000
    owner, weights = coded.indices.to_numpy(), np.ones(len(vectors))
    return text_profiles(vectors, owner, ago, weights, config.users.half_life_days, len(coded.dictionary))


def _theirs(config: Config, sessions: pa.Table, sampled: int) -> float:
    """Seconds of sentence-transformers over all session texts, from a random sample of them."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(locate(config.text.encoder)))
    texts = pc.fill_null(sessions["text"], "").to_pylist()
    rows = np.random.default_rng(0).permutation(len(texts))[:sampled]
    sample = [texts[row] for row in rows]
    model.encode(sample[:64])
    return timed(lambda: model.encode(sample, show_progress_bar=False))[1] * len(texts) / len(sample)
