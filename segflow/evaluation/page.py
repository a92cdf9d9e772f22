"""From the rows of the tables to the report: which role each arm has, and what the page is told.

The statistics are in `summary.py`, the page itself in `report.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

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
)
from segflow.evaluation.drawings import first_chart
from segflow.evaluation.lists import ListQuality
from segflow.evaluation.markdown import markdown
from segflow.evaluation.report import render
from segflow.evaluation.summary import EvaluationSummary, summarize
from segflow.evaluation.verdict import Role
from segflow.representation.probe_rows import ProbeRow
from segflow.segments.drawing import Picture

Row = dict[str, Any]
_ROLES: dict[str, Role] = {"global": "global", "global_extra": "control", "segments": "segments"}
_SHOWN = 6


@dataclass(frozen=True)
class Report:
    """A finished report: the page, every figure behind it, and what to log.

    chart: the first one, as an SVG file; empty where there is none. markdown: the report in short, with the chart's address.
    """

    html: str
    json: str
    chart: str
    markdown: Callable[[str | None], str]
    outcome: str
    sentence: str
    figures: dict[str, float]


def roles_of(arms: Iterable[str]) -> dict[str, Role]:
    """The role of each arm by its name: placebos are controls, what is no ranker of ours is a baseline."""
    return {arm: "control" if arm.startswith("placebo_") else _ROLES.get(arm, "baseline") for arm in sorted(arms)}


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
    rows: Sequence[Row],
    pictures: str,
    versions: Mapping[str, str],
    config: Config,
) -> Report:
    """Summarize `results` and render the page.

    The other arguments are rows of the tables of the same names; `rows` are outcome and rows of the raw events, `pictures` is
    that column of `segment_page`. Raises UserError when nobody could be tested.
    """
    results = results.assign(segment_id=results["segment_id"].where(results["segment_id"] != "unassigned", None))
    published = [profile["segment_id"] for profile in profiles]
    summary = summarize(results, roles_of(results["arm"].unique()), config.evaluation, config.seed, published)
    page = ReportInput(
        title="Does segmenting pay?",
        week=week.isoformat(),
        test_week=test_week.isoformat(),
        summary=summary,
        segments=[_card(profile) for profile in profiles],
        accounting=_accounting(rows),
        ledger=[_ledger_row(row) for row in ledger],
        sweep=[SweepRow(**{name: row[name] for name in SweepRow.__dataclass_fields__}) for row in sweep],
        probe=[ProbeRow(**{name: row[name] for name in ProbeRow.__dataclass_fields__}) for row in probe],
        attributes=_attributes(profiles),
        lists=[ListQuality(**{name: row[name] for name in ListQuality.__dataclass_fields__}) for row in lists],
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
    )


def _figures(summary: EvaluationSummary) -> dict[str, float]:
    figures = {f"{row.task}.{row.arm}.ndcg_10": row.primary.mean for row in summary.arms}
    verdict = summary.verdict
    return {
        **figures,
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
