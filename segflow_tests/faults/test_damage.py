"""Bytes that change on disk: in data files, models and checkpoints. They are told by name, and never become other numbers."""

from __future__ import annotations

import logging
import random
import re
import shutil
from pathlib import Path

import duckdb
import pytest
import torch

from segflow import tables
from segflow.errors import UserError
from segflow.representation.checkpoints import Checkpoint, pack
from segflow.storage import Storage, checksums
from segflow_tests.faults.days import DAILY, DAYS, INJECTIONS, SEED, Days, backfill
from segflow_tests.storage.samples import MODELS, day

pytestmark = pytest.mark.faults


def test_a_damaged_data_file(days: Days) -> None:
    """A random data file gets a flipped bit, is cut, or is put in place of another day's; ten times. Holds afterwards:
    whoever reads the day is told the file and a command; the other days can be read; `segflow doctor --tables` names
    the file; the command mends it, and the rows are those of an undisturbed run.
    """
    chance = random.Random(SEED)
    assert days.nursery.run(*backfill(chunk=4)).status == 0
    for turn in range(INJECTIONS):
        # Rows of two days are needed to take one for the other, and there may be so few in quarantine.
        files = []
        while len(files) < 2:
            table = tables.ALL[chance.choice(DAILY)]
            files = days.project.storage.files(table)
        ((key, file), (_, other)) = chance.sample(files, 2)
        how = chance.choice(["flip", "flip", "cut", "swap"])
        content = bytearray(file.read_bytes())
        if how == "flip":
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        elif how == "cut":
            content = content[: chance.randrange(len(content))]
        else:
            content = bytearray(other.read_bytes())
        file.write_bytes(content)
        told = f"seed {SEED}, turn {turn}: {how} {file}"
        with pytest.raises(UserError, match=re.escape(str(file))) as error:
            days.project.read(table)
        assert days.project.read(table, {"day": other.parent.name.removeprefix("day=")}).num_rows, told
        if turn < 2:
            examined = days.nursery.run("doctor", "--tables")
            assert f"fault    data        {file}: " in examined.said, told
        command = re.search(r"`segflow (.+)`", str(error.value))
        assert command is not None
        mended = days.nursery.run(*command[1].split())
        assert mended.status == 0, f"{told}: {mended.said}"
        assert days.project.read(table).to_pylist() == days.expected[table.name], told
        assert key in dict(days.project.storage.files(table))


def test_a_damaged_log_of_a_table(days: Days) -> None:
    """A random file of Delta's log gets a flipped bit, is cut, or goes; ten times. Holds afterwards: whoever opens the table
    is told the file; so does `segflow doctor`; with the file back, or the table moved aside and made again as the line says,
    the rows are those of an undisturbed run.
    """
    chance = random.Random(SEED)
    assert days.nursery.run(*backfill(chunk=1)).status == 0
    for turn in range(INJECTIONS):
        table = tables.ALL[chance.choice(DAILY)]
        folder = days.project.storage.folder(table)
        file = chance.choice(checksums.log_files(folder))
        whole = file.read_bytes()
        how = chance.choice(["flip", "cut", "gone"])
        if how == "flip":
            content = bytearray(whole)
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            file.write_bytes(content)
        elif how == "cut":
            file.write_bytes(whole[: chance.randrange(len(whole))])
        else:
            file.unlink()
        told = f"seed {SEED}, turn {turn}: {how} {file}"
        with pytest.raises(UserError) as error:
            days.project.read(table)
        assert str(error.value).startswith(str(folder if how == "gone" else file)), told
        if turn < 2:
            assert f"fault    tables      {str(error.value).split('; ')[0]}" in days.nursery.run("doctor").said, told
        if chance.random() < 0.5:
            file.write_bytes(whole)
        else:
            command = re.search(r"`segflow (.+)`", str(error.value))
            assert command is not None
            folder.rename(folder.with_name(f"aside-{turn}"))
            mended = days.nursery.run(*command[1].replace("FIRST..LAST", f"{DAYS[0]}..{DAYS[-1]}").split())
            assert mended.status == 0, f"{told}: {mended.said}"
        assert days.project.read(table).to_pylist() == days.expected[table.name], told
    days.check()


@pytest.mark.parametrize("seed", range(SEED, SEED + INJECTIONS))
def test_a_model_in_place_of_another(connection: duckdb.DuckDBPyConnection, storage: Storage, seed: int) -> None:
    """The file of one week's and segment's model is replaced by another's. Holds afterwards: it is refused by name;
    making it again mends it; the others can be read all the time.
    """
    chance = random.Random(seed)
    keys = [(day(number), f"s{one}") for number in (1, 8, 15) for one in range(3)]
    rows = " UNION ALL ".join(
        f"SELECT DATE '{week}' AS week, '{segment}' AS segment_id, '{segment} of {week}'::BLOB AS model"
        for week, segment in keys
    )
    storage.write(connection, MODELS, rows, keys)
    files = dict(storage.files(MODELS))
    (week, segment), other = chance.sample(keys, 2)
    shutil.copyfile(files[other], files[week, segment])
    with pytest.raises(UserError, match=f"{re.escape(str(files[week, segment]))}: .*--assets models"):
        storage.read(connection, MODELS, where={"week": week, "segment_id": segment})
    found = storage.read(connection, MODELS, where={"week": other[0], "segment_id": other[1]})["model"].to_pylist()
    assert found == [f"{other[1]} of {other[0]}".encode()]
    assert storage.write(connection, MODELS, rows, keys).replaced == [(week, segment)]
    assert storage.read(connection, MODELS)["model"].to_pylist() == [
        f"{one} of {week}".encode() for week, one in sorted(keys)
    ]


@pytest.mark.parametrize("seed", range(SEED, SEED + 2 * INJECTIONS))
def test_a_checkpoint_that_is_not_one(tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """A checkpoint is cut, changed, of another training, or a model. Holds afterwards: training starts over, with a
    warning that names the file; the next checkpoint can be taken up. (That the model comes out the same:
    `test_checkpoints`.)
    """
    chance = random.Random(seed)
    tensors, state = {"a": torch.arange(50.0), "b": torch.ones(3, 4)}, {"epoch": 3}
    checkpoint = Checkpoint(tmp_path / "week.safetensors", "this training")
    checkpoint.save(tensors, state)
    content = bytearray(checkpoint.path.read_bytes())
    how = chance.choice(["cut", "flip", "other", "model"])
    if how == "flip":
        # Inside the tensors: in the padding of the header, a flip changes nothing.
        content[-chance.randrange(1, 240)] ^= 1 << chance.randrange(8)
        checkpoint.path.write_bytes(content)
    elif how == "cut":
        checkpoint.path.write_bytes(content[: chance.randrange(len(content))])
    elif how == "other":
        Checkpoint(checkpoint.path, "another week").save(tensors, state)
    else:
        checkpoint.path.write_bytes(pack(tensors, {"candidate_ids": ["i1"]}))
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load() is None, f"seed {seed}: {how}"
    assert f"checkpoint {checkpoint.path} is" in caplog.text
    assert "training starts over" in caplog.text
    checkpoint.save(tensors, state)
    found = checkpoint.load()
    assert found is not None
    assert found[1] == state
