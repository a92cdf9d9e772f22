"""A project with its servers, and a browser to look at them with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from segflow.definitions import defs
from segflow_tests.ui.gestures import Browser, sync_api
from segflow_tests.ui.servers import Servers, project

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Servers, date]]:
    if _CHROMIUM is None:
        pytest.fail("no chromium on the PATH: install one, or leave out `make test-ui`")
    with project(tmp_path_factory.mktemp("project")) as running:
        yield running


@pytest.fixture(scope="session")
def servers(site: tuple[Servers, date]) -> Servers:
    return site[0]


@pytest.fixture(scope="session")
def week(site: tuple[Servers, date]) -> date:
    return site[1]


@pytest.fixture(scope="session")
def groups() -> dict[str, list[str]]:
    """Asset group -> its assets, as defined."""
    found: dict[str, list[str]] = {}
    for spec in defs.resolve_all_asset_specs():
        found.setdefault(str(spec.group_name), []).append(spec.key.to_user_string())
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: sync_api.Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    kept = os.environ.get("SEGFLOW_SCREENSHOTS")
    shots = Path(kept) if kept else tmp_path_factory.getbasetemp()
    shots.mkdir(parents=True, exist_ok=True)
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(30_000)
    yield Browser(page, shots)
    page.close()
