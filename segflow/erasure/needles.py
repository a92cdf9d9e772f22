"""What counts as a user's name in free text: pages, logs, records of runs.

Lives here: spellings and borders of an id. Does not live here: tables, whose columns of ids are compared exactly.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

ERASED = "[erased]"
_SHORTEST, _SHORTEST_NUMBER = 5, 10
_FEW = 200
_WORD = rb"[\w\x80-\xff]"
_JOINT = rb"[-.@]"
# An id inside a longer one is another id; but a session is named by its user, `@`, and when it started.
_APART = rb"(?<!" + _WORD + rb")(?<!" + _WORD + _JOINT + rb")"
# In JSON and scripts `\n` is the end of a line, not a letter, and `\u0041` a letter, not the id u0041.
_BEFORE = rb"(?:" + _APART + rb"|(?<=\\[nrt]))(?!(?<=\\)u[0-9A-Fa-f]{4})"
_AFTER = rb"(?!" + _WORD + rb")(?![-.]" + _WORD + rb")(?!@(?!\d{8}T)" + _WORD + rb")"


class Needles:
    """The ids, and hashes that stand for them. Those that any text may hold by chance are not looked for in texts."""

    def __init__(self, users: Sequence[str], hashes: Sequence[str] = ()):
        self.common = [user for user in users if is_common(user)]
        """Ids that are too short, or numbers too small, to be told from other words."""
        spelled = {form for user in users if not is_common(user) for form in _spellings(user)}
        words = sorted({*spelled, *(one.encode() for one in hashes)}, key=len, reverse=True)
        # Looking for a few words is many times faster than the pattern, which is tried at every place.
        self._few = words if len(words) <= _FEW else None
        self._pattern = (
            re.compile(_BEFORE + b"(?:" + b"|".join(map(re.escape, words)) + b")" + _AFTER) if words else None
        )

    def found(self, content: bytes) -> bool:
        """Whether one of them stands in `content`, or anything that has a buffer, such as a mapped file."""
        if self._pattern is None or (self._few is not None and all(content.find(word) < 0 for word in self._few)):
            return False
        return self._pattern.search(content) is not None

    def redacted(self, text: str) -> str:
        """The text with `[erased]` in their place."""
        if self._pattern is None:
            return text
        return self._pattern.sub(ERASED.encode(), text.encode(errors="surrogateescape")).decode(
            errors="surrogateescape"
        )


def is_common(user: str) -> bool:
    """Whether texts may hold the id by chance: under five characters, or a number of under ten digits."""
    return len(user) < (_SHORTEST_NUMBER if user.isdigit() else _SHORTEST)


def _spellings(user: str) -> Iterator[bytes]:
    """As it is, in JSON, in JSON inside JSON, in HTML, in an address."""
    yield user.encode()
    for ascii_only in (True, False):
        once = json.dumps(user, ensure_ascii=ascii_only)[1:-1]
        yield once.encode()
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1].encode()
    yield html.escape(user).encode()
    # As jinja's escape spells quotation marks.
    yield html.escape(user, quote=False).replace('"', "&#34;").replace("'", "&#39;").encode()
    yield quote(user, safe="").encode()
