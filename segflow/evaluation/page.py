"""From the rows of the tables to the report: which role each arm has, and what the page is told.

The statistics are in `summary.py`, the page itself in `report.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from functools import partial
from typing import Any, TypeVar, cast

import pandas as pd

from segflow.config import Config
from segflow.evaluation.charts import standalone
from segflow.evaluation.content import (
    Accounting,
    AttributeRow,
    LedgerRow,
    ReportInput,
    SegmentCard,
    SweepRow,
    TuningRow,
)
from segflow.evaluation.controls import roles_of
from segflow.evaluation.drawings import first_chart
from segflow.evaluation.groups import Background
from segflow.evaluation.lists import ListQuality
from segflow.evaluation.markdown import markdown
from segflow.evaluation.report import render
from segflow.evaluation.summary import PRIMARY_TASK, EvaluationSummary, SegmentRow, summarize
from segflow.representation.probe_rows import ProbeRow
from segflow.segments.drawing import Picture

Row = dict[str, Any]
Shape = TypeVar("Shape")
_SHOWN = 6


@dataclass(frozen=True)
class Report:
    """A finished report: the page, every figure behind it, and what to log.

    chart: the first one, as an SVG file; empty where there is none. markdown: the report in short, with the chart's address.
    segment_gains: what its own ranker gains each segment over the best control, in each task.
    """

    html: str
    json: str
    chart: str
    markdown: Callable[[str | None], str]
    outcome: str
    sentence: str
    figures: dict[str, float]
    segment_gains: list[Row]


def write_report(
    *,
    week: date,
    test_week: date,
    results: pd.DataFrame,
    profiles: Sequence[Row],
    ledger: Sequence[Row],
    sweep: Sequence[Row],
    probe: Sequence[Row],
    lists: Sequence[Row],
    tuning: Sequence[Row],
    rows: Sequence[Row],
    attributes: pd.DataFrame,
    stability: Mapping[str, float],
    pictures: str,
    versions: Mapping[str, str],
    config: Config,
) -> Report:
    """Summarize `results` and render the page.

    The other arguments are rows of the tables of the same names; `tuning` those of `arm_tuning`, `rows` are outcome and rows of
    the raw events, `attributes` are those of `users`, `stability` is that of each segment, `pictures` is that column of
    `segment_page`. Raises UserError when nobody could be tested.
    """
    results = results.assign(segment_id=results["segment_id"].where(results["segment_id"] != "unassigned", None))
    published = [profile["segment_id"] for profile in profiles]
    background = Background(config.segments.profiles.min_cell, attributes, stability)
    roles = roles_of(results["arm"].unique())
    summary = summarize(results, roles, config.evaluation, config.seed, published, background)
    page = ReportInput(
        title="Does segmenting pay?",
        week=week.isoformat(),
        test_week=test_week.isoformat(),
        summary=summary,
        segments=[_card(profile) for profile in profiles],
        accounting=_accounting(rows),
        ledger=[_ledger_row(row) for row in ledger],
        sweep=_each(SweepRow, sweep),
        probe=_each(ProbeRow, probe),
        attributes=_attributes(profiles),
        lists=_each(ListQuality, lists),
        tuning=_each(TuningRow, tuning),
        versions=versions,
        config_excerpt=_excerpt(config),
        pictures={name: Picture(name, **one) for name, one in json.loads(pictures).items()},
    )
    verdict = summary.verdict
    chart = first_chart(summary)
    return Report(
        html=render(page),
        json=summary.to_json(),
        chart=standalone(chart) if chart else "",
        markdown=partial(markdown, page),
        outcome=verdict.outcome,
        sentence=verdict.sentence,
        figures=_figures(summary),
        segment_gains=[_gain(row) for row in summary.segments],
    )


def _gain(row: SegmentRow) -> Row:
    found = row.difference
    return {
        "task": row.task,
        "segment_id": row.segment_id,
        "users": row.users,
        "segments_mean": row.segments_mean,
        "control_mean": row.control_mean,
        "difference": found and found.mean,
        "low": found and found.low,
        "high": found and found.high,
        "p_value": found and found.p_value,
    }


def _each(shape: Callable[..., Shape], rows: Sequence[Row]) -> list[Shape]:
    """Rows of a table as a dataclass that has some of its columns."""
    names = [one.name for one in fields(cast(Any, shape))]
    return [shape(**{name: row[name] for name in names}) for row in rows]


def _figures(summary: EvaluationSummary) -> dict[str, float]:
    verdict, primary = summary.verdict, [row for row in summary.controls if row.task == PRIMARY_TASK]
    checks = {
        "placebos_minus_global_extra": primary[0].placebos_over_extra,
        "global_extra_minus_global": primary[0].extra_over_global,
        "placebos_minus_global": primary[0].placebos_over_global,
        **{f"global_minus_{row.against}": row.difference for row in summary.diagnostics if row.task == PRIMARY_TASK},
    }
    return {
        **{f"{row.task}.{row.arm}.ndcg_10": row.primary.mean for row in summary.arms},
        **{name: found.mean for name, found in checks.items() if found is not None},
        "segments_minus_best_control": verdict.difference,
        "minimum_detectable_effect": verdict.minimum_detectable_effect,
    }


def _card(profile: Row) -> SegmentCard:
    details = json.loads(profile["details"])
    contrasts = details["contrasts"]
    features = [row for row in contrasts if row["kind"] == "feature"]
    features.sort(key=lambda row: -abs(row["difference"]))
    categories = [row for row in contrasts if row["kind"] == "category"]
    attributes = [row for row in contrasts if row["kind"] == "attribute" and row["q_value"] is not None]
    attributes = [row for row in attributes if row["q_value"] < 0.05]
    attributes.sort(key=lambda row: -abs(row["share_segment"] - row["share_rest"]))
    return SegmentCard(
        segment_id=profile["segment_id"],
        name=profile["name"],
        users=profile["users"],
        share_of_users=profile["share_of_users"],
        share_of_value=profile["share_of_value"],
        distinguishing=[
            *(
                (_words(row["shown_as"]), f"{row['median_segment']:.3g}, others {row['median_rest']:.3g}")
                for row in features[:4]
            ),
            *((row["category"], f"{row['lift']:.2f} × the others' share") for row in categories[:4]),
        ],
        top_items=[row["title"] or row["item_id"] for row in details["items"][:_SHOWN]],
        journeys=[
            f"{row['from']} → {row['to']} ({row['lift']:.1f} × as often as others)" for row in details["journeys"][:4]
        ],
        rules=[row["rule"] for row in details["rules"][:3]],
        attributes=[
            (
                f"{_words(row['attribute'])}: {row['value']}",
                f"{row['share_segment']:.0%}, others {row['share_rest']:.0%}",
            )
            for row in attributes[:4]
        ],
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _ledger_row(row: Row) -> LedgerRow:
    return LedgerRow(
        week=row["week"].isoformat(),
        segment_id=row["segment_id"],
        name=row["name"],
        event=row["event"],
        size=row["users"],
        previous_size=row["previous_users"] or None,
        parents=row["parents"],
    )


def _accounting(rows: Sequence[Row]) -> Accounting:
    counts = {row["outcome"]: row["rows"] for row in rows}
    raw, events, duplicates = (counts.pop(name, 0) for name in ("raw", "events", "duplicate"))
    return Accounting(raw, events, duplicates, counts)


def _attributes(profiles: Sequence[Row]) -> list[AttributeRow]:
    if not profiles:
        return []
    found = json.loads(profiles[0]["details"])["associations"]
    return [
        AttributeRow(row["attribute"], row["cramers_v"], row["p_value"], row["users"])
        for row in found
        if row["cramers_v"] is not None
    ]


def _excerpt(config: Config) -> str:
    chosen = {name: getattr(config, name).model_dump() for name in ("segments", "rankers", "evaluation")}
    return json.dumps({**chosen, "seed": config.seed}, indent=1)
