"""A ranker to go: everything needed to answer for users it may never have seen, in one folder.

It holds no user id: who asks brings the events, and may bring the segment. Placing a user in a segment needs all views of the
week, of sessions and texts too, so that is left to `newcomer_segments`; without a segment the global ranker answers. Users
without any event get a fallback. What a list holds is what `recommendations` holds for the same events.

Lives here: the bundle, its files, its answers. Does not live here: the form of a request (``requests``), and how a bundle is
registered and put behind HTTP (``segflow.tracking``).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from segflow.errors import UserError
from segflow.rankers.cold_start import (
    HALF_LIFE_DAYS,
    STEPS,
    ColdUsers,
    Fallbacks,
    Shrinkage,
    fallback_scores,
    fit_fallbacks,
    known_days,
    log_scores,
)
from segflow.rankers.deltas import GroupDeltas, Grouped
from segflow.rankers.examples import Examples
from segflow.rankers.features import ItemHistory, Pairs
from segflow.rankers.global_ranker import Frozen, GlobalRanker
from segflow.rankers.requests import Asked, Catalogue, Request, asked, sequence_of
from segflow.rankers.scorers import FittedScorers
from segflow.rankers.segment_rankers import read_deltas
from segflow.rankers.snapshot import RankingWeek
from segflow.rankers.top import top_items
from segflow.representation.behavior import BehaviorModel
from segflow.representation.checkpoints import pack, unpack
from segflow.representation.quantization import dequantize, quantize
from segflow.representation.sequences import MICROSECONDS_PER_WEEK
from segflow.segments.threads import one_thread

Variant = Literal["full", "int8"]

MANIFEST = "manifest.json"
_FORMAT = 2
_BACKBONE, _RANKER, _SCORERS, _FALLBACKS, _DELTAS = (
    f"{name}.safetensors" for name in ("behavior_model", "global_ranker", "scorers", "fallbacks", "deltas")
)
_FILES = {_BACKBONE, _RANKER, _SCORERS, _FALLBACKS, _DELTAS}
_PLAIN = ("item_ids", "made_us", "half_life_days", "count", "exclude_seen", "excluded", "boosts", "segments")
_MEND = "materialize served_ranker again"


class Item(TypedDict):
    """One place of a list. Scores compare within a list only."""

    item_id: str
    score: float


class Answer(TypedDict):
    """What a request gets.

    `arm` says who made the list: `global`, `segment`, or `cold: ` and the fallback's step. `events` counts those taken into
    account; `ignored_events` the others by reason, and events whose item is unknown, which count as visits.
    """

    user_id: str | None
    items: list[Item]
    arm: str
    events: int
    ignored_events: dict[str, int]


@dataclass(frozen=True)
class _Blend:
    """Deltas added to a user's scores by the user's (1, G) shares in the groups."""

    deltas: GroupDeltas
    shares: Tensor

    def added(self, frozen: Frozen, item_vectors: Tensor) -> Tensor:
        return self.deltas.added(frozen, item_vectors, self.shares)


@dataclass(frozen=True)
class ServedRanker:
    """A behaviour model, a global ranker on it, and what they read of the log at one moment.

    Attributes:
        scorers: fitted at ``made_us``.
        fallbacks: fitted at ``made_us``; their segments are ``segments``.
        item_ids: the catalogue that the behaviour model was made for.
        made_us: a midnight UTC in microseconds; everything before it was known.
        half_life_days: of the personal frequency.
        count: items in a list, unless a request says how many.
        exclude_seen: whether lists leave out what the user had, unless a request says so.
        excluded: item ids that are in no list.
        boosts: item id -> what is added to its score.
        segments: ids of the segments, in the order of the groups of ``deltas``; empty without segments.
    """

    backbone: BehaviorModel
    ranker: GlobalRanker
    scorers: FittedScorers
    fallbacks: Fallbacks
    item_ids: tuple[str, ...]
    made_us: int
    half_life_days: float
    count: int
    exclude_seen: bool = False
    excluded: tuple[str, ...] = ()
    boosts: Mapping[str, float] = field(default_factory=dict)
    segments: tuple[str, ...] = ()
    deltas: GroupDeltas | None = None

    def recommend(self, requests: Sequence[Request]) -> list[Answer]:
        """A list for each request. Raises UserError that names the request with a segment that the bundle does not know.

        Each is answered alone: to the last bit, an answer does not depend on what else is asked.
        """
        # One user's matrices are too small to share: more threads only wait for each other, and add up in another order.
        with one_thread():
            return [self._answer(row, request) for row, request in enumerate(requests)]

    def _answer(self, row: int, request: Request) -> Answer:
        shares = self._shares(row, request)
        # A gate of zero leaves a segment's users to the global ranker.
        placed = self.deltas is not None and bool(shares[0] @ self.deltas.gate.numpy() > 0)
        found = asked(request, self.catalogue, self.made_us)
        examples = self._examples(found)
        if found.rows:
            blend = _Blend(self.deltas, torch.from_numpy(shares)) if self.deltas is not None and placed else None
            scores = self.ranker.score(examples, np.arange(1), blend)[0]
            arm = "global" if blend is None else "segment"
        else:
            nothing = sparse.csr_array((1, len(self._candidates)), dtype=np.float32)
            of_one, step = fallback_scores(self.fallbacks, ColdUsers(nothing, segments=shares))
            scores, arm = log_scores(of_one)[0], f"cold: {STEPS[step[0]]}"
        return Answer(
            user_id=request.user_id,
            items=self._list(request, scores, examples.had.items),
            arm=arm,
            events=len(found.rows),
            ignored_events=found.ignored,
        )

    def _examples(self, request: Asked) -> Examples:
        """The user of ``request``, with what the log said of the items when the bundle was made."""
        sequences = sequence_of(request, self.catalogue)
        user, trends = np.zeros(1, np.int64), self.scorers.trends
        features = ItemHistory(sequences, self._candidates).at(request.cut_us, self.half_life_days, trends)
        return Examples(
            users=user,
            cut=user,
            states=self.backbone.states(sequences, np.array([request.cut_us]), user, "last"),
            context=features.context,
            scores=lambda rows: self.scorers.score(features, rows),
            trends=trends[None],
            had=features.pairs,
            values=features.values,
            wanted=Pairs(np.zeros(2, np.int64), np.zeros(0, np.int64)),
        )

    def _list(self, request: Request, scores: npt.NDArray[np.float32], had: npt.NDArray[np.int64]) -> list[Item]:
        if self.exclude_seen if request.exclude_seen is None else request.exclude_seen:
            scores = scores.copy()
            scores[had] = -np.inf
        places, values = top_items((scores + self._added)[None], min(request.n or self.count, len(scores)))
        found = zip(places[0].tolist(), values[0].tolist(), strict=True)
        return [
            Item(item_id=self.ranker.candidate_ids[place], score=value) for place, value in found if np.isfinite(value)
        ]

    def _shares(self, row: int, request: Request) -> npt.NDArray[np.float32]:
        """(1, G) what the request says of its user's segments."""
        shares = np.zeros((1, len(self.segments)), np.float32)
        for segment, share in request.shares.items():
            if segment not in self.segments:
                known = ", ".join(self.segments) or "none"
                raise UserError(f"request {row}: segment {segment!r} is not one of this ranker's; known here: {known}")
            shares[0, self.segments.index(segment)] = share
        return shares

    @cached_property
    def catalogue(self) -> Catalogue:
        """The items and event types that count in a request."""
        return Catalogue(np.array(self.item_ids), self.backbone.event_types)

    @cached_property
    def _candidates(self) -> npt.NDArray[np.int64]:
        return np.array([self.catalogue.place[item] for item in self.ranker.candidate_ids])

    @cached_property
    def _added(self) -> npt.NDArray[np.float32]:
        """(C,) what the rules add to scores."""
        hidden = dict.fromkeys(self.excluded, -np.inf)
        return np.array([hidden.get(item, self.boosts.get(item, 0)) for item in self.ranker.candidate_ids], np.float32)

    @classmethod
    def of(
        cls,
        week: RankingWeek,
        ranker: GlobalRanker,
        *,
        count: int,
        exclude_seen: bool = False,
        added: npt.NDArray[np.float32] | None = None,
        segments: Sequence[str] = (),
        grouped: Grouped | None = None,
        shrinkage: Shrinkage | None = None,
    ) -> ServedRanker:
        """What serves from a week after the snapshot ``week`` on, as `recommendations` of that week does.

        Args:
            added: (C,) what the rules add to everybody's scores; -inf hides an item.
            segments: ids of the groups of ``grouped``.
            shrinkage: of the fallbacks; if not given, segments do not count for users without events.
        """
        made_us = week.start_us + MICROSECONDS_PER_WEEK
        rules = {} if added is None else {week.candidate_ids[at]: float(added[at]) for at in np.flatnonzero(added)}
        everybody = torch.arange(len(week.sequences.user_ids))
        members = grouped.membership.weights(everybody, len(segments)).numpy() if grouped else None
        return cls(
            backbone=week.backbone,
            ranker=ranker,
            scorers=FittedScorers.of(week.features_after(), week.config),
            fallbacks=fit_fallbacks(known_days(week.history.at(made_us, HALF_LIFE_DAYS)), members, shrinkage),
            item_ids=tuple(week.sequences.item_ids.tolist()),
            made_us=made_us,
            half_life_days=week.config.half_life_days,
            count=count,
            exclude_seen=exclude_seen,
            excluded=tuple(item for item, one in rules.items() if np.isneginf(one)),
            boosts={item: one for item, one in rules.items() if np.isfinite(one)},
            segments=tuple(segments),
            deltas=grouped.deltas if grouped else None,
        )

    def save(self, folder: Path, variant: Variant = "full") -> str:
        """Write the bundle into ``folder`` and return a digest of its content: the same bundle, the same digest.

        variant: `int8` stores every float matrix as whole numbers with a step size per row; see `quantization`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        backbone = self.backbone if variant == "full" else replace(self.backbone, variant="int8")
        parts = {
            _BACKBONE: backbone.to_bytes(),
            _RANKER: _stored(*unpack(self.ranker.to_bytes()), variant),
            _SCORERS: _stored(self.scorers.to_tensors(), {}, variant),
            _FALLBACKS: self.fallbacks.to_bytes(),
            **({} if self.deltas is None else {_DELTAS: self.deltas.to_bytes()}),
        }
        for name, content in parts.items():
            (folder / name).write_bytes(content)
        values: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        files = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
        return _write_manifest(folder, {"format": _FORMAT, "files": files, "values": values})

    @classmethod
    def load(cls, folder: Path) -> ServedRanker:
        """The inverse of ``save``. Raises UserError that names the file that is missing or damaged."""
        manifest = _manifest(folder)
        parts = {name: _checked(folder / name, digest) for name, digest in manifest["files"].items()}
        values: dict[str, Any] = {
            name: tuple(one) if isinstance(one, list) else one for name, one in manifest["values"].items()
        }
        return cls(
            backbone=BehaviorModel.from_bytes(parts[_BACKBONE]),
            ranker=GlobalRanker.from_bytes(_whole(parts[_RANKER])),
            scorers=FittedScorers.from_tensors(unpack(_whole(parts[_SCORERS]))[0]),
            fallbacks=Fallbacks.from_bytes(parts[_FALLBACKS]),
            deltas=read_deltas([parts[_DELTAS]]) if _DELTAS in parts else None,
            **values,
        )


def restrict(bundle: Path, folder: Path, segments: Collection[str], digest: str | None = None) -> str:
    """Write into ``folder`` the bundle in which the rankers of ``segments`` alone count, and return its digest.

    Users of the other segments get the global ranker's lists, and requests may name these segments as before. All files but
    the deltas are the same, byte for byte, and share their place on the disk where it can. digest: what that of `bundle` must be.
    Raises UserError when a file is missing, damaged or another, ValueError when the bundle has no such segment.
    """
    manifest = _manifest(bundle, digest)
    known = manifest["values"]["segments"]
    if unknown := set(segments) - set(known):
        raise ValueError(f"the bundle has no segments {sorted(unknown)}, only {known}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, checksum in manifest["files"].items():
        content = _checked(bundle / name, checksum)
        if name == _DELTAS:
            kept = read_deltas([content])
            gate = kept.gate * torch.tensor([float(one in segments) for one in known])
            content = replace(kept, gate=gate).to_bytes()
            (folder / name).write_bytes(content)
            manifest["files"][name] = hashlib.sha256(content).hexdigest()
        else:
            _share(bundle / name, folder / name)
    return _write_manifest(folder, manifest)


def _share(file: Path, place: Path) -> None:
    try:
        place.hardlink_to(file)
    except OSError:
        # Another file system, or one that has no links.
        shutil.copyfile(file, place)


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> str:
    """What is in the bundle, with a digest of it, which is returned."""
    text = json.dumps(manifest, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps({"manifest": manifest, "digest": digest}, sort_keys=True), "utf-8")
    return digest


def _stored(tensors: Mapping[str, Tensor], values: Mapping[str, Any], variant: Variant) -> bytes:
    return pack(quantize(tensors) if variant == "int8" else tensors, values)


def _whole(content: bytes) -> bytes:
    """What ``_stored`` was given, also of int8: no name of a tensor of its own looks like one of those."""
    tensors, values = unpack(content)
    return pack(dequantize(tensors), values)


def _manifest(folder: Path, digest: str | None = None) -> dict[str, Any]:
    file = folder / MANIFEST
    content = _read(file)
    try:
        whole = json.loads(content)
        text = json.dumps(whole["manifest"], sort_keys=True)
        intact = whole["digest"] == hashlib.sha256(text.encode()).hexdigest() and whole["manifest"]["format"] == _FORMAT
        # Another name could lead out of the folder.
        intact = intact and set(whole["manifest"]["files"]) <= _FILES and digest in (None, whole["digest"])
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise UserError(f"{file}: is damaged, another one, or of another version of segflow; {_MEND}")
    found: dict[str, Any] = whole["manifest"]
    return found


def _checked(file: Path, digest: str) -> bytes:
    content = _read(file)
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"{file}: is damaged: its checksum is not that of the manifest; {_MEND}")
    return content


def _read(file: Path) -> bytes:
    if not file.is_file():
        raise UserError(f"{file}: is missing; {_MEND}")
    return file.read_bytes()
