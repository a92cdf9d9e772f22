"""What retention is done with is not made again: not when it is stale, not by force, not from the UI."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from segflow import tables
from segflow.config import RetentionConfig
from segflow.defs import kept
from segflow.defs.kept import Over
from segflow.defs.materializes import PLANS
from segflow.defs.provenance import Provenance
from segflow.erasure import retain
from segflow.errors import UserError
from segflow_tests.defs.test_definitions import CONFIG

FIRST = CONFIG.calendar.first_week
DAYS = [(FIRST + timedelta(days=number)).isoformat() for number in range(6)]
WEEKS = [(CONFIG.calendar.first_snapshot + timedelta(weeks=number)).isoformat() for number in range(4)]


def log(folder: Path, *lines: object) -> str:
    file = folder / "retained.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(file)


def test_the_latest_limits_of_all_lines_count(tmp_path: Path) -> None:
    assert Over.read(str(tmp_path / "absent")) == Over()
    file = log(
        tmp_path,
        {"raw_before": DAYS[2], "weeks_before": None},
        {"raw_before": DAYS[1], "weeks_before": WEEKS[2]},
        {"raw_before": None},
    )
    over = Over.read(file)
    assert over == Over(date.fromisoformat(DAYS[2]), date.fromisoformat(WEEKS[2]))
    for name in ("raw_events", "events", "day_reports"):
        assert over.among(PLANS[name], DAYS) == DAYS[:2], name
    for name in ("sessions", "user_days", "source_files", "items"):
        assert over.among(PLANS[name], [*DAYS, ""]) == [], name
    assert over.among(PLANS["segmentation"], WEEKS) == WEEKS[:2]
    assert over.among(PLANS["segment_rankers"], [f"s1|{week}" for week in WEEKS]) == [
        f"s1|{week}" for week in WEEKS[:2]
    ]
    over.require_none(PLANS["events"], DAYS[2:])
    with pytest.raises(
        UserError, match=rf"events {DAYS[1]}: what it is made from was removed by `segflow retain`.*{DAYS[2]} on"
    ):
        over.require_none(PLANS["events"], DAYS[1:])


@pytest.mark.parametrize("damage", ["{", "[]\n", '{"raw_before": "soon"}', '{"raw_before": 7}'])
def test_a_damaged_log_is_one_line_and_never_no_limit(tmp_path: Path, damage: str) -> None:
    (tmp_path / "retained.jsonl").write_text(damage, encoding="utf-8")
    with pytest.raises(UserError, match=r"retained\.jsonl: is not a log as `segflow retain` writes it"):
        Over.read(str(tmp_path / "retained.jsonl"))


def test_what_is_over_is_never_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = log(tmp_path, {"raw_before": DAYS[2], "weeks_before": None})
    with dg.DagsterInstance.ephemeral() as instance:
        assert Provenance(instance).stale(PLANS["events"], DAYS) == DAYS
        retention = RetentionConfig(log=file)
        monkeypatch.setattr(kept, "CONFIG", CONFIG.model_copy(update={"retention": retention}))
        assert Provenance(instance).stale(PLANS["events"], DAYS) == DAYS[2:]
        assert Provenance(instance).stale(PLANS["sessions"], DAYS) == DAYS


def test_what_a_kept_week_reads_of_earlier_ones_stays() -> None:
    first = FIRST + timedelta(weeks=60)
    limits = dict(retain._of_weeks(first))
    # Segments keep their ids by the ledger of a year, a week's ranker is read by nobody else.
    assert limits[tables.SEGMENT_LEDGER] == first - timedelta(weeks=CONFIG.calendar.history_weeks)
    assert limits[tables.GLOBAL_RANKER] == first
    assert limits[tables.RANKING_RESULTS] <= first - timedelta(weeks=CONFIG.evaluation.pooled_weeks - 1)
    assert not {tables.EVALUATION_REPORT, tables.CHAMPION, tables.EVENTS, tables.SESSIONS} & limits.keys()
    for table, start in limits.items():
        for plan in PLANS.values():
            if table in plan.reads and plan.partitions is not None:
                window = plan.reads[table]
                assert window.days is not None
                assert start <= window.days(first, first)[0], f"{plan.name} reads more of {table.name}"
