"""System metrics of long steps: processor, memory, disk and network, as MLflow samples them.

A short step is left alone: nothing is imported or sampled in its first seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

_AFTER_SECONDS = 5.0
_EVERY_SECONDS = 5.0


@contextmanager
def system_metrics(
    uri: str, run_id: str, after: float = _AFTER_SECONDS, every: float = _EVERY_SECONDS
) -> Iterator[None]:
    """Log `system/...` metrics to the run from `after` seconds on, a mean each `every` seconds; the first one is `every` later.

    uri: the tracking store.
    """
    monitors: list[Any] = []

    def begin() -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        # It says when it starts and ends, which is of no use to people who watch.
        logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
        monitors.append(SystemMetricsMonitor(run_id, sampling_interval=every, tracking_uri=uri))
        monitors[0].start()

    timer = Timer(after, begin)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for monitor in monitors:
            monitor.finish()
