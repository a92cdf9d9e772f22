"""The model registry: served rankers as an MLflow model, its versions, and who is challenger and champion.

One registered model (`tracking.model`). A version is known by the digest of its bundle, the week it was made in, and its arm:
whether any segment has a ranker of its own in it. The latest one offered is the `challenger`; `champion` moves only when asked
to, never to an older week.

Lives here: writing, registering and finding models. Does not live here: what a bundle is, what it answers (``served_model``),
and who may be champion.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from segflow.errors import UserError
from segflow.tracking.runs import Run, Tracking, created_once

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER, CHAMPION = "challenger", "champion"
_MODEL = "served_ranker"
_DIGEST, _WEEK, _ARM, _SEGMENTS = (f"segflow.{name}" for name in ("digest", "week", "arm", "segments"))
_CODE = Path(__file__).with_name("served_model.py")


def write_model(bundle: Path, folder: Path, example: Mapping[str, Any]) -> None:
    """An MLflow model in `folder` that answers from a copy of the `bundle`; `mlflow models serve` takes it as it is.

    example: a request, kept as the model's input example.
    """
    from mlflow.pyfunc import save_model

    # It tells of asking the model for an example of its answers.
    logging.getLogger("mlflow.models.signature").setLevel(logging.WARNING)
    save_model(
        folder,
        python_model=str(_CODE),
        artifacts={"bundle": str(bundle)},
        input_example=[dict(example)],
        pip_requirements=[f"segflow=={version('segflow')}"],
    )


def register(
    tracking: Tracking,
    run: Run,
    bundle: Path,
    digest: str,
    week: str,
    segments: Sequence[str],
    example: Mapping[str, Any],
) -> str:
    """Log the bundle's model to `run`, make it a version of `tracking.model` and the challenger; returns its number.

    segments: those with a ranker of their own in the bundle; its arm is `segments` if there are any, else `global`.
    A bundle that is registered already is not registered again.
    """
    client, name = tracking.client, tracking.config.model
    found = _version_of(tracking, digest)
    if found is None:
        arm = "segments" if segments else "global"
        place = f"{_MODEL}/{arm}"
        with TemporaryDirectory() as folder:
            write_model(bundle, Path(folder) / "model", example)
            client.log_artifacts(run.run_id, str(Path(folder) / "model"), place)
        with tracking.creating():
            created_once(
                lambda: next(iter(client.search_registered_models(f"name = '{name}'")), None),
                lambda: client.create_registered_model(name, description="Recommendations for the events of a user."),
            )
        source = f"{client.get_run(run.run_id).info.artifact_uri}/{place}"
        tags = {_DIGEST: digest, _WEEK: week, _ARM: arm, _SEGMENTS: ",".join(segments)}
        description = f"snapshot week {week}, {f'rankers of {len(segments)} segments' if segments else 'global ranker'}"
        found = client.create_model_version(name, source, run.run_id, tags=tags, description=description)
    client.set_registered_model_alias(name, CHALLENGER, found.version)
    return str(found.version)


def bundle_of(tracking: Tracking, digest: str, folder: Path) -> Path:
    """A copy of the registered bundle `digest`, below `folder`. Raises UserError when the bundle is not registered."""
    from mlflow.artifacts import download_artifacts, list_artifacts

    artifacts = f"{_registered(tracking, digest).source}/artifacts"
    (name,) = (Path(one.path).name for one in list_artifacts(artifacts, tracking_uri=tracking.uri))
    return Path(download_artifacts(f"{artifacts}/{name}", dst_path=str(folder), tracking_uri=tracking.uri))


def promote(tracking: Tracking, digest: str) -> str:
    """Make the version of the bundle `digest` the champion, unless the champion is of a later week; says what was done.

    Raises UserError when the bundle is not registered.
    """
    client, name = tracking.client, tracking.config.model
    found = _registered(tracking, digest)
    # Weeks may be worked on side by side.
    with tracking.creating():
        champion = client.get_registered_model(name).aliases.get(CHAMPION)
        week = client.get_model_version(name, champion).tags[_WEEK] if champion is not None else ""
        if week > found.tags[_WEEK]:
            return f"version {champion} of the later week {week} stays {CHAMPION}"
        client.set_registered_model_alias(name, CHAMPION, found.version)
    return f"version {found.version} is {CHAMPION}"


def _registered(tracking: Tracking, digest: str) -> ModelVersion:
    found = _version_of(tracking, digest)
    if found is None:
        raise UserError(
            f"{tracking.config.model}: no version holds the bundle {digest[:12]}; materialize served_ranker of the week again"
        )
    return found


def _version_of(tracking: Tracking, digest: str) -> ModelVersion | None:
    """The latest version that holds the bundle."""
    chosen = f"name = '{tracking.config.model}' AND tags.`{_DIGEST}` = '{digest}'"
    return max(tracking.client.search_model_versions(chosen), key=lambda one: int(one.version), default=None)
