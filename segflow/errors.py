"""Errors that a user can mend. A traceback is for our own bugs; these are printed as one line and a non-zero exit."""

from __future__ import annotations

import re

_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
_LONGEST = 4000


class UserError(Exception):
    """A mistake in input, configuration or use.

    The message is one line that says what is wrong, where (file, key or row) and how to mend it. It is kept to one line that
    every terminal can show, whatever is quoted in it of files and settings.
    """

    def __init__(self, message: str):
        super().__init__(_one_line(message))


class RunFailedError(UserError):
    """A run that had begun and failed; what had finished before is kept.

    The message is one line that names the step and its reason.
    """


class StoreError(UserError):
    """An object store did not do what it was asked.

    The message is one line, as of every mistake that a user can mend. passing: it may do it when it is asked again. tried: it was
    asked again and again already. gone: an object is not there.
    """

    def __init__(self, message: str, passing: bool, tried: bool, gone: bool):
        super().__init__(message)
        super().__init__(message)
        self.gone = gone
        self.passing = passing
        self.tried = tried


def _one_line(text: str) -> str:
    line = _BREAKS.sub(" ", text).strip()
    if len(line) > _LONGEST:
        # What is quoted comes first, how to mend it last.
        line = f"{line[: _LONGEST * 3 // 4]} … {line[-_LONGEST // 4 :]}"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
