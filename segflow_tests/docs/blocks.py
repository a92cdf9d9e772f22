"""The commands of the docs: their `sh` blocks, how each is to be tested, and running them as a reader would.

A comment before a block, `<!-- commands: HOW -->`, says how: `parse` for what takes hours or needs what is not there (it is only
checked that its programs, targets and options exist), `server PORT` for what does not end by itself. All others are run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from segflow.cli.app import segflow

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(?:<!-- commands: (?P<how>[^\n]*?) -->\n)?^```sh\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)
_SERVER_SECONDS = 120


@dataclass(frozen=True)
class Block:
    """One block of commands. how: `run`, `parse` or `server PORT`."""

    page: Path
    line: int
    how: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def commands(self) -> Iterator[list[str]]:
        """Each command as words, without variables before it."""
        text = re.sub(r"(?:^|(?<=\s))#.*$", "", self.text.replace("\\\n", " "), flags=re.MULTILINE)
        # The end of a line ends a command, except in quotes.
        tokens = shlex.shlex(text, posix=True, punctuation_chars="\n;|&")
        tokens.whitespace, tokens.whitespace_split, tokens.commenters = " \t", True, ""
        words: list[str] = []
        for token in [*tokens, "\n"]:
            if token.strip("\n;|&"):
                if words or not re.match(r"\w+=", token):
                    words.append(token)
            elif words:
                yield words
                words = []


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start("text")), found["how"] or "run", found["text"])
        for found in _BLOCK.finditer(text)
    ]


def missing(block: Block) -> list[str]:
    """What the commands of a block name and what does not exist: programs, targets of make, commands and options of segflow."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    found = []
    for name, *rest in block.commands:
        if name == "segflow":
            try:
                segflow.make_context("segflow", list(rest), resilient_parsing=False)
                segflow.commands[rest[0]].make_context(rest[0], rest[1:])
            except (click.ClickException, KeyError) as error:
                found.append(f"segflow {shlex.join(rest)}: {error}")
        elif name == "make":
            found += [f"make {one}" for one in rest if one not in targets and "=" not in one]
        elif name not in ("cd", "export", "source") and shutil.which(name, path=_path()) is None:
            found.append(name)
    checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    return [*found, *checked.stderr.splitlines()]


class Reader:
    """Somebody who types the blocks of pages one after the other, in a shell that keeps its folder."""

    def __init__(self, folder: Path, tools: Path):
        """tools: an empty folder, for a `segflow` on the PATH that is this one."""
        self.folder = folder
        script = tools / "segflow"
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m segflow.cli "$@"\n', encoding="utf-8")
        script.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SEGFLOW_", "DAGSTER_"))}
        self._environment = {**kept, "PATH": f"{tools}:{_path()}", "PYTHONPATH": str(ROOT)}
        self._where = tools / "where"

    def type(self, block: Block) -> str:
        """Run a block; what it printed. Fails when one of its commands does."""
        if block.how.startswith("server"):
            return self._serve(block, block.how.split()[1])
        script = f"set -euo pipefail\n{block.text}\npwd > {shlex.quote(str(self._where))}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}: {done.stdout}\n{done.stderr}"
        self.folder = Path(self._where.read_text(encoding="utf-8").strip())
        return done.stdout

    def _serve(self, block: Block, port: str) -> str:
        """Start a server on a free port in place of its own, wait until it answers, and end it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            number = str(free.getsockname()[1])
        assert port in block.text
        server = subprocess.Popen(
            ["bash", "-c", block.text.replace(port, number)],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        answered = False
        try:
            deadline = time.monotonic() + _SERVER_SECONDS
            while not answered and server.poll() is None and time.monotonic() < deadline:
                answered = _answers(f"http://127.0.0.1:{number}/")
        finally:
            os.killpg(server.pid, signal.SIGINT)
            try:
                said = server.communicate(timeout=30)[0]
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                said = server.communicate()[0]
        assert answered, f"{block}: no answer\n{said}"
        return str(said)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        time.sleep(0.5)
        return False


def _path() -> str:
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"
