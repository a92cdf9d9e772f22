"""The audit and the licence list of `make check`: what they find, and that neither hangs nor passes by mistake."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from segflow_tests.security import audit, licences

PINS = [("Safe", "1"), ("holed", "2.0")]
ENTRY = {"package": "holed", "id": "GHSA-1", "reason": "unused", "until": date(2030, 1, 1)}


@contextmanager
def server(answer: bytes, status: int = 200, wait: float = 0.0) -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server that gives this answer, and what it was asked."""
    asked: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(wait)
            with suppress(BrokenPipeError):  # nobody waits any more
                self.send_response(status)
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1/querybatch", asked
        running.shutdown()
        thread.join()


def test_what_is_known_against_a_version_is_found() -> None:
    answer = json.dumps({"results": [{}, {"vulns": [{"id": "GHSA-1"}, {"id": "PYSEC-2"}]}]}).encode()
    with server(answer) as (url, asked):
        found = audit.ask(url, PINS, 5)
    assert found == [[], ["GHSA-1", "PYSEC-2"]]
    first = json.loads(asked[0])["queries"][0]
    assert first == {"version": "1", "package": {"name": "Safe", "ecosystem": "PyPI"}}

    known = {("holed", "GHSA-1"): ENTRY}
    (line,) = audit.findings(PINS, found, known, date(2029, 1, 1))
    assert line.startswith("holed==2.0: PYSEC-2 (https://osv.dev/vulnerability/PYSEC-2)")
    assert any("reviewed until 2030-01-01" in one for one in audit.findings(PINS, found, known, date(2031, 1, 1)))
    assert any("found no more" in one for one in audit.findings(PINS, [[], []], known, date(2029, 1, 1)))


@pytest.mark.parametrize(
    ("answer", "status", "wait"),
    [
        (b"{}", 200, 0),
        (b'{"results": [{}]}', 200, 0),
        (b"<html>", 200, 0),
        (b"[]", 200, 0),
        (b"", 503, 0),
        (b"{}", 200, 1.0),
    ],
    ids=["no results", "too few", "no JSON", "a list", "an error", "late"],
)
def test_without_a_usable_answer_it_says_so_and_passes(answer: bytes, status: int, wait: float) -> None:
    with server(answer, status, wait) as (url, _):
        began = time.monotonic()
        lines, well = audit.audit(url, 0.3)
    assert (len(lines), well) == (1, True)
    assert lines[0].startswith("not audited: 127.0.0.1")
    assert time.monotonic() - began < 5


def test_nobody_there_is_said_and_a_finding_fails() -> None:
    lines, well = audit.audit("http://127.0.0.1:9/v1/querybatch", 2)
    assert (lines[0][:12], well) == ("not audited:", True)
    pins = audit.pinned((audit.ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert len(pins) > 100
    results = [{"vulns": [{"id": "GHSA-9"}]}] + [{}] * (len(pins) - 1)
    with server(json.dumps({"results": results}).encode()) as (url, _):
        lines, well = audit.audit(url, 5)
    assert (any("GHSA-9" in line for line in lines), well) == (True, False)


def test_every_review_has_a_reason_and_a_day() -> None:
    for entry in audit.reviewed(audit.REVIEWED.read_text(encoding="utf-8")).values():
        assert set(entry) == {"package", "id", "reason", "until"}
        assert len(entry["reason"]) > 10


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("MIT AND Apache-2.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("(MIT OR GPL-3.0-only) AND BSD-3-Clause", True),
        ("(MIT AND GPL-3.0-only) OR AGPL-3.0", False),
        ("Apache-2.0 WITH LLVM-exception AND MIT", True),
        ("GPL-2.0 WITH Classpath-exception-2.0", False),
        ("unknown", False),
        ("", False),
        ("(MIT", False),
        ("MIT MIT", False),
    ],
)
def test_licences_are_allowed_as_their_expressions_say(expression: str, allowed: bool) -> None:
    assert licences.is_allowed(expression) == allowed


def test_a_licence_that_is_not_allowed_a_package_that_is_not_known_and_an_old_page_are_told() -> None:
    found = {"good": "MIT", "strict": "AGPL-3.0"}
    before = licences.page({"good": "MIT", "elsewhere": "ISC"})
    lines = list(licences.faults(found, {"elsewhere", "never-seen"}, before))
    stale = "docs/licences.md is out of date (strict); run `make licences`"
    assert [line.split(":")[0] for line in lines] == ["strict", "never-seen", stale]
    whole = {"good": "MIT", "elsewhere": "ISC"}
    assert list(licences.faults({"good": "MIT"}, {"elsewhere"}, licences.page(whole))) == []
    assert licences.listed(licences.page(whole)) == whole


def test_the_page_is_that_of_what_is_installed() -> None:
    found, missing = licences.installed()
    assert {"dagster", "mlflow", "duckdb", "deltalake", "torch", "transformers"} <= found.keys()
    assert list(licences.faults(found, missing, licences.PAGE.read_text(encoding="utf-8"))) == []
