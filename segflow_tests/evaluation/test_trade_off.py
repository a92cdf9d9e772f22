"""What diversity costs: the lists of each weight, their accuracy, and the curve on the page."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from segflow.evaluation.content import ReportInput
from segflow.evaluation.lists import DIVERSITY_WEIGHTS
from segflow.evaluation.metrics import ranking_metrics
from segflow.evaluation.protocol import Arm, list_qualities
from segflow.evaluation.report import render
from segflow.rankers.examples import Examples
from segflow.rankers.features import Pairs

USERS, ITEMS = 30, 150


class _Week:
    """What of a week the lists are judged by."""

    candidate_ids = tuple(f"i{item}" for item in range(ITEMS))

    def features_after(self) -> object:
        return type("Known", (), {"pairs": _pairs(0)})()


def _pairs(seed: int) -> Pairs:
    rng = np.random.default_rng(seed)
    items = [np.sort(rng.choice(ITEMS, 9, replace=False)) for _ in range(USERS)]
    return Pairs(np.arange(USERS + 1) * 9, np.concatenate(items))


def test_a_greater_weight_is_more_varied_and_weight_zero_is_the_arm() -> None:
    rng = np.random.default_rng(4)
    examples = object.__new__(Examples)
    for name, value in {
        "users": np.arange(USERS),
        "had": _pairs(0),
        "wanted": _pairs(1),
        "trends": np.zeros((1, ITEMS, 2), np.float32),
    }.items():
        object.__setattr__(examples, name, value)
    scores = rng.normal(size=(USERS, ITEMS)).astype(np.float32)
    scores += 2 * examples.wanted.dense(np.arange(USERS), ITEMS)
    kinds = rng.normal(size=(10, 6))
    vectors = (kinds[np.arange(ITEMS) % 10] + 0.2 * rng.normal(size=(ITEMS, 6))).astype(np.float32)
    arms = [Arm("global", "global", lambda rows: scores[rows]), Arm("segments", "segments", lambda rows: scores[rows])]
    categories = {f"i{item}": f"c{item % 10}" for item in range(ITEMS)}
    rows = list_qualities(arms, _Week(), examples, categories, vectors)  # type: ignore[arg-type]
    assert [(row.arm, row.diversity_weight) for row in rows] == [
        ("global", 0.0),
        ("segments", 0.0),
        *(("segments", weight) for weight in DIVERSITY_WEIGHTS),
    ]
    wanted = examples.wanted.dense(np.arange(USERS), ITEMS)
    assert rows[0].ndcg_10 == pytest.approx(ranking_metrics(scores, wanted)["ndcg_10"].mean())
    curve = rows[1:]
    assert all(one.distance < next_.distance for one, next_ in pairwise(curve[:-1]))
    assert curve[0].diversity < curve[-1].diversity
    assert curve[0].ndcg_10 > curve[-1].ndcg_10


def test_the_page_tells_what_diversity_costs(report_input: ReportInput) -> None:
    page = render(report_input)
    part = page.partition("What diversity costs")[2].partition("</section>")[0]
    assert part.count("<circle") == 3
    for cell in ("0.3740", "0.3730", "0.3390", "0.732"):
        assert cell in part
    # The table of all arms holds each arm once.
    assert page.partition("Beyond accuracy")[2].partition("</table>")[0].count("<tr>") == 1 + 3
    plain = [row for row in report_input.lists if not row.diversity_weight]
    assert "What diversity costs" not in render(replace(report_input, lists=plain))
