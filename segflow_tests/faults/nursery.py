"""A process that has imported segflow, and forks a child for each command, so that it costs its work and no imports.

Children do what the command `segflow` does in a project's folder, and can be killed at any moment. `Nursery` is the handle on
the process; the module itself, run as a program, is that process. Nothing is asserted here but that it starts.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from segflow_tests.pipeline.project import Project


@dataclass
class Child:
    """A forked process at its work."""

    pid: int
    output: Path
    began: float
    status: int | None = None
    """None while it lives; the exit code, or minus the signal that ended it."""
    ended: threading.Event = field(default_factory=threading.Event)

    def wait(self, seconds: float = 120) -> int:
        """How it ended."""
        assert self.ended.wait(seconds), f"no end after {seconds} s: {self.said}"
        assert self.status is not None
        return self.status

    def send(self, what: signal.Signals) -> None:
        """A signal, if it still lives."""
        if self.status is None:
            os.kill(self.pid, what)

    @property
    def said(self) -> str:
        """What it has printed."""
        return self.output.read_text(encoding="utf-8", errors="replace")


class Nursery:
    """The handle on the process. Open it with `nursery`."""

    def __init__(self, project: Project, process: subprocess.Popen[str]):
        self.project = project
        self._process = process
        self._children: dict[int, Child] = {}
        self._new: list[Child] = []
        self._told = threading.Condition()
        self._count = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Child:
        """Fork a child that does what `segflow` with these arguments does; `call MODULE FUNCTION ...` calls a function."""
        assert self._process.stdin is not None
        self._count += 1
        output = self.project.folder.parent / f"child-{self._count}.log"
        told = {"arguments": arguments, "output": str(output), "environment": dict(environment or {})}
        with self._told:
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
            assert self._told.wait_for(lambda: self._new, 60), "the nursery is dead"
            return self._new.pop()

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Child:
        """`start`, to its end."""
        child = self.start(*arguments, environment=environment)
        child.wait()
        return child

    def end_children(self) -> None:
        """Kill those that still live."""
        for child in list(self._children.values()):
            child.send(signal.SIGKILL)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            with self._told:
                if "output" in told:
                    child = Child(told["pid"], Path(told["output"]), told["began"])
                    self._children[child.pid] = child
                    self._new.append(child)
                    self._told.notify_all()
                else:
                    child = self._children.pop(told["pid"])
                    child.status = told["status"]
                    child.ended.set()


@contextmanager
def nursery(project: Project, environment: Mapping[str, str] | None = None) -> Iterator[Nursery]:
    """The process over a project, until the end of the block."""
    errors = project.folder.parent / "nursery.log"
    with errors.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=project.folder,
            env={**project.environment, "OMP_NUM_THREADS": "1", **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", errors.read_text(encoding="utf-8")
    running = Nursery(project, process)
    try:
        yield running
    finally:
        running.end_children()
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def _main() -> None:
    """Fork on command, tell of beginnings and ends, until the standard input ends and no child is left."""
    import segflow.definitions  # noqa: F401
    from segflow.tracking import SLOW_IMPORTS

    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    print("ready", flush=True)
    commands = sys.stdin.fileno()
    pending, children, over = "", 0, False
    while not over or children:
        if not over and select.select([commands], [], [], 0.005)[0]:
            more = os.read(commands, 65536).decode()
            over, pending = not more, pending + more
        while "\n" in pending:
            line, _, pending = pending.partition("\n")
            _fork(**json.loads(line))
            children += 1
        while children:
            pid, status = os.waitpid(-1, 0 if over else os.WNOHANG)
            if pid == 0:
                break
            children -= 1
            print(json.dumps({"pid": pid, "status": os.waitstatus_to_exitcode(status)}), flush=True)


def _fork(arguments: list[str], output: str, environment: Mapping[str, str]) -> None:
    began = time.monotonic()
    pid = os.fork()
    if pid:
        print(json.dumps({"pid": pid, "output": output, "began": began}), flush=True)
        return
    code = 70
    try:
        # The commands are for the parent alone.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(written, 1)
        os.dup2(written, 2)
        os.environ.update(environment)
        if arguments[0] == "call":
            getattr(importlib.import_module(arguments[1]), arguments[2])(*arguments[3:])
            code = 0
        else:
            from segflow import cli

            code = cli.main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Without what the parent's libraries do at an exit.
        os._exit(code)


if __name__ == "__main__":
    _main()
