"""Secrets: they come from environment variables, are checked here, and stand in no file, log or message.

Lives here: reading one, and recognising one that stands in the settings where it must not. Does not live here: what is done with
it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from segflow.errors import UserError

SHORTEST = 16
"""Characters below which a key can be found by trying."""
# A file that holds a token is named, not the token.
_TELLING = re.compile(
    r"(?i)^(?!.*_(file|path)$).*(secret|passw|token|credential|signature|(^|_)sas(_|$)|"
    r"(account|access|master|sas|private|api|encryption|shared|storage)_?key(?!_?id))"
)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def secret_key(environment: Mapping[str, str], variable: str, setting: str) -> bytes:
    """The secret in the environment variable that `setting` needs. Raises UserError when it is not set or too short."""
    value = environment.get(variable, "").strip()
    if len(value) >= SHORTEST:
        return value.encode()
    said = "is not set" if not value else f"is shorter than {SHORTEST} characters"
    raise UserError(
        f"{setting}: the environment variable {variable} {said}; set it to a long random text, such as that of "
        "`openssl rand -hex 32`, wherever segflow and Dagster run"
    )


def from_environment(variable: str, setting: str) -> bytes:
    """As `secret_key`, from the environment of this process."""
    return secret_key(os.environ, variable, setting)


def is_variable(value: str) -> bool:
    """Whether the value is `${NAME}`, which stands for that of an environment variable."""
    return _VARIABLE.fullmatch(value) is not None


def filled(options: Mapping[str, str], environment: Mapping[str, str], setting: str) -> dict[str, str]:
    """The options with each `${NAME}` replaced by the environment variable. Raises UserError for one that is not set."""
    found = dict(options)
    for key, value in options.items():
        if named := _VARIABLE.fullmatch(value):
            if not environment.get(named[1]):
                raise UserError(
                    f"{setting}.{key}: the environment variable {named[1]} is not set; set it, or remove the option"
                )
            found[key] = environment[named[1]]
    return found


def is_telling(name: str) -> bool:
    """Whether what is called so is a secret, as `aws_secret_access_key` is."""
    return _TELLING.search(name) is not None


def in_address(address: str) -> bool:
    """Whether an address carries a secret: a password before its host, or a parameter that is one."""
    if "://" not in address:
        return False
    try:
        parts = urlsplit(address)
        return parts.password is not None or any(
            is_telling(name) or name == "sig" for name, _ in parse_qsl(parts.query)
        )
    except ValueError:
        return "@" in address
