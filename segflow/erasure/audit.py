"""The line that says afterwards that somebody was erased, without saying who.

Whoever holds an id can tell whether a line is about it: the hash is that of the id with the line's own random salt, by scrypt
(RFC 7914), which makes trying all ids dear.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_COST = {"n": 2**14, "r": 8, "p": 1}


def fingerprint(user: str, salt: bytes) -> str:
    """32 bytes of scrypt of a user id, in hexadecimal."""
    return hashlib.scrypt(user.encode(), salt=salt, dklen=32, **_COST).hex()


def record(file: Path, users: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Append one line to `file`, which is made if need be."""
    salt = os.urandom(16)
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "salt": salt.hex(),
        "users": [fingerprint(user, salt) for user in users],
        **facts,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(line, ensure_ascii=False) + "\n")
        opened.flush()
        os.fsync(opened.fileno())
