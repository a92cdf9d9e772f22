"""What runs on a node of an engine: one piece of work, if the node has what the driver has.

Other versions of a library, or of segflow itself, may compute other numbers, or fail with errors that name no reason. So they are
compared before anything is done.
"""

from __future__ import annotations

import copy
import hashlib
import platform
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from segflow import sql
from segflow.errors import UserError

Versions = Mapping[str, str]

_PACKAGE = Path(__file__).resolve().parents[1]
# What decides the numbers of a piece.
_LIBRARIES = ("duckdb", "pyarrow", "deltalake", "numpy", "scipy", "scikit-learn", "torch", "transformers", "tokenizers")


@dataclass(frozen=True)
class Outcome:
    """What became of a piece: its value, or the error that it raised."""

    value: Any = None
    error: Exception | None = None


@cache
def versions() -> Versions:
    """What this process computes with: segflow by a digest of its files, and the libraries it uses."""
    digest = hashlib.sha256()
    for folder, pattern in ((_PACKAGE, "*.py"), (sql.folder(), "*.sql")):
        for file in sorted(folder.rglob(pattern)):
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(file.read_bytes())
    found = {"segflow": digest.hexdigest()[:12]}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "none"
    return found


def run(driver: Versions, function: Callable[[Any], Any], item: Any) -> Outcome:
    """One piece: `function` of its item. driver: the `versions` of the process that asks."""
    try:
        _require_same(driver)
        return Outcome(function(item))
    except Exception as error:
        return Outcome(error=_portable(error))


def _require_same(driver: Versions) -> None:
    own = versions()
    differ = [f"{name} {own[name]} instead of {driver[name]}" for name in driver if own.get(name) != driver[name]]
    if differ:
        raise UserError(
            f"compute: the node {platform.node()} has {', '.join(differ)}; install the same segflow and constraints.txt on "
            "every node as where its steps run"
        )


def _portable(error: Exception) -> Exception:
    """The error as the driver can raise it, with the traceback that was here."""
    where = f"On the node {platform.node()}:\n{''.join(traceback.format_exception(error))}"
    try:
        # Made again from its arguments, as the driver has to.
        error = copy.copy(error)
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(where)
    return error
