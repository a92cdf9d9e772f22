"""The published schemas, and where a value breaks one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

DOCS = Path(__file__).parents[2] / "docs"
TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "object": dict,
    "array": list,
}
CONTAINERS = {"object": dict, "array": list}
NOTES = {"title", "description", "default", "$defs", "$schema"}


def published(name: str) -> Schema:
    """A schema of the docs."""
    schema: Schema = json.loads((DOCS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


def faults(value: Any, whole: Schema, part: Schema | None = None, place: str = "$") -> list[str]:
    """Where `value` breaks a part of the schema, or all of it; knows the keywords that the published ones use, and fails on
    any other."""
    schema = whole if part is None else part
    if "$ref" in schema:
        return faults(value, whole, whole["$defs"][schema["$ref"].rsplit("/", 1)[-1]], place)
    if "anyOf" in schema:
        found = [faults(value, whole, one, place) for one in schema["anyOf"]]
        return [] if [] in found else found[0]
    rules = {key: rule for key, rule in schema.items() if key not in NOTES}
    if (kind := rules.pop("type")) in TYPES and not (
        isinstance(value, TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")
    ):
        return [f"{place}: {value!r} is no {kind}"]
    if kind in CONTAINERS and not isinstance(value, CONTAINERS[kind]):
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
            found += faults(one, whole, rule, f"{place}.{key}") if rule else [f"{place}: unknown {key}"]
    elif kind == "array":
        rows = inside["prefixItems"] or [inside["items"]] * len(value)
        found += [
            fault
            for i, one in enumerate(value)
            for fault in faults(one, whole, rows[min(i, len(rows) - 1)], f"{place}[{i}]")
        ]
    return found
