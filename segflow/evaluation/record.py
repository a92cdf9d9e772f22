"""What is written as JSON for others: the published schemas, and reading a summary back.

What lives here: what makes `evaluation_report.summary` and `segflow compare --json` formats that others can rely on. What does
not: the shapes themselves (summary.py, statistics.py, verdict.py, compare.py), from which the schemas are derived.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from segflow.errors import UserError
from segflow.evaluation.compare import Differences
from segflow.evaluation.summary import EvaluationSummary


class _Closed(GenerateJsonSchema):
    """Objects hold what is declared and nothing else, so that a misspelled name does not pass for an absent one."""

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        return {**super().dataclass_schema(schema), "additionalProperties": False}


def json_schema(written: type[EvaluationSummary] | type[Differences] = EvaluationSummary) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what the `to_json` of these writes."""
    found = TypeAdapter(written).json_schema(mode="serialization", schema_generator=_Closed)
    return {"$schema": GenerateJsonSchema.schema_dialect, **found}


def read_summary(text: str, where: str) -> EvaluationSummary:
    """The summary that was written as `text`; `where` names its place in the message.

    Raises UserError when it was written by a version of segflow whose summaries had another form.
    """
    try:
        return TypeAdapter(EvaluationSummary).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the summary"
        raise UserError(
            f"{where}: its summary has another form than this version writes ({place}: {first['msg']}); "
            "make the report of that week again with `segflow run --week`"
        ) from error
