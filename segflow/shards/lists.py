"""Scoring on an engine: what everybody's lists are chosen from, a piece of the users at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import numpy as np
import pyarrow as pa

from segflow import tables
from segflow.compute import Engine, Exchange, Reference
from segflow.compute.threads import Threads
from segflow.rankers.new_items import NewItems
from segflow.rankers.recommend import Pool, Pools
from segflow.reading import Reader, ReaderSpec, opened
from segflow.reading.rankers import global_ranker_of, item_vectors, ranking_week, segment_groups

_READ = (
    tables.EVENTS,
    tables.ITEM_EMBEDDINGS,
    tables.BEHAVIOR_MODEL,
    tables.GLOBAL_RANKER,
    tables.SEGMENT_RANKERS,
    tables.USER_SEGMENTS,
)
_KEPT: dict[str, Pools] = {}
"""By the name of the work that it was made for, the last one: each process makes it once, not for each piece."""


@dataclass(frozen=True)
class _Piece:
    """``at_once`` users from the number ``start`` on; ``work`` is the name of what all pieces have in common."""

    work: str
    start: int
    at_once: int
    spec: ReaderSpec
    threads: Threads
    exchange: Exchange
    added: Reference


def pools_on(engine: Engine, reader: Reader, pools: Pools) -> Iterator[Pool]:
    """The pools of all pieces of everybody, in order; ``pools`` would make them here."""
    work, exchange = uuid4().hex, engine.exchange
    spec, threads = reader.spec(_READ), Threads.here()
    # Rules may come from a file that only this machine has.
    added = exchange.put(pa.table({"added": pools.added}))
    _keep(work, pools)
    try:
        items = [_Piece(work, start, pools.at_once, spec, threads, exchange, added) for start in pools.starts]
        for found in engine.imap(_make, items):
            yield _pool(found.get())
    finally:
        _KEPT.pop(work, None)


def _make(piece: _Piece) -> Reference:
    with piece.threads.used():
        if piece.work not in _KEPT:
            with opened(piece.spec) as reader:
                _keep(piece.work, _pools(reader, piece))
        items, scores = _KEPT[piece.work].of(piece.start)
    columns = {"items": _rows(items.astype(np.int32)), "scores": _rows(scores)}
    return piece.exchange.put(pa.table(columns))


def _pools(reader: Reader, piece: _Piece) -> Pools:
    """What the step has made too, from what it has read."""
    week, config = ranking_week(reader), reader.config.recommendations
    _, vectors = item_vectors(reader)
    new = NewItems.of(week, vectors, config.new_items)
    return Pools(
        week,
        global_ranker_of(reader),
        segment_groups(reader, week.sequences.user_ids),
        new,
        vectors[[*week.history.candidates, *new.numbers]],
        piece.added.get()["added"].to_numpy(),
        config,
        piece.at_once,
    )


def _keep(work: str, pools: Pools) -> None:
    _KEPT.clear()
    _KEPT[work] = pools


def _rows(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _pool(table: pa.Table) -> Pool:
    items, scores = (
        column.combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1) for column in table.columns
    )
    return items.astype(np.int64), scores
