"""What keeps a published profile from telling about single users: keyed hashes and noised sizes.

What does not live here: the smallest cell (`segments.profiles.min_cell`), which each table of a profile keeps by itself.

What is covered. *Exemplars* are HMAC-SHA256 of user ids. With a secret key nobody without the key can link them to a user.
Without one the seed is the key, which is no secret: whoever holds a list of ids can hash it and look. Such hashes are
pseudonyms, not anonymous, and a profile says which they are. *Sizes* under `epsilon`: one more or one less user, in
segments that stay as they are, changes the chance of any published sizes by at most exp(epsilon).

What is not covered by epsilon: that the segments themselves were learned from these users; value, lifts, means, shares of
categories, rules and journeys; other tables of the project, which hold every user's segment. Each new materialization draws
anew, since noise from a known seed could be taken off, and spends the budget once more. Nor does the smallest cell protect
from comparing figures: two that are published may differ by a group that is not.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segflow.errors import UserError

Row = dict[str, Any]


class Key(NamedTuple):
    """What user ids are hashed with: `keyed` by a secret, or a `pseudonym` that anyone with the ids can make."""

    secret: bytes
    kind: Literal["keyed", "pseudonym"]


def key_from(environment: Mapping[str, str], variable: str, seed: int) -> Key:
    """The key in the environment variable, or else one made of the seed. Raises UserError when the variable is empty."""
    if variable not in environment:
        return Key(f"segflow pseudonym {seed}".encode(), "pseudonym")
    if not environment[variable].strip():
        raise UserError(f"{variable} is set but empty; give it a long random text, or unset it")
    return Key(environment[variable].encode(), "keyed")


def hashed(user_id: str, key: Key) -> str:
    """HMAC-SHA256 of a user id: 64 hexadecimal digits (RFC 2104)."""
    return hmac.new(key.secret, user_id.encode(), hashlib.sha256).hexdigest()


def noised(counts: NDArray[np.integer], epsilon: float) -> NDArray[np.int64]:
    """Counts (k,) of disjoint groups of users with discrete Laplace noise of scale 1 / epsilon, by OpenDP; at least 1.

    One user more or less changes one count by one, so all of them together spend epsilon. Not reproducible, on purpose.
    Raises UserError when OpenDP is not installed.
    """
    try:
        import opendp.prelude as dp
    except ImportError as error:
        raise UserError("segments.profiles.epsilon needs OpenDP; run `pip install segflow[privacy]`") from error
    dp.enable_features("contrib")
    domain = dp.vector_domain(dp.atom_domain(T=int))
    mechanism = dp.m.make_laplace(domain, dp.l1_distance(T=int), scale=1 / epsilon)
    drawn = mechanism([int(count) for count in counts])
    return np.maximum(np.array(drawn, np.int64), 1)


def without_counts(details: Any) -> Any:
    """The same rows with None for exact numbers of users, which must not stand beside noised ones."""
    if isinstance(details, list):
        return [without_counts(one) for one in details]
    if isinstance(details, dict):
        return {key: None if key in _COUNTS else without_counts(value) for key, value in details.items()}
    return details


_COUNTS = frozenset({"users", "held_out_users"})
