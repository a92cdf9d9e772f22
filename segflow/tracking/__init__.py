"""The seam to MLflow: one run per materialized partition, with tags that lead back to it.

Only this package imports mlflow. It talks to the tracking store through a client with an explicit address and never
touches MLflow's global state, so two steps in one process cannot write into each other's run and nothing lands in the
working directory by accident.
"""

import os

# A pipeline that reads user logs should not call home.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A run prints a line for each asset; a bar for each copied file would drown them.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from segflow.tracking.children import Child
from segflow.tracking.inputs import Dataset
from segflow.tracking.runs import Run, Tracking

__all__ = ["SLOW_IMPORTS", "Child", "Dataset", "Run", "Tracking"]

SLOW_IMPORTS = ("mlflow", "mlflow.store.tracking.sqlalchemy_store")
"""What the first run of a process imports, in seconds: for whoever can import it ahead."""
