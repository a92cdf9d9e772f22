"""Processes that the kernel kills because they need more memory than there is."""

from __future__ import annotations

import os
import random
import signal

import pytest

from segflow_tests.faults.days import INJECTIONS, SEED, Days, backfill
from segflow_tests.faults.places import memory_group

pytestmark = pytest.mark.faults


def test_killed_for_want_of_memory(days: Days) -> None:
    """The command may take a random amount of new memory, by a control group; ten times the kernel kills it. Holds
    afterwards: what can be read is whole; with memory, a rerun completes, each day is there once, and nothing is left
    open.
    """
    chance, kills = random.Random(SEED), 0
    with memory_group(f"segflow-test-{os.getpid()}") as join:
        while kills < INJECTIONS:
            child = days.nursery.start(*backfill(chunk=4))
            join(child.pid, chance.randrange(20_000_000, 90_000_000))
            status = child.wait()
            assert status in (0, -signal.SIGKILL), f"seed {SEED}: {child.said}"
            kills += status == -signal.SIGKILL
            days.check_readable()
            if status == 0:
                days.check()
                days.restore()
    assert days.nursery.run(*backfill(chunk=4)).status == 0
    days.check()
