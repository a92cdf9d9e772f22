"""What several commands share: kinds of values, with messages that say how to mend them, and the settings."""

from __future__ import annotations

import json
import os
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import click

from segflow.errors import UserError


class Day(click.ParamType):
    """A date as 2024-03-04."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            return value if isinstance(value, date) else date.fromisoformat(value)
        except ValueError:
            self.fail(f"'{value}' is no date; write it as 2024-03-04", param, ctx)


class Span(click.ParamType):
    """Two dates as 2024-03-04..2024-03-31, both included, or one."""

    name = "first..last"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[date, date]:
        if isinstance(value, tuple):
            return value
        first, _, last = str(value).partition("..")
        try:
            return date.fromisoformat(first), date.fromisoformat(last.lstrip(".") or first)
        except ValueError:
            self.fail(f"'{value}' is no span of days; write it as 2024-03-04..2024-03-31", param, ctx)


class Count(click.ParamType):
    """A whole number, also as 1e6."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = float(value)
        except ValueError:
            self.fail(f"'{value}' is no number; write it as 1000000 or 1e6", param, ctx)
        if not number.is_integer():
            self.fail(f"{value} is not a whole number", param, ctx)
        return int(number)


class Snapshot(click.ParamType):
    """A week, and the settings file before the last `@` if one is named."""

    name = "week"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Path | None, date]:
        if isinstance(value, tuple):
            return value
        file, _, week = str(value).rpartition("@")
        try:
            return (Path(file) if file else None), date.fromisoformat(week)
        except ValueError:
            self.fail(f"'{week}' is not a week such as 2024-03-04", param, ctx)


def json_option(what: str) -> Any:
    """`--json`: facts for programs on standard output; lines for people go to standard error."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON on standard output.")


def example(command: str) -> str:
    """The end of a command's help."""
    return f"\b\nExample: {command}"


def put(value: Any) -> None:
    """One JSON object on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def settle(config: Path | None) -> Path:
    """Set what Dagster and the definitions read from the environment, before either is imported; returns the settings file.

    Raises UserError when there is none.
    """
    from segflow.settings import default_path

    path = (config or default_path()).absolute()
    if not path.is_file():
        raise UserError(f"{path}: no such file; name your settings file with --config")
    os.environ["SEGFLOW_CONFIG"] = str(path)
    os.environ.setdefault("DAGSTER_HOME", str(path.parent))
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    warnings.filterwarnings("ignore")
    return path
