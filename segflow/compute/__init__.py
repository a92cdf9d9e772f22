"""The seam to engines: where the pieces of one step are worked on. Asset code does not know which engine it has.

An engine maps a module-level function over small, picklable items (table locations, shard keys, segment ids). Whatever is larger
passes through its exchange. Results never depend on the engine or on how many machines there are: where they would depend on how
work is cut into pieces, the data decide it.

Lives here: the seam, and the choice of an engine by the settings. Does not live here: the engines themselves, and what is done
on them, which stands with the stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from segflow.compute.engine import Engine, Exchange, Reference
from segflow.compute.in_process import IN_PROCESS
from segflow.config import ComputeConfig

__all__ = ["IN_PROCESS", "Engine", "Exchange", "Reference", "open_engine"]


@contextmanager
def open_engine(
    config: ComputeConfig, options: Mapping[str, str] | None = None, log: Callable[[str], None] | None = None
) -> Iterator[Engine]:
    """The engine that `compute.engine` names. What its exchange holds goes away with it.

    options: of the object store, if the exchange is in one. log: told what people who watch should know, such as a lost worker.
    It is connected to with the first piece of work, which raises UserError when it cannot be reached within `compute.patience`.
    """
    if config.engine == "in_process":
        yield IN_PROCESS
        return
    from segflow.compute.ray_engine import ray_engine

    with ray_engine(config, options or {}, log) as engine:
        yield engine
