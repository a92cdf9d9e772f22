"""A whole run deals its weeks to processes."""

from __future__ import annotations

import os
from datetime import date, timedelta

import pytest

from segflow.errors import UserError
from segflow.workers import open_workers

WEEKS = [date(2024, 1, 1) + timedelta(weeks=number) for number in range(3)]


def process_of(week: date) -> tuple[date, int]:
    """A piece of work that says which process did it."""
    return week, os.getpid()


def refuse(week: date) -> None:
    """A piece of work that fails."""
    raise UserError(f"{week} is refused")


def test_a_week_stays_with_its_process_which_others_do_not_share_while_there_are_enough() -> None:
    with open_workers(2) as workers:
        first = workers.each(process_of, WEEKS)
        again = workers.each(process_of, WEEKS[::-1])
        with pytest.raises(UserError, match="2024-01-01 is refused"):
            workers.each(refuse, WEEKS[:1])
    assert [week for week, _ in first] == WEEKS
    assert again == first[::-1]
    processes = [process for _, process in first]
    assert processes[0] == processes[2] != processes[1]
    assert os.getpid() not in processes
