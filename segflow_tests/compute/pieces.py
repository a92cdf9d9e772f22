"""Pieces of work on a cluster, for a process of its own that is a driver of it."""

from __future__ import annotations

import json
import os
import time

from segflow.compute import open_engine
from segflow.config import ComputeConfig
from segflow.errors import UserError

PIECES, PATIENCE = 12, 10


def place(number: int) -> tuple[int, int]:
    """The item, and the node that it came to, by its first process."""
    time.sleep(1)
    return number, os.getppid()


def wrong(number: int) -> int:
    if number == 3:
        raise UserError(f"row {number}: wrong; give another")
    return number


def drive(address: str, exchange: str) -> None:
    """Print what is said, and the results as JSON."""
    config = ComputeConfig(engine="ray", address=address, exchange=exchange, patience=PATIENCE)
    with open_engine(config, log=lambda line: print(line, flush=True)) as engine:
        found = engine.map(place, range(PIECES))
        try:
            engine.map(wrong, range(6))
        except UserError as error:
            print(error, *error.__notes__)
    print(json.dumps(found))
