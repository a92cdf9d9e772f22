"""What stands for a user: the id of the source or a pseudonym of it, and whose rows are not read at all.

*Pseudonyms* (`source.pseudonyms`) are HMAC-SHA-256 (RFC 2104) of the id's trimmed text with a secret key, in hexadecimal. They
are made where rows are mapped, so that nothing behind the mapping ever holds an id of the source. With the key, and only with
it, anyone can make the pseudonym of an id that they know. Another key makes other users of everybody.

*Suppressed* users (`source.suppressed`) were erased, and their rows are dropped where rows are mapped, though the source goes on
holding them. The list keeps salted digests: whoever has the list and an id can tell whether it is on it, and
without pseudonyms could try all ids that they know; with them, the key is needed besides.

Produces SQL, with the key in a variable of the connection: no text of a statement, and so no error, holds it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import duckdb
from filelock import FileLock

from segflow.config import PseudonymConfig, SourceConfig
from segflow.errors import UserError
from segflow.secrets import from_environment

_BLOCK = 64
_INNER, _OUTER, _SALT = "pseudonym_inner", "pseudonym_outer", "suppression_salt"
_SUPPRESSED = "suppressed_users"


@dataclass(frozen=True)
class UserIds:
    """How the ids of a source become those of the tables, and which of them are suppressed."""

    pseudonyms: PseudonymConfig
    suppressed: str | None

    @classmethod
    def of(cls, source: SourceConfig) -> UserIds:
        """As the settings say. Raises UserError when the key is wanted and not there, or belongs to another list."""
        found = cls(source.pseudonyms, source.suppressed)
        _ = found.key, found.digests
        return found

    @property
    def hashed(self) -> bool:
        """Whether tables hold pseudonyms."""
        return self.pseudonyms.enabled

    @cached_property
    def key(self) -> bytes | None:
        """The secret; None without pseudonyms."""
        if not self.hashed:
            return None
        return from_environment(self.pseudonyms.key_variable, "source.pseudonyms")

    @property
    def fingerprint(self) -> str:
        """Which key it is, without telling it; empty without pseudonyms."""
        return "" if self.key is None else hmac.new(self.key, b"segflow: which key", hashlib.sha256).hexdigest()[:12]

    def stored(self, users: Sequence[str]) -> list[str]:
        """What tables hold for these ids of the source."""
        if self.key is None:
            return list(users)
        return [hmac.new(self.key, user.encode(), hashlib.sha256).hexdigest() for user in users]

    def prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Give the connection the key and the list, for `sql` and `kept`."""
        if self.key is not None:
            # HMAC is two SHA-256, each over the key, padded and masked, and what it is of.
            block = (hashlib.sha256(self.key).digest() if len(self.key) > _BLOCK else self.key).ljust(_BLOCK, b"\0")
            connection.execute(f"SET VARIABLE {_INNER} = $1", [bytes(byte ^ 0x36 for byte in block)])
            connection.execute(f"SET VARIABLE {_OUTER} = $1", [bytes(byte ^ 0x5C for byte in block)])
        if self.digests:
            connection.execute(f"SET VARIABLE {_SALT} = $1", [self._list.salt])
            listed = "SELECT unnest($1::VARCHAR[]) AS digest"
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {_SUPPRESSED} AS {listed}", [sorted(self.digests)])

    def sql(self, text: str) -> str:
        """What the tables hold for the id `text`, both as SQL expressions. The connection must be prepared."""
        if self.key is None:
            return text
        inner = f"unhex(sha256(getvariable('{_INNER}') || encode({text})))"
        return f"sha256(getvariable('{_OUTER}') || {inner})"

    def is_kept(self, column: str) -> str:
        """The SQL condition of rows that are read; `column` holds what `sql` made. Empty when nobody is suppressed."""
        if not self.digests:
            return ""
        digest = f"sha256(getvariable('{_SALT}') || encode({column}))"
        return f"({column} IS NULL OR {digest} NOT IN (SELECT digest FROM {_SUPPRESSED}))"

    def kept(self, query: str, *columns: str) -> str:
        """`query` without the rows of which one of `columns` is a suppressed user."""
        rules = [rule for column in columns if (rule := self.is_kept(column))]
        return f"SELECT * FROM ({query}) WHERE {' AND '.join(rules)}" if rules else query

    @cached_property
    def _list(self) -> _Suppressed:
        return _read(self.suppressed)

    @cached_property
    def digests(self) -> Collection[str]:
        """Digests of the suppressed users. Raises UserError when they were made with another key than the one that is set."""
        digests = self._list.digests
        others = sum(1 for key in digests.values() if key != self.fingerprint)
        if others:
            raise UserError(
                f"{self.suppressed}: {others} of {len(digests)} erased users are listed by pseudonyms that are no longer made "
                "(source.pseudonyms or its key was changed), so that they would be read again; set it back, or move the file "
                "aside and erase them again"
            )
        return digests.keys()

    def suppress(self, users: Sequence[str]) -> int:
        """Add ids of the source to the list; returns how many were new. Whole or not at all; nothing without a list."""
        if self.suppressed is None:
            return 0
        file = Path(self.suppressed)
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            held = _read(self.suppressed)
            salt = held.salt or secrets.token_bytes(32)
            new = {hashlib.sha256(salt + one.encode()).hexdigest() for one in self.stored(users)} - held.digests.keys()
            if new:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                lines = [{"digest": one, "key": self.fingerprint, "time": now} for one in sorted(new)]
                before = file.read_text(encoding="utf-8") if held.salt else json.dumps({"salt": salt.hex()}) + "\n"
                part = file.with_name(f".{file.name}.{os.getpid()}.part")
                part.touch(mode=0o600)
                with part.open("w", encoding="utf-8") as opened:
                    opened.write(before + "".join(json.dumps(line) + "\n" for line in lines))
                    opened.flush()
                    os.fsync(opened.fileno())
                part.replace(file)
        return len(new)


@dataclass(frozen=True)
class _Suppressed:
    """The list as it is on disk. digests: digest -> fingerprint of the key that was set."""

    salt: bytes
    digests: dict[str, str]


def _read(place: str | None) -> _Suppressed:
    if place is None or not Path(place).exists():
        return _Suppressed(b"", {})
    number = 1
    try:
        lines = Path(place).read_text(encoding="utf-8").splitlines()
        salt = bytes.fromhex(json.loads(lines[0])["salt"])
        digests: dict[str, str] = {}
        for line in lines[1:]:
            number += 1
            entry = json.loads(line)
            digests[entry["digest"]] = entry["key"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{place}: line {number}: is not a list of erased users as `segflow erase` writes it; restore it from a backup, "
            "or move it aside and erase them again"
        ) from error
    return _Suppressed(salt, digests)
