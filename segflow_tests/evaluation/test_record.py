"""The summary as JSON: what is written keeps to the published schema, and is read back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segflow.config import EvaluationConfig
from segflow.errors import UserError
from segflow.evaluation.content import ReportInput
from segflow.evaluation.record import read_summary
from segflow.evaluation.summary import EvaluationSummary, summarize

from .conftest import ROLES, MakeResults

PUBLISHED: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "docs" / "report.schema.json").read_text(encoding="utf-8")
)
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
NOTES = {"title", "description", "default", "$defs", "$schema"}


def faults(value: Any, schema: dict[str, Any], place: str = "$") -> list[str]:
    """Where `value` breaks the schema; knows the keywords that the published one uses, and fails on any other."""
    if "$ref" in schema:
        return faults(value, PUBLISHED["$defs"][schema["$ref"].rsplit("/", 1)[-1]], place)
    if "anyOf" in schema:
        found = [faults(value, one, place) for one in schema["anyOf"]]
        return [] if [] in found else found[0]
    rules = {key: rule for key, rule in schema.items() if key not in NOTES}
    if (kind := rules.pop("type")) in TYPES and not (
        isinstance(value, TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")
    ):
        return [f"{place}: {value!r} is no {kind}"]
    ok = {
        "enum": lambda allowed: value in allowed,
        "const": lambda only: value == only,
        "minimum": lambda least: value >= least,
        "maximum": lambda most: value <= most,
        "minItems": lambda least: len(value) >= least,
        "maxItems": lambda most: len(value) <= most,
        "required": lambda names: set(names) <= set(value),
    }
    inside = {name: rules.pop(name, None) for name in ("properties", "additionalProperties", "items", "prefixItems")}
    found = [f"{place}: {name} {rule}, got {value!r}" for name, rule in rules.items() if not ok[name](rule)]
    if kind == "object":
        own = inside["properties"] or {}
        for key, one in value.items():
            rule = own.get(key, inside["additionalProperties"])
            found += faults(one, rule, f"{place}.{key}") if rule else [f"{place}: unknown {key}"]
    elif kind == "array":
        rows = inside["prefixItems"] or [inside["items"]] * len(value)
        found += [
            fault for i, one in enumerate(value) for fault in faults(one, rows[min(i, len(rows) - 1)], f"{place}[{i}]")
        ]
    return found


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
