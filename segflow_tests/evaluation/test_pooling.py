"""Several weeks as one test: the same rules over more users, each with all their weeks, and only what all weeks tested."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from segflow.config import Config, EvaluationConfig
from segflow.errors import UserError
from segflow.evaluation.controls import roles_of
from segflow.evaluation.pooling import Pooled, pool
from segflow.evaluation.record import read_summary
from segflow.evaluation.summary import EvaluationSummary, summarize
from segflow.evaluation.trend import pooled_segments, render_trend, trend, trend_markdown, write_pooled
from segflow.evaluation.verdict import signed

from .test_report import HOSTILE, Page

CONFIG = EvaluationConfig(bootstrap_samples=1000)
ARMS = ("popularity", "global", "global_extra", "placebo_1", "segments")
FIRST = "2024-01-01"


def week_of(
    day: str,
    gain: float,
    users: int = 240,
    noise: float = 0.05,
    arms: tuple[str, ...] = ARMS,
    seeds: tuple[int, ...] = (0,),
) -> pd.DataFrame:
    """Rows of `ranking_results` of one week; users are the same in every week, and half of them are of s001."""
    rng = np.random.default_rng(date.fromisoformat(day).toordinal())
    skill = np.random.default_rng(0).uniform(0.2, 0.6, users)
    frames = []
    for arm in arms:
        for seed in seeds if arm != "popularity" else (0,):
            values = skill + (gain if arm == "segments" else 0.0) + rng.normal(0.0, noise, users)
            segment = np.where(np.arange(users) % 2 == 0, "s001", "s002")
            columns = {"week": date.fromisoformat(day), "user_id": [f"u{user:03}" for user in range(users)], "arm": arm}
            columns |= {"seed": seed, "task": "all", "segment_id": segment, "ranked": True, "ndcg_10": values}
            frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def summed(week: pd.DataFrame) -> EvaluationSummary:
    placed = week["segment_id"].where(week["segment_id"] != "unassigned", None)
    published = sorted(set(placed.dropna()))
    return summarize(week.assign(segment_id=placed), roles_of(week["arm"].unique()), CONFIG, 0, published)


def pooled(*weeks: pd.DataFrame) -> Pooled:
    return pool(pd.concat(weeks), {str(week["week"].iloc[0]): summed(week) for week in weeks}, CONFIG, 0)


def without_segments(day: str) -> pd.DataFrame:
    """Such a week has no controls either."""
    return week_of(day, 0.0, arms=("popularity", "global", "segments")).assign(segment_id="unassigned")


WEEKS = [f"2024-01-{day:02}" for day in (1, 8, 15, 22)]


def test_one_week_alone_is_its_own_verdict() -> None:
    week = week_of(FIRST, 0.02)
    found = pooled(week)
    assert found.weeks == (FIRST,)
    assert found.words == f"the week {FIRST} alone"
    assert found.summary == summed(week)


def test_a_gain_that_no_week_proves_shows_over_several() -> None:
    weeks = [week_of(day, 0.012, noise=0.08, users=200) for day in WEEKS]
    assert {summed(week).verdict.outcome for week in weeks} == {"not enough data to say"}
    found = pooled(*weeks)
    assert found.summary.verdict.outcome == "segment"
    assert found.words == f"4 weeks together, {WEEKS[0]} to {WEEKS[-1]}"
    assert found.summary.verdict.users == 200
    # The weeks have as many users each, so the difference is the mean of theirs to the same control.
    control = found.summary.verdict.best_control
    of_weeks = [row.difference.mean for week in weeks for row in summed(week).comparisons if row.against == control]
    assert found.summary.verdict.difference == pytest.approx(np.mean(of_weeks))


def test_weeks_of_the_same_differences_are_no_more_evidence_than_one() -> None:
    week = week_of(FIRST, 0.006)
    again = [week.assign(week=date.fromisoformat(day)) for day in WEEKS]
    one, four = pooled(week).summary.verdict, pooled(*again).summary.verdict
    assert four.interval == pytest.approx(one.interval, abs=1e-9)
    assert four.outcome == one.outcome


def test_a_segment_is_followed_by_its_id_and_users_may_change_segments() -> None:
    first = week_of(WEEKS[0], 0.0, noise=0.01)
    second = week_of(WEEKS[1], 0.0, noise=0.01)
    second["segment_id"] = second["segment_id"].map({"s001": "s003", "s002": "s001"})
    for week in (first, second):
        gains = (week["arm"] == "segments") & (week["segment_id"] == "s001")
        week.loc[gains, "ndcg_10"] += 0.05
    found = pooled(first, second)
    users = {row.name: row.users for row in pooled_segments(found, {})}
    assert users == {"s001": 240, "s002": 120, "s003": 120}
    assert found.summary.verdict.outcome == "segment only"
    assert found.summary.verdict.segments == ("s001",)


def test_weeks_without_segments_are_left_out_where_others_have_them() -> None:
    found = pooled(week_of(WEEKS[0], 0.03), without_segments(WEEKS[1]))
    assert (found.weeks, found.without_segments) == ((WEEKS[0],), (WEEKS[1],))
    nothing = pool(
        pd.concat([without_segments(day) for day in WEEKS[:2]]).assign(segment_id="unassigned"),
        {day: summed(without_segments(day)) for day in WEEKS[:2]},
        CONFIG,
        0,
    )
    assert nothing.weeks == tuple(WEEKS[:2])
    assert not nothing.summary.verdict.segmented
    assert nothing.summary.verdict.outcome == "do not segment"


def test_only_trainings_that_all_weeks_have_count() -> None:
    first = week_of(WEEKS[0], 0.03, seeds=(0, 1))
    second = week_of(WEEKS[1], 0.03, arms=(*ARMS, "placebo_2"))
    found = pooled(first, second)
    assert found.left_out_arms == ("placebo_2",)
    assert {row.arm: row.seeds for row in found.summary.arms} == dict.fromkeys(ARMS, 1)
    other = week_of(WEEKS[1], 0.03, seeds=(7,))
    with pytest.raises(UserError, match=r"2024-01-01, 2024-01-08 have no training .* in common: .*pooled_weeks"):
        pooled(week_of(WEEKS[0], 0.03), other)


def test_the_order_of_rows_does_not_count() -> None:
    weeks = [week_of(day, 0.01) for day in WEEKS[:2]]
    mixed = pd.concat(weeks).sample(frac=1.0, random_state=3)
    assert pool(mixed, {day: summed(week) for day, week in zip(WEEKS, weeks, strict=False)}, CONFIG, 0) == pooled(
        *weeks
    )


def test_the_page_puts_the_pooled_verdict_first_and_is_self_contained() -> None:
    weeks = [*(week_of(day, 0.006, noise=0.04) for day in WEEKS[:3]), without_segments(WEEKS[3])]
    summaries = {str(week["week"].iloc[0]): summed(week) for week in weeks}
    config = Config.model_validate({**_NEEDED, "evaluation": CONFIG.model_dump()})
    names = {"s001": HOSTILE, "s002": "Plain"}
    one_out = [
        {
            "week": date.fromisoformat(day),
            "arm": arm,
            "users": 240,
            "hit_10": hit,
            "ndcg_10": hit / 2,
            "mrr_10": hit / 4,
        }
        for day, hit in zip(WEEKS, (0.2, 0.4, 0.6, 1.0), strict=True)
        for arm in ("global", "segments")
    ]
    found = write_pooled(results=pd.concat(weeks), summaries=summaries, one_out=one_out, names=names, config=config)
    page = Page(found.html)
    verdict = found.pooled.summary.verdict
    assert page.text.index("over 3 weeks together") < page.text.index("says the latest week alone")
    for text in (signed(verdict.difference), *map(signed, verdict.interval), HOSTILE, "left out: 2024-01-22"):
        assert text in page.text
    assert "No verdict and no champion rests on it" in page.text
    assert "0.4000" in page.text
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe"}
    assert page.runs_only_its_own()
    (chart,) = (str(attributes["aria-label"]) for tag, attributes in page.tags if tag == "svg")
    assert f"3 weeks together {signed(verdict.difference)}" in chart
    shown = found.markdown("chart.svg")
    assert "](chart.svg)" in shown
    assert "over 3 weeks together" in shown
    assert "no segments" in shown
    assert found.chart.startswith("<svg")
    assert read_summary(found.pooled.summary.to_json(), "here") == found.pooled.summary


def test_without_any_segments_the_page_says_so() -> None:
    weeks = [without_segments(day) for day in WEEKS[:2]]
    summaries = {day: summed(week) for day, week in zip(WEEKS, weeks, strict=False)}
    found = pool(pd.concat(weeks), summaries, CONFIG, 0)
    page = Page(render_trend(trend(summaries, {}), "Title", found, {}))
    assert "Do not segment, over 2 weeks together" in page.text
    assert "No week had segments to test" in page.text
    assert "![" not in trend_markdown(trend(summaries, {}), found, {}, None)


_NEEDED = {
    "source": {"events": {"path": "x.csv", "columns": {"user_id": "u", "event_type": "t", "ts": "s"}}},
    "calendar": {"start": "2024-01-01"},
}
