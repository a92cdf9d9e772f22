"""A PostgreSQL server of the machine's own binaries, for as long as a test takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from segflow_tests.servers import free_ports, serving

# Debian keeps the server's programs out of the PATH.
_PLACES = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin"), Path("/usr/bin")]
BINARIES = next((place for place in _PLACES if (place / "initdb").exists()), None)
"""Where `initdb` and `postgres` are, if they are installed."""
_USER = "segflow"


@contextmanager
def postgres(databases: Sequence[str]) -> Iterator[list[str]]:
    """A new server on the loopback with these empty databases; their addresses."""
    assert BINARIES is not None
    folder = Path(tempfile.mkdtemp(prefix="segflow-postgres-"))
    # The server refuses to be run by root.
    as_user: list[str | Path] = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    (port,) = free_ports(1)
    data = folder / "data"
    try:
        initialize = [BINARIES / "initdb", "-D", data, "-U", _USER, "--auth=trust", "-E", "UTF8"]
        subprocess.run([*as_user, *initialize], check=True, capture_output=True, cwd=folder)
        server = [BINARIES / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder]

        def ready() -> bool:
            asked = subprocess.run(
                [BINARIES / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], check=False, capture_output=True
            )
            return asked.returncode == 0

        with serving([*as_user, *server], ready, folder, os.environ, "postgres"):
            for name in databases:
                create = [BINARIES / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", _USER, name]
                subprocess.run(create, check=True, capture_output=True)
            yield [f"postgresql+psycopg2://{_USER}@127.0.0.1:{port}/{name}" for name in databases]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
