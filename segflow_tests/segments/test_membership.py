"""Digests of who belongs to a segment."""

from __future__ import annotations

import pyarrow as pa

from segflow.segments.membership import member_digests

Row = tuple[str, str, float]
ROWS: list[Row] = [("s001", "a", 0.9), ("s001", "b", 0.5), ("s002", "c", 0.7), ("s003", "d", 1.0)]


def digests(rows: list[Row]) -> dict[str, str]:
    return member_digests(
        pa.table(dict(zip(("segment_id", "user_id", "probability"), map(list, zip(*rows, strict=True)), strict=True)))
    )


def changed(rows: list[Row]) -> set[str]:
    """The segments whose digest is another one."""
    before, after = digests(ROWS), digests(rows)
    return {segment for segment in before.keys() | after.keys() if before.get(segment) != after.get(segment)}


def test_a_digest_follows_the_members_of_its_segment_alone() -> None:
    assert changed(ROWS[::-1]) == set(), "the order of rows is nobody's"
    assert changed([*ROWS[:1], ("s002", "b", 0.5), *ROWS[2:]]) == {"s001", "s002"}
    assert changed([*ROWS[:1], ("s001", "b", 0.6), *ROWS[2:]]) == {"s001"}
    assert changed(ROWS[:3]) == {"s003"}
    assert len(set(digests(ROWS).values())) == 3
