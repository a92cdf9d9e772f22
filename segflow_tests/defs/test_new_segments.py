"""A new Dagster home over tables that are there already: the segments of the ledger become partitions."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pyarrow as pa
import pytest

from segflow import tables
from segflow.config import ComputeConfig
from segflow.defs.segments import sensors
from segflow.storage import Storage, connect

WEEK = date(2024, 1, 1)


def record(storage: Storage, spill: Path, **clusters: int | None) -> None:
    """A ledger of `WEEK`: segment -> its cluster, none if it ended."""
    rows = [
        {
            "week": WEEK,
            "segment_id": segment,
            "name": segment,
            "event": "emerge" if cluster is not None else "vanish",
            "cluster": cluster,
            "users": 1,
            "previous_users": 0,
            "parents": [],
            "migration": "{}",
            "centre": [("visits", 1.0)],
            "members": ["u1"],
            "revision": 0,
        }
        for segment, cluster in clusters.items()
    ]
    with connect(ComputeConfig(spill=str(spill), threads=1)) as connection:
        connection.register("rows", pa.Table.from_pylist(rows, schema=tables.SEGMENT_LEDGER.arrow))
        storage.write(connection, tables.SEGMENT_LEDGER, "FROM rows", [(WEEK,)])


def test_living_segments_of_the_ledger_become_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path / "tables"))
    monkeypatch.setattr(sensors, "Segflow", lambda: SimpleNamespace(storage=storage))
    cursor: str | None = None

    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> list[str] | str:
            nonlocal cursor
            found = sensors.new_segments(dg.build_sensor_context(instance, cursor=cursor))
            if isinstance(found, dg.SkipReason):
                return str(found.skip_message)
            assert isinstance(found, dg.SensorResult)
            cursor = found.cursor
            for request in found.dynamic_partitions_requests or []:
                instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
                return sorted(request.partition_keys)
            return str(found.skip_reason)

        assert tick() == "there is no ledger yet"
        record(storage, tmp_path / "spill", s001=0, s002=None, s003=1)
        assert tick() == ["s001", "s003"]
        assert tick() == "the ledger is as it was"
        record(storage, tmp_path / "spill", s001=0, s003=None, s004=1)
        assert tick() == ["s004"]
        instance.delete_dynamic_partition("segment", "s001")
        assert tick() == ["s001"], "a home that lost one"
        assert tick() == "the ledger is as it was"
