"""Runs by context manager: FINISHED on success, FAILED on any exception."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from segflow.config import TrackingConfig
from segflow.tracking.children import Child, call_children, insert_children
from segflow.tracking.inputs import Dataset, dataset_inputs
from segflow.tracking.system import system_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient

Found = TypeVar("Found")
_BATCH = 1000
_PARAMETERS = 100
_PARAMETER_LENGTH = 6000
# Without it MLflow's UI takes an experiment for one of language model traces and hides its runs.
_KIND = {"mlflow.experimentKind": "custom_model_development"}


class Run:
    """An open MLflow run. Metrics are collected and sent in batches: single calls are five times slower."""

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str, ui: str, embedded: bool):
        """ui: the address of MLflow's pages; embedded: the store is a sqlite file of our own."""
        self._client = client
        self._metrics: list[Any] = []
        self._experiment_id = experiment_id
        self._ui = ui
        self._embedded = embedded
        self.run_id = run_id

    @property
    def url(self) -> str:
        """The address of its page."""
        return _page(self._ui, self._experiment_id, self.run_id)

    def artifact_url(self, name: str) -> str:
        """The address of the page that shows the artifact `name`."""
        return f"{self.url}/artifacts/{name}"

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log settings; long values are cut, since MLflow refuses them."""
        from mlflow.entities import Param

        params = [Param(key, str(value)[:_PARAMETER_LENGTH]) for key, value in values.items()]
        for start in range(0, len(params), _PARAMETERS):
            self._client.log_batch(self.run_id, params=params[start : start + _PARAMETERS])

    def inputs(self, datasets: Sequence[Dataset]) -> None:
        """Say what the run reads.

        MLflow looks whether a dataset is known before it adds it. When two runs add the same one at the same moment, one of
        them is refused, and finds it at the next try.
        """
        from mlflow.exceptions import MlflowException

        entities = list(dataset_inputs(datasets))
        for last in (False, False, True):
            try:
                if entities:
                    self._client.log_inputs(self.run_id, entities)
                return
            except MlflowException as error:
                if last or "unique" not in str(error).lower():
                    raise

    def table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Keep `rows`, which have the same keys, as the table `name`, an artifact that MLflow shows and compares as such."""
        if rows:
            columns = {key: [row[key] for row in rows] for key in rows[0]}
            self._client.log_table(self.run_id, columns, f"{name}.json")

    def children(self, children: Sequence[Child], began: int) -> list[str]:
        """Finished runs below this one; the addresses of their pages. began: milliseconds since 1970."""
        if self._embedded:
            place = self._client.get_experiment(self._experiment_id).artifact_location
            ids = insert_children(self._client.tracking_uri, place, self._experiment_id, self.run_id, children, began)
        else:
            ids = call_children(self._client, self._experiment_id, self.run_id, children, began)
        return [_page(self._ui, self._experiment_id, one) for one in ids]

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log figures at `step`. They are sent when a batch is full and when the run ends."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._metrics += [Metric(key, float(value), now, step) for key, value in values.items()]
        if len(self._metrics) >= _BATCH:
            self.flush()

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in values.items()])

    def text(self, content: str, name: str) -> None:
        """Keep `content` as the artifact `name`."""
        self._client.log_text(self.run_id, content, name)

    def bytes(self, content: bytes, name: str) -> None:
        """Keep `content`, such as a model as safetensors, as the artifact `name`."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / Path(name).name
            file.write_bytes(content)
            parent = str(Path(name).parent)
            self._client.log_artifact(self.run_id, str(file), None if parent == "." else parent)

    def flush(self) -> None:
        """Send the collected metrics."""
        for start in range(0, len(self._metrics), _BATCH):
            self._client.log_batch(self.run_id, metrics=self._metrics[start : start + _BATCH])
        self._metrics.clear()


class Tracking:
    """The tracking store of the settings: an MLflow server, or a sqlite file with artifacts beside the data."""

    def __init__(self, config: TrackingConfig):
        self.config = config
        self._experiments: dict[str, str] = {}

    @property
    def uri(self) -> str:
        """The address to give to MLflow."""
        return self.config.uri or f"sqlite:///{self.config.root}/mlflow.db"

    @property
    def artifacts(self) -> str:
        """Where the embedded backend keeps artifacts."""
        return f"{self.config.root}/artifacts"

    @cached_property
    def client(self) -> MlflowClient:
        """The store, created first if need be."""
        from mlflow import MlflowClient

        if self.config.uri:
            return MlflowClient(self.uri)
        # Processes that create the schema at the same moment break each other: one at a time, the first one creates it.
        Path(self.config.root).mkdir(parents=True, exist_ok=True)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        with self.creating():
            client = MlflowClient(self.uri, registry_uri=self.uri)
            client.search_experiments(max_results=1)
            _write_ahead(f"{self.config.root}/mlflow.db")
        return client

    def initialize(self) -> None:
        """Create the store if it does not exist yet."""
        _ = self.client

    def experiment(self, name: str) -> str:
        """The id of the experiment `name`, created first if need be."""
        client = self.client
        if name not in self._experiments:
            location = None if self.config.uri else f"{self.artifacts}/{name}"
            with self.creating():
                self._experiments[name] = created_once(
                    lambda: client.get_experiment_by_name(name),
                    lambda: client.create_experiment(name, artifact_location=location, tags=_KIND),
                ).experiment_id
        return self._experiments[name]

    def creating(self) -> AbstractContextManager[object]:
        """Held while something is created that must exist once, or moved; a server sees to that by itself."""
        return nullcontext() if self.config.uri else FileLock(f"{self.config.root}/create.lock")

    @contextmanager
    def run(self, experiment: str, name: str, tags: Mapping[str, str]) -> Iterator[Run]:
        """A run `name` in `experiment`, closed FINISHED, or FAILED with the exception's type as a tag."""
        experiment_id = self.experiment(experiment)
        started = self.client.create_run(experiment_id, run_name=name, tags={k: str(v) for k, v in tags.items()})
        run_id = started.info.run_id
        run = Run(self.client, run_id, experiment_id, self.config.ui, not self.config.uri)
        try:
            with system_metrics(self.uri, run_id) if self.config.system_metrics else nullcontext():
                yield run
            run.flush()
        except BaseException as error:
            self.client.set_tag(run_id, "segflow.error", type(error).__name__)
            self.client.set_terminated(run_id, "FAILED")
            raise
        self.client.set_terminated(run_id, "FINISHED")


def created_once(find: Callable[[], Found | None], create: Callable[[], object]) -> Found:
    """What `find` finds, after `create` if need be. On a server another process may create it in between."""
    from mlflow.exceptions import MlflowException

    found = find()
    if found is None:
        try:
            create()
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = find()
    assert found is not None, "created and not found"
    return found


def _page(ui: str, experiment_id: str, run_id: str) -> str:
    return f"{ui}/#/experiments/{experiment_id}/runs/{run_id}"


def _write_ahead(file: str) -> None:
    """Let the sqlite file keep a write-ahead log: readers do not wait for writers, and a commit costs less. It stays so."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
