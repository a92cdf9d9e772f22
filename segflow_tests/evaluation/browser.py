"""What the tests in a browser share: the browser, the pages it opens, and a look for texts that are hard to read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from segflow.evaluation.content import ReportInput
from segflow.evaluation.report import render
from segflow.evaluation.trend import render_trend, trend

from .conftest import NAMES

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'segflow[ui]'")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OUTCOMES = ("segment", "segment only", "do not segment", "not enough data to say")

# Texts whose contrast with what lies behind them (WCAG 2.2, 1.4.3) is below 4.5, or below 3 for large letters.
HARD_TO_READ = """() => {
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
    if (element.closest('svg') && style.opacity === '0') continue;  // labels for which there was no room
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


def every_chart_drawn(page: sync_api.Page) -> int:
    """Waits until all charts of the page are interactive; how many there are."""
    page.wait_for_function("!document.querySelector('.plot:not(.interactive)')")
    return int(page.locator(".plot.interactive").count())


@pytest.fixture(scope="module")
def chromium() -> Iterator[sync_api.Browser]:
    if CHROMIUM is None:
        pytest.fail("no chromium on the PATH: install one, or leave out `make test-ui`")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, report_input: ReportInput) -> dict[str, Path]:
    """A report of each outcome, one of a week without segments, and the trend over them."""
    summary, folder = report_input.summary, tmp_path_factory.mktemp("pages")
    judged = {
        name: replace(summary, verdict=replace(summary.verdict, outcome=name, segments=("s003",))) for name in OUTCOMES
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
