"""The project that many faults are tried on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from segflow_tests.faults.days import Days, made_days


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Days]:
    """Made once."""
    with made_days(tmp_path_factory.mktemp("days")) as days:
        yield days


@pytest.fixture
def days(made_once: Days) -> Days:
    """The project with its catalogue and no day."""
    made_once.restore()
    return made_once
