"""Business rules: what nobody is recommended, and what is recommended rather or less.

Lives here: reading the rules against the catalogue, and what they add to the score of each candidate. Does not live here:
choosing the items.

The rankers are trained by a softmax over items, so a score is the logarithm of how likely an item is, up to a constant of
the user. A factor therefore adds its logarithm.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segflow.config import RecommendationConfig, did_you_mean
from segflow.errors import UserError

_KEY = "recommendations"


@dataclass(frozen=True)
class Catalogue:
    """Every item of the catalogue: its title, and its path of categories from the widest to the narrowest."""

    titles: Mapping[str, str]
    categories: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Rules:
    """What the rules add to the scores, (C,) float32, -inf for what is excluded; and ids of the file that are no items."""

    added: npt.NDArray[np.float32]
    unknown: int


def rules_of(config: RecommendationConfig, catalogue: Catalogue, candidates: Sequence[str]) -> Rules:
    """The rules as the candidates meet them.

    Raises UserError when an item or a category is named that the catalogue does not have, when none of the file's ids is an
    item, and when everything is excluded.
    """
    categories = {name for path in catalogue.categories.values() for name in path}
    exclude, boost = config.exclude, config.boost
    for key, named, known in (
        ("exclude.items", exclude.items, catalogue.titles),
        ("boost.items", boost.items, catalogue.titles),
        ("exclude.categories", exclude.categories, categories),
        ("boost.categories", boost.categories, categories),
    ):
        _require_known(f"{_KEY}.{key}", named, known)
    listed = _listed(exclude.file) if exclude.file else []
    unknown = sum(item not in catalogue.titles for item in listed)
    if listed and unknown == len(listed):
        raise UserError(
            f"{_KEY}.exclude.file: none of the {len(listed)} ids in {exclude.file} is an item of the catalogue; "
            "the file holds one item id a line"
        )
    items, places = {*exclude.items, *listed}, set(exclude.categories)
    added = np.zeros(len(candidates), np.float32)
    for position, item in enumerate(candidates):
        path = catalogue.categories.get(item, ())
        if item in items or not places.isdisjoint(path):
            added[position] = -np.inf
        else:
            factors = [boost.items.get(item, 1.0), *(boost.categories.get(name, 1.0) for name in dict.fromkeys(path))]
            added[position] = np.log(factors).sum()
    if np.isneginf(added).all():
        raise UserError(f"{_KEY}.exclude: no item is left to recommend; exclude less")
    return Rules(added, unknown)


def digest_of_file(path: str | None) -> str:
    """A digest of the file of excluded items; `none` without one. Raises UserError when it cannot be read."""
    return "none" if path is None else hashlib.sha256(_bytes(path)).hexdigest()


def _listed(path: str) -> list[str]:
    try:
        lines = _bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{_KEY}.exclude.file: {path} is not UTF-8 text: {error.reason}; save it as UTF-8") from error
    return sorted({line.strip() for line in lines} - {""})


def _bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{_KEY}.exclude.file: {path}: {error.strerror}; correct the path, or leave it out") from error


def _require_known(key: str, named: Iterable[str], known: Iterable[str]) -> None:
    everything = set(known)
    for name in named:
        if name not in everything:
            near = difflib.get_close_matches(name, sorted(everything), n=1)
            raise UserError(f"{key}: {name!r} is not in the catalogue{did_you_mean(near)}; correct it, or leave it out")
