"""The pages in a headless Chromium: nothing is amiss, all can be read, reached by keyboard and taken along."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from segflow.evaluation.appendix import sheets
from segflow.evaluation.content import ReportInput, statement
from segflow.evaluation.report import render
from segflow.evaluation.trend import render_trend, trend

from .conftest import NAMES

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'segflow[ui]'")

pytestmark = pytest.mark.ui

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_OUTCOMES = ("segment", "segment only", "do not segment", "not enough data to say")

# Texts whose contrast with what lies behind them (WCAG 2.2, 1.4.3) is below 4.5, or below 3 for large letters.
_HARD_TO_READ = """() => {
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(one => one / 255)
    .map(one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, i) => sum + one * [0.2126, 0.7152, 0.0722][i], 0);
  const over = (front, back) => { const a = front[3] ?? 1; return back.map((one, i) => front[i] * a + one * (1 - a)); };
  const behind = element => {
    if (!element) return [255, 255, 255];
    const own = rgb(getComputedStyle(element).backgroundColor);
    return over(own, own[3] === undefined ? own : behind(element.parentElement));
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !element.getClientRects().length || element.tagName === 'title') continue;
    const style = getComputedStyle(element), back = behind(element);
    let ink = rgb(element.closest('svg') ? style.fill : style.color);
    for (let one = element; one; one = one.parentElement)
      ink = over([...ink.slice(0, 3), +getComputedStyle(one).opacity], back);
    const [dark, bright] = [light(ink), light(back)].sort((a, b) => a - b);
    const ratio = (bright + 0.05) / (dark + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push([text, ratio.toFixed(2)].join(': '));
  }
  return found;
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[sync_api.Browser]:
    if _CHROMIUM is None:
        pytest.fail("no chromium on the PATH: install one, or leave out `make test-ui`")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, report_input: ReportInput) -> dict[str, Path]:
    """A report of each outcome, one of a week without segments, and the trend over them."""
    summary, folder = report_input.summary, tmp_path_factory.mktemp("pages")
    judged = {
        name: replace(summary, verdict=replace(summary.verdict, outcome=name, segments=("s003",))) for name in _OUTCOMES
    }
    judged["no segments"] = replace(summary, verdict=replace(judged["do not segment"].verdict, segmented=False))
    html = {name: render(replace(report_input, summary=one)) for name, one in judged.items()}
    weeks = {f"2017-11-{6 + number:02d}": one for number, one in enumerate(judged.values())}
    html["trend"] = render_trend(trend(weeks, NAMES), "Week by week")
    files = {name: folder / f"{name}.html" for name in html}
    for name, text in html.items():
        files[name].write_text(text, encoding="utf-8")
    return files


@pytest.fixture
def page(chromium: sync_api.Browser) -> Iterator[sync_api.Page]:
    opened = chromium.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    yield opened
    opened.close()


@pytest.mark.parametrize("name", [*_OUTCOMES, "no segments", "trend"])
def test_nothing_is_amiss_and_everything_can_be_read(page: sync_api.Page, pages: dict[str, Path], name: str) -> None:
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    assert asked == [pages[name].as_uri()]
    for details in page.locator("details").all():
        details.locator("summary").click()
    for shown in page.locator("table, svg, article").all():
        box = shown.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 0
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            if kept := os.environ.get("SEGFLOW_SCREENSHOTS"):
                page.screenshot(path=Path(kept) / f"{name}-{scheme}-{width}.png")
        assert page.evaluate(_HARD_TO_READ) == []
    page.emulate_media(media="print", color_scheme="light")
    assert page.evaluate(_HARD_TO_READ) == []
    assert said == []


def test_what_is_hard_to_read_is_noticed(
    page: sync_api.Page, pages: dict[str, Path], report_input: ReportInput
) -> None:
    page.goto(pages["segment"].as_uri())
    page.add_style_tag(content=".sentence { opacity: .5 } svg.chart .tick { fill: #aaa } nav a { color: #ddd }")
    found = " ".join(page.evaluate(_HARD_TO_READ))
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
