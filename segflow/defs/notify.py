"""What is told when a run fails, and where to.

A receiver is a function of a `FailedRun`. It may be down: that is a line in the sensor's log and never an error of the sensor.
URLs of receivers are secrets: they come from the environment, and no message of ours holds one.
"""

from __future__ import annotations

import importlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import dagster as dg
from dagster import DagsterRun

from segflow.config import NotifyConfig
from segflow.defs.partitions import CONFIG
from segflow.errors import UserError


@dataclass(frozen=True)
class FailedRun:
    """A run that failed: its job, its partitions (empty if it has none), the step and the first line of its error."""

    run_id: str
    job: str
    partitions: str
    step: str
    error: str
    link: str

    @property
    def sentence(self) -> str:
        """One line with all of it."""
        what = f"{self.job} [{self.partitions}]" if self.partitions else self.job
        return f"segflow: {what} failed{f' at {self.step}' if self.step else ''}: {self.error} ({self.link})"


Hook = Callable[[FailedRun], None]


def hook_of(config: NotifyConfig, environment: Mapping[str, str]) -> Hook | None:
    """Where failures go to; None for the log alone.

    Raises UserError when the function cannot be found or the URL is not set.
    """
    if config.to == "log":
        return None
    if ":" in config.to:
        return _own(config.to)
    url = environment.get(config.url_variable, "")
    if not url.startswith(("http://", "https://")):
        raise UserError(
            f"automation.notify: the environment variable {config.url_variable} holds no http(s) address; set it where "
            "the Dagster daemon's code server runs"
        )
    slack = config.to == "slack"
    return lambda failed: _post(url, {"text": failed.sentence} if slack else asdict(failed), config.timeout_seconds)


def tell(failed: FailedRun, config: NotifyConfig, environment: Mapping[str, str]) -> str | None:
    """Tell the receiver; returns what went wrong with it, in one line, or None. Raises nothing."""
    try:
        hook = hook_of(config, environment)
        if hook is not None:
            hook(failed)
    except UserError as error:
        return str(error)
    except urllib.error.HTTPError as error:
        return f"automation.notify: the receiver ({config.to}) answered {error.code}"
    except Exception as error:  # whatever a receiver does, the sensor goes on
        # The message of an error may hold the URL.
        return f"automation.notify: the receiver ({config.to}) cannot be reached: {type(error).__name__}"
    return None


def failed_run(run: DagsterRun, message: str, steps: list[dg.DagsterEvent], ui: str) -> FailedRun:
    """What is told of `run`. message: of its failure; steps: the events of the steps that failed, in order."""
    tags = run.tags
    first, last = (tags.get(f"dagster/asset_partition_range_{end}", "") for end in ("start", "end"))
    partitions = f"{first}…{last}" if first else tags.get("dagster/partition", "")
    assets = ", ".join(sorted(key.to_user_string() for key in run.asset_selection or ()))
    return FailedRun(
        run_id=run.run_id,
        # The job of runs that are asked for by asset has a name of Dagster's own.
        job=assets or run.job_name if run.job_name.startswith("__") else run.job_name,
        partitions=partitions,
        step=steps[0].step_key or "" if steps else "",
        error=_first_line(_reason(steps[0]) if steps else message),
        link=f"{ui.rstrip('/')}/runs/{run.run_id}",
    )


@dg.run_failure_sensor(
    name="failed_runs",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING
    if CONFIG.automation.notify.failures
    else dg.DefaultSensorStatus.STOPPED,
    description="Tells the receiver of `automation.notify` about runs that failed and are not retried.",
)
def failed_runs(context: dg.RunFailureSensorContext) -> None:
    """One message a run; one that Dagster retries by itself is told of only if its last try fails.

    Returns no reason to skip: a tick looks at several runs, and Dagster refuses a tick that skips one and not another.
    """
    run = context.dagster_run
    if run.tags.get("dagster/will_retry") == "true":
        context.log.info(f"run {run.run_id} is retried")
        return
    config = CONFIG.automation.notify
    message = context.failure_event.message or ""
    failed = failed_run(run, message, list(context.get_step_failure_events()), config.ui)
    context.log.error(failed.sentence)
    if trouble := tell(failed, config, os.environ):
        context.log.warning(trouble)


def _own(name: str) -> Hook:
    module, _, function = name.partition(":")
    try:
        found: Hook = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"automation.notify.to: {name} cannot be imported ({error}); give package.module:function"
        ) from error
    return found


def _post(url: str, body: Mapping[str, object], timeout: float) -> None:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", "User-Agent": "segflow"}
    )
    with urllib.request.urlopen(request, timeout=timeout):
        pass


def _reason(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error.cause or data.error if data.error else None
    return error.message if error else event.message or ""


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no message")
