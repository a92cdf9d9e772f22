"""Memberships for use elsewhere: one snapshot as CSV or Parquet, written whole or not at all.

What does not live here: finding the snapshot (the command), and the key (`privacy.py`). Only ever one snapshot: which
segments a user went through over many weeks tells one user from another, as a fingerprint does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as parquet

from segflow.errors import UserError
from segflow.segments.privacy import Key, hashed
from segflow.segments.snapshots import UNASSIGNED

Row = dict[str, Any]

_WRITERS = {".csv": csv.write_csv, ".parquet": parquet.write_table}


def require_place(out: Path, force: bool) -> None:
    """Raises UserError when the file cannot be written: another ending, no such folder, or it is there already."""
    if out.suffix.lower() not in _WRITERS:
        raise UserError(f"{out}: the name must end in {' or '.join(_WRITERS)}")
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}; make it first")
    if out.is_dir():
        raise UserError(f"{out}: is a folder; name a file")
    if out.exists() and not force:
        raise UserError(f"{out}: is there already; choose another name, or replace it with --force")


def secret_key(environment: Mapping[str, str], variable: str) -> Key:
    """The key that user ids are hashed with. Raises UserError when the environment variable is not set."""
    if not environment.get(variable, "").strip():
        raise UserError(
            f"segments.export.user_ids is 'hashed', which needs a secret: set {variable} to a long random text"
        )
    return Key(environment[variable].encode(), "keyed")


def memberships(
    week: date, users: pa.Table, ledger: Sequence[Row], min_users: int, everybody: bool, key: Key | None
) -> pa.Table:
    """user_id, segment_id, name, probability and snapshot, in order of user id.

    users: rows of `user_segments` of `week`; ledger: of `segment_ledger` of `week`. Who is in no segment, or in one of
    fewer than `min_users` users, is left out, or, with `everybody`, is unassigned. key: user ids are hashed with it.
    """
    sizes = users["segment_id"].value_counts().to_pylist()
    published = {row["values"] for row in sizes if row["counts"] >= min_users} - {UNASSIGNED}
    names = {row["segment_id"]: row["name"] for row in ledger if row["segment_id"] in published}
    inside = pc.is_in(users["segment_id"], pa.array(sorted(published), pa.string()))
    if not everybody:
        users, inside = users.filter(inside), inside.filter(inside)
    ids = users["user_id"].to_pylist()
    segments = pc.if_else(inside, users["segment_id"], UNASSIGNED)
    found = pa.table(
        {
            "user_id": ids if key is None else [hashed(one, key) for one in ids],
            "segment_id": segments,
            "name": pa.array([names.get(one) for one in segments.to_pylist()], pa.string()),
            "probability": pc.if_else(inside, users["probability"], 0.0),
            "snapshot": pa.array([week] * len(ids), pa.date32()),
        }
    )
    return found.sort_by("user_id")


def write_whole(rows: pa.Table, out: Path) -> None:
    """Write the file beside its place and move it there once it is whole; who may read it is the owner alone."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.touch(mode=0o600)
        _WRITERS[out.suffix.lower()](rows, part)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
