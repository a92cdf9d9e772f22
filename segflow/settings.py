"""Reading `segflow.yaml`: finding it, its preset, and what is wrong with it. `config/` says what may stand in it.

A file may name a `preset` from `segflow/datasets/`; its keys are the base, the file's own keys win. Relative paths are
relative to the file.
"""

from __future__ import annotations

import codecs
import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from inspect import isclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from segflow.config import Config, did_you_mean
from segflow.errors import UserError

DATASETS = Path(__file__).parent / "datasets"
FILE_NAME = "segflow.yaml"
_LARGEST = 1_000_000
_DEEPEST = 30
_MOST = 20


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
        found = error.errors(include_url=False, include_input=False)
        more = [f"and {len(found) - _MOST:,} more mistakes"] if len(found) > _MOST else []
        # What it says of itself has the values in it, and a value may be a secret in the wrong place.
        raise UserError("; ".join([_explain(path, one) for one in found[:_MOST]] + more)) from None
    return _absolute(config, path)


class _Loader(yaml.SafeLoader):
    """YAML in which nothing is lost unseen and every mistake has its line: a key that stands twice, of which YAML would keep the
    last one, is refused, and so are values that are no values of their kind, such as the 30th of February.
    """

    def __init__(self, text: str):
        super().__init__(text)
        self._inside: list[str | None] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent) and event.anchor in self._inside:
            raise ComposerError(None, None, f"*{event.anchor} stands inside itself", mark)
        if len(self._inside) == _DEEPEST:
            raise ComposerError(None, None, f"nested deeper than {_DEEPEST} levels", mark)
        self._inside.append(None if isinstance(event, yaml.AliasEvent) else event.anchor)
        node = super().compose_node(parent, index)
        self._inside.pop()
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ComposerError(None, None, f"the key '{key.value}' stands twice; remove one", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError, KeyError, TypeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            problem = f"'{str(node.value)[:60]}' is no {kind}: {error}"
            raise ConstructorError(None, None, problem, node.start_mark) from error

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and any(one == "\0" or "\ud800" <= one <= "\udfff" for one in value):
            raise ConstructorError(None, None, "holds a character that no text may hold; take it out", node.start_mark)
        return value


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; create it, or name another in SEGFLOW_CONFIG")
    try:
        content = path.read_bytes() if (size := path.stat().st_size) <= _LARGEST else b""
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; allow reading it, or name another file") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line}: is not UTF-8; save the file as UTF-8") from error
    if size > _LARGEST:
        raise UserError(f"{path}: has {size / 1e6:,.0f} MB, far more than settings have; name the settings file")
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {_wrong_in(error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values, found {type(values).__name__}; write `key: value`")
    return values


def _wrong_in(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return f"{error}; correct the file"
    said = ", ".join(part for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part)
    return f"line {mark.line + 1}: {said}; correct that line"


def _preset(path: Path, name: object) -> dict[str, Any]:
    names = sorted(file.stem for file in DATASETS.glob("*.yaml"))
    if name not in names:
        said = name[:60] if isinstance(name, str) else f"of type {type(name).__name__}"
        near = difflib.get_close_matches(said, names, n=1)
        raise UserError(f"{path}: preset: unknown preset '{said}'{did_you_mean(near)}; known: {', '.join(names)}")
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
    if error["type"] == "extra_forbidden" and (model := _section(place[:-1])):
        near = difflib.get_close_matches(place[-1][:60], list(model.model_fields), n=1)
        return f"{path}: {key}: unknown key{did_you_mean(near)}; known here: {', '.join(model.model_fields)}"
    if error["type"] == "missing":
        return f"{path}: {key}: missing; add it"
    said = error["msg"].removeprefix("Value error, ")
    return f"{path}: {key}: {said}" if key else f"{path}: {said}"


def _section(place: Sequence[str]) -> type[BaseModel] | None:
    """The section at `place`, also behind names that users choose; None where there is none."""
    found: type[BaseModel] | None = Config
    names: Any = None
    for part in place:
        # Below a key whose own keys users choose, such as `source.inputs`, each name stands for one more section.
        annotation = names if names is not None else found.model_fields[part].annotation if found else None
        parts = [annotation, *get_args(annotation)]
        names = annotation if names is None and any(get_origin(one) is dict for one in parts) else None
        found = next((one for one in parts if isclass(one) and issubclass(one, BaseModel)), None)
    return found


def _absolute(config: Config, file: Path) -> Config:
    """Local paths made absolute, so that no step depends on its working directory. file: the settings file."""

    def fix(section: Any, *keys: str) -> Any:
        if section is None:
            return None
        return section.model_copy(update={key: _local(getattr(section, key), file) for key in keys})

    def place(section: Any) -> Any:
        """A statement beside the settings file wins over a packaged one of that name. It lies nowhere else."""
        if section is None or not section.sql:
            return section
        own = Path(os.path.normpath(file.parent / section.sql))
        if not own.is_relative_to(os.path.normpath(file.parent)):
            raise UserError(
                f"{file}: source: sql: {section.sql} lies elsewhere; put the statement beside the settings file"
            )
        return section.model_copy(update={"sql": str(own)}) if _there(own.is_file) else section

    def encoder(section: Any) -> Any:
        """A folder beside the settings file wins over a hub name."""
        own = Path(str(_local(section.encoder, file)))
        return section.model_copy(update={"encoder": str(own)}) if _there(own.is_dir) else section

    source, lists = config.source, config.recommendations
    return config.model_copy(
        update={
            "source": source.model_copy(
                update={
                    "suppressed": _local(source.suppressed, file),
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
            "rankers": fix(config.rankers, "checkpoints"),
            "compute": fix(config.compute, "spill", "exchange"),
            "tracking": fix(config.tracking, "root"),
            "report": fix(config.report, "folder"),
            "retention": fix(config.retention, "log"),
        }
    )


def _local(path: str | None, file: Path) -> str | None:
    if path is None or "://" in path or path.startswith("package:"):
        return path
    try:
        return str(file.parent / Path(path).expanduser())
    except RuntimeError as error:
        raise UserError(f"{file}: '{path}': no such user's home; write the path without ~") from error


def _there(is_it: Callable[[], bool]) -> bool:
    """Whether a path is what it might be. What is too long for a name is none."""
    try:
        return is_it()
    except OSError:
        return False
