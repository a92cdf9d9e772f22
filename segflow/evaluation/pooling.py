"""The tests of several snapshot weeks as one test, and what is told of it.

What lives here: which weeks and arms can be taken together, and the pooled summary. What does not: the estimates and rules, which
are those of one week (summary.py, verdict.py), and the page (trend.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from segflow.config import EvaluationConfig
from segflow.errors import UserError
from segflow.evaluation.controls import roles_of
from segflow.evaluation.summary import EvaluationSummary, summarize


@dataclass(frozen=True)
class Pooled:
    """Several weeks as one test.

    weeks: the snapshot weeks (ISO dates) that were taken together, in order. without_segments: those that had none, and were left
    out for it. left_out_arms: arms that not all of the weeks tested.
    """

    weeks: tuple[str, ...]
    without_segments: tuple[str, ...]
    left_out_arms: tuple[str, ...]
    summary: EvaluationSummary

    @property
    def words(self) -> str:
        """Which weeks these are."""
        if len(self.weeks) == 1:
            return f"the week {self.weeks[0]} alone"
        return f"{len(self.weeks)} weeks together, {self.weeks[0]} to {self.weeks[-1]}"


def pool(
    results: pd.DataFrame, summaries: Mapping[str, EvaluationSummary], config: EvaluationConfig, seed: int
) -> Pooled:
    """Estimate and decide over all weeks that have `summaries`.

    A user's weeks are drawn together, and every user's week counts alike (statistics.py). A segment is its id, which the ledger
    carries from week to week; a user counts in each week for the segment of that week. A week without segments has no
    rankers per segment to test; it is left out where others have them. Of the arms those are kept that all weeks tested, by
    the seeds of training that all weeks have.

    Args:
        results: rows of `ranking_results` of these weeks.
        summaries: week (ISO date) -> the summary of its report.

    Raises UserError when the weeks have no rankers in common.
    """
    rows = results.assign(
        week=results["week"].astype(str),
        segment_id=results["segment_id"].where(results["segment_id"] != "unassigned", None),
    )
    segmented = sorted(week for week, one in summaries.items() if one.verdict.segmented)
    weeks = segmented or sorted(summaries)
    rows = rows[rows["week"].isin(weeks)]
    kept = _in_all_weeks(rows, len(weeks))
    roles = roles_of(kept["arm"].unique())
    if not {"segments", "global"} <= set(roles.values()):
        raise UserError(
            f"the weeks {', '.join(weeks)} have no training of their rankers in common: they were run with other settings; "
            "run them again with `segflow run --week`, or lower evaluation.pooled_weeks"
        )
    return Pooled(
        weeks=tuple(weeks),
        without_segments=tuple(sorted(set(summaries) - set(weeks))),
        left_out_arms=tuple(sorted(set(rows["arm"]) - set(roles))),
        summary=summarize(kept, roles, config, seed, None if segmented else ()),
    )


def _in_all_weeks(rows: pd.DataFrame, weeks: int) -> pd.DataFrame:
    """The rows of trainings (an arm under a seed) that every week has."""
    return rows[rows.groupby(["arm", "seed"])["week"].transform("nunique") == weeks]
