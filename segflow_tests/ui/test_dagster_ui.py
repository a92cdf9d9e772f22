"""What people do in the Dagster UI, done by clicks in a headless Chromium: look around, and materialize a day, a range of
days, a group, a week and one segment of a week.

Runs are launched through the UI; that they ended well is asked of Dagster. `SEGFLOW_SCREENSHOTS` names a folder to keep the
screenshots in.
"""

from __future__ import annotations

import re
from datetime import date, timedelta

import pytest

from segflow import tables
from segflow_tests.ui.gestures import BACKFILL, ONE_RUN, Browser, sync_api
from segflow_tests.ui.servers import Servers

pytestmark = pytest.mark.ui

_DAY = "2024-02-07"


def test_lineage_shows_every_asset_in_its_group(
    servers: Servers, browser: Browser, groups: dict[str, list[str]]
) -> None:
    page = browser.page
    page.set_viewport_size({"width": 2000, "height": 1200})
    page.goto(f"{servers.dagster}/asset-groups")
    for group in groups:
        sync_api.expect(page.get_by_text(group, exact=True).first).to_be_visible()
    browser.shot("lineage")
    for group, names in groups.items():
        page.goto(f"{servers.dagster}/locations/segflow.definitions/asset-groups/{group}/lineage")
        # The graph draws only what lies inside the window; the list beside it moves the window to each asset.
        page.get_by_role("img", name="panel_show_left").click()
        for name in names:
            page.get_by_role("button").get_by_text(name, exact=True).first.click()
            sync_api.expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
            sync_api.expect(page.locator("foreignObject").get_by_text(name, exact=True)).to_be_in_viewport()
        browser.shot(f"lineage_{group}")


def test_one_day(servers: Servers, browser: Browser) -> None:
    before = servers.runs()
    browser.page.goto(f"{servers.dagster}/assets/events")
    browser.page.get_by_role("button", name="Materialize").first.click()
    browser.materialize(_DAY)
    (run,) = servers.ended(before)
    assert run["status"] == "SUCCESS"
    assert servers.materialized(run) == {("events", _DAY), ("quarantined_events", _DAY)}


def test_a_range_of_days_is_one_run(servers: Servers, browser: Browser) -> None:
    first = date.fromisoformat(_DAY)
    days = [str(first + timedelta(days=number)) for number in range(14)]
    chain = ["raw_events", "events", "quarantined_events"]
    before = servers.runs()
    page = browser.page
    page.set_viewport_size({"width": 1400, "height": 1600})  # the list holds only the rows that are seen
    page.goto(f"{servers.dagster}/assets")
    for name in chain:
        page.get_by_test_id(f"checkbox-{name}").dispatch_event("click")
    page.get_by_role("button", name="Materialize selected").click()
    browser.shot("range")
    browser.materialize(f"[{days[0]}...{days[-1]}]", expect=BACKFILL)
    (run,) = servers.ended(before)
    assert run["status"] == "SUCCESS"
    assert servers.materialized(run) == {(name, day) for name in chain for day in days}


def test_one_week(servers: Servers, browser: Browser, week: date) -> None:
    before = servers.runs()
    browser.page.goto(f"{servers.dagster}/assets/segmentation")
    browser.page.get_by_role("button", name="Materialize").first.click()
    browser.materialize(str(week))
    (run,) = servers.ended(before)
    assert run["status"] == "SUCCESS"
    assert servers.materialized(run) == {("segmentation", str(week))}


def test_one_segment_of_one_week(servers: Servers, browser: Browser, week: date) -> None:
    before = servers.runs()
    page = browser.page
    page.goto(f"{servers.dagster}/assets/segment_rankers")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_text("Select a partition or create one").last.click()
    page.get_by_role("menuitem", name="s001").click()
    page.get_by_text("Launch runs to materialize").click()
    page.get_by_placeholder(re.compile("^ex: ")).last.fill(str(week))
    page.get_by_placeholder(re.compile("^ex: ")).last.press("Tab")
    browser.shot("segment_dialog")
    browser.launch(ONE_RUN)
    (run,) = servers.ended(before)
    assert run["status"] == "SUCCESS"
    assert servers.materialized(run) == {("segment_rankers", f"s001|{week}")}


def test_a_job_of_one_week_in_processes_of_its_own(servers: Servers, browser: Browser, week: date) -> None:
    before = servers.runs()
    page = browser.page
    page.goto(f"{servers.dagster}/locations/segflow.definitions/jobs/report_week")
    page.get_by_role("button", name="Materialize").first.click()
    browser.materialize(str(week))
    (run,) = servers.ended(before)
    assert run["status"] == "SUCCESS"
    names = {name for name, _ in servers.materialized(run)}
    assert {"recommendations", "ranking_results", "evaluation_report"} <= names


def test_a_materialization_says_what_was_written(servers: Servers, browser: Browser) -> None:
    page = browser.page
    page.goto(f"{servers.dagster}/assets/events?view=partitions&partition={_DAY}")
    for key in ("dagster/row_count", "segflow/table_version", "mlflow_run"):
        sync_api.expect(page.get_by_text(key, exact=True).first).to_be_visible()
    link = page.locator(f"a[href^='{servers.mlflow}']").first
    sync_api.expect(link).to_be_visible()
    browser.shot("materialization")
    address = str(link.get_attribute("href"))
    page.goto(f"{servers.dagster}/assets/events")
    for column in tables.EVENTS.column_names:
        sync_api.expect(page.get_by_text(column, exact=True).first).to_be_attached()
    browser.shot("asset")
    page.goto(address)
    sync_api.expect(page.get_by_text(f"events {_DAY}").first).to_be_visible()


def test_mlflow_shows_runs_and_learning_curve(servers: Servers, browser: Browser, week: date) -> None:
    page = browser.page
    page.goto(f"{servers.mlflow}/#/experiments")
    page.get_by_text("Model training", exact=True).click()
    page.get_by_text("segflow representation").first.click()
    run = page.get_by_text(f"behavior_model {week}").first
    sync_api.expect(run).to_be_visible()
    browser.shot("mlflow_runs")
    run.click()
    sync_api.expect(page.get_by_text("valid_loss").first).to_be_visible()
    browser.shot("mlflow_run")


def test_the_report_opens_in_a_browser(servers: Servers, browser: Browser, week: date) -> None:
    browser.page.goto((servers.folder / "data" / "reports" / f"{week}.html").as_uri())
    sync_api.expect(browser.page.get_by_role("heading").first).to_be_visible()
    browser.shot("report")


def test_the_sensor_brings_late_rows_into_their_day(servers: Servers, browser: Browser) -> None:
    page = browser.page
    before = servers.runs()
    with (servers.folder / "input" / "events.csv").open("a", encoding="utf-8") as log:
        log.write(f"newcomer,p001,view,{_DAY} 12:00:00,5.00\n")
    page.goto(f"{servers.dagster}/locations/segflow.definitions/sensors/late_files")
    # The switch itself is hidden behind its drawing.
    page.get_by_role("checkbox").first.evaluate("switch_ => switch_.click()")
    made: set[tuple[str, str | None]] = set()
    # One run looks into the files, the next one makes the day; the sensor looks every thirty seconds.
    for _ in range(2):
        for run in servers.ended(before):
            assert run["status"] == "SUCCESS", run
            made |= servers.materialized(run)
        before = servers.runs()
    browser.shot("sensor")
    names = ("raw_events", "events", "quarantined_events", "sessions")
    assert made == {("source_files", None), *((name, _DAY) for name in names)}
    page.goto(f"{servers.dagster}/assets/session_embeddings?view=partitions&partition={_DAY}")
    browser.shot("downstream of late rows")
