"""The language model: item texts to vectors, and sessions as the mean of their items.

Any Hugging Face encoder works; pooling is read from its sentence-transformers settings where it has them. Which texts need
encoding is the caller's concern.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from scipy import sparse

from segflow.arrow import vector_column
from segflow.config import TextConfig
from segflow.errors import UserError

Progress = Callable[[int, int], None]


class Encoder:
    """A transformer encoder with its pooling. Create one with `Encoder.load`."""

    def __init__(self, tokenizer: object, model: torch.nn.Module, pooling: str, config: TextConfig, threads: int = 1):
        self._threads = threads
        self._tokenizer = tokenizer
        self._model = model.eval()
        self._width = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self._pooling = pooling
        self._config = config

    @property
    def name(self) -> str:
        """What decides the vector of a text, beside the text itself."""
        return f"{self._config.encoder}@{self._pooling}-{self._config.max_tokens}"

    @classmethod
    def load(cls, config: TextConfig, threads: int = 1) -> Encoder:
        """The encoder that the settings name. Raises UserError when it cannot be found."""
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        place = locate(config.encoder)
        try:
            tokenizer = AutoTokenizer.from_pretrained(place)
            model = AutoModel.from_pretrained(place, use_safetensors=True)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"text.encoder: cannot load '{config.encoder}': {reason}; name a local folder") from error
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(tokenizer, model.to(device), _pooling(place), config, threads)

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> npt.NDArray[np.float32]:
        """(n, d) float32 of unit length, in the order of `texts`.

        Batches are sorted by length and bounded in padded tokens, so short texts do not pay for the longest one.
        """
        tokens = self._tokenizer(list(texts), truncation=True, max_length=self._config.max_tokens)["input_ids"]  # type: ignore[operator]
        lengths = np.array([len(one) for one in tokens])
        vectors = np.zeros((len(texts), self._width), np.float32)
        done = 0
        with torch.inference_mode(), _threads(self._threads):
            for index in _token_batches(lengths, self._config.batch_tokens):
                vectors[index] = self._forward([tokens[row] for row in index])
                done += len(index)
                if progress:
                    progress(done, len(texts))
        return vectors

    def _forward(self, tokens: list[list[int]]) -> npt.NDArray[np.float32]:
        device = next(self._model.parameters()).device
        batch = self._tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(device)  # type: ignore[attr-defined]
        states = self._model(**batch).last_hidden_state
        if self._pooling == "cls":
            pooled = states[:, 0]
        else:
            mask = batch["attention_mask"].unsqueeze(-1)
            pooled = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(pooled, dim=1).float().cpu().numpy()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Encoding runs alone, so it may use more threads than the training that runs side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def locate(encoder: str) -> str:
    """The folder or hub name of an encoder; `packaged:MODULE` is the `model/` folder of an installed package."""
    if not encoder.startswith("packaged:"):
        return encoder
    # The files are on disk; without this, loading them still asks the hub for updates.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    module = encoder.removeprefix("packaged:")
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise UserError(f"text.encoder: package '{module}' is not installed; run `pip install segflow[demo]`")
    return str(Path(found.origin).parent / "model")


def _pooling(place: str) -> str:
    settings = Path(place) / "1_Pooling" / "config.json"
    if settings.is_file() and json.loads(settings.read_text()).get("pooling_mode_cls_token"):
        return "cls"
    return "mean"


def _token_batches(lengths: npt.NDArray[np.int64], budget: int) -> Iterator[npt.NDArray[np.int64]]:
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def pool_sessions(
    items: pa.ListArray, item_ids: Sequence[str], vectors: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(S, d) float32: for each session the unit-length mean of its items' vectors, every event counting once.

    items: S lists of item ids; vectors: (I, d) for `item_ids`. A session without a known item is all zeros.
    """
    import pyarrow.compute as pc

    index = pc.index_in(items.flatten(), pa.array(item_ids, pa.string()))
    owner = np.repeat(np.arange(len(items)), items.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
    known = index.is_valid().to_numpy(zero_copy_only=False)
    columns = index.drop_null().to_numpy(zero_copy_only=False)
    counts = sparse.csr_matrix(
        (np.ones(len(columns), np.float32), (owner[known], columns)), shape=(len(items), len(item_ids))
    )
    pooled = np.asarray(counts @ vectors, np.float32)
    length = np.linalg.norm(pooled, axis=1, keepdims=True)
    return np.divide(pooled, length, out=np.zeros_like(pooled), where=length > 0)


def encode_new(
    encoder: Encoder, items: pa.Table, known: pa.Table, progress: Progress | None = None
) -> tuple[pa.Table, int]:
    """Rows of `item_embeddings` for `items`, and how many texts had to be encoded.

    items: item_id, text, text_hash; known: rows of `item_embeddings` from before. A text is encoded once, however many items
    share it; a vector is kept while its hash and encoder are the same.
    """
    name = encoder.name
    kept = {
        row["text_hash"]: row["vector"]
        for row in known.select(["text_hash", "encoder", "vector"]).to_pylist()
        if row["encoder"] == name
    }
    texts = dict(zip(items["text_hash"].to_pylist(), items["text"].to_pylist(), strict=True))
    new = [text_hash for text_hash in texts if text_hash not in kept]
    if new:
        kept |= dict(zip(new, encoder.encode([texts[one] for one in new], progress), strict=True))
    vectors = np.array([kept[one] for one in items["text_hash"].to_pylist()], np.float32)
    rows = pa.table(
        {
            "item_id": items["item_id"],
            "text_hash": items["text_hash"],
            "encoder": pa.array([name] * items.num_rows, pa.string()),
            "vector": vector_column(vectors),
        }
    )
    return rows, len(new)
