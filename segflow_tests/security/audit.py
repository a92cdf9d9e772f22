"""Known vulnerabilities of the pinned versions, by OSV (https://osv.dev): one request for all of them.

`python -m segflow_tests.security.audit` prints what is found and fails for what `reviewed.yaml` does not list. Without an answer
it says "not audited" and why, and passes: a check must not depend on somebody else's server. What is sent is names and versions.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
REVIEWED = Path(__file__).with_name("reviewed.yaml")
URL = "https://api.osv.dev/v1/querybatch"
SECONDS = 20


def pinned(text: str) -> list[tuple[str, str]]:
    """(package, version) of each line of constraints.txt."""
    return re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)


def ask(url: str, pins: Sequence[tuple[str, str]], seconds: float) -> list[list[str]]:
    """Ids of the vulnerabilities of each pin, in order. Raises OSError or ValueError when there is no usable answer."""
    asked = {
        "queries": [{"version": version, "package": {"name": name, "ecosystem": "PyPI"}} for name, version in pins]
    }
    request = urllib.request.Request(url, json.dumps(asked).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        found: Any = json.loads(answer.read())
    if not isinstance(found, dict) or len(results := found.get("results") or []) != len(pins):
        raise ValueError("the answer is not one result for each package")
    return [[str(one["id"]) for one in (result or {}).get("vulns") or []] for result in results]


def reviewed(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(package, id) -> its entry: why it does no harm here, and the day until which that was believed."""
    entries = yaml.safe_load(text) or []
    return {(one["package"].lower(), one["id"]): one for one in entries}


def findings(
    pins: Sequence[tuple[str, str]],
    found: Sequence[Sequence[str]],
    known: dict[tuple[str, str], dict[str, Any]],
    day: date,
) -> Iterator[str]:
    """What was not reviewed, or not lately, a line each; and entries of the list that nothing fits any more."""
    left = set(known)
    for (name, version), ids in zip(pins, found, strict=True):
        for one in ids:
            entry = known.get((name.lower(), one))
            left.discard((name.lower(), one))
            if entry is None:
                yield f"{name}=={version}: {one} (https://osv.dev/vulnerability/{one}); take a mended version, or review it"
            elif entry["until"] < day:
                yield f"{name}=={version}: {one} was reviewed until {entry['until']}; review it again"
    for name, one in sorted(left):
        yield f"{name}: {one} is reviewed in {REVIEWED.name} and found no more; remove it there"


def audit(url: str = URL, seconds: float = SECONDS) -> tuple[list[str], bool]:
    """Lines to print, and whether all is well."""
    pins = pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    try:
        found = ask(url, pins, seconds)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        return [f"not audited: {url.split('/')[2]} gave no answer ({reason})"], True
    known = reviewed(REVIEWED.read_text(encoding="utf-8"))
    lines = list(findings(pins, found, known, datetime.now(UTC).date()))
    return lines or [
        f"audited: {len(pins)} pinned packages, nothing known against them but {len(known)} reviewed"
    ], not lines


if __name__ == "__main__":
    said, well = audit(*sys.argv[1:2])
    print("\n".join(said))
    sys.exit(0 if well else 1)
