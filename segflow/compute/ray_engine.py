"""The engine of a Ray cluster that is there already: pieces are plain tasks on any of its nodes, tables pass as files.

Each piece asks for one processor and computes on one thread. What is lost with a worker or a node is made again by this
process, a few times, and said; Ray itself retries nothing. The only module that imports ray.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from segflow.compute.engine import Engine, EngineError, Exchange, Item, Result
from segflow.compute.exchange import exchange_below
from segflow.compute.worker import Outcome, run, versions
from segflow.config import ComputeConfig
from segflow.errors import UserError

Log = Callable[[str], None]

# Workers that one piece may lose before it is held to be the cause.
_ATTEMPTS = 4
# Pieces given out for each processor: enough that none is idle while the first of them is waited for.
_AHEAD = 4
_LOOK = 1.0
"""Seconds between two looks whether the cluster is still there."""

_log = logging.getLogger(__name__)


@dataclass
class _Piece:
    number: int
    function: Callable[[Any], Any]
    item: Any
    task: Any = None
    attempts: int = 0
    outcome: Outcome | None = None


class RayEngine(Engine):
    """Pieces on a cluster, to which this process connects with the first of them. Open it with `ray_engine`."""

    def __init__(self, config: ComputeConfig, options: Mapping[str, str], log: Log, closing: ExitStack) -> None:
        self._config, self._options, self._log, self._closing = config, options, log, closing
        self._asking: threading.Thread | None = None
        self._silent_since: float | None = None

    @cached_property
    def exchange(self) -> Exchange:
        """See `Engine`."""
        return self._closing.enter_context(exchange_below(self._config.exchange, self._options))

    @cached_property
    def _head(self) -> str:
        """The address of the head that this process is now connected to."""
        head = _connect(self._config)
        self._closing.callback(_disconnect, self._config.patience)
        return head

    @cached_property
    def _task(self) -> Any:
        import ray

        return ray.remote(num_cpus=1, max_retries=0)(run)

    @property
    def workers(self) -> int:
        """See `Engine`."""
        import ray

        _log.debug("compute: on the Ray cluster at %s", self._head)
        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def imap(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See `Engine`."""
        import ray

        ahead = _AHEAD * self.workers
        coming = enumerate(items)
        given: deque[_Piece] = deque()
        try:
            while True:
                while len(given) < ahead and (found := next(coming, None)) is not None:
                    given.append(_Piece(found[0], function, found[1]))
                    self._start(given[-1])
                if not given:
                    return
                # Whoever asked for the last result may have taken long over it.
                self._silent_since = None
                while (outcome := given[0].outcome) is None:
                    self._settle(given)
                given.popleft()
                if outcome.error is not None:
                    raise outcome.error
                yield outcome.value
        finally:
            for piece in given:
                if piece.outcome is None:
                    ray.cancel(piece.task, force=True)

    def _start(self, piece: _Piece) -> None:
        piece.attempts += 1
        piece.task = self._task.remote(versions(), piece.function, piece.item)

    def _settle(self, given: Iterable[_Piece]) -> None:
        """Wait a moment for one of the pieces to end; start those again that were lost."""
        import ray

        under_way = {piece.task: piece for piece in given if piece.outcome is None}
        ended, _ = ray.wait(list(under_way), timeout=_LOOK)
        if not ended:
            self._require_head()
        for task in ended:
            self._silent_since = None
            piece = under_way[task]
            try:
                piece.outcome = ray.get(task)
            except ray.exceptions.RayTaskError as error:
                # What a piece raises is in its outcome, so it did not even begin.
                raise EngineError(
                    f"compute: a node cannot run segflow; install it alike on every node: {_first_sentence(error.cause or error)}"
                ) from error
            except ray.exceptions.RayError as error:
                self._lost(piece, error)

    def _lost(self, piece: _Piece, error: Exception) -> None:
        reason = f"{type(error).__name__}: {_first_sentence(error)}"
        if piece.attempts == _ATTEMPTS:
            raise EngineError(
                f"compute: piece {piece.number} lost its worker {_ATTEMPTS} times, the last time by {reason}; if its node ran "
                "out of memory, give Ray fewer processors there"
            ) from error
        self._log(f"compute: the worker of piece {piece.number} was lost ({reason}); another one makes it again")
        self._start(piece)

    def _require_head(self) -> None:
        """Raise EngineError once the head of the cluster has not answered for `compute.patience` seconds."""
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        # In a thread, since Ray waits for a head that is gone.
        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=self._ask, daemon=True)
            self._asking.start()
        self._asking.join(_LOOK)
        silent = time.monotonic() - (self._silent_since or time.monotonic())
        if silent >= self._config.patience:
            raise EngineError(
                f"compute.address: the Ray head at {self._head} has not answered for {silent:.0f} s; what the step had begun is "
                "lost: start it again when the head is there"
            )

    def _ask(self) -> None:
        import ray

        with suppress(Exception):
            ray.nodes()
            self._silent_since = None


@contextmanager
def ray_engine(config: ComputeConfig, options: Mapping[str, str], log: Log | None = None) -> Iterator[RayEngine]:
    """The engine of the cluster at `compute.address`.

    Raises UserError when ray is not installed and, as soon as the engine is used, when the head does not answer or runs other
    versions of Ray or Python.
    """
    if find_spec("ray") is None:
        raise UserError("compute.engine: ray is not installed; run `pip install 'segflow[ray]'`")
    with ExitStack() as closing:
        yield RayEngine(config, options, log or _log.warning, closing)


def _disconnect(patience: float) -> None:
    """Leave the cluster, or leave it be: Ray says goodbye to a head that hangs without end, also when the process exits."""
    import ray

    leaving = threading.Thread(target=ray.shutdown, daemon=True)
    leaving.start()
    leaving.join(patience)
    if leaving.is_alive():
        atexit.unregister(ray.shutdown)


def _connect(config: ComputeConfig) -> str:
    """Connect this process to the cluster; the address of its head."""
    # Ray would end the whole process when it misses the head for as long; the step shall end by an error before.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(round(2 * config.patience + 60)))
    address = os.environ.get("RAY_ADDRESS", config.address) if config.address == "auto" else config.address
    failed: list[BaseException] = []
    head: list[str] = []

    def connect() -> None:
        import ray

        try:
            if address != "auto":
                socket.create_connection(_parts(address), timeout=config.patience).close()
            logging.getLogger("ray").setLevel(logging.ERROR)
            # Ray would print notices on standard output, which is for the command's own answer.
            ray._private.worker.print_to_stdstream = _notice
            context: Any = ray.init(address, namespace="segflow", log_to_driver=False, configure_logging=False)
            head.append(context.address_info["gcs_address"])
        except BaseException as error:
            failed.append(error)

    # In a thread, since it may wait without end, and would take the process's signals if it were in the main one.
    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(config.patience)
    if head:
        return head[0]
    if failed and isinstance(failed[0], UserError):
        raise failed[0]
    reason = (
        _first_sentence(failed[0])
        if failed
        else f"no answer for {config.patience:.0f} s, as from a head that wants its token"
    )
    if "ersion mismatch" in reason:
        raise UserError(f"compute.address: {' '.join(str(failed[0]).split())}; install the same versions on both sides")
    raise UserError(
        f"compute.address: cannot use the Ray cluster at {address}: {reason}; start one with `ray start --head`, run the step on "
        "one of its nodes, with its RAY_AUTH_TOKEN, and name HOST:PORT of the head"
    ) from (failed[0] if failed else None)


def _notice(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    for line in data["lines"]:
        _log.info("ray: %s", line)


def _parts(address: str) -> tuple[str, int]:
    """Host and port. Raises UserError for what is neither."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise UserError(
            f"compute.address: '{address}' is not HOST:PORT of a Ray head; write it like 10.0.0.5:6379, or `auto`"
        )
    return host.strip("[]"), int(port)


def _first_sentence(error: BaseException) -> str:
    """Ray's messages go on to say how its tools are used."""
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0].rstrip(".") if lines else type(error).__name__
