"""Errors that a user can mend. A traceback is for our own bugs; these are printed as one line and a non-zero exit."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in input, configuration or use.

    The message is one line that says what is wrong, where (file, key or row) and how to mend it.
    """


class RunFailedError(UserError):
    """A run that had begun and failed; what had finished before is kept.

    The message is one line that names the step and its reason.
    """
