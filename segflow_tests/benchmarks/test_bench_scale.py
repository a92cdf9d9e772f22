"""The benchmark of growth: its arithmetic on figures whose law is known, and a whole small run of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segflow_tests.benchmarks import bench_scale
from segflow_tests.benchmarks.scale_bounds import BOUNDS, bound_rows
from segflow_tests.benchmarks.scale_growth import (
    exponent,
    growth,
    growth_rows,
    markdown,
    outlook,
    outlook_rows,
    text,
    with_tables,
)
from segflow_tests.benchmarks.scale_job import DAY_STAGES, STAGES

_START_UP = {"wall": 8.0, "cpu": 7.0, "peak": 400_000_000}


def _results(**power: float) -> dict[str, Any]:
    """Sizes 1e5 to 1e7; the work of a stage is 5 s at 1e6 and grows with the `power` named, beyond the start-up."""
    sizes: dict[str, Any] = {}
    for events in (100_000, 1_000_000, 10_000_000):
        stages = {}
        for name, one in power.items():
            work = 5.0 * (events / 1e6) ** one
            grown = {"cpu": 7.0 + work, "wall": 8.0 + 2 * work, "peak": 5e8 + 40.0 * events, "bytes": 20.0 * events}
            stages[name] = {**grown, "rows": {name: events}}
        sizes[str(events)] = {"events": events, "users": events // 100, "stages": stages}
    machine = {"date": "2026-01-01", "processor": "p", "cores": 2, "memory": 8e9, "python": "3"}
    return {"machine": machine, "shape": dict(bench_scale.SHAPE), "start_up": _START_UP, "sizes": sizes}


def test_slope_of_a_power_law_is_its_exponent() -> None:
    assert exponent([1e5, 1e6, 1e7], [2.0, 2.0 * 10**1.3, 2.0 * 10**2.6]) == pytest.approx(1.3)
    with pytest.raises(ValueError, match="two sizes"):
        exponent([1e5], [1.0])


def test_start_up_is_no_growth_and_small_work_tells_nothing() -> None:
    # At 1e5, work of 0.5 s and 0.1 s says nothing: only the two larger sizes do.
    results = _results(events=1.0, sessions=1.5)
    assert growth(results, "events").cpu == pytest.approx(1.0)
    assert growth(results, "sessions").last == pytest.approx(1.5)
    assert growth(results, "events").held
    assert growth(results, "sessions").held is False
    del results["sizes"]["10000000"]
    assert growth(results, "events").held is None
    assert {row[1] for row in growth_rows(results)} == {"too small to tell"}


def test_last_two_sizes_decide_too() -> None:
    results = _results(test=0.2)
    results["sizes"]["10000000"]["stages"]["test"]["cpu"] = 7.0 + 100.0
    found = growth(results, "test")
    assert found.cpu is not None
    assert found.cpu < 1.1
    assert found.last is not None
    assert found.last > 1.1
    assert found.held is False


def test_outlook_follows_exponent_and_lines() -> None:
    found = outlook(_results(test=1.1), "test")
    assert found is not None
    assert found.hours is not None
    assert found.hours == pytest.approx(5.0 * 1000**1.1 / 3600)
    assert found.linear_hours == pytest.approx(5.0 * 10**1.1 * 100 / 3600)
    assert found.peak == pytest.approx(5e8 + 40e9)
    assert found.table == pytest.approx(20e9)
    one_size = _results(test=1.0)
    one_size["sizes"] = {"100000": one_size["sizes"]["100000"]}
    assert outlook(one_size, "test") is None
    assert not list(outlook_rows(one_size))


def test_a_bound_is_what_settings_allow_and_what_is_held_besides() -> None:
    results = _results(sessions=1.0, lists=1.0)
    small, large = (BOUNDS["lists"].bytes(events, events // 100, 2000) for events in (10**6, 10**7))
    assert large - small == 300 * 9_000_000
    assert BOUNDS["behaviour model"].bytes(10**9, 10**7, 1) == BOUNDS["behaviour model"].bytes(10**8, 1, 1)
    assert [row[-1] for row in bound_rows(results)] == ["yes", "yes"]
    assert outlook(results, "sessions").peak == BOUNDS["sessions"].fixed
    results["sizes"]["10000000"]["stages"]["sessions"]["peak"] = BOUNDS["sessions"].fixed + 1
    assert [row[-1] for row in bound_rows(results)] == ["no", "yes"]


def test_tables_hold_every_stage_once() -> None:
    results = _results(catalogue=1.0, test=1.2)
    page = markdown(results)
    assert "| catalogue | 1.00 | 1.00 |" in page
    assert "| test | 1.20 | 1.20 | 1.20 | no |" in page
    assert page.count("| all |") == 1
    assert text(["a", "b"], [["name", "1"], ["x", "22"]]).splitlines() == ["a      b", "name   1", "x     22"]


def test_page_is_what_was_measured() -> None:
    docs = Path(bench_scale.__file__).parents[2] / "docs"
    page = (docs / "scale.md").read_text(encoding="utf-8")
    assert with_tables(page, bench_scale.read(docs / "scale.json")) == page
    with pytest.raises(ValueError, match="bench-scale"):
        with_tables("# Scale", _results(test=1.0))


def test_stages_are_the_assets_of_a_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from segflow.defs.jobs import ASSETS

    made = [name for names in STAGES.values() for name in names]
    beside = {"quarantined_events", "list_quality", "leave_one_out", "arm_tuning", "pooled_verdict", "text_adapter"}
    assert len(set(made)) == len(made)
    assert {name for names in ASSETS.values() for name in names} - set(made) <= beside
    assert set(DAY_STAGES) <= set(STAGES)


def test_no_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_scale, "_BYTES_PER_EVENT", 10**15)
    arguments = ["--sizes", "2e4", "--folder", str(tmp_path / "runs"), "--results", str(tmp_path / "r.json")]
    assert bench_scale.main(arguments) == 1
    assert not list((tmp_path / "runs").iterdir())


def test_a_stage_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_scale.main(["--stages", "sessions,dreams", "--results", str(tmp_path / "r.json")]) == 1
    assert "'dreams'" in capsys.readouterr().err


@pytest.mark.slow
def test_small_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    arguments = ["--sizes", "2e4", "--folder", str(tmp_path / "runs"), "--results", str(tmp_path / "r.json")]
    assert bench_scale.main([*arguments, "--stages", "catalogue,raw events"]) == 0
    first = json.loads((tmp_path / "r.json").read_text())
    assert bench_scale.main([*arguments, "--stages", ",".join(reversed(DAY_STAGES))]) == 0
    results = json.loads((tmp_path / "r.json").read_text())
    stages = results["sizes"]["20000"]["stages"]
    assert first["start_up"] == results["start_up"]
    assert {name: stages[name] for name in first["sizes"]["20000"]["stages"]} == first["sizes"]["20000"]["stages"]
    assert set(stages) == {"generate", *DAY_STAGES}
    assert stages["raw events"]["rows"]["raw_events"] == stages["generate"]["rows"]["rows"]
    account = stages["events"]["rows"]
    # Duplicates are neither events nor quarantined.
    assert 0.97 < sum(account.values()) / stages["raw events"]["rows"]["raw_events"] <= 1
    assert all(one["cpu"] > 0 and one["peak"] > 50e6 and one["bytes"] > 0 for one in stages.values())
