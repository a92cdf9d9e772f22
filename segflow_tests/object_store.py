"""An S3-compatible object store for tests: moto's server on the loopback, in a process of its own.

Lives here: the server and how it is reached. Does not live here: faults (`faults/proxy.py`).

Two things are stricter than moto, as they are in S3: requests are worked on one after the other, since moto looks whether an
object is there and puts it in two steps, between which another thread may put it; and a body that was cut off is not stored.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segflow_tests.servers import answers, free_ports, serving

ROOT = Path(__file__).parents[1]
BUCKET = "bucket"
CREDENTIALS: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "a secret of the tests",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What clients find in the environment."""


@dataclass(frozen=True)
class ObjectStore:
    """A running store. address: of its HTTP server."""

    address: str

    @property
    def environment(self) -> dict[str, str]:
        """Credentials, and the address for clients that take it from the environment."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.address}

    @property
    def options(self) -> dict[str, str]:
        """`storage.options`."""
        return {"aws_endpoint_url": self.address, "aws_allow_http": "true"}

    def root(self, prefix: str) -> str:
        """An address in the bucket."""
        return f"s3://{BUCKET}/{prefix}"

    def client(self) -> Any:
        """A boto3 client, to look from outside."""
        import boto3

        keys = {"aws_access_key_id": "tester", "aws_secret_access_key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}
        return boto3.client("s3", endpoint_url=self.address, region_name="us-east-1", **keys)

    def names(self, prefix: str) -> list[str]:
        """The objects below a prefix."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """A new store with an empty bucket, ended with the block."""
    (port,) = free_ports(1)
    store = ObjectStore(f"http://127.0.0.1:{port}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    health = f"{store.address}/moto-api/data.json"
    with serving(
        [sys.executable, "-m", __name__, str(port)], lambda: answers(health), folder, environment, "object_store"
    ):
        urllib.request.urlopen(urllib.request.Request(f"{store.address}/{BUCKET}", method="PUT"), timeout=20).close()
        yield store


_Start = Callable[..., Any]
_Application = Callable[[dict[str, Any], _Start], Iterable[bytes]]


class _Strict:
    """A WSGI application whose requests come whole and one after the other."""

    def __init__(self, application: _Application):
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        if wanted := int(environ.get("CONTENT_LENGTH") or 0):
            body = environ["wsgi.input"].read(wanted)
            if len(body) < wanted:
                start("400 Bad Request", [("Content-Length", "0")])
                return []
            environ["wsgi.input"] = io.BytesIO(body)
        with self._lock:
            return list(self._application(environ, start))


def serve(port: int) -> None:
    """Serve until killed."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import run_simple

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = _Strict(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", port, application, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
