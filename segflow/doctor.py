"""An examination of everything around a project: what is installed, the settings, the places, the servers' ports.

Lives here: what is looked at, and the parts that belong to no seam. Does not live here: tables, tracking store and Dagster's home
(`health.py` of each). It writes nothing but a probe that it removes.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from segflow.config import Config
from segflow.errors import UserError
from segflow.findings import Finding, fault, ok, warning

_PYTHON = SpecifierSet(">=3.11,<3.14")
_AHEAD = 60.0
_CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
_UI_PORT = 3000


def examine(path: Path, data: bool = False) -> Iterator[Finding]:
    """Everything, in the order in which it is worth mending. path: the settings file; data: also all data files of tables."""
    from segflow import settings

    yield from installed()
    yield arithmetic()
    try:
        config = settings.load(path)
    except UserError as error:
        says, _, mend = str(error).rpartition("; ")
        yield fault(
            "settings", says or str(error), mend if says else "correct the file; docs/settings.md lists every key"
        )
        return
    yield ok("settings", f"{path}: every key is known")
    yield encoder(config)
    files = list(_sources(config))
    yield from (one for one in files if isinstance(one, Finding))
    log_bytes = sum(one for one in files if isinstance(one, int))
    yield clock()
    yield from _places(config, log_bytes, data)
    yield port(
        "dagster", "127.0.0.1", _UI_PORT, f"`make ui UI_PORT={_UI_PORT + 1}`, or `dagster dev -p {_UI_PORT + 1}`"
    )
    tracking = urlsplit(config.tracking.ui)
    if config.tracking.uri is None and tracking.hostname in ("127.0.0.1", "localhost"):
        at = tracking.port or 80
        yield port("mlflow", "127.0.0.1", at, f"`make mlflow MLFLOW_PORT={at + 1}`, and set tracking.ui to it")


def installed(constraints: Path = _CONSTRAINTS) -> Iterator[Finding]:
    """Python, and the packages against what segflow asks for; where its sources lie, also against the tested versions."""
    python = platform.python_version()
    if python in _PYTHON:
        yield ok("python", f"{python} at {sys.executable}")
    else:
        yield fault("python", f"{python}; segflow runs on {_PYTHON}", "make the environment with another Python")
    try:
        asked = [Requirement(one) for one in requires("segflow") or []]
    except PackageNotFoundError:
        yield warning(
            "packages", "segflow itself is not installed", "`pip install -c constraints.txt -e .` in its folder"
        )
        return
    wrong = []
    needed = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    for one in needed:
        found = _version(one.name)
        if found is None or not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} {found or 'missing'} ({one.specifier})")
    if wrong:
        yield fault("packages", ", ".join(wrong), "`pip install -c constraints.txt -e .` in the folder of segflow")
    else:
        yield ok("packages", f"{len(needed)} are there, in versions that segflow asks for")
    differ = [f"{name} {found} (tested {tested})" for name, found, tested in _untested(constraints)]
    if differ:
        more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
        yield warning(
            "packages",
            f"not the tested versions: {', '.join(differ[:3])}{more}",
            "`pip install -c constraints.txt -e .`",
        )


def _untested(constraints: Path) -> Iterator[tuple[str, str, str]]:
    """(package, installed version, tested version) where they differ."""
    if not constraints.is_file():
        return
    for name, tested in re.findall(r"^([\w.-]+)==([^\s;]+)", constraints.read_text(encoding="utf-8"), re.MULTILINE):
        # A local part such as +cpu names a build of the same version.
        if (found := _version(name)) and found.partition("+")[0] != tested.partition("+")[0]:
            yield name, found, tested


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def arithmetic() -> Finding:
    """Threads, and what the processor multiplies fast."""
    import torch

    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    fast = [name for name, flag in (("AMX", "amx_bf16"), ("bfloat16", "avx512_bf16")) if flag in flags]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    says = f"{cores} cores, torch {torch.__version__} with {torch.get_num_threads()} threads, {' and '.join(fast) or 'float32'}"
    if torch.get_num_threads() > 1:
        return warning(
            "arithmetic", says, "unset OMP_NUM_THREADS: two processes of one thread do more, and repeat exactly"
        )
    return ok("arithmetic", says)


def encoder(config: Config) -> Finding:
    """The language model is on disk; nothing is fetched."""
    from segflow.representation.language_model import locate

    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        place = locate(config.text.encoder)
    except UserError as error:
        return fault("encoder", str(error), "fetch it while there is a network, or name a folder in text.encoder")
    finally:
        if before is None:
            os.environ.pop("HF_HUB_OFFLINE", None)
        else:
            os.environ["HF_HUB_OFFLINE"] = before
    if not place.is_dir():
        return fault("encoder", f"{place}: no such folder", "install its package again, or set text.encoder")
    return ok("encoder", f"{config.text.encoder} at {place}")


def _sources(config: Config) -> Iterator[Finding | int]:
    """The sources can be listed and their times are past; each file's size."""
    from segflow.events.files import files

    now = time.time()
    try:
        found = files(config.source.events.path, config.source.events.format)
    except UserError as error:
        yield fault("sources", str(error), "correct source.events.path; `segflow check` looks closer")
        return
    yield from (one.size for one in found)
    ahead = [one for one in found if one.modified / 1e9 > now + _AHEAD]
    if ahead:
        yield warning(
            "sources",
            f"{ahead[0].name}: its time lies {(ahead[0].modified / 1e9 - now) / 60:,.0f} minutes in the future",
            "set the clock of what delivers it; files are told new by their times",
        )
    else:
        yield ok("sources", f"{len(found):,} files of events, none from the future")


def clock() -> Finding:
    """Which zone this machine shows times in; days are UTC whatever it is."""
    offset = time.strftime("%z")
    zone = f"{time.tzname[0]} ({offset[:3]}:{offset[3:]})"
    return ok(
        "clock", f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC; local zone {zone}; days and weeks are UTC"
    )


def _places(config: Config, log_bytes: int, data: bool) -> Iterator[Finding]:
    from segflow.defs.health import dagster_findings
    from segflow.storage.health import data_findings, storage_findings
    from segflow.tracking.health import tracking_finding

    yield from storage_findings(config.storage, log_bytes)
    if data:
        yield from data_findings(config.storage)
    yield from dagster_findings(Path(os.environ["DAGSTER_HOME"]))
    yield tracking_finding(config.tracking)


def port(server: str, host: str, number: int, mend: str) -> Finding:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            return warning(
                "ports", f"{host}:{number} for {server} is taken ({error.strerror}), maybe by {server} itself", mend
            )
    return ok("ports", f"{host}:{number} for {server} is free")
