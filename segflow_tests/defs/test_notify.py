"""What is told of a run that failed: of real runs, to a real receiver."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import pytest

from segflow.config import NotifyConfig
from segflow.defs import notify
from segflow.defs.notify import FailedRun, failed_runs, tell

VARIABLE = "SEGFLOW_NOTIFY_URL"
FAILED = FailedRun("r1", "days", "2024-01-01", "events", "a row is wrong", "http://here/runs/r1")
HEARD: list[FailedRun] = []


class Receiver:
    """A server that keeps what is posted to it, and answers what it is told to."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.answer, self.wait = 200, threading.Event()
        self.wait.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                receiver.wait.wait(10)
                self.send_response(receiver.answer)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.environment = {VARIABLE: f"http://127.0.0.1:{self.server.server_port}/secret"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.wait.set()
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@dg.asset(partitions_def=dg.DailyPartitionsDefinition("2024-01-01"))
def broken(context) -> None:  # type: ignore[no-untyped-def]  # Dagster reads the annotation
    if context.run.tags.get("user"):
        raise dg.Failure("events.csv: line 7 has no user; add one\nsecond line")
    raise ValueError("disk full\nmore of it")


def notifying(monkeypatch: pytest.MonkeyPatch, config: NotifyConfig, environment: Mapping[str, str]) -> dg.Definitions:
    """A job that fails, and the sensor under these settings."""
    automation = notify.CONFIG.automation.model_copy(update={"notify": config})
    monkeypatch.setattr(notify, "CONFIG", notify.CONFIG.model_copy(update={"automation": automation}))
    monkeypatch.setattr(notify.os, "environ", dict(environment))
    job = dg.define_asset_job("broken_job", [broken])
    return dg.Definitions([broken], jobs=[job], sensors=[failed_runs])


def run_sensor(
    monkeypatch: pytest.MonkeyPatch, tags: Mapping[str, str], config: NotifyConfig, environment: Mapping[str, str]
) -> Any:
    """A run that fails, and the sensor's look at it."""
    job = notifying(monkeypatch, config, environment)
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.resolve_job_def("broken_job").execute_in_process(
            instance=instance, partition_key="2024-01-02", tags=dict(tags), raise_on_error=False
        )
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        context = dg.build_run_status_sensor_context(
            "failed_runs", result.get_run_failure_event(), instance, run
        ).for_run_failure()
        return result.run_id, failed_runs(context)


def test_a_webhook_gets_job_partition_step_first_line_and_link(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    config = NotifyConfig(to="webhook", ui="http://dagster.example/")
    run_id, _ = run_sensor(monkeypatch, {}, config, receiver.environment)
    (body,) = receiver.bodies
    assert body == {
        "run_id": run_id,
        "job": "broken_job",
        "partitions": "2024-01-02",
        "step": "broken",
        "error": "ValueError: disk full",
        "link": f"http://dagster.example/runs/{run_id}",
    }


def test_slack_gets_a_sentence_with_the_users_mistake(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    run_id, _ = run_sensor(monkeypatch, {"user": "yes"}, NotifyConfig(to="slack"), receiver.environment)
    assert receiver.bodies == [
        {
            "text": "segflow: broken_job [2024-01-02] failed at broken: events.csv: line 7 has no user; add one "
            f"(http://127.0.0.1:3000/runs/{run_id})"
        }
    ]


def test_a_run_that_is_retried_is_not_told_of(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    tags = {"dagster/will_retry": "true"}
    run_sensor(monkeypatch, tags, NotifyConfig(to="webhook"), receiver.environment)
    assert receiver.bodies == []


def test_one_tick_takes_runs_that_are_retried_and_runs_that_are_not(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    definitions = notifying(monkeypatch, NotifyConfig(to="webhook"), receiver.environment)
    repository = definitions.get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(cursor: str | None) -> Any:
            context = dg.build_sensor_context(instance, cursor=cursor, repository_def=repository)
            return failed_runs.evaluate_tick(context)

        first = tick(None)
        told = []
        for retried in ("false", "true", "false"):
            result = definitions.resolve_job_def("broken_job").execute_in_process(
                instance=instance,
                partition_key="2024-01-02",
                tags={"dagster/will_retry": retried},
                raise_on_error=False,
            )
            told += [result.run_id] if retried == "false" else []
        found = tick(first.cursor)
        assert len(found.dagster_run_reactions) == 3
        assert not any(reaction.error for reaction in found.dagster_run_reactions)
        assert [body["run_id"] for body in receiver.bodies] == told
        assert tick(found.cursor).dagster_run_reactions == []


def test_the_log_alone_needs_no_receiver(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        run_sensor(monkeypatch, {}, NotifyConfig(), receiver.environment)
    assert receiver.bodies == []


def test_a_function_of_ones_own_is_called() -> None:
    assert tell(FAILED, NotifyConfig(to=f"{__name__}:hear"), {}) is None
    assert [FAILED] == HEARD


def hear(failed: FailedRun) -> None:
    HEARD.append(failed)


def test_whatever_the_receiver_does_is_one_line_without_its_address(receiver: Receiver) -> None:
    quick = NotifyConfig(to="webhook", timeout_seconds=0.2)
    receiver.answer = 500
    lines = [tell(FAILED, quick, receiver.environment)]
    receiver.wait.clear()
    lines.append(tell(FAILED, quick, receiver.environment))
    receiver.wait.set()
    lines.append(tell(FAILED, quick, {VARIABLE: "http://127.0.0.1:1/secret"}))
    lines.append(tell(FAILED, quick, {VARIABLE: "ftp://host/secret"}))
    lines.append(tell(FAILED, quick, {}))
    lines.append(tell(FAILED, NotifyConfig(to="segflow.nowhere:function"), {}))
    assert lines[0] == "automation.notify: the receiver (webhook) answered 500"
    for line in lines:
        assert line is not None
        assert line.startswith("automation.notify")
        assert "\n" not in line
        assert "secret" not in line
    assert len(receiver.bodies) == 2


@pytest.mark.parametrize("to", ["email", "package", "a b:c", "package:"])
def test_a_receiver_that_is_none_is_refused(to: str) -> None:
    with pytest.raises(ValueError, match="none of log, webhook, slack"):
        NotifyConfig(to=to)
