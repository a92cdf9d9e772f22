"""An MLflow server that dies while a command uses it: a real server, behind a relay that can die and come back at once."""

from __future__ import annotations

import random
import re
import socket
import sqlite3
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml

from segflow_tests.faults.daemon import opened
from segflow_tests.faults.days import DAILY, INJECTIONS, SEED, Days, backfill
from segflow_tests.faults.nursery import nursery
from segflow_tests.servers import answers, free_ports, serving

pytestmark = pytest.mark.faults


class Relay:
    """Passes connections on to a server, until it dies."""

    def __init__(self, port: int, server: int):
        self.port, self._server = port, server
        self._sockets: list[socket.socket] = []

    def live(self) -> None:
        """Listen, from now on."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def die(self) -> None:
        """Refuse connections and reset those that there are, as the kernel does for a process that is killed."""
        # Closing alone does not end an `accept` that waits.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)
                one.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._server))
                self._sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while content := one.recv(65536):
                other.sendall(content)
            other.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Tracked:
    """The relay to the server, and the server's database."""

    relay: Relay
    database: Path

    def statuses(self) -> Counter[str]:
        """How many runs have which status."""
        with closing(sqlite3.connect(self.database, timeout=60)) as opened:
            return Counter(row[0] for row in opened.execute("SELECT status FROM runs"))


@pytest.fixture
def tracked(tmp_path: Path, days: Days) -> Iterator[Tracked]:
    own, relayed = free_ports(2)
    command = [
        Path(sys.executable).parent / "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination", tmp_path / "artifacts", "--host", "127.0.0.1", "--port", str(own), "--workers", "1",
    ]  # fmt: skip
    # Its workers of jobs, which nobody asks for here, take longer to start than all the rest.
    environment = {**days.project.environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    health = f"http://127.0.0.1:{own}/health"
    with serving(command, lambda: answers(health), tmp_path, environment, "server", 180):
        yield Tracked(Relay(relayed, own), tmp_path / "server.db")


def materialized(days: Days) -> Counter[tuple[str, str | None]]:
    """(table, day) -> how many materializations Dagster has of it."""
    with opened(days.project) as instance:
        return Counter(
            (name, record.partition_key)
            for name in DAILY
            for record in instance.fetch_materializations(dg.AssetKey(name), limit=1000).records
        )


def test_mlflow_dies_during_a_command(days: Days, tracked: Tracked, tmp_path: Path) -> None:
    """The server dies at a random moment of the command, ten times, each on a project without days. Holds afterwards: the
    command has succeeded, or one line says what does not answer and how to mend it; what can be read is whole. With the
    server back, a rerun makes what is missing: each day is there and recorded once, and no MLflow run is left open.
    """
    settings = yaml.safe_load((days.project.folder / "segflow.yaml").read_text(encoding="utf-8"))
    settings["tracking"] |= {"uri": f"http://127.0.0.1:{tracked.relay.port}"}
    away = {"SEGFLOW_CONFIG": str(days.project.folder / "away.yaml"), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    (days.project.folder / "away.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    chance, failed, took = random.Random(SEED), 0, 0.0
    with nursery(days.project, away) as running:
        for turn in range(-1, 4 * INJECTIONS):
            if failed == INJECTIONS:
                break
            days.restore()
            (days.project.folder / "away.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
            tracked.relay.live()
            began = time.monotonic()
            child = running.start(*backfill(chunk=4))
            # The first is left alone, and tells how long one takes.
            child.ended.wait(chance.uniform(0.1, 1.0) * took if turn >= 0 else None)
            tracked.relay.die()
            status = child.wait()
            took = took or time.monotonic() - began
            told = f"seed {SEED}, turn {turn}: {status}: {child.said}"
            failed += status != 0
            if status:
                assert turn >= 0, told
                assert status in (1, 3), told
                last = child.said.splitlines()[-1]
                assert re.match(rf"segflow: 127.0.0.1:{tracked.relay.port}: does not answer; .*tracking.uri", last), (
                    told
                )
            days.check_readable()
            tracked.relay.live()
            again = running.run(*backfill(chunk=4))
            assert again.status == 0, f"{told}\n{again.said}"
            days.check()
            assert set(tracked.statuses()) <= {"FINISHED", "FAILED", "KILLED"}, told
            assert set(materialized(days).values()) == {1}, told
            tracked.relay.die()
    print(f"seed {SEED}: {failed} of {turn} failed; runs: {dict(tracked.statuses())}")
    assert failed == INJECTIONS
