"""Runs by context manager: FINISHED on success, FAILED on any exception."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from segflow.config import TrackingConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient

Found = TypeVar("Found")
_BATCH = 1000
_PARAMETER_LENGTH = 500
# Without it MLflow's UI takes an experiment for one of language model traces and hides its runs.
_KIND = {"mlflow.experimentKind": "custom_model_development"}


class Run:
    """An open MLflow run. Metrics are collected and sent in batches: single calls are five times slower."""

    def __init__(self, client: MlflowClient, run_id: str, url: str):
        self._client = client
        self._metrics: list[Any] = []
        self.run_id = run_id
        self.url = url

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log settings; long values are cut, since MLflow refuses them."""
        from mlflow.entities import Param

        params = [Param(key, str(value)[:_PARAMETER_LENGTH]) for key, value in values.items()]
        self._client.log_batch(self.run_id, params=params)

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
        run = Run(self.client, run_id, f"{self.config.ui}/#/experiments/{experiment_id}/runs/{run_id}")
        try:
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
