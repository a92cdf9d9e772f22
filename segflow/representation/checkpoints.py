"""Checkpoints of a training: tensors and plain values in one safetensors file that is whole or not taken at all.

Lives here: the file, its checks, its replacement. Does not live here: what a training puts into it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

_KEY = "segflow"
_LOG = logging.getLogger(__name__)


class DamagedError(ValueError):
    """Bytes that are not the tensors they once were; the message says what is wrong with them."""


@dataclass(frozen=True)
class Checkpoint:
    """The file of one training; ``run`` is a digest of its data and settings."""

    path: Path
    run: str

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the file: a reader sees the one before or this one, also after a crash."""
        content = pack(tensors, {"run": self.run, "state": state})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._beside.replace(self.path)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What the last ``save`` was given; none, with a warning, if the file is damaged or of another training."""
        if not self.path.is_file():
            return None
        try:
            tensors, values = unpack(self.path.read_bytes())
        except DamagedError as error:
            _LOG.warning("checkpoint %s %s; training starts over", self.path, error)
            return None
        # A model is packed likewise, and names no run.
        if values.get("run") != self.run:
            _LOG.warning("checkpoint %s is of other data or settings; training starts over", self.path)
            return None
        return tensors, values["state"]

    def remove(self) -> None:
        """The training is over: nothing of it stays, nor of a ``save`` that was cut off."""
        self.path.unlink(missing_ok=True)
        self._beside.unlink(missing_ok=True)

    @property
    def _beside(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")


def pack(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> bytes:
    """Safetensors with ``values`` (plain, as JSON) and a checksum of both as metadata; the same input, the same bytes."""
    whole = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    text = json.dumps(values, sort_keys=True)
    # One key only: safetensors writes several in an order that changes from run to run.
    header = json.dumps({"values": text, "checksum": _checksum(whole, text)}, sort_keys=True)
    return bytes(save_tensors(whole, {_KEY: header}))


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of ``pack``. Raises DamagedError for bytes that are cut, changed, foreign, or hold NaN or infinity."""
    try:
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_KEY])
        tensors = load_tensors(data)
        text, checksum = header["values"], header["checksum"]
    except (struct.error, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedError(f"is cut short or was not written by segflow ({type(error).__name__})") from error
    if checksum != _checksum(tensors, text):
        raise DamagedError("is damaged: its checksum does not match its content")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DamagedError(f"holds NaN or infinity in '{name}'")
    return tensors, json.loads(text)


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
