"""A small project that was run once, with `dagster dev` and `mlflow ui` over it. What a browser can look at, but no browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from segflow_tests.planted import planted_log
from segflow_tests.servers import answers, free_ports, serving

ROOT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
_RUNS = "{ runsOrError(limit: 100) { ... on Runs { results { runId status jobName tags { key value } } } } }"
_BACKFILLS = "{ partitionBackfillsOrError(limit: 20) { ... on PartitionBackfills { results { id status } } } }"
_MATERIALIZED = """
query ($run: ID!) {
  runOrError(runId: $run) {
    ... on Run { assetMaterializations { assetKey { path } partition } }
  }
}
"""

SETTINGS = """\
source:
  events:
    path: input/events.csv
    columns: {{user_id: user, item_id: item, event_type: type, ts: time, value: price}}
  items:
    path: input/items.csv
    columns: {{item_id: product, title: name, category: department, price: price}}
  edges: {{path: input/edges.csv, user_id: user, other_id: friend, weight: strength}}
calendar: {{start: {start}, end: {end}}}
behavior: {{epochs: 3, width: 32}}
rankers: {{steps: 40, delta_steps: 10, training_weeks: 3, placebos: 1, repeats: 1}}
segments: {{k_max: 5}}
tracking: {{ui: "{mlflow}"}}
"""

SWITCH = "lose_a_row"
"""A file in the project's folder: while it is there, cleaning loses an event."""

# The definitions as they are, with that fault to switch on.
_WORKSPACE = """\
load_from:
  - python_module: {module_name: segflow_tests.ui.faulty, location_name: segflow.definitions}
"""


@dataclass(frozen=True)
class Servers:
    """Where the project lies and where its two user interfaces answer."""

    folder: Path
    dagster: str
    mlflow: str
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def ask(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The data that Dagster's GraphQL answers with."""
        body = json.dumps({"query": query, "variables": variables or {}}).encode()
        request = urllib.request.Request(f"{self.dagster}/graphql", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{error}: {error.read().decode()[:2000]}") from error
        assert "errors" not in found, found["errors"]
        return found["data"]

    def runs(self) -> dict[str, dict[str, Any]]:
        """Run id -> run; tags as a mapping."""
        runs = self.ask(_RUNS)["runsOrError"]["results"]
        return {run["runId"]: {**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in runs}

    def ended(self, before: Mapping[str, Any], timeout: float = 150) -> list[dict[str, Any]]:
        """The runs that were not there `before`, once all have ended and a while longer, so that a late one is seen.

        A backfill launches runs until it has ended, too.
        """
        end = time.monotonic() + timeout
        calm = 0
        while time.monotonic() < end:
            new = [run for run_id, run in self.runs().items() if run_id not in before]
            over = all(run["status"] in _ENDED for run in new) and not self.backfills_under_way()
            calm = calm + 1 if new and over else 0
            if calm == 4:
                return new
            time.sleep(1)
        raise AssertionError(f"no end after {timeout} s: {list(self.runs().values())}")

    def backfills_under_way(self) -> list[str]:
        """The ids of backfills that have not ended."""
        found = self.ask(_BACKFILLS)["partitionBackfillsOrError"]["results"]
        return [one["id"] for one in found if one["status"] in ("REQUESTED", "CANCELING", "COMPLETING", "FAILING")]

    def materialized(self, run: Mapping[str, Any]) -> set[tuple[str, str | None]]:
        """(asset, partition) of everything that a run materialized."""
        events = self.ask(_MATERIALIZED, {"run": run["runId"]})["runOrError"]["assetMaterializations"]
        return {(event["assetKey"]["path"][-1], event["partition"]) for event in events}


@contextmanager
def project(folder: Path) -> Iterator[tuple[Servers, date]]:
    """A planted log run for its last testable week, both servers over it, and that week."""
    log = planted_log(folder / "input", users=120, weeks=12)
    (folder / "input" / "edges.csv").write_text("user,friend,strength\nu0001,u0002,1.5\n", encoding="utf-8")
    ports = free_ports(2)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(folder),
        "SEGFLOW_CONFIG": str(folder / "segflow.yaml"),
        "PYTHONPATH": str(ROOT),
    }
    servers = Servers(folder, *(f"http://127.0.0.1:{port}" for port in ports), environment)
    settings = SETTINGS.format(start=log.start, end=log.end, mlflow=servers.mlflow)
    (folder / "segflow.yaml").write_text(settings, encoding="utf-8")
    shutil.copy(ROOT / "dagster.yaml", folder)
    (folder / "workspace.yaml").write_text(_WORKSPACE, encoding="utf-8")
    week = date.fromordinal(log.end.toordinal() - 14)
    subprocess.run([_BIN / "segflow", "run", "--week", str(week)], cwd=folder, env=environment, check=True)
    store = f"sqlite:///{folder}/data/mlflow/mlflow.db"
    dagster = [_BIN / "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(ports[0])]
    mlflow = [_BIN / "mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(ports[1])]
    with (
        serving(dagster, lambda: answers(f"{servers.dagster}/server_info"), folder, environment),
        serving([*mlflow, "--workers", "1"], lambda: answers(f"{servers.mlflow}/health"), folder, environment),
    ):
        yield servers, week
