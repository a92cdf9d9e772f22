"""The definitions with a fault that can be switched on: while the file `lose_a_row` lies in the project's folder, cleaning loses
an event. Nothing that users can deliver breaks a table's checks, so that one is seen to fail takes a bug.

Only the servers load it: a process that does has the fault.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from segflow.definitions import defs
from segflow.events import clean
from segflow_tests.ui.servers import SWITCH

__all__ = ["defs"]

_whole = clean.events_query


def _events_query(*arguments: Any) -> str:
    query = _whole(*arguments)
    switched_on = (Path(os.environ["DAGSTER_HOME"]) / SWITCH).exists()
    return f"SELECT * FROM ({query}) ORDER BY ts OFFSET 1" if switched_on else query


clean.events_query = _events_query
