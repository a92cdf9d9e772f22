"""The command itself: its groups of commands, the settings that they share, and what comes out when something goes wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from segflow import trouble
from segflow.cli import erase, look, make, start
from segflow.errors import RunFailedError, UserError

GROUPS = {
    "Start": ("demo", "init", "generate", "check", "doctor", "completion"),
    "Make": ("run", "backfill", "sessions"),
    "Look": ("report", "compare", "export"),
    "Remove": ("erase", "retain"),
}
_EXIT_CODES = """\b
Exit codes: 0 all is well; 1 a mistake in use or a failed check; 2 an option
that cannot be read; 3 a run failed; 130 interrupted."""
_SAFE = "everything that had finished is kept; the same command goes on from there"


class _Grouped(click.Group):
    """Lists its commands by what they are for."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for name, commands in GROUPS.items():
            with formatter.section(name):
                formatter.write_dl([(one, self.commands[one].get_short_help_str(90)) for one in commands])


@click.group(
    cls=_Grouped,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXIT_CODES,
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings file.  [default: $SEGFLOW_CONFIG, or the nearest segflow.yaml]",
)
@click.version_option(
    None, "--version", message="%(version)s", help="Show the version and exit.", package_name="segflow"
)
@click.pass_context
def segflow(ctx: click.Context, config: Path | None) -> None:
    """From an event log to segments, rankers, and a verdict on whether segmenting paid."""
    ctx.obj = config


for _command in (*start.COMMANDS, *make.COMMANDS, *look.COMMANDS, *erase.COMMANDS):
    segflow.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # What a command returns is None; what it exits with comes back as a number.
        return segflow.main(given, prog_name="segflow", standalone_mode=False) or 0
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print(f"segflow: interrupted; {_SAFE}", file=sys.stderr)
        return 130
    except UserError as error:
        return _told(str(error), 3 if isinstance(error, RunFailedError) else 1, given)
    except Exception as error:
        if said := _of_the_store(error) or trouble.line(error):
            return _told(said, 3, given)
        raise


def _told(said: str, code: int, given: Sequence[str]) -> int:
    """Say what is wrong in one line; returns the exit code."""
    print(f"segflow: {said}", file=sys.stderr)
    if "--json" in given:
        print(json.dumps({"error": said, "exit_code": code}, ensure_ascii=False))
    return code


def _of_the_store(error: Exception) -> str:
    """What an error that came in the middle of a read says of an object store; empty for another one."""
    if "segflow.storage" not in sys.modules:
        return ""
    from segflow.storage import explained

    return str(explained(error) or "")
