"""The `segflow` command. A user's mistake is one line on standard error and exit code 1; a traceback is a bug of ours."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from segflow.errors import UserError

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if getattr(options, "needs_settings", True):
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
    run.add_argument(
        "--rewrite-history",
        action="store_true",
        help="also change segments of weeks that later weeks were matched to; without it such a change is refused",
    )
    run.set_defaults(run=_run)

    report = commands.add_parser("report", help="print the latest report, or the verdicts of all weeks")
    report.add_argument("--trend", action="store_true", help="all weeks, as a table and as the page trend.html")
    report.set_defaults(run=_report)

    _add_compare(commands)
    _add_export(commands)

    init = commands.add_parser("init", help="look at a log and write a commented segflow.yaml for it")
    init.add_argument("log", type=Path, help="file or folder with the log")
    init.add_argument("--preset", help="name of a preset for a public log (default: recognised by its files)")
    init.add_argument("--folder", type=Path, default=Path(), help="where to write segflow.yaml (default: here)")
    init.add_argument("--force", action="store_true", help="replace a segflow.yaml that is there")
    init.set_defaults(run=_init, needs_settings=False)

    _add_generate(commands)

    sessions = commands.add_parser(
        "sessions", help="make sessions of the whole log as Parquet, without a project around them"
    )
    sessions.add_argument("out", type=Path, help="folder to write; it must be new or empty")
    sessions.set_defaults(run=_sessions)

    check = commands.add_parser("check", help="check the settings and that the sources can be read; writes nothing")
    check.set_defaults(run=_check)
    return parser


def _add_compare(commands: _Commands) -> None:
    compare = commands.add_parser(
        "compare",
        help="what moved between two snapshots, with intervals",
        description="Compare the tests of two weeks, or of two projects: every arm, the gain of the segments, the settings. "
        "Users tested in both are paired.",
    )
    for name in ("before", "after"):
        compare.add_argument(
            name, type=_snapshot, metavar=name.upper(), help="a week, or SETTINGS_FILE@WEEK of another project"
        )
    compare.add_argument("--json", action="store_true", help="as JSON")
    compare.set_defaults(run=_compare)


def _snapshot(text: str) -> tuple[Path | None, date]:
    """A week, and the settings file before the last `@` if one is named."""
    file, _, week = text.rpartition("@")
    try:
        return (Path(file) if file else None), date.fromisoformat(week)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{week!r} is not a week such as 2024-03-04") from error


def _add_export(commands: _Commands) -> None:
    export = commands.add_parser(
        "export",
        help="write who is in which segment, as CSV or Parquet",
        description="Write user_id, segment_id, name, probability and snapshot of one week. Never of more than one: the "
        "segments that a user went through over many weeks tell users apart like fingerprints. User ids are raw, or hashed "
        "with a secret key, by `segments.export.user_ids` in the settings.",
    )
    export.add_argument("out", type=Path, metavar="OUT", help="file to write, ending in .csv or .parquet")
    export.add_argument("--week", type=date.fromisoformat, help="the snapshot (default: the latest)")
    export.add_argument("--all", action="store_true", help="also users who are in no segment")
    export.add_argument("--force", action="store_true", help="replace the file if it is there")
    export.set_defaults(run=_export)


def _add_generate(commands: _Commands) -> None:
    generate = commands.add_parser("generate", help="write a log of a shop with planted segments, to try things on")
    generate.add_argument("folder", type=Path, help="folder to write; it must be new or empty")
    generate.add_argument("--events", type=_count, default=1_000_000, help="rows, 1e3 to 1e8 (default: 1e6)")
    generate.add_argument("--users", type=_count, help="users (default: a fiftieth of the rows)")
    generate.add_argument("--items", type=_count, default=2_000, help="items (default: 2000)")
    generate.add_argument("--days", type=_count, default=60, help="days, one file each (default: 60)")
    generate.add_argument("--segments", type=_count, default=4, help="planted segments, 2 to 8 (default: 4)")
    generate.add_argument("--seed", type=_count, default=0, help="seed; the same gives the same bytes (default: 0)")
    generate.set_defaults(run=_generate, needs_settings=False)


def _count(text: str) -> int:
    """A whole number, also as 1e6."""
    number = float(text)
    if not number.is_integer():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number")
    return int(number)


def _environment(config: Path | None) -> None:
    """What Dagster and the definitions read from the environment, before either is imported."""
    from segflow.settings import default_path

    path = (config or default_path()).absolute()
    if not path.is_file():
        raise UserError(f"{path}: no such file; name your settings file with --config")
    os.environ["SEGFLOW_CONFIG"] = str(path)
    os.environ.setdefault("DAGSTER_HOME", str(path.parent))
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    warnings.filterwarnings("ignore")


def _run(options: argparse.Namespace) -> None:
    from segflow.runs import run

    run(options.week, options.weeks, options.force, options.rewrite_history)
    print()
    _report(argparse.Namespace(trend=False))


def _report(options: argparse.Namespace) -> None:
    from segflow.console import summary, write_trend
    from segflow.settings import load

    print(write_trend(load()) if options.trend else summary(load()))


def _compare(options: argparse.Namespace) -> None:
    from segflow.console import compare_snapshots
    from segflow.settings import load

    before, after = ((load(file), week) for file, week in (options.before, options.after))
    print(compare_snapshots(before, after, options.json))


def _export(options: argparse.Namespace) -> None:
    from segflow.console import export
    from segflow.settings import load

    print(export(load(), options.out, options.week, options.all, options.force))


def _init(options: argparse.Namespace) -> None:
    from segflow.events.propose import propose, write

    written = write(options.folder, propose(options.log, options.preset), options.force)
    print(f"{written}: look at what is marked `guessed`, then `segflow check` and `segflow run`")


def _generate(options: argparse.Namespace) -> None:
    from segflow.datasets.generator import generate
    from segflow.datasets.shop import Shop

    users = options.users or max(options.events // 50, 20)
    shop = Shop(
        events=options.events,
        users=users,
        items=options.items,
        days=options.days,
        segments=options.segments,
        seed=options.seed,
    )
    generate(options.folder, shop, print)
    print(f"{options.folder}: the log, segflow.yaml to run it with, and the truth in truth.parquet and truth.json")


def _sessions(options: argparse.Namespace) -> None:
    from segflow.events.whole_log import share_one_heap, write_sessions
    from segflow.settings import load

    share_one_heap()
    print(f"{write_sessions(load(), options.out)}")
    print(f"{options.out}: one file of sessions, and one of quarantined rows, for each span of days")


def _check(options: argparse.Namespace) -> None:
    from segflow.events.preflight import preflight
    from segflow.settings import load

    for line in preflight(load()):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
