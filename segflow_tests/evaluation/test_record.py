"""The summary as JSON: what is written keeps to the published schema, and is read back as it was."""

from __future__ import annotations

import json

import pytest

from segflow.config import EvaluationConfig
from segflow.errors import UserError
from segflow.evaluation.content import ReportInput
from segflow.evaluation.record import read_summary
from segflow.evaluation.summary import EvaluationSummary, summarize

from .conftest import ROLES, MakeResults
from .published import faults, published

PUBLISHED = published("report")


@pytest.fixture(scope="module")
def unsegmented(make_results: MakeResults, config: EvaluationConfig) -> EvaluationSummary:
    results = make_results(users=60).assign(segment_id=None)
    return summarize(results, ROLES, config, seed=0, published=[])


def test_what_is_written_keeps_to_the_schema(report_input: ReportInput, unsegmented: EvaluationSummary) -> None:
    for summary in (report_input.summary, unsegmented):
        assert faults(json.loads(summary.to_json()), PUBLISHED) == []


def test_the_schema_notices_what_is_missing_misspelled_or_of_another_kind(report_input: ReportInput) -> None:
    text = report_input.summary.to_json()
    for damage in (
        lambda row: row.pop("verdict"),
        lambda row: row.update(schema_version=2),
        lambda row: row.update(verdikt=1),
        lambda row: row["verdict"].update(outcome="maybe"),
        lambda row: row["verdict"].update(interval=[0.1]),
        lambda row: row["arms"][0]["primary"].update(mean="high"),
        lambda row: row["segments"][0]["difference"].pop("p_value"),
    ):
        value = json.loads(text)
        damage(value)
        assert faults(value, PUBLISHED)


def test_what_is_read_back_is_what_was_written(report_input: ReportInput, unsegmented: EvaluationSummary) -> None:
    for summary in (report_input.summary, unsegmented):
        assert read_summary(summary.to_json(), "here") == summary


def test_a_summary_of_another_form_is_named_with_the_remedy(report_input: ReportInput) -> None:
    text = report_input.summary.to_json()
    for other in (text.replace('"schema_version": 1', '"schema_version": 99'), "{}", "not JSON"):
        with pytest.raises(UserError, match=r"week 2017-11-20: .*`segflow run --week`"):
            read_summary(other, "week 2017-11-20")
