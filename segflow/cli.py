"""The `segflow` command. A user's mistake is one line on standard error and exit code 1; a traceback is a bug of ours."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from segflow.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _environment(options.config)
        options.run(options)
    except UserError as error:
        print(f"segflow: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segflow", description="From an event log to segments, rankers, and a verdict on whether segmenting paid."
    )
    parser.add_argument(
        "--config", type=Path, help="settings file (default: $SEGFLOW_CONFIG, or the nearest segflow.yaml)"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="materialize what is not up to date, then print the report")
    run.add_argument("--weeks", type=int, default=2, help="how many of the last testable weeks (default: 2)")
    run.add_argument("--week", type=date.fromisoformat, action="append", help="a snapshot week (repeatable)")
    run.add_argument("--force", action="store_true", help="materialize again even what is up to date")
    run.set_defaults(run=_run)

    report = commands.add_parser("report", help="print the latest report")
    report.set_defaults(run=_report)

    check = commands.add_parser("check", help="check the settings and that the sources can be read; writes nothing")
    check.set_defaults(run=_check)
    return parser


def _environment(config: Path | None) -> None:
    """What Dagster and the definitions read from the environment, before either is imported."""
    from segflow.config import default_path

    path = (config or default_path()).absolute()
    if not path.is_file():
        raise UserError(f"{path}: no such file; name your settings file with --config")
    os.environ["SEGFLOW_CONFIG"] = str(path)
    os.environ.setdefault("DAGSTER_HOME", str(path.parent))
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    warnings.filterwarnings("ignore")


def _run(options: argparse.Namespace) -> None:
    from segflow.runs import run

    run(options.week, options.weeks, options.force)
    print()
    _report(options)


def _report(options: argparse.Namespace) -> None:
    from segflow.config import load
    from segflow.console import summary

    print(summary(load()))


def _check(options: argparse.Namespace) -> None:
    from segflow.config import load
    from segflow.events.preflight import preflight

    for line in preflight(load()):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
