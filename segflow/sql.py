"""Where the SQL lives: finds and fills the statements under `sql/`.

The statements are plain DuckDB SQL over named views, readable without the Python. Placeholders of the form `{{name}}` stand
only for values that this package computes itself; they are rendered as SQL literals or checked identifiers, never pasted.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import TypeAlias

from segflow.errors import UserError

# A comment is passed over: it ends with its line, and what is filled in may hold several.
_PLACEHOLDER = re.compile(r"--[^\n]*|\{\{(\w+)\}\}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Value: TypeAlias = "str | int | float | bool | date | datetime | list[str] | dict[str, float] | None"


def folder() -> Path:
    """The `sql/` folder: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent
    for candidate in (package.parent / "sql", package / "sql"):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"the sql/ folder is missing beside {package}")


@cache
def load(name: str) -> str:
    """The text of `sql/<name>`, for instance `events/items.sql`, or of a file named by an absolute path.

    Raises UserError when there is no such statement.
    """
    file = folder() / name
    if not file.is_file():
        raise UserError(
            f"{name}: no such statement beside segflow.yaml or in {folder()}; correct `sql` in the settings"
        )
    return file.read_text(encoding="utf-8")


def literal(value: Value) -> str:
    """`value` as a SQL literal that cannot break out of its quotes."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and not math.isfinite(value):
        # Else a name, of any column that is called so.
        return f"'{float(value)}'::DOUBLE"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, list):
        return "[" + ", ".join(literal(one) for one in value) + "]::VARCHAR[]"
    if isinstance(value, dict):
        keys, numbers = literal(list(value)), ", ".join(literal(float(one)) for one in value.values())
        return f"MAP({keys}, [{numbers}]::DOUBLE[])"
    return "'" + value.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """`name` quoted as a SQL identifier, whatever characters it holds."""
    return '"' + name.replace('"', '""') + '"'


def render(name: str, **values: Value) -> str:
    """The statement `sql/<name>` with each `{{key}}` replaced by the literal of its value.

    Raises KeyError for a placeholder without a value: a silent empty string would change the meaning of the statement.
    """
    return _PLACEHOLDER.sub(lambda found: literal(values[found[1]]) if found[1] else found[0], load(name))
