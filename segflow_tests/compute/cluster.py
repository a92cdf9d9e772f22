"""A real Ray cluster of two nodes on this machine, one processor each, for as long as a test needs it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from segflow_tests.pipeline.project import ROOT

_RAY = Path(sys.executable).with_name("ray")
_START_SECONDS = 90.0
# Ports of workers, below those that a system hands out by itself.
_WORKER_PORTS, _EACH = 21_000, 100


@dataclass
class Node:
    """`ray start` and all that it started."""

    process: subprocess.Popen[bytes]

    def is_at_work(self) -> bool:
        """Whether one of its workers is busy with a piece, which is what Ray names a worker's process by."""
        for one in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if one.cmdline()[:1] == ["ray::run"]:
                    return True
        return False

    def kill_at_work(self, driver: subprocess.Popen[str]) -> None:
        """`kill`, as soon as it is at work for the driver."""
        while not self.is_at_work():
            if driver.poll() is not None:
                raise AssertionError(f"the node never had a piece: {driver.communicate()}")
            time.sleep(0.005)
        self.kill()

    def kill(self) -> None:
        """All of it at once, with SIGKILL. Workers that start meanwhile end by themselves without their node."""
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        for one in (self.process, *family):
            one.kill()
        self.process.wait()


@dataclass
class Cluster:
    """The head and the second node. environment: what a process needs to be let in. join: start another second node."""

    head: Node
    second: Node
    address: str
    environment: dict[str, str] = field(repr=False)
    join: Callable[[], Node]


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    """Both nodes, ready."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    own = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **own, **token}
    # Sockets may not have long names, so not below the tests' own folder.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    try:
        with ExitStack() as stack:
            port = _free_port()
            head = _start(stack, environment, folder, 0, "--head", f"--port={port}", "--include-dashboard=false",
                          f"--ray-client-server-port={_free_port()}", f"--temp-dir={folder}")  # fmt: skip
            _wait_for(port)

            def join() -> Node:
                node = _start(stack, environment, folder, 1, f"--address=127.0.0.1:{port}")
                _wait_for_nodes(environment, port)
                return node

            yield Cluster(head, join(), f"127.0.0.1:{port}", token, join)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(stack: ExitStack, environment: dict[str, str], folder: Path, number: int, *arguments: str) -> Node:
    first = _WORKER_PORTS + number * _EACH + 2 * _EACH * (os.getpid() % 30)
    command = [
        str(_RAY), "start", "--block", "--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats",
        f"--min-worker-port={first}", f"--max-worker-port={first + _EACH - 1}",
        f"--dashboard-agent-listen-port={_free_port()}", f"--dashboard-agent-grpc-port={_free_port()}",
        f"--metrics-export-port={_free_port()}", f"--runtime-env-agent-port={_free_port()}", *arguments,
    ]  # fmt: skip
    log = stack.enter_context((folder / f"node-{number}.log").open("wb"))
    node = Node(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
    stack.callback(node.kill)
    return node


def _wait_for(port: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        with closing(socket.socket()) as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"no Ray head at port {port}")


def _wait_for_nodes(environment: dict[str, str], port: int) -> None:
    """In a process of its own, since one process can be a driver of one cluster only."""
    script = (
        f"import ray, time; ray.init('127.0.0.1:{port}', log_to_driver=False)\n"
        "while ray.cluster_resources().get('CPU') != 2: time.sleep(0.2)"
    )
    subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, timeout=_START_SECONDS, capture_output=True
    )


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
    return port
