"""A proxy in front of an object store that answers errors, waits, and cuts connections, by chance from a seed.

It is a process of its own, told what to do by requests to `/faults`. Each other request may suffer one of these:

- refused: 500 or 503, and the store hears nothing of it
- slow: it waits before it passes the request on
- hanging: it waits much longer than a client does, and the store hears nothing
- cut request: the store gets half of the body, and the client no answer
- lost answer: the store does what was asked, and the client gets no answer
- cut answer: the client gets half of the answer
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from segflow_tests.object_store import ROOT, ObjectStore
from segflow_tests.servers import answers, free_ports, serving

KINDS = ("refused", "slow", "hanging", "cut request", "lost answer", "cut answer")
_CONTROL = "/faults"


@dataclass(frozen=True)
class Proxy:
    """A running proxy. store: the store as it is reached by way of it."""

    store: ObjectStore

    def set(
        self,
        share: float,
        kinds: Sequence[str] = KINDS,
        seed: int = 0,
        seconds: float = 0.5,
        only: str = "",
        most: int | None = None,
    ) -> Counter[str]:
        """From now on that share of requests suffers. Returns what was suffered since the last call, by kind.

        seconds: of slow ones, at most. only: part of the request line that those must hold which may suffer, such as `PUT `.
        most: how many may.
        """
        told = {"share": share, "kinds": list(kinds), "seed": seed, "seconds": seconds, "only": only, "most": most}
        request = urllib.request.Request(self.store.address + _CONTROL, json.dumps(told).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return Counter(json.load(answer))

    def stop(self) -> Counter[str]:
        """No more faults. Returns what was suffered since the last call, by kind."""
        return self.set(0.0)


@contextmanager
def faulty(store: ObjectStore, folder: Path) -> Iterator[Proxy]:
    """A proxy in front of `store` that lets everything pass at first, ended with the block."""
    (port,) = free_ports(1)
    proxy = Proxy(ObjectStore(f"http://127.0.0.1:{port}"))
    command = [sys.executable, "-m", __name__, str(port), store.address]
    health = proxy.store.address + _CONTROL
    with serving(command, lambda: answers(health), folder, {"PYTHONPATH": str(ROOT)}, "proxy"):
        yield proxy


class _Chance:
    """What befalls the next request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, Any] = {"share": 0.0}
        self._random = random.Random()
        self._suffered: Counter[str] = Counter()

    def tell(self, told: dict[str, Any]) -> Counter[str]:
        with self._lock:
            self._told, self._random = told, random.Random(told["seed"])
            suffered, self._suffered = self._suffered, Counter()
            return suffered

    def next(self, line: str) -> tuple[str, float]:
        """Kind and seconds; no kind for a request that passes."""
        with self._lock:
            most = self._told.get("most")
            over = most is not None and self._suffered.total() >= most
            if over or self._told.get("only", "") not in line or self._random.random() >= self._told["share"]:
                return "", 0.0
            kind = self._random.choice(self._told["kinds"])
            self._suffered[kind] += 1
            return kind, self._told["seconds"] * self._random.random()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    chance = _Chance()
    upstream = ("127.0.0.1", 0)
    timeout = 120

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: there are thousands."""

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == _CONTROL:
            told = json.dumps(self.chance.tell(json.loads(body))) if body else ""
            return self._answer(200, [], told.encode())
        kind, seconds = self.chance.next(self.requestline)
        if kind == "refused":
            return self._answer(503 if int(seconds * 1e6) % 2 else 500, [], b"")
        if kind == "hanging":
            return self._wait_for_the_client()
        if kind == "slow":
            time.sleep(seconds)
        if kind == "cut request":
            self._forward(body[: len(body) // 2], len(body))
            return self._cut()
        status, headers, content = self._forward(body, len(body))
        if kind == "lost answer":
            return self._cut()
        if kind == "cut answer" and content:
            self._head(status, headers, content)
            self.wfile.write(content[: len(content) // 2])
            return self._cut()
        return self._answer(status, headers, content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on  # noqa: N815

    def _forward(self, body: bytes, length: int) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body of the store's answer; nothing if it got less than it was promised."""
        connection = http.client.HTTPConnection(*self.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders(body)
            if len(body) < length:
                return 0, [], b""
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self._head(status, headers, content)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _head(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        kept = [one for one in headers if one[0].lower() not in ("connection", "transfer-encoding", "content-length")]
        sizes = [one for one in headers if one[0].lower() == "content-length"] if self.command == "HEAD" else []
        for name, value in [*kept, *(sizes or [("Content-Length", str(len(content)))])]:
            self.send_header(name, value)
        self.end_headers()

    def _cut(self) -> None:
        """Close, so that the client finds the connection broken."""
        self.close_connection = True
        self.wfile.flush()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _wait_for_the_client(self) -> None:
        """Until it gives up."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.recv(1)


def serve(port: int, upstream: str) -> None:
    """Serve until killed."""
    address = urlsplit(upstream)
    _Handler.upstream = (address.hostname or "", address.port or 80)
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
