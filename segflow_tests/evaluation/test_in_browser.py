"""The pages in a headless Chromium: nothing is amiss, all can be read, reached by keyboard and taken along.

Their charts are tried in test_charts_in_browser.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segflow.evaluation.appendix import sheets
from segflow.evaluation.content import ReportInput, statement

from .browser import HARD_TO_READ, OUTCOMES, chromium, every_chart_drawn, page, pages

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'segflow[ui]'")

__all__ = ["chromium", "page", "pages"]
pytestmark = pytest.mark.ui


@pytest.mark.parametrize("name", [*OUTCOMES, "no segments", "trend"])
def test_nothing_is_amiss_and_everything_can_be_read(page: sync_api.Page, pages: dict[str, Path], name: str) -> None:
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    every_chart_drawn(page)
    assert asked == [pages[name].as_uri()]
    for details in page.locator("details").all():
        details.locator("summary").click()
    for shown in page.locator("table, svg:visible, article").all():
        box = shown.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 0
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            if kept := os.environ.get("SEGFLOW_SCREENSHOTS"):
                page.screenshot(path=Path(kept) / f"{name}-{scheme}-{width}.png")
        assert page.evaluate(HARD_TO_READ) == []
    page.emulate_media(media="print", color_scheme="light")
    assert page.evaluate(HARD_TO_READ) == []
    assert said == []


def test_what_is_hard_to_read_is_noticed(
    page: sync_api.Page, pages: dict[str, Path], report_input: ReportInput
) -> None:
    page.goto(pages["segment"].as_uri())
    every_chart_drawn(page)
    page.add_style_tag(
        content=".sentence { opacity: .5 } .drawn svg text { fill: #aaa !important } nav a { color: #ddd }"
    )
    found = " ".join(page.evaluate(HARD_TO_READ))
    assert statement(report_input.summary) in found
    assert "0.00: " in found or "0.000: " in found
    assert "All tables: " in found


def test_the_keyboard_reaches_every_link_and_opens_every_table(page: sync_api.Page, pages: dict[str, Path]) -> None:
    page.goto(pages["segment only"].as_uri())
    closed = page.locator("details").count()
    reached: set[str] = set()
    for _ in range(500):
        page.keyboard.press("Tab")
        where = page.evaluate(
            "(document.activeElement.tagName + ' ' + (document.activeElement.getAttribute('href') || ''))"
        )
        if where == "SUMMARY ":
            page.keyboard.press("Enter")
        if where == "BODY ":
            break
        reached.add(where)
    links = {f"A {link.get_attribute('href')}" for link in page.locator("a").all()}
    assert len(links) > closed
    assert links <= reached
    assert page.locator("details[open]").count() == closed


def test_every_link_leads_somewhere_or_gives_its_file(
    page: sync_api.Page, pages: dict[str, Path], report_input: ReportInput
) -> None:
    page.goto(pages["segment"].as_uri())
    for link in page.locator("nav a").all():
        link.click()
        target = page.locator(str(link.get_attribute("href")))
        assert target.is_visible()
        page.evaluate("window.scrollTo(0, 0)")
    for details in page.locator("details").all():
        details.locator("summary").click()
    # A browser asks before it gives more than ten files at once.
    for sheet in sheets(report_input)[:8]:
        with page.expect_download() as download:
            page.get_by_text(f"Download as CSV: {sheet.name}", exact=True).click()
        assert download.value.suggested_filename == f"{report_input.week}-{sheet.name}.csv"
        assert Path(download.value.path()).read_bytes().decode() == sheet.csv
