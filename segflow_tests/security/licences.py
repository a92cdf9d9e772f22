"""The licences of all that is installed with segflow, by what the packages say of themselves: docs/licences.md.

`python -m segflow_tests.security.licences` writes the page; with `--check` it fails if the page is not what it would write, or if
a licence is not allowed. Versions are in constraints.txt. Does not live here: code that is part of segflow's own files
(segflow/pages/vega.licences.txt).
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "licences.md"
NOT_SHIPPED = {"dev", "ui", "docs"}
"""Extras for work on segflow itself."""

ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "CNRI-Python", "HPND", "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Unicode-3.0", "Unlicense", "Zlib",
}  # fmt: skip
"""Those that ask for no more than to be named, or for changes to their own files to be open (MPL)."""
REVIEWED = {
    "psycopg2-binary": "the LGPL allows its use as a library; only in the extra `production`",
}
"""Packages of another licence that may be used, and why."""
STATED = {
    "huey": "MIT",  # by its LICENSE file
    "skops": "MIT",  # by its LICENSE file
}
"""What packages do not say in their metadata."""

_SPELLED = {
    "mit license": "MIT",
    "mit": "MIT",
    "apache software license": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "bsd license": "BSD",
    "bsd": "BSD",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "python software foundation license": "PSF-2.0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "gnu library or lesser general public license (lgpl)": "LGPL",
}
_HEAD = """# Licences

segflow is Apache-2.0. What is installed with it, its extras included, by what the packages say of themselves; `make licences`
writes this page. Versions are those of `constraints.txt`. The scripts inside report pages have their licences with them.

| package | licence |
| --- | --- |
"""


def installed() -> tuple[dict[str, str], set[str]]:
    """Package -> licence of all that segflow needs, here and for its extras; and those of them that are not installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: wanted for name, wanted in project["optional-dependencies"].items() if name not in NOT_SHIPPED}
    waiting = [
        Requirement(one) for one in (*project["dependencies"], *(one for names in extras.values() for one in names))
    ]
    found: dict[str, str] = {}
    missing: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, extra = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            package = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            missing.add(name)
            continue
        found[name] = licence(name, package)
        for text in metadata.requires(name) or []:
            one = Requirement(text)
            chosen = [{"extra": each} for each in (*extra, "")]
            if one.marker is None or any(one.marker.evaluate(each) for each in chosen):
                waiting.append(one)
    return found, missing


def licence(name: str, package: metadata.PackageMetadata) -> str:
    """What the package says: an SPDX expression, or the names in its classifiers or its licence field as such."""
    if expression := package.get("License-Expression"):
        return " ".join(str(expression).split())
    named = [
        one.rpartition("::")[-1].strip() for one in package.get_all("Classifier") or [] if one.startswith("License")
    ]
    named = [one for one in named if one != "OSI Approved"]
    if not named and (text := str(package.get("License") or "").strip()) and "\n" not in text:
        named = [text]
    known = sorted({_SPELLED.get(one.lower(), one) for one in named})
    return STATED.get(name) or " AND ".join(known) or "unknown"


def is_allowed(expression: str) -> bool:
    """Whether everything that an expression asks for at once is allowed; of what can be chosen, one is enough."""
    tokens = re.findall(r"\(|\)|[^\s()]+(?: WITH [^\s()]+)?", expression)

    def any_of(place: int) -> tuple[bool, int]:
        good, place = all_of(place)
        while place < len(tokens) and tokens[place].upper() == "OR":
            more, place = all_of(place + 1)
            good = good or more
        return good, place

    def all_of(place: int) -> tuple[bool, int]:
        good, place = one_of(place)
        while place < len(tokens) and tokens[place].upper() == "AND":
            more, place = one_of(place + 1)
            good = good and more
        return good, place

    def one_of(place: int) -> tuple[bool, int]:
        if place < len(tokens) and tokens[place] == "(":
            good, place = any_of(place + 1)
            return good and place < len(tokens) and tokens[place] == ")", place + 1
        return place < len(tokens) and tokens[place] in ALLOWED, place + 1

    good, end = any_of(0)
    return good and end == len(tokens)


def page(found: dict[str, str]) -> str:
    """The page's text."""
    lines = (
        f"| {name} | {text}{f' ({REVIEWED[name]})' if name in REVIEWED else ''} |"
        for name, text in sorted(found.items())
    )
    return _HEAD + "\n".join(lines) + "\n"


def listed(text: str) -> dict[str, str]:
    """Package -> licence as a page has them."""
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (.+?) \|$", text.partition("| --- |")[2], re.MULTILINE)
    return {name: said.removesuffix(f" ({REVIEWED.get(name)})") for name, said in rows}


def faults(found: dict[str, str], missing: set[str], before: str) -> Iterator[str]:
    """What is wrong, a line each. What is not installed here counts as the page has it."""
    known = listed(before)
    whole = found | {name: known[name] for name in missing & known.keys()}
    for name, text in sorted(whole.items()):
        if name not in REVIEWED and not is_allowed(text):
            yield f"{name}: its licence is '{text}', which is not allowed; leave it out, or review it in {Path(__file__).name}"
    for name in sorted(missing - known.keys()):
        yield f"{name}: is neither installed nor in docs/licences.md; install it and run `make licences`"
    if before != page(whole):
        changed = sorted(name for name in {*whole, *known} if whole.get(name) != known.get(name))
        yield f"docs/licences.md is out of date ({', '.join(changed) or 'its text'}); run `make licences`"


if __name__ == "__main__":
    here, absent = installed()
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else _HEAD
    if "--check" in sys.argv[1:]:
        wrong = list(faults(here, absent, text))
        print("\n".join(wrong) or f"licences: {len(here)} packages, all allowed")
        sys.exit(1 if wrong else 0)
    kept = {name: said for name, said in listed(text).items() if name in absent}
    PAGE.write_text(page(here | kept), encoding="utf-8")
