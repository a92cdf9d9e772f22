"""What people watch in the Dagster UI while things run by themselves: checks that fail, and what the sensors turn."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date, timedelta

import pytest

from segflow_tests.ui.gestures import Browser, sync_api
from segflow_tests.ui.servers import SWITCH, Servers

pytestmark = pytest.mark.ui

_DAY = "2024-02-09"
LOCATION = "segflow.definitions"


def test_a_failed_check_is_shown_and_nothing_is_written(servers: Servers, browser: Browser) -> None:
    page = browser.page

    def make_the_day() -> str:
        before = servers.runs()
        page.goto(f"{servers.dagster}/assets/events")
        page.get_by_role("button", name="Materialize").first.click()
        browser.materialize(_DAY)
        (run,) = servers.ended(before)
        if run["status"] == "FAILURE":
            assert servers.materialized(run) == set()
        return str(run["status"])

    (servers.folder / SWITCH).touch()
    try:
        assert make_the_day() == "FAILURE"
        page.goto(f"{servers.dagster}/assets/events?view=checks&checkDetail=row_accounting")
        sync_api.expect(page.get_by_text("the sum is broken on 1 of 1 days")).to_be_visible()
        sync_api.expect(page.get_by_text(re.compile("^Failed")).first).to_be_visible()
        browser.shot("failed_check")
    finally:
        (servers.folder / SWITCH).unlink()
    assert make_the_day() == "SUCCESS"
    page.goto(f"{servers.dagster}/assets/events?view=checks&checkDetail=row_accounting")
    sync_api.expect(page.get_by_text(re.compile("^Passed")).first).to_be_visible()
    sync_api.expect(page.get_by_text(re.compile("the sum is broken"))).to_have_count(0)


def test_everything_of_a_group_is_materialized_at_once(servers: Servers, browser: Browser) -> None:
    before = servers.runs()
    page = browser.page
    page.goto(f"{servers.dagster}/locations/{LOCATION}/asset-groups/events/lineage")
    page.get_by_role("button", name="Materialize all").click()
    first = date.fromisoformat(_DAY)
    days = [str(first + timedelta(days=number)) for number in range(2)]
    browser.shot("materialize_all")
    browser.materialize(f"[{days[0]}...{days[-1]}]", expect="Launch (backfill|1 run|run)")
    runs = servers.ended(before, timeout=300)
    assert {run["status"] for run in runs} == {"SUCCESS"}
    made = set().union(*(servers.materialized(run) for run in runs))
    assert {(name, day) for name in ("raw_events", "events", "sessions", "day_reports") for day in days} <= made


def test_the_sensor_trains_the_changed_segment_alone(servers: Servers, browser: Browser, week: date) -> None:
    before = servers.runs()
    leave = [sys.executable, "-m", "segflow_tests.ui.leave", str(week)]
    done = subprocess.run(
        leave, cwd=servers.folder, env=dict(servers.environment), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    left = done.stdout.split()[-1]
    (own,) = servers.ended(before)
    assert servers.materialized(own) == {("user_segments", str(week))}

    before = servers.runs()
    page = browser.page
    page.goto(f"{servers.dagster}/locations/{LOCATION}/sensors/downstream")
    switch = page.get_by_role("checkbox").first
    switch.evaluate("switch_ => switch_.click()")
    runs = servers.ended(before, timeout=400)
    browser.shot("automation_sensor")
    switch.evaluate("switch_ => switch_.click()")
    assert {run["status"] for run in runs} == {"SUCCESS"}
    made = set().union(*(servers.materialized(run) for run in runs))
    assert {one for one in made if one[0] == "segment_rankers"} == {("segment_rankers", f"{left}|{week}")}
    assert not [name for name, _ in made if name in ("behavior_model", "global_ranker", "segmentation")]
    page.goto(f"{servers.dagster}/assets/segment_rankers?view=automation")
    page.get_by_text("1 requested").first.click()
    sync_api.expect(page.get_by_role("menuitem", name=f"{left}|{week}")).to_be_visible()
    browser.shot("automation_evaluations")
