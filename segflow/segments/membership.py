"""Who belongs to each segment, as a digest: what the ranker of a segment is trained on, and nothing else.

A module of its own: what is placed where does not depend on it (``snapshots``).
"""

from __future__ import annotations

import hashlib

import pyarrow as pa


def member_digests(assigned: pa.Table) -> dict[str, str]:
    """Segment id -> sixteen hexadecimal digits that change when its members or their shares do.

    assigned: rows of `user_segments` that have a segment, in any order.
    """
    rows = assigned.select(["segment_id", "user_id", "probability"]).sort_by(
        [("segment_id", "ascending"), ("user_id", "ascending")]
    )
    found: dict[str, hashlib._Hash] = {}
    for segment, user, share in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        found.setdefault(segment, hashlib.sha256()).update(f"{len(user)}:{user}={share!r};".encode())
    return {segment: digest.hexdigest()[:16] for segment, digest in found.items()}
