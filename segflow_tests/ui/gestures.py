"""The few gestures that the tests in the Dagster UI share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'segflow[ui]'")

ONE_RUN = "Launch (1 )?run"
BACKFILL = "Launch backfill"


class Browser:
    """A page, and the few gestures that the tests share."""

    def __init__(self, page: sync_api.Page, shots: Path):
        self.page = page
        self._shots = shots

    def shot(self, name: str) -> None:
        """Keep what is on the screen."""
        self.page.wait_for_timeout(1000)
        self.page.screenshot(path=self._shots / f"{name}.png")

    def materialize(self, partitions: str, expect: str = ONE_RUN) -> None:
        """In the dialog: choose the partitions of an asset with one dimension and launch."""
        self._confirm_neighbours()
        field = self.page.get_by_placeholder(re.compile("^ex: ")).last
        field.fill(partitions)
        field.press("Tab")
        self.launch(expect)

    def launch(self, expect: str) -> None:
        """Press the launching button, which must say `expect`."""
        self.page.get_by_role("button", name=re.compile(f"^{expect}$")).click()
        sync_api.expect(self.page.get_by_text("Launch runs to materialize")).to_have_count(0)

    def _confirm_neighbours(self) -> None:
        """The events and the quarantined events come from one pass; Dagster asks before it makes both."""
        dialog = self.page.get_by_text(re.compile("Additional assets will be materialized|Launch runs to materialize"))
        dialog.first.wait_for()
        if self.page.get_by_text("Additional assets will be materialized").count():
            self.page.get_by_role("button", name="Confirm").click()
