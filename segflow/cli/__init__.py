"""The `segflow` command. A user's mistake is one line on standard error; a traceback is a bug of ours.

Lives here: words, options, exit codes, and how results are shown. Does not live here: what a command does. Nothing heavy is
imported before a command runs, so that `segflow --help` and completion answer at once.

Exit codes: 0 all is well; 1 a user's mistake, or a check that failed; 2 an option that does not exist or cannot be read; 3 a run
failed; 130 interrupted.
"""

from segflow.cli.app import main

__all__ = ["main"]
