"""Histories of some users at a time: no user is cut in two, and nothing is lost."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from segflow.representation.histories import UpTo, whole_users
from segflow.representation.users import TextProfiles, text_profiles

_SCHEMA = pa.schema([("user_id", pa.string()), ("row", pa.int64())])


def _reader(users: list[str], batch_rows: int) -> pa.RecordBatchReader:
    table = pa.table({"user_id": users, "row": list(range(len(users)))}, schema=_SCHEMA)
    return pa.RecordBatchReader.from_batches(_SCHEMA, table.to_batches(batch_rows))


@pytest.mark.parametrize("batch_rows", [1, 3, 7, 1000])
@pytest.mark.parametrize("at_once", [1, 5, 40, 1000])
def test_users_stay_whole(batch_rows: int, at_once: int) -> None:
    rng = np.random.default_rng(batch_rows * 1000 + at_once)
    # One user has more than any table asks for; ids beyond ASCII come last, by their bytes.
    counts = {**{f"u{number:02}": int(rng.integers(1, 9)) for number in range(30)}, "v": 60, "ü": 3}
    users = [user for user, count in counts.items() for _ in range(count)]
    sessions = UpTo(_reader([user for user in users if user != "u07"], batch_rows))
    parts = list(whole_users(_reader(users, batch_rows), at_once))
    assert pa.concat_tables(parts)["row"].to_pylist() == list(range(len(users)))
    owners = [set(part["user_id"].to_pylist()) for part in parts]
    assert sum(map(len, owners)) == len(counts)
    for part, of_part in zip(parts, owners, strict=True):
        assert len(part) <= max(at_once, *(counts[user] for user in of_part)) + batch_rows + 8
        taken = sessions.user(part["user_id"][-1].as_py())["user_id"].to_pylist()
        assert taken == [user for user in part["user_id"].to_pylist() if user != "u07"]
    if at_once == 5 and batch_rows < 10:
        assert len(parts) > 5


def test_no_rows_are_one_empty_table() -> None:
    (only,) = whole_users(_reader([], 5), 10)
    assert only.num_rows == 0
    assert UpTo(_reader([], 5)).user("a").num_rows == 0


def test_pools_of_parts_of_sessions() -> None:
    rng = np.random.default_rng(3)
    vectors, owner, ago = rng.normal(size=(500, 5)).astype(np.float32), rng.integers(0, 40, 500), rng.random(500) * 90
    whole = text_profiles(vectors, owner, ago, np.ones(500), 30.0, 41)
    profiles = TextProfiles(41, 30.0)
    for start in range(0, 500, 37):
        part = slice(start, start + 37)
        profiles.add(vectors[part], owner[part], ago[part], np.ones(len(owner[part])))
    np.testing.assert_allclose(profiles.finish(), whole, atol=1e-6)
    assert not whole[40].any()
    np.testing.assert_allclose(np.linalg.norm(whole[:40], axis=1), 1, atol=1e-6)
