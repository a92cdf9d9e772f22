"""A process that makes days is killed again and again, each time at another moment: the days come out as if nothing had been."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest

from segflow_tests.faults.daemon import opened
from segflow_tests.faults.days import DAILY, INJECTIONS, SEED, Days, backfill, commits
from segflow_tests.faults.nursery import Child

pytestmark = pytest.mark.faults


def assault(days: Days, seed: int, moment: Callable[[random.Random, Child], bool]) -> None:
    """Kill the command that makes all days at `moment`, until it was hit `INJECTIONS` times; then let it come to its end.

    moment: waits for it; whether it was hit.
    """
    chance, hits, tries = random.Random(seed), 0, 0
    while hits < INJECTIONS:
        child = days.nursery.start(*backfill())
        hit = moment(chance, child)
        child.send(signal.SIGKILL)
        assert child.wait() in (0, -signal.SIGKILL), f"seed {seed}, {hits} hits of {tries}: {child.said}"
        hits, tries = hits + hit, tries + 1
        # The last good version can be read at any time.
        days.check_readable()
        if child.status == 0:
            # All days are there, and it had come to its end: there would be nothing left to hit.
            days.check()
            days.restore()
    child = days.nursery.run(*backfill())
    assert child.status == 0, f"seed {seed}: {child.said}"
    print(f"seed {seed}: {hits} hits in {tries} kills")
    days.check()


def test_killed_at_any_moment(days: Days) -> None:
    """SIGKILL at a random moment of a command's life: as it starts, reads, stages, writes or records.

    Holds afterwards: a rerun of the command completes; each table has the rows of an undisturbed run, each day once and
    recorded; no Dagster run is open and no MLflow run RUNNING; no spill folder is left.
    """

    def moment(chance: random.Random, child: Child) -> bool:
        return not child.ended.wait(chance.uniform(0.1, 5.0))

    assault(days, SEED, moment)


def test_killed_between_a_commit_and_its_record(days: Days) -> None:
    """SIGKILL up to 20 ms behind a table's commit, before Dagster has a record of it. Holds afterwards: as above.

    The rerun finds the rows as they are to be, writes no second version, and records them.
    """

    def moment(chance: random.Random, child: Child) -> bool:
        before = written(days)
        while child.status is None and not (new := written(days) - before):
            time.sleep(0.0005)
        child.ended.wait(chance.uniform(0.0, 0.02))
        child.send(signal.SIGKILL)
        child.wait()
        with opened(days.project) as instance:
            return any(day not in days.recorded(instance, name) for name, day in new)

    assault(days, SEED, moment)


def test_killed_while_it_logs_to_mlflow(days: Days) -> None:
    """SIGKILL while an MLflow run is open. Holds afterwards: as above; the rerun closes what the killed process left
    open.
    """

    def moment(chance: random.Random, child: Child) -> bool:
        before = set(days.open_runs())
        while child.status is None and set(days.open_runs()) <= before:
            time.sleep(0.002)
        child.ended.wait(chance.uniform(0.0, 0.3))
        child.send(signal.SIGKILL)
        child.wait()
        return bool(days.open_runs())

    assault(days, SEED, moment)


def written(days: Days) -> set[tuple[str, str]]:
    """(table, day) of what is committed."""
    return {(name, day) for name in DAILY for day in commits(days.project, name)}
