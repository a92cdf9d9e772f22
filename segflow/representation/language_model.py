"""A pre-trained encoder on disk: where it lies, what it is made of, how its token states become one vector.

Lives here: finding and loading a checkpoint, its revision, and refusing what is no text encoder. Does not live here: encoding.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from segflow.errors import UserError
from segflow.representation.devices import find_device

Pooling = Literal["mean", "cls", "max", "lasttoken"]

# What decides vectors: weights, tokenizer and settings. Other formats of the same weights are neither fetched nor hashed.
_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*/config.json")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
# The mean times the root of the length has the direction of the mean, and vectors have unit length.
_SAME_DIRECTION = {"mean_sqrt_len_tokens": "mean"}
_OLD_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded encoder. `max_tokens` is the most that are read of one text; `revision` changes with whatever decides vectors.

    pooling is None where the files do not state one.
    """

    name: str
    tokenizer: Any
    model: nn.Module
    pooling: Pooling | None
    max_tokens: int
    revision: str


def load_checkpoint(encoder: str, max_tokens: int) -> Checkpoint:
    """The checkpoint that `text.encoder` names, in float32 and on the GPU where there is one.

    Raises UserError when it cannot be found or loaded, holds NaN, or is no single text model.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    place = locate(encoder)
    if not any(any(place.glob(name)) for name in _TOKENIZERS):
        # transformers would make up an empty one.
        raise UserError(
            f"text.encoder: cannot load '{encoder}': no tokenizer in {place}; name the folder of an encoder"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        model, found = AutoModel.from_pretrained(
            place, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).splitlines()[:1])
        raise UserError(f"text.encoder: cannot load '{encoder}': {reason}; name the folder of an encoder") from error
    _check_weights(encoder, model, [name for name in found["missing_keys"] if "pooler" not in name])
    pooling, trained = _sentence_settings(encoder, place)
    limits = [max_tokens, trained, tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    least = int(min(limit for limit in limits if limit))
    digest = revision(place, f"{pooling}-{least}")
    name = encoder.removeprefix("packaged:").rstrip("/").rpartition("/")[-1]
    return Checkpoint(name, tokenizer, model.eval().to(find_device()), pooling, least, digest)


def locate(encoder: str) -> Path:
    """The folder of an encoder; `packaged:MODULE` is the `model/` folder of an installed package.

    A hub name is the latest snapshot, fetched unless the hub is out of reach. Raises UserError when there is no such thing.
    """
    if encoder.startswith("packaged:"):
        # The files are on disk; without this, loading them still asks the hub for updates.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        module = encoder.removeprefix("packaged:")
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:
            raise UserError(f"text.encoder: package '{module}' is not installed; run `pip install segflow[demo]`")
        return Path(found.origin).parent / "model"
    place = Path(encoder).expanduser()
    if place.is_dir():
        return place
    if place.is_absolute() or encoder.startswith((".", "~")) or encoder.count("/") > 1:
        raise UserError(f"text.encoder: there is no folder '{encoder}'; name the folder of an encoder, or a hub name")
    return _snapshot(encoder)


def revision(place: Path, settings: str) -> str:
    """Twelve hexadecimal digits of what decides vectors: the files' contents and `settings`."""
    digest = hashlib.sha256(settings.encode())
    for file in sorted({file for pattern in _FILES for file in place.glob(pattern)}):
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{file.relative_to(place)}:{content};".encode())
    return digest.hexdigest()[:12]


def _snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES)))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"text.encoder: '{name}' is no folder, and no model of the hub: {reason}") from error


def _check_weights(encoder: str, model: nn.Module, missing: list[str]) -> None:
    if missing:
        raise UserError(
            f"text.encoder: '{encoder}' has no weights for {sorted(missing)[0]} and {len(missing) - 1} more; name another"
        )
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            kind = "NaN" if torch.isnan(weight).any() else "infinite numbers"
            raise UserError(f"text.encoder: '{encoder}' holds {kind} in {name}; train or fetch it again")
    if getattr(model.config, "is_encoder_decoder", False):
        raise UserError(
            f"text.encoder: '{encoder}' is an encoder with a decoder, no encoder; name one such as a BERT or a sentence model"
        )


def _sentence_settings(encoder: str, place: Path) -> tuple[Pooling | None, int | None]:
    """Pooling and longest text in tokens, as sentence-transformers' files state them."""
    modules = _json(place / "modules.json") if (place / "modules.json").is_file() else []
    pooling: Pooling | None = None
    for kind, folder in ((module["type"].rpartition(".")[-1], module["path"]) for module in modules):
        if kind == "Pooling":
            pooling = _pooling(encoder, _json(place / folder / "config.json"))
        elif kind not in ("Transformer", "Normalize"):
            raise UserError(
                f"text.encoder: '{encoder}' ends in a {kind} layer, which is not supported; name an encoder of a "
                "transformer and its pooling"
            )
    file = place / "sentence_bert_config.json"
    return pooling, _json(file).get("max_seq_length") if file.is_file() else None


def _pooling(encoder: str, settings: dict[str, Any]) -> Pooling:
    named = settings.get("pooling_mode", [mode for key, mode in _OLD_KEYS.items() if settings.get(key)])
    modes = [named] if isinstance(named, str) else list(named)
    known = [_SAME_DIRECTION.get(mode, mode) for mode in modes]
    if len(known) != 1 or known[0] not in get_args(Pooling):
        raise UserError(
            f"text.encoder: '{encoder}' pools by {' and '.join(modes) or 'nothing'}, which is not supported; "
            f"supported: {', '.join([*get_args(Pooling), *_SAME_DIRECTION])}"
        )
    return known[0]  # type: ignore[return-value]


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"text.encoder: {file} cannot be read: {error}; fetch the encoder again") from error
