"""What an object store does that a disk does not: it answers late, with an error, in part, or not at all.

Lives here: how long it is waited for, what is asked again, and what a user is told. Does not live here: tables.

deltalake asks by the Rust library `object_store`, which repeats what was refused (5xx, 429) or never answered; but not a read
whose answer broke off, nor a commit that was not answered in time, since it may have arrived.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from deltalake.exceptions import TableNotFoundError

from segflow.errors import StoreError

WAITS: Mapping[str, str] = {
    "connect_timeout": "5s",
    "timeout": "60s",
    "max_retries": "10",
    "retry_timeout": "60s",
}
"""Options that bound one request: a minute of trying, and the last try may take another one."""

_PAUSES = (0.2, 1.0)
# A disk is a store to deltalake too; what it says is for `trouble` to tell.
_STORE = re.compile(
    r"loading credentials|Generic (?!LocalFileSystem)\w+ error|Error performing [A-Z]+ |Object at location .* not found"
)
_REQUEST = re.compile(r"Error performing ([A-Z]+) (\S+?)(?:\?\S*)? in ([\d.]+\S+?)(?:, after (\d+) retries|[\s,]|$)")
_LASTING = re.compile(r"status code: 4(?!08|29)\d\d|Object at location|builder error")
_UNSET = re.compile(r"://169\.254\.169\.254|credential|Missing \w*Key", re.IGNORECASE)
_T = TypeVar("_T")


def with_waits(root: str, options: Mapping[str, str]) -> dict[str, str]:
    """`options`, and for an object store the bounds that they leave open."""
    return {**WAITS, **options} if "://" in root else dict(options)


def explained(error: BaseException) -> StoreError | None:
    """What an error of any library says about an object store, in one line; None if it is about something else."""
    if isinstance(error, StoreError):
        return error
    says = _plain(str(error))
    if isinstance(error, TableNotFoundError) or not _STORE.search(says):
        return None
    request = _REQUEST.search(says)
    retries = int(request[4] or 0) if request else 0
    what = f"{request[1]} {request[2]}" if request else "a request"
    after = f" (after {retries} retries)" if retries else ""
    unset, lasting = _UNSET.search(f"{what} {_cause(says)}"), _LASTING.search(says)
    gone = ".parquet" in what and _cause(says).endswith(("NoSuchKey", "not found"))
    if gone:
        mend = "restore it from a backup, or make its partition again with --force"
    elif unset:
        mend = "set its credentials in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    elif "URL scheme is not allowed" in says:
        mend = "set aws_allow_http: 'true' in storage.options, or AWS_ALLOW_HTTP, if the address is to be http://"
    elif lasting:
        mend = "correct storage.root and storage.options"
    else:
        mend = "see that the store answers there and run again: every table is whole, and what it holds is kept"
    passing = not unset and not lasting
    return StoreError(f"storage.root: {what}: {_cause(says)}{after}; {mend}", passing, bool(retries), gone)


@contextmanager
def telling() -> Iterator[None]:
    """Turns what libraries say about an object store into a StoreError."""
    try:
        yield
    except Exception as error:
        if (told := explained(error)) is None or told is error:
            raise
        raise told from error


def asked(action: Callable[[], _T]) -> _T:
    """What a read gives; begun anew if an answer broke off. Raises StoreError."""
    for pause in (*_PAUSES, None):
        try:
            with telling():
                return action()
        except StoreError as error:
            if pause is None or error.tried or not error.passing:
                raise
            time.sleep(pause)
    raise AssertionError("unreachable")


def _plain(text: str) -> str:
    """Without colours; reasons below reasons as reasons behind them."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).split("\n")
    return re.sub(r"[\s:]*↳\s*", ": ", " ".join(" ".join(lines).split()))


def _cause(says: str) -> str:
    """The reason below all others."""
    says = says.split(". Detail:")[0]
    if answered := re.search(r"status code: (\d{3}[^:<]*)(?:.*?<Code>(\w+)</Code>)?", says):
        return " ".join(filter(None, (answered[1].strip(" :."), answered[2])))
    return "not found" if "Object at location" in says else says.rstrip(" :.").rsplit(": ", 1)[-1]
