"""The registry: versions, aliases that only the gate moves, and a model that answers over HTTP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from segflow.config import TrackingConfig
from segflow.errors import UserError
from segflow.rankers.requests import example_request, read_requests
from segflow.rankers.served import ServedRanker
from segflow.rankers.snapshot import RankingWeek
from segflow.tracking import Run, Tracking
from segflow.tracking.serving import CHALLENGER, CHAMPION, bundle_of, promote, register
from segflow_tests.benchmarks.serving_job import mlflow_serve
from segflow_tests.rankers.conftest import CONFIG, SNAPSHOT, make_world

MOMENT = datetime(1970, 3, 20, tzinfo=UTC)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    opened = Tracking(TrackingConfig(root=str(tmp_path_factory.mktemp("serving") / "mlflow"), model="rankers.test"))
    opened.initialize()
    return opened


@pytest.fixture(scope="module")
def served() -> ServedRanker:
    world = make_world()
    return ServedRanker.of(
        RankingWeek(world.log, world.backbone, world.history, SNAPSHOT, CONFIG), world.ranker, count=5
    )


@pytest.fixture(scope="module")
def bundle(served: ServedRanker, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("bundle")
    return folder, served.save(folder)


def registered(
    tracking: Tracking, served: ServedRanker, bundle: Path, digest: str, week: str, segments: Sequence[str] = ()
) -> tuple[str, Run]:
    example = example_request(served.catalogue, MOMENT)
    with tracking.run("segflow rankers", f"served_ranker {week}", {}) as run:
        return register(tracking, run, bundle, digest, week, segments, example), run


def aliases(tracking: Tracking) -> dict[str, str]:
    found = tracking.client.get_registered_model(tracking.config.model).aliases
    return {name: str(version) for name, version in found.items()}


def test_versions_and_aliases(tracking: Tracking, served: ServedRanker, bundle: tuple[Path, str]) -> None:
    folder, digest = bundle
    with pytest.raises(UserError, match=r"no version holds the bundle .* materialize served_ranker"):
        promote(tracking, digest)
    first, run = registered(tracking, served, folder, digest, "2024-01-08")
    assert aliases(tracking) == {CHALLENGER: first}
    assert registered(tracking, served, folder, digest, "2024-01-08")[0] == first
    assert promote(tracking, digest) == f"version {first} is champion"
    # Another digest, as if it were another bundle: the registry does not look into it.
    second, _ = registered(tracking, served, folder, "b" * 64, "2024-01-15")
    assert aliases(tracking) == {CHALLENGER: second, CHAMPION: first}
    assert promote(tracking, "b" * 64) == f"version {second} is champion"
    assert promote(tracking, digest) == f"version {second} of the later week 2024-01-15 stays champion"
    assert aliases(tracking)[CHAMPION] == second
    found = tracking.client.get_model_version_by_alias(tracking.config.model, CHAMPION)
    assert (found.tags["segflow.week"], found.tags["segflow.digest"]) == ("2024-01-15", "b" * 64)
    assert tracking.client.get_model_version(tracking.config.model, first).run_id == run.run_id


def test_a_version_says_which_segments_have_rankers_of_their_own_and_gives_its_bundle_back(
    tracking: Tracking, served: ServedRanker, bundle: tuple[Path, str], tmp_path: Path
) -> None:
    folder, digest = bundle
    arms = []
    for number, segments in enumerate([(), ("s001", "s003")]):
        version, _ = registered(tracking, served, folder, f"{number}" * 64, "2024-01-22", segments)
        tags = tracking.client.get_model_version(tracking.config.model, version).tags
        arms.append((tags["segflow.arm"], tags["segflow.segments"]))
    assert arms == [("global", ""), ("segments", "s001,s003")]
    registered(tracking, served, folder, digest, "2024-01-08")
    found = bundle_of(tracking, digest, tmp_path)
    assert {file.name: file.read_bytes() for file in found.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }
    with pytest.raises(UserError, match=r"no version holds the bundle .* materialize served_ranker"):
        bundle_of(tracking, "f" * 64, tmp_path)


def test_the_registered_model_answers_as_the_bundle_does(
    tracking: Tracking, served: ServedRanker, bundle: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import load_model

    version, _ = registered(tracking, served, *bundle, "2024-01-08")
    found = tracking.client.get_model_version(tracking.config.model, version)
    model = load_model(found.source)
    assert mlflow.active_run() is None
    example = example_request(served.catalogue, MOMENT)
    assert model.input_example == [example]
    names = [one.name for one in model.metadata.signature.inputs.inputs[0].type.properties]
    assert names == ["events", "exclude_seen", "n", "now", "segment_id", "segments", "user_id"]
    told = model.metadata.signature.outputs.to_dict()
    assert [one.pop("name", None) for one in told] == [None]
    assert told[0]["properties"]["items"]["items"]["properties"] == {
        "item_id": {"type": "string", "required": True},
        "score": {"type": "double", "required": True},
    }
    answers = [answer.model_dump() for answer in model.predict([example, {}])]
    assert answers == served.recommend(read_requests([example, {}]))
    for row, message in (
        ({"events": [{"ts": "now"}]}, "request 1: events[0].event_type: missing; add it"),
        ({"who": 1}, "request 1: who: unknown key"),
    ):
        with pytest.raises(MlflowException) as error:
            model.predict([example, row])
        assert error.value.message.startswith(message)
        assert error.value.get_http_status_code() == 400


def post(connection: HTTPConnection, body: bytes) -> tuple[int, Any]:
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@pytest.mark.slow
def test_mlflow_serves_the_champion_over_http(
    tracking: Tracking, served: ServedRanker, bundle: tuple[Path, str], tmp_path: Path
) -> None:
    registered(tracking, served, *bundle, "2024-01-08")
    promote(tracking, bundle[1])
    name = f"models:/{tracking.config.model}@{CHAMPION}"
    with mlflow_serve(name, tmp_path, MLFLOW_TRACKING_URI=tracking.uri) as port:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        example = example_request(served.catalogue, MOMENT)
        status, answer = post(connection, json.dumps({"inputs": [example, {}]}).encode())
        assert (status, answer["predictions"]) == (200, served.recommend(read_requests([example, {}])))
        many = {"events": example["events"] * 10_000}
        status, answer = post(connection, json.dumps({"inputs": [many]}).encode())
        assert (status, answer["predictions"][0]["events"]) == (200, 10_000)
        for body, said in (
            (b'{"inputs": [', "valid JSON"),
            (b'{"rows": []}', "'inputs' key"),
            (b'{"inputs": [5]}', "dictionary"),
            (b'{"inputs": [{"events": [{"event_type": "buy", "ts": "soon"}]}]}', "request 0: events[0].ts: not an ISO"),
            (b'{"inputs": [{"n": -1}]}', "request 0: n: "),
        ):
            status, answer = post(connection, body)
            assert (status, said in answer["message"]) == (400, True), answer
