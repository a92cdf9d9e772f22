"""Interactive charts in a headless Chromium: by pointer, finger and keyboard, and what is left without scripts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segflow.evaluation.content import ReportInput
from segflow.evaluation.report import render

from .browser import HARD_TO_READ, OUTCOMES, chromium, every_chart_drawn, page, pages

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'segflow[ui]'")

__all__ = ["chromium", "page", "pages"]
pytestmark = pytest.mark.ui

ROWS = ".pointed > path"


def opened(page: sync_api.Page, file: Path) -> list[sync_api.Locator]:
    """The charts of a page, drawn."""
    page.goto(file.as_uri())
    every_chart_drawn(page)
    return list(page.locator(".plot").all())


def data_of(chart: sync_api.Locator) -> dict[str, Any]:
    found = json.loads(chart.locator("script").text_content() or "")
    assert isinstance(found, dict)
    return found


def labels(chart: sync_api.Locator) -> list[str]:
    """What is shown, from above."""
    rows = [(row.bounding_box(), row.get_attribute("aria-label")) for row in chart.locator(ROWS).all()]
    return [str(label).partition(":")[0] for _, label in sorted(rows, key=lambda row: row[0]["y"] if row[0] else 0)]


def axis(chart: sync_api.Locator) -> list[float]:
    """The figures along the axis."""
    return sorted(float(text) for text in chart.locator(".role-axis-label text").all_text_contents() if text)


def point_at(page: sync_api.Page, chart: sync_api.Locator, position: int) -> None:
    """Move the pointer to the dot of a row or a point."""
    box = chart.locator(".dot > path").nth(position).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def within(page: sync_api.Page, tip: sync_api.Locator) -> bool:
    box, width = tip.bounding_box(), page.evaluate("document.documentElement.clientWidth")
    return box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width


@pytest.mark.parametrize("name", [*OUTCOMES, "no segments", "trend"])
def test_every_chart_is_interactive(page: sync_api.Page, pages: dict[str, Path], name: str) -> None:
    charts = opened(page, pages[name])
    assert len(charts) == page.locator("svg.chart").count() >= (1 if name == "trend" else 4)
    for chart in charts:
        assert chart.locator(".drawn svg").is_visible()
        assert not chart.locator("svg.chart").is_visible()
        rows = data_of(chart).get("rows") or data_of(chart)["points"]
        assert chart.locator(ROWS).count() == len(rows)
        assert chart.locator(".canvas").get_attribute("role") == "graphics-document"
        assert chart.locator(".canvas").get_attribute("aria-label") == data_of(chart)["title"]


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("name", ["segment", "trend"])
def test_a_pointer_tells_every_figure(page: sync_api.Page, pages: dict[str, Path], width: int, name: str) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for chart in opened(page, pages[name]):
        data, tip = data_of(chart), chart.locator(".tip")
        assert not tip.is_visible()
        chart.scroll_into_view_if_needed()
        for position, row in enumerate(data.get("rows") or data["points"]):
            point_at(page, chart, position)
            said = re.sub(r"\s+", " ", tip.inner_text())
            for text in (row["text"], *(part for fact in row.get("facts", []) for part in fact)):
                assert re.sub(r"\s+", " ", text) in said
            assert within(page, tip)
        assert page.evaluate(HARD_TO_READ) == []
        page.mouse.move(0, 0)
        assert not tip.is_visible()


def test_points_close_together_are_told_apart(page: sync_api.Page, report_input: ReportInput, tmp_path: Path) -> None:
    first = next(row for row in report_input.lists if row.arm == "segments")
    near = [replace(first, diversity_weight=n / 100, distance=first.distance + n / 1000) for n in range(5)]
    lists = [*(row for row in report_input.lists if row.diversity_weight), *near]
    file = tmp_path / "near.html"
    file.write_text(render(replace(report_input, lists=lists)), encoding="utf-8")
    page.set_viewport_size({"width": 360, "height": 900})
    curve = next(chart for chart in opened(page, file) if data_of(chart)["form"] == "curve")
    points = data_of(curve)["points"]
    assert len(points) == 7
    curve.scroll_into_view_if_needed()
    for position, point in enumerate(points):
        point_at(page, curve, position)
        assert curve.locator(".tip").inner_text() == point["text"]
    page.mouse.move(0, 0)
    assert page.evaluate(HARD_TO_READ) == []


def test_a_finger_opens_and_closes_a_tooltip(chromium: sync_api.Browser, pages: dict[str, Path]) -> None:
    context = chromium.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    first, *_ = opened(page, pages["segment"])
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    first.locator(ROWS).nth(2).tap()
    assert first.locator(".tip").is_visible()
    assert within(page, first.locator(".tip"))
    page.locator("#h-sure").tap()
    assert not first.locator(".tip").is_visible()
    context.close()


def test_the_keyboard_goes_from_row_to_row(page: sync_api.Page, pages: dict[str, Path]) -> None:
    for chart in opened(page, pages["segment only"]):
        data, tip = data_of(chart), chart.locator(".tip")
        rows = data.get("rows") or data["points"]
        assert chart.locator(f"{ROWS}[tabindex='0']").count() == 1
        before = chart.locator(".drawn button").last
        if before.count():
            before.focus()
            page.keyboard.press("Tab")
        else:
            chart.locator(f"{ROWS}[tabindex='0']").focus()
            page.keyboard.press("Home")
        for row in rows:
            assert page.evaluate("document.activeElement.getAttribute('aria-label')") == row["aloud"]
            assert tip.is_visible()
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Home")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == rows[0]["aloud"]
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        assert page.evaluate("document.activeElement.matches('.pointed > path')")


def test_the_legend_hides_and_shows_kinds_of_rows(page: sync_api.Page, pages: dict[str, Path]) -> None:
    _, arms, *_ = opened(page, pages["segment"])
    every, whole = labels(arms), axis(arms)
    baseline = arms.get_by_role("button", name="simple baseline")
    baseline.click()
    assert baseline.get_attribute("aria-pressed") == "false"
    page.wait_for_timeout(200)
    # What is left is close together, and the axis with it.
    assert axis(arms)[0] > whole[0]
    left = labels(arms)
    assert left == [one for one in every if "popularity" not in one and "frequency" not in one]
    assert arms.locator(f"{ROWS}[tabindex='0']").count() == 1
    for button in arms.locator(".tools .legend button").all():
        button.click()
    assert labels(arms)
    for button in arms.locator(".tools .legend button[aria-pressed='false']").all()[::-1]:
        button.click()
    page.wait_for_timeout(200)
    assert sorted(labels(arms)) == sorted(every)
    assert axis(arms) == whole


def test_rows_are_put_in_order(page: sync_api.Page, pages: dict[str, Path]) -> None:
    first, *_ = opened(page, pages["segment"])
    rows = data_of(first)["rows"]
    assert labels(first) == [row["label"] for row in rows]
    first.get_by_label("Order").select_option("by value")
    page.wait_for_timeout(200)
    assert labels(first) == [row["label"] for row in sorted(rows, key=lambda row: -row["mean"])]
    first.get_by_label("Order").select_option("by name")
    page.wait_for_timeout(200)
    assert labels(first) == sorted(row["label"] for row in rows)


def test_the_axis_is_zoomed_and_dragged(page: sync_api.Page, pages: dict[str, Path]) -> None:
    _, arms, *_ = opened(page, pages["segment"])

    whole = axis(arms)
    arms.get_by_role("button", name="Zoom in").click()
    page.wait_for_function("document.querySelectorAll('.plot')[1].querySelector('.zoomed')")
    page.wait_for_timeout(200)
    near = axis(arms)
    assert whole[0] < near[0] < near[-1]
    assert near[-1] - near[0] < 0.6 * (whole[-1] - whole[0])
    arms.scroll_into_view_if_needed()
    box = arms.locator(".canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 500, box["y"] + 150)
    page.mouse.down()
    page.mouse.move(box["x"] + 650, box["y"] + 150, steps=4)
    page.mouse.up()
    page.wait_for_timeout(200)
    assert axis(arms)[0] < near[0]
    arms.get_by_role("button", name="Whole axis").click()
    page.wait_for_timeout(200)
    assert axis(arms) == whole


def test_colours_follow_light_and_dark(page: sync_api.Page, pages: dict[str, Path]) -> None:
    first, *_ = opened(page, pages["segment"])
    colour = "one => [getComputedStyle(one).fill, getComputedStyle(document.documentElement).getPropertyValue('--ink')]"
    text = first.locator(".drawn svg text", has_text="placebo 1").first
    page.emulate_media(color_scheme="light")
    light = text.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    dark = text.evaluate(colour)
    assert light != dark
    for fill, ink in (light, dark):
        assert fill == "rgb({}, {}, {})".format(*(int(ink.strip()[at : at + 2], 16) for at in (1, 3, 5)))


def test_print_shows_the_drawings(page: sync_api.Page, pages: dict[str, Path]) -> None:
    charts = opened(page, pages["segment"])
    page.emulate_media(media="print")
    for chart in charts:
        assert chart.locator("svg.chart").is_visible()
        assert not chart.locator(".drawn").is_visible()


@pytest.mark.parametrize("name", ["segment", "trend"])
def test_without_scripts_everything_is_there(chromium: sync_api.Browser, pages: dict[str, Path], name: str) -> None:
    context = chromium.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(pages[name].as_uri())
    for chart in page.locator(".plot").all():
        assert chart.locator("svg.chart").is_visible()
        assert chart.locator("svg.chart circle").count() == len(chart.locator("svg.chart title").all())
    assert page.locator("table").first.is_visible()
    assert page.locator(".drawn").count() == 0
    context.close()


def test_a_chart_that_cannot_be_drawn_stays_as_it_was(
    page: sync_api.Page, pages: dict[str, Path], tmp_path: Path
) -> None:
    said: list[tuple[str, str]] = []
    page.on("console", lambda message: said.append((message.type, message.text)))
    page.on("pageerror", lambda error: said.append(("error", str(error))))
    text = pages["segment"].read_text(encoding="utf-8")
    file = tmp_path / "broken.html"
    file.write_text(text.replace('"form": "curve"', '"form": "unheard of"'), encoding="utf-8")
    page.goto(file.as_uri())
    page.wait_for_function("document.querySelectorAll('.plot:not(.interactive)').length === 1")
    (left,) = page.locator(".plot:not(.interactive)").all()
    assert left.locator("svg.chart").is_visible()
    assert left.locator(".drawn").count() == 0
    assert [kind for kind, _ in said] == ["info"]


def test_no_other_script_runs(page: sync_api.Page, pages: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "injected.html"
    text = pages["segment"].read_text(encoding="utf-8")
    bad = "<script>document.title = 'taken'</script><p onclick=\"document.title = 'taken'\" id=bad>x</p>"
    file.write_text(text.replace("<main>", f"<main>{bad}"), encoding="utf-8")
    opened(page, file)
    page.locator("#bad").click()
    assert page.title() != "taken"
