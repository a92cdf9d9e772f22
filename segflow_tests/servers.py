"""Servers that tests start: real processes on free ports of the loopback, ended by pid with all that they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def serving(
    command: Sequence[str | Path],
    ready: Callable[[], bool],
    folder: Path,
    environment: Mapping[str, str],
    name: str = "",
    timeout: float = 90,
) -> Iterator[subprocess.Popen[bytes]]:
    """`command` in a process group of its own, from when it is `ready` until the end of the block.

    What it says goes to `<name>.log` in `folder`, and is shown when it does not get ready within `timeout` seconds.
    """
    log = folder / f"{name or Path(command[0]).name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(command), cwd=folder, env=dict(environment), stdout=out, stderr=out, start_new_session=True
        )
        try:
            end = time.monotonic() + timeout
            while not ready():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.5)
            yield process
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group: politely, then not."""
    for how, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
            break
        except subprocess.TimeoutExpired:
            continue
    # Whoever outlived the leader of the group.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def answers(address: str) -> bool:
    """Whether a GET of `address` succeeds."""
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def free_ports(count: int) -> list[int]:
    """Ports that were free just now, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
