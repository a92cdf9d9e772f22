"""Pieces of the rankers' work give the same bytes and rows in the step's process and in processes that know nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segflow import tables
from segflow.arrow import vector_column
from segflow.compute import IN_PROCESS, Engine, Exchange
from segflow.compute.engine import Item, Result
from segflow.compute.exchange import exchange_below
from segflow.config import Config, RecommendationConfig
from segflow.events.days import Days
from segflow.rankers.arms import SEGMENTS, Division, control_divisions, fit_divisions, repeat
from segflow.rankers.new_items import NewItems
from segflow.rankers.recommend import Pool, Pools, Ranked, Recommended, Shown, recommendation_rows
from segflow.rankers.rules import Catalogue, rules_of
from segflow.reading import Reader
from segflow.reading.rankers import global_ranker_of, item_vectors, members_of, ranking_week, segment_groups
from segflow.reading.reader import Bounds
from segflow.representation.sequences import MICROSECONDS_PER_DAY as DAY
from segflow.shards.lists import pools_on
from segflow.shards.rankers import fit_groups, fit_repeats
from segflow.storage import Storage, connect
from segflow.tables import Table
from segflow_tests.rankers.conftest import CONFIG, ITEMS, SNAPSHOT, World, make_world

WEEK = date(1970, 1, 1) + timedelta(days=SNAPSHOT // DAY)
RANKERS = CONFIG.model_copy(update={"placebos": 2, "steps": 10, "check_every": 10, "delta_steps": 6})
LISTS = RecommendationConfig.model_validate({"count": 5, "diversity": 0.3, "exposure": 0.5, "exclude_seen": True})
AT_ONCE = 25  # of sixty users


class Elsewhere(Engine):
    """Spawned processes, and files: nothing of this process is there."""

    workers = 2

    def __init__(self, pool: ProcessPoolExecutor, exchange: Exchange) -> None:
        self.pool, self._exchange = pool, exchange

    @property
    def exchange(self) -> Exchange:
        return self._exchange

    def imap(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        return self.pool.map(function, items)


class OfWeek(Reader):
    """A step of the rankers in a project that knows one week."""

    week = WEEK

    def bounds(self, table: Table, days: Days | None = None) -> Bounds:
        return {}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("project")
    config = Config.model_validate(
        {
            "source": {
                "events": {"path": "none.csv", "columns": {"user_id": "user", "event_type": "type", "ts": "time"}}
            },
            "calendar": {"start": "1970-01-01"},
            "rankers": RANKERS.model_dump(),
            "recommendations": LISTS.model_dump(),
            "storage": {"root": str(folder / "tables")},
            "compute": {"spill": str(folder / "spill"), "threads": 1},
        }
    )
    with connect(config.compute) as connection:
        found = OfWeek("sample", config, Storage(config.storage.root), connection)
        _write_tables(found, make_world())
        yield found


def _write_tables(reader: Reader, world: World) -> None:
    log = world.log
    owner = np.repeat(log.user_ids, np.diff(log.offsets))
    events = {
        "user_id": owner,
        "item_id": log.item_ids[log.items],
        "event_type": np.array(log.event_types)[log.types],
        "ts": pa.array(log.times, pa.timestamp("us", tz="UTC")),
        "value": log.values.astype(np.float64),
        "source_row": np.arange(len(owner)),
    }
    _write(
        reader,
        tables.EVENTS,
        pa.table(events),
        "SELECT *, ts::DATE AS day, source_row::VARCHAR AS event_id, NULL AS quantity, 1 AS weight, NULL AS session_id, "
        "NULL AS text, NULL AS imputed, 'log' AS source_file FROM given",
    )
    vectors = np.random.default_rng(1).normal(size=(ITEMS, 8)).astype(np.float32)
    items = pa.table({"item_id": log.item_ids, "vector": vector_column(vectors)})
    _write(reader, tables.ITEM_EMBEDDINGS, items, "SELECT *, 'hash' AS text_hash, 'none' AS encoder FROM given")
    for table, model in ((tables.BEHAVIOR_MODEL, world.backbone), (tables.GLOBAL_RANKER, world.ranker)):
        _write_models(reader, table, {"model": [model.to_bytes()]})
    users = log.user_ids[:50].tolist()
    members = {
        "user_id": users,
        "segment_id": [f"s{int(user[1:]) % 3:03}" for user in users],
        "probability": [0.5 + number / 200 for number in range(len(users))],
    }
    _write(
        reader,
        tables.USER_SEGMENTS,
        pa.table(members),
        f"SELECT *, DATE '{WEEK}' AS week, NULL AS distance, false AS outlier FROM given",
    )
    fitted = fit_groups(reader, IN_PROCESS, [_segments(reader)], 0)
    columns = {"segment_id": [one.group_id for one in fitted], "model": [one.model for one in fitted]}
    _write_models(reader, tables.SEGMENT_RANKERS, columns)


def _write_models(reader: Reader, table: Table, columns: dict[str, list[object]]) -> None:
    _write(reader, table, pa.table(columns), f"SELECT *, DATE '{WEEK}' AS week, '{{}}' AS metrics FROM given")


def _write(reader: Reader, table: Table, given: pa.Table, query: str) -> None:
    connection = reader.connection
    connection.register("given", given)
    columns = ", ".join(table.partitions)
    keys = connection.execute(f"SELECT DISTINCT {columns} FROM ({query})").fetchall() if columns else [()]
    reader.storage.write(connection, table, query, keys)


def _segments(reader: Reader) -> Division:
    return Division(SEGMENTS, members_of(reader), reader.config.rankers.segment_method)


@pytest.fixture(scope="module", params=[None, pytest.param(1, marks=pytest.mark.slow)], ids=["one", "a fresh one each"])
def elsewhere(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """A process for all pieces, or one for each."""
    spawn = get_context("spawn")
    with (
        exchange_below(str(tmp_path_factory.mktemp("exchange")), {}) as exchange,
        ProcessPoolExecutor(1, spawn, max_tasks_per_child=request.param) as pool,
    ):
        yield Elsewhere(pool, exchange)


def test_rankers_of_groups_are_the_same_wherever_they_are_trained(reader: Reader, elsewhere: Elsewhere) -> None:
    divisions = [_segments(reader), *control_divisions(members_of(reader), RANKERS, 0)]
    here, there = (fit_groups(reader, engine, divisions, 0) for engine in (IN_PROCESS, elsewhere))
    assert here == there == fit_divisions(global_ranker_of(reader), ranking_week(reader), divisions, 0)
    assert [one.arm for one in here].count("segments") == 3
    assert len({one.model for one in here}) == len(here) == 3 + 1 + 2 * 3 + 3


def test_repeats_are_the_same_wherever_they_are_made(reader: Reader, elsewhere: Elsewhere, tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    here, there = (list(fit_repeats(reader, engine, [1000, 2000], files)) for engine in (IN_PROCESS, elsewhere))
    assert [(one.seed, one.ranker, one.groups) for one in here] == [(one.seed, one.ranker, one.groups) for one in there]
    plain = repeat(ranking_week(reader), members_of(reader), 2000, lambda _: tmp_path / "three")
    assert (there[1].ranker, there[1].groups) == (plain.ranker.to_bytes(), plain.groups)
    assert here[0].ranker != here[1].ranker
    assert {len(group.shares) for group in here[0].groups} >= {50, 16, 17}
    assert list(fit_repeats(reader, elsewhere, [], [])) == []


def _lists(reader: Reader, made: Callable[[Pools], Iterable[Pool]], at_once: int) -> Recommended:
    week, (_, vectors) = ranking_week(reader), item_vectors(reader)
    known = Catalogue({item: item for item in week.sequences.item_ids}, {})
    new = NewItems.of(week, vectors, LISTS.new_items)
    shown = Shown(known, vectors[[*week.history.candidates, *new.numbers]], {}, new)
    rules = rules_of(LISTS.model_copy(), known, (*week.candidate_ids, *new.item_ids))
    members = {user: segment for user, (segment, _) in members_of(reader).items()}
    ranked = Ranked(global_ranker_of(reader), segment_groups(reader, week.sequences.user_ids), members)
    return recommendation_rows(week, ranked, shown, LISTS, rules, lambda pools: made(replace(pools, at_once=at_once)))


def test_lists_are_the_same_wherever_their_pools_are_made(reader: Reader, elsewhere: Elsewhere) -> None:
    here, there = (_lists(reader, partial(pools_on, one, reader), AT_ONCE) for one in (IN_PROCESS, elsewhere))
    plain = _lists(reader, lambda pools: map(pools.of, pools.starts), AT_ONCE)
    assert here.rows == there.rows == plain.rows
    assert here.explained == there.explained == plain.explained
    assert here.rows.num_rows == 60 * 5
    whole = _lists(reader, lambda pools: map(pools.of, pools.starts), 1000).rows
    assert whole.drop_columns("score") == here.rows.drop_columns("score")
    np.testing.assert_allclose(whole["score"], here.rows["score"], atol=0.02)
    assert {"segment", "global"} <= set(here.rows["arm"].to_pylist())
