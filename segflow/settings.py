"""Reading `segflow.yaml`: finding it, its preset, and what is wrong with it. `config/` says what may stand in it.

A file may name a `preset` from `segflow/datasets/`; its keys are the base, the file's own keys win. Relative paths are
relative to the file.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from segflow.config import Config, did_you_mean
from segflow.errors import UserError

DATASETS = Path(__file__).parent / "datasets"
FILE_NAME = "segflow.yaml"


def default_path() -> Path:
    """`$SEGFLOW_CONFIG`, or `segflow.yaml` in this folder or the nearest one above it."""
    if named := os.environ.get("SEGFLOW_CONFIG"):
        return Path(named)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise UserError(f"no {FILE_NAME} in {here} or above it: create one, or name it in SEGFLOW_CONFIG")


def load(path: Path | None = None) -> Config:
    """Read and check the settings; local paths come back absolute.

    Raises UserError naming the file and the key, for every mistake in one message.
    """
    path = (path or default_path()).absolute()
    own = _read_yaml(path)
    preset = own.get("preset")
    merged = _merge(_preset(path, preset), own) if preset else own
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        # What it says of itself has the values in it, and a value may be a secret in the wrong place.
        raise UserError("; ".join(_explain(path, one) for one in error.errors())) from None
    return _absolute(config, path.parent)


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; create it, or name another in SEGFLOW_CONFIG")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values, found {type(values).__name__}")
    return values


def _preset(path: Path, name: object) -> dict[str, Any]:
    names = sorted(file.stem for file in DATASETS.glob("*.yaml"))
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=1)
        raise UserError(f"{path}: preset: unknown preset '{name}'{did_you_mean(near)}; known: {', '.join(names)}")
    return _read_yaml(DATASETS / f"{name}.yaml")


def _merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _explain(path: Path, error: Mapping[str, Any]) -> str:
    """One validation error as `file: key: what is wrong`."""
    place = [str(part) for part in error["loc"]]
    key = ".".join(place)
    if error["type"] == "extra_forbidden":
        model: Any = Config
        for part in place[:-1]:
            annotation = model.model_fields[part].annotation
            options = [annotation, *getattr(annotation, "__args__", ())]
            model = next(one for one in options if isinstance(one, type) and issubclass(one, BaseModel))
        near = difflib.get_close_matches(place[-1], list(model.model_fields), n=1)
        return f"{path}: {key}: unknown key{did_you_mean(near)}; known here: {', '.join(model.model_fields)}"
    if error["type"] == "missing":
        return f"{path}: {key}: missing; add it"
    return f"{path}: {key}: {error['msg'].removeprefix('Value error, ')}"


def _absolute(config: Config, folder: Path) -> Config:
    """Local paths made absolute, so that no step depends on its working directory."""

    def fix(section: Any, *keys: str) -> Any:
        if section is None:
            return None
        return section.model_copy(update={key: _local(getattr(section, key), folder) for key in keys})

    def place(section: Any) -> Any:
        """A statement beside the settings file wins over a packaged one of that name. It lies nowhere else."""
        if section is None or not section.sql:
            return section
        own = Path(os.path.normpath(folder / section.sql))
        if not own.is_relative_to(os.path.normpath(folder)):
            raise UserError(
                f"{folder}: source: sql: {section.sql} lies elsewhere; put the statement beside the settings file"
            )
        return section.model_copy(update={"sql": str(own)}) if own.is_file() else section

    def encoder(section: Any) -> Any:
        """A folder beside the settings file wins over a hub name."""
        own = folder / Path(section.encoder).expanduser()
        return section.model_copy(update={"encoder": str(own)}) if own.is_dir() else section

    source, lists = config.source, config.recommendations
    return config.model_copy(
        update={
            "source": source.model_copy(
                update={
                    "suppressed": _local(source.suppressed, folder),
                    "events": place(fix(source.events, "path")),
                    "items": place(fix(source.items, "path")),
                    "users": fix(source.users, "path"),
                    "edges": fix(source.edges, "path"),
                    "inputs": {name: fix(one, "path") for name, one in source.inputs.items()},
                }
            ),
            "recommendations": lists.model_copy(update={"exclude": fix(lists.exclude, "file")}),
            "storage": fix(config.storage, "root", "erasures"),
            "text": encoder(fix(config.text, "cache")),
            "behavior": fix(config.behavior, "checkpoints"),
            "compute": fix(config.compute, "spill", "exchange"),
            "tracking": fix(config.tracking, "root"),
            "report": fix(config.report, "folder"),
            "retention": fix(config.retention, "log"),
        }
    )


def _local(path: str | None, folder: Path) -> str | None:
    if path is None or "://" in path or path.startswith("package:"):
        return path
    return str(folder / Path(path).expanduser())
