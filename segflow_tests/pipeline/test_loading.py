"""What a whole run stored is loaded in a process in which unpickling anything is an error."""

from __future__ import annotations

import json

from segflow_tests.pipeline.conftest import Made

LOADS = """
import json, pickle, sys
from pathlib import Path

import mlflow, torch, transformers
from segflow import settings, tables
from segflow.rankers.global_ranker import GlobalRanker
from segflow.rankers.segment_rankers import read_deltas
from segflow.representation.adaptation import Adapter
from segflow.representation.behavior import BehaviorModel
from segflow.representation.encoder import Encoder
from segflow.segments.clustering import Clustering
from segflow.storage import Storage, connect
from segflow.tracking import Tracking

def refuse(*_, **__):
    raise AssertionError("something was unpickled")

# Raised by the interpreter itself for every class that any unpickler looks up, however it was imported.
sys.addaudithook(lambda event, _: refuse() if event == "pickle.find_class" else None)
for name in ("load", "loads", "_load", "_loads"):
    setattr(pickle, name, refuse)
# Libraries derive from it when they are imported.
pickle.Unpickler = type("Unpickler", (pickle.Unpickler,), {"load": refuse})
torch.load = refuse
if sys.argv[1:] == ["pickled"]:
    import _pickle
    _pickle.loads(b"cos\\nsystem\\n.")

config = settings.load()
storage, loaded = Storage(config.storage.root), {}
with connect(config.compute) as connection:
    def models(table):
        rows = storage.read(connection, table).to_pylist()
        found = [row["model"] for row in rows if row["model"] is not None]
        loaded[table.name] = len(found)
        return found
    for data in models(tables.BEHAVIOR_MODEL): BehaviorModel.from_bytes(data)
    for data in models(tables.TEXT_ADAPTER): Adapter.from_bytes(data)
    for data in models(tables.SEGMENTATION): Clustering.from_bytes(data)
    for data in models(tables.GLOBAL_RANKER): GlobalRanker.from_bytes(data)
    read_deltas(models(tables.SEGMENT_RANKERS))
Encoder.load(config.text)
tracking = Tracking(config.tracking)
mlflow.set_tracking_uri(tracking.uri)
model = mlflow.pyfunc.load_model(f"models:/{config.tracking.model}@challenger")
loaded["answers"] = len(model.predict([{"user_id": "somebody", "n": 3}])[0].items)
print(json.dumps(loaded))
"""


def test_what_a_run_stored_is_loaded_where_nothing_can_be_unpickled(made: Made) -> None:
    done = made.project.python("-c", LOADS)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert set(loaded) == {
        "behavior_model",
        "text_adapter",
        "segmentation",
        "global_ranker",
        "segment_rankers",
        "answers",
    }
    assert all(loaded.values()), loaded
    refused = made.project.python("-c", LOADS, "pickled")
    assert refused.returncode != 0
    assert "something was unpickled" in refused.stderr
