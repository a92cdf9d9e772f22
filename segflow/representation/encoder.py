"""The language model: texts to vectors of unit length, fast and checked.

Any Hugging Face encoder works; pooling is read from its sentence-transformers files where it has them, and is the mean where it
has none. What is fast on this machine is tried on a few fixed texts when the encoder is made: it is used only where its vectors
agree with those of padded batches in float32. Which texts need encoding is the caller's concern.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segflow.config import TextConfig
from segflow.errors import UserError
from segflow.representation import packing
from segflow.representation.devices import use_bfloat16
from segflow.representation.integers import in_integers
from segflow.representation.language_model import Checkpoint, Pooling, load_checkpoint
from segflow.representation.packing import Tokens, lengths_of
from segflow.representation.rounding import in_bfloat16

Progress = Callable[[int, int], None]
Vectors = npt.NDArray[np.float32]

LEAST_COSINE = 0.999
"""What bfloat16 must keep of the direction of every fixed text's vector."""

_SAME_COSINE = 0.99999
# Of different lengths, two of the same, one longer than any limit: a window of attention would show.
_FIXED_TEXTS = (
    "tea",
    "Red Bordeaux wine, 0.75 l",
    "garden > tools > pruning shears",
    "garden > tools > watering cans",
    "view wireless headphones; view headphone case; cart wireless headphones; purchase wireless headphones",
    " ".join(f"chapter {number} of the long story" for number in range(200)),
)
# A token has seldom more characters, so what is cut off is what truncation would drop, at a cost that does not grow.
_CHARACTERS_PER_TOKEN = 32
# Texts that are split into tokens at once.
_SLICE = 65_536

_log = logging.getLogger(__name__)
# The last one that was loaded for a piece of another process's work.
_LOADED: dict[str, Encoder] = {}


class Adapting(Protocol):
    """What an adapted encoder is made of the plain one by. Picklable."""

    def apply(self, encoder: Encoder) -> Encoder:
        """The adapted encoder."""


class Encoder:
    """A text encoder with its pooling. Create one with `Encoder.load`.

    precision: `float32`, `bfloat16` or `int8`, as it is used. precision_cosine: the least cosine to float32 over the fixed
    texts. packed: whether texts are computed without padding. width: numbers of a vector.
    """

    def __init__(
        self, checkpoint: Checkpoint, config: TextConfig, threads: int = 1, adapter: Adapting | None = None
    ) -> None:
        self._checkpoint, self._config, self._threads, self._adapter = checkpoint, config, threads, adapter
        self._first_position: int | None = None
        self.precision, self.precision_cosine = "float32", 1.0
        self._fast = self.model
        with torch.inference_mode():
            tokens = self.tokens(_FIXED_TEXTS)
            reference = self._reference(tokens)
            self.width = reference.shape[1]
            self._try_packing(tokens, reference)
            self._try_precision(tokens, reference)

    @classmethod
    def load(cls, config: TextConfig, threads: int = 1) -> Encoder:
        """The encoder that the settings name. Raises UserError when it is missing, broken or no encoder."""
        return cls(load_checkpoint(config.encoder, config.max_tokens), config, threads)

    @property
    def name(self) -> str:
        """What decides the vector of a text, beside the text itself: encoder, revision and precision."""
        return f"{self._checkpoint.name}@{self.revision}-{self.precision}"

    @property
    def revision(self) -> str:
        """Changes with the weights, the tokenizer, the pooling and the most tokens of a text."""
        return self._checkpoint.revision

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        return self._checkpoint.tokenizer

    @property
    def model(self) -> nn.Module:
        """The model of transformers, in float32."""
        return self._checkpoint.model

    @property
    def packed(self) -> bool:
        """Whether texts are computed without padding."""
        return self._first_position is not None

    def with_model(self, model: nn.Module, suffix: str, adapter: Adapting | None = None) -> Encoder:
        """The same encoder around other weights, such as adapted ones; `suffix` tells its revision from this one's.

        adapter: what makes it of this one in another process.
        """
        from dataclasses import replace

        other = replace(self._checkpoint, model=model.eval(), revision=f"{self.revision}+{suffix}")
        return Encoder(other, self._config, self._threads, adapter)

    def __reduce__(self) -> tuple[Callable[..., Encoder], tuple[TextConfig, str, Adapting | None]]:
        """An encoder goes to another process as what it is made of, and is loaded there once."""
        return _loaded, (self._config, self.name, self._adapter)

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """(n, d) float32 of unit length, in the order of `texts`; a text without a word is all zeros.

        Only the first `text.max_tokens` of a text are read. `progress` is told how many of how many texts are done.
        """
        vectors = np.zeros((len(texts), self.width), np.float32)
        empty = self.tokenizer.num_special_tokens_to_add()
        done = 0
        with self._attention(), _workers(self._threads) as workers:
            for start in range(0, len(texts), _SLICE):
                tokens = self.tokens(texts[start : start + _SLICE])
                lengths = lengths_of(tokens)
                done += int((lengths <= empty).sum())
                parts = list(self._batches(lengths, empty))
                found = workers.map(self._vectors, ([tokens[row] for row in part] for part in parts))
                for part, made in zip(parts, found, strict=True):
                    vectors[start + part] = made
                    done += len(part)
                    if progress:
                        progress(done, len(texts))
        return vectors

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, special ones included and cut to the most that are read."""
        most = self._checkpoint.max_tokens
        cut = [text[: most * _CHARACTERS_PER_TOKEN] for text in texts]
        if not cut:
            return []
        options = {"return_attention_mask": False, "return_token_type_ids": False}
        found: list[list[int]] = self.tokenizer(cut, truncation=True, max_length=most, **options)["input_ids"]
        return found

    def batch(self, tokens: Tokens) -> dict[str, Tensor]:
        """A padded batch of `tokens` for the model."""
        return packing.padded_batch(self.model, tokens, self.tokenizer.pad_token_id or 0)

    def forward(self, model: nn.Module, tokens: Tokens) -> Tensor:
        """(n, d) unit vectors by `model`, a variant of this encoder's model that may be in training, in one padded batch."""
        return packing.pool(packing.padded_states(model, self.batch(tokens)), lengths_of(tokens), self._pooling)

    @property
    def _pooling(self) -> Pooling:
        return self._checkpoint.pooling or "mean"

    def _vectors(self, tokens: Tokens) -> Vectors:
        """Vectors of one batch, in the precision that was found to be fast and right, inside `_attention`."""
        # Only products are rounded: what runs along the layers stays in float32, which costs little and keeps the direction.
        rounded = torch.autocast(
            next(self._fast.parameters()).device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )
        # Both hold for the thread that enters them.
        with torch.inference_mode(), rounded:
            if self._first_position is None:
                return self.forward(self._fast, tokens).cpu().numpy()
            states = packing.packed_states(self._fast, tokens, self._first_position)
            return packing.pool(states, lengths_of(tokens), self._pooling).cpu().numpy()

    def _attention(self) -> AbstractContextManager[None]:
        """While it lasts, attention is the one that was found to be fast and right."""
        return packing.packed_attention(self._fast) if self.packed else nullcontext()

    def _batches(self, lengths: npt.NDArray[np.int64], empty: int) -> Iterator[npt.NDArray[np.intp]]:
        """Rows of texts of like length, the longest first, within the budget of tokens; padding counts where there is any."""
        order = np.argsort(-lengths, kind="stable")
        order = order[lengths[order] > empty]
        ends = np.cumsum(lengths[order])
        start = 0
        while start < len(order):
            longest, budget = int(lengths[order[start]]), self._config.batch_tokens
            fits = int(np.searchsorted(ends, ends[start] - longest + budget, side="right")) - start
            size = max(1, fits if self.packed else budget // longest)
            yield order[start : start + size]
            start += size

    def _reference(self, tokens: Tokens) -> Vectors:
        """The fixed texts' vectors by padded batches in float32. Raises UserError for a model that is no encoder."""
        name = self._config.encoder
        try:
            reference = self.forward(self.model, tokens).cpu().numpy()
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"text.encoder: '{name}' is no text encoder, its {type(self.model).__name__} does not make a state of each token "
                f"from text alone; name one such as a BERT or a sentence model"
            ) from error
        if self._checkpoint.pooling is None and self._looks_back_only(tokens[-1]):
            raise UserError(
                f"text.encoder: '{name}' writes text and is no encoder: its tokens do not see what follows, and no "
                "1_Pooling/config.json says how to pool them; name one such as a BERT or a sentence model"
            )
        return reference

    def _looks_back_only(self, long: Sequence[int]) -> bool:
        short, longer = (packing.padded_states(self.model, self.batch([part]))[0] for part in (long[:4], long[:8]))
        return torch.allclose(short, longer, atol=1e-5)

    def _try_packing(self, tokens: Tokens, reference: Vectors) -> None:
        """Use packed rows if they give the reference. Some models count places from behind the padding token."""
        if not packing.can_be_packed(self.model):
            return
        order = np.argsort([-len(one) for one in tokens], kind="stable")
        for first in dict.fromkeys((0, (self.tokenizer.pad_token_id or 0) + 1)):
            self._first_position = first
            with packing.packed_attention(self.model):
                found = self._vectors([tokens[row] for row in order])
            if _least_cosine(found, reference[order]) >= _SAME_COSINE:
                return
        self._first_position = None

    def _try_precision(self, tokens: Tokens, reference: Vectors) -> None:
        wanted = self._config.precision
        device = next(self.model.parameters()).device
        if wanted == "float32" or (wanted == "auto" and not use_bfloat16(device)):
            return
        if wanted == "int8" and device.type == "cuda":
            raise UserError("text.precision: int8 runs on the CPU only; use `auto` with a GPU")
        self.precision = "int8" if wanted == "int8" else "bfloat16"
        self._fast = in_integers(self.model) if wanted == "int8" else in_bfloat16(self.model)
        order = np.argsort([-len(one) for one in tokens], kind="stable")
        with self._attention():
            found = self._vectors([tokens[row] for row in order])
        self.precision_cosine = _least_cosine(found, reference[order])
        if wanted == "int8" or self.precision_cosine >= LEAST_COSINE:
            return
        lost = f"bfloat16 keeps a cosine of {self.precision_cosine:.5f} to float32, below {LEAST_COSINE}"
        if wanted == "bfloat16":
            raise UserError(f"text.precision: {lost}; use `auto` or `float32` with this encoder")
        _log.warning("text.precision: %s; float32 is used", lost)
        self.precision, self.precision_cosine, self._fast = "float32", 1.0, self.model


def _loaded(config: TextConfig, name: str, adapter: Adapting | None) -> Encoder:
    """The encoder of that name, on one thread.

    Raises UserError when what the settings name is another one on this machine, or computes in another way.
    """
    if name not in _LOADED:
        encoder = Encoder.load(config)
        if adapter is not None:
            encoder = adapter.apply(encoder)
        if encoder.name != name:
            raise UserError(
                f"text.encoder: it is '{encoder.name}' here and '{name}' where the step runs; install the same encoder on every "
                "node and, if their processors differ, set text.precision: float32"
            )
        _LOADED.clear()
        _LOADED[name] = encoder
    return _LOADED[name]


@contextmanager
def _workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads, each of which computes a batch by itself: threads that share one wait for each other at every step.

    Encoding runs alone, so there may be more of them than of the training that runs side by side.
    """
    before = torch.get_num_threads()
    # Told to each, because torch asks a library of its own how many threads a new thread may use.
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def _least_cosine(left: Vectors, right: Vectors) -> float:
    return float(np.einsum("nd,nd->n", left, right).min())
