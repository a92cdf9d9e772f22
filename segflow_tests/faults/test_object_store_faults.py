"""An object store that answers errors, late, in part or not at all: a write is whole or is not there, and a reader is told.

Faults come by chance from seeds (`SEGFLOW_TEST_SEED` moves them), and one after the other at each place where one could hurt.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from segflow import tables
from segflow.errors import StoreError
from segflow.storage import Storage, explained
from segflow_tests.faults.proxy import KINDS, Proxy, faulty
from segflow_tests.object_store import CREDENTIALS, ObjectStore
from segflow_tests.pipeline.project import Deployment, Project, run_job
from segflow_tests.planted import planted_log
from segflow_tests.storage.samples import VISITS, day, numbers, visits

pytestmark = pytest.mark.faults

Connection = duckdb.DuckDBPyConnection

FIRST_SEED = int(os.environ.get("SEGFLOW_TEST_SEED", "0"))
QUICK = {"connect_timeout": "1s", "timeout": "1s", "max_retries": "3", "retry_timeout": "3s"}
PATIENCE = 60.0
"""Seconds within which a write or a read is over, whatever happens: a dozen requests, each of which may take a few."""
USERS = 500
_LOG = "PUT /bucket/{}/visits/_delta_log"


@pytest.fixture(scope="module")
def proxy(object_store_server: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with faulty(object_store_server, tmp_path_factory.mktemp("proxy")) as running:
        yield running


class Places:
    """A place for tables, by way of the proxy and past it."""

    def __init__(self, proxy: Proxy, objects: ObjectStore, prefix: str):
        self.proxy, self.prefix = proxy, prefix
        self.faulty = Storage(objects.root(prefix), {**proxy.store.options, **QUICK})
        self.sound = Storage(objects.root(prefix), objects.options)

    def marks(self) -> list[str]:
        """What tells each commit of rows from all others, newest first."""
        opened = self.sound.open(VISITS)
        return [] if opened is None else [one["segflow_write"] for one in opened.history() if "segflow_write" in one]

    def check(self, connection: Connection, held: dict[int, int]) -> None:
        """The table can be read, past the proxy, and holds exactly that number in that many rows on each day."""
        assert numbers(connection, self.sound) == {day(one): [number] * USERS for one, number in sorted(held.items())}
        marks = self.marks()
        assert len(set(marks)) == len(marks), "one write was committed twice"


def _share(seed: int) -> float:
    return 0.15 + 0.35 * (seed % 12) / 11


def told(error: Exception) -> StoreError:
    """What a user is told; nothing but the store may have failed."""
    found = explained(error)
    assert found is not None, repr(error)
    assert str(found).startswith("storage.root: ")
    assert "; " in str(found)
    assert "\n" not in str(found)
    assert found.passing, found
    return found


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + 12))
def test_writes_are_whole_or_not_there(
    connection: Connection, objects: ObjectStore, proxy: Proxy, tmp_path: Path, seed: int
) -> None:
    """Writes of days that are there and of new ones, while from a seventh to half of all requests fail, as the seed says."""
    places, chance = Places(proxy, objects, f"writes-{seed}"), random.Random(seed)
    held: dict[int, int] = {}
    failed = 0
    suffered: Counter[str] = Counter()
    for number in range(1, 7):
        own = chance.randrange(1, 6)
        before = places.sound.version(VISITS)
        proxy.set(_share(seed), seed=seed * 100 + number, seconds=0.2)
        began = time.monotonic()
        query = visits(own, number=number, users=USERS)
        try:
            written = places.faulty.write(connection, VISITS, query, [(day(own),)])
            assert written.replaced == [(day(own),)]
            assert written.rows == {(day(own),): USERS}
            held[own] = number
        except Exception as error:
            told(error)
            failed += 1
        suffered += proxy.stop()
        assert time.monotonic() - began < PATIENCE
        if places.sound.version(VISITS) is not None:
            there = numbers(connection, places.sound).get(day(own), [])
            # A commit may arrive whose answer was lost, and every look behind it too: it is whole all the same.
            if there and there[0] == number:
                held[own] = number
            places.check(connection, held)
        # The same again, with nothing in the way, ends where it should, once.
        written = places.faulty.write(connection, VISITS, query, [(day(own),)])
        held[own] = number
        places.check(connection, held)
        assert written.version - (before or 0) <= 2
    print(f"seed {seed}: {dict(suffered)}; {failed} of 6 writes failed and were made again")
    assert suffered.total() >= 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["there", "new partition", "new table", "pinned"])
def test_one_fault_at_the_commit_is_survived(
    connection: Connection, objects: ObjectStore, proxy: Proxy, kind: str, what: str
) -> None:
    prefix = f"commit-{KINDS.index(kind)}-{what.replace(' ', '-')}"
    places = Places(proxy, objects, prefix)
    held = {}
    if what != "new table":
        held = {1 if what == "there" else 2: 5}
        places.sound.write(connection, VISITS, visits(*held, number=5, users=USERS), [(day(one),) for one in held])
    before = places.sound.version(VISITS)
    proxy.set(1.0, [kind], only=_LOG.format(prefix), most=1)
    partitions = [(day(1),)]
    if what == "pinned":
        staged = places.faulty.stage(connection, VISITS, visits(1, number=9, users=USERS), partitions)
        version = places.faulty.pin(VISITS)

        def write() -> int:
            return places.faulty.commit(connection, VISITS, staged, partitions, version=version).version
    else:

        def write() -> int:
            query = visits(1, number=9, users=USERS)
            return places.faulty.write(connection, VISITS, query, partitions).version

    # Whether a commit or a creation that hangs has arrived is not known: that one is not asked for again, but told.
    hangs = kind == "hanging" and what in ("pinned", "new table")
    if hangs:
        with pytest.raises(StoreError, match="timed out; see that the store answers") as raised:
            write()
        assert raised.value.passing
    else:
        assert write() == (1 if before is None else before + 1)
    assert proxy.stop() == {kind: 1}
    places.check(connection, held | ({} if hangs else {1: 9})) if before is not None or not hangs else None
    places.sound.write(connection, VISITS, visits(1, number=9, users=USERS), partitions)
    places.check(connection, held | {1: 9})
    opened = places.sound.open(VISITS)
    assert opened is not None
    assert Counter(one["operation"] for one in opened.history())["CREATE TABLE"] == 1


def test_a_store_that_falls_silent_behind_a_commit(connection: Connection, objects: ObjectStore, proxy: Proxy) -> None:
    """The rows are there and nobody can say so: an error in bounded time, and the next run finds them."""
    places = Places(proxy, objects, "silent")
    places.sound.write(connection, VISITS, visits(1, number=1, users=USERS), [(day(1),)])
    proxy.set(1.0, ["lost answer"], only=_LOG.format("silent"))
    began = time.monotonic()
    written = places.faulty.write(connection, VISITS, visits(1, number=2, users=USERS), [(day(1),)])
    assert proxy.stop().total() >= 4
    assert written.replaced == [(day(1),)], "it arrived, and reading still worked"
    proxy.set(1.0, ["lost answer"], only="/silent/visits/_delta_log/0000")
    with pytest.raises(StoreError, match="see that the store answers there and run again"):
        places.faulty.write(connection, VISITS, visits(1, number=3, users=USERS), [(day(1),)])
    assert time.monotonic() - began < PATIENCE
    proxy.stop()
    places.faulty.write(connection, VISITS, visits(1, number=3, users=USERS), [(day(1),)])
    places.check(connection, {1: 3})


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + 12))
def test_reads_are_right_or_told(connection: Connection, objects: ObjectStore, proxy: Proxy, seed: int) -> None:
    places = Places(proxy, objects, "reads")
    if places.sound.version(VISITS) is None:
        for one in range(1, 9):
            places.sound.write(connection, VISITS, visits(one, number=one, users=USERS), [(day(one),)])
    right = failed = 0
    suffered: Counter[str] = Counter()
    for turn in range(6):
        proxy.set(_share(seed), seed=seed * 100 + turn, seconds=0.2)
        began = time.monotonic()
        try:
            # Read while it is asked for, as the statements of a step do.
            places.faulty.view(connection, VISITS)
            rows = connection.execute("SELECT day, count(*), sum(number) FROM visits GROUP BY ALL ORDER BY ALL")
            assert rows.fetchall() == [(day(one), USERS, USERS * one) for one in range(1, 9)]
            right += 1
        except duckdb.Error as error:
            told(error)
            failed += 1
        except StoreError as error:
            told(error)
            failed += 1
        assert time.monotonic() - began < PATIENCE
        suffered += proxy.stop()
    print(f"seed {seed}: {dict(suffered)}; {right} reads right, {failed} told")
    assert suffered.total() >= 10


DAILY = ["raw_events", "events", "quarantined_events", "sessions"]


def test_days_made_over_a_failing_store_are_those_of_a_disk(objects: ObjectStore, proxy: Proxy, tmp_path: Path) -> None:
    """Steps are begun anew by themselves; what fails all the same is finished by the next run, and nothing is written twice."""
    log = planted_log(tmp_path / "disk", users=30, weeks=2, dirt=True)
    planted_log(tmp_path / "store", users=30, weeks=2, dirt=True)
    days = (str(log.start), str(log.end - timedelta(days=1)))
    disk = Project.make(tmp_path / "disk", log.start, log.end)
    options = {**proxy.store.options, **QUICK}
    place = {"root": objects.root("days"), "options": options}
    store = Project.make(tmp_path / "store", log.start, log.end, Deployment(environment=CREDENTIALS, storage=place))
    disk.materialize("catalogue", "", only=["source_files", "items"])
    disk.materialize("days", *days, DAILY)
    runs = 0
    suffered: Counter[str] = Counter()
    for runs in range(1, 6):
        proxy.set(0.15, seed=FIRST_SEED + runs, seconds=0.2)
        first = store.python(*run_job("catalogue", "", "", ["source_files", "items"]))
        made = store.python(*run_job("days", *days, DAILY))
        suffered += proxy.stop()
        if first.returncode == made.returncode == 0:
            break
        for one in (first, made):
            assert one.returncode == 0 or "storage.root: " in one.stderr, one.stderr[-2000:]
    store.materialize("days", *days, DAILY)
    sound = Storage(place["root"], objects.options)
    for name in ("source_files", "items", *DAILY):
        table = tables.ALL[name]
        if name != "source_files":
            assert store.read(table).equals(disk.read(table)), name
        opened = sound.open(table)
        assert opened is not None
        commits = Counter(one["operation"] for one in opened.history())
        assert commits == {"CREATE TABLE": 1, "WRITE": 1}, name
    print(f"{dict(suffered)}; done in {runs} runs")
    assert suffered.total() >= 10
