"""Whether the tracking store answers and has the schema of the MLflow that is installed. Nothing is created or migrated."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from segflow.config import TrackingConfig
from segflow.findings import Finding, fault, ok, warning
from segflow.tracking.runs import Tracking

_SECONDS = "3"


def tracking_finding(config: TrackingConfig) -> Finding:
    """What is found of the store of the settings."""
    if config.uri:
        return _server(config.uri)
    return database_finding(Path(config.root) / "mlflow.db", Tracking(config).uri)


def database_finding(file: Path, uri: str) -> Finding:
    """The embedded store: its sqlite file can be locked, and its schema is current."""
    if not file.is_file():
        return ok("mlflow", f"{file} will be made by the first run")
    from mlflow.store.db.utils import _get_latest_schema_revision

    try:
        with sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=1) as database:
            database.execute("BEGIN IMMEDIATE")
            found = database.execute("SELECT version_num FROM alembic_version").fetchone()
            database.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        mend = "wait for the run that writes it, or end the process that holds it" if "locked" in str(error) else ""
        return fault("mlflow", f"{file}: {error}", mend or "mend its rights, or set tracking.root to a new folder")
    except sqlite3.DatabaseError as error:
        return fault("mlflow", f"{file}: {error}", "restore it from a backup, or move it aside")
    newest = _get_latest_schema_revision()
    if found is None or found[0] != newest:
        return fault(
            "mlflow",
            f"{file}: its schema is {found[0] if found else 'unfinished'}, not {newest} as of the MLflow that is installed",
            f"copy the file, then `mlflow db upgrade {uri}`",
        )
    return ok("mlflow", f"{file}: not locked, schema is current")


def _server(uri: str) -> Finding:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    before = {name: os.environ.get(name) for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES")}
    os.environ.update(MLFLOW_HTTP_REQUEST_TIMEOUT=_SECONDS, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    try:
        MlflowClient(uri, registry_uri=uri).search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        return fault("mlflow", f"{uri}: does not answer: {reason}", "start the MLflow server, or correct tracking.uri")
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    if not uri.startswith("http"):
        return warning("mlflow", f"{uri}: answers", "name an MLflow server, so that steps do not share its database")
    return ok("mlflow", f"{uri}: answers")
