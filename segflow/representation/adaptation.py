"""Domain adaptation of the text encoder: low-rank changes of its attention, learned from the log before a snapshot.

Contrastive: texts that are together in sessions more often than chance are pulled together, against the other texts of the
batch. Masked: the encoder guesses hidden words of the item texts. Either way the last days of the log decide when to stop
and whether anything was gained; if not, the adapter is the identity and says why.

Lives here: training, the adapter, its bytes. Does not live here: the encoder (``encoder``), pairs of texts (``cooccurrence``).

Sources: low-rank adaptation (Hu et al. 2021, by peft), InfoNCE with in-batch negatives (van den Oord et al. 2018), masked
language models (Devlin et al. 2018).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from segflow.config import AdaptationConfig
from segflow.errors import UserError
from segflow.representation.cooccurrence import Pairs, baskets_of, pairs_of
from segflow.representation.devices import moved, rounded
from segflow.representation.encoder import Encoder

Log = Callable[[int, dict[str, float]], None]

# What the attention's query and value projections are called, the fused ones included, in the families of encoders.
_ATTENTION = {"query", "value", "q", "v", "q_lin", "v_lin", "q_proj", "v_proj", "query_proj", "value_proj"}
_ATTENTION |= {"Wqkv", "qkv", "qkv_proj", "query_key_value", "in_proj"}
# Tokens that go through the encoder at once.
_BATCH_TOKENS = 1024
# The gain must be this many standard errors above zero: the best of several looks at a noisy figure is flattering.
_ERRORS = 2.0
# Below so many held-out pairs, that standard error means nothing.
_LEAST_PAIRS = 30


@dataclass(frozen=True)
class Adapter:
    """What an encoder learned from a log. Without tensors it is the identity and `reason` says why.

    base: revision of the encoder that it changes; tensors: the low-rank weights; figures: what training measured.
    """

    base: str
    config: AdaptationConfig
    tensors: Mapping[str, Tensor]
    figures: Mapping[str, float]
    reason: str = ""

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that tell this adapter from any other."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]

    def apply(self, encoder: Encoder) -> Encoder:
        """The encoder with the low-rank changes merged into a copy of its weights; `encoder` itself for the identity.

        Raises UserError for another encoder than the one it was trained on.
        """
        if encoder.revision != self.base:
            raise UserError(
                f"text.adaptation: the adapter changes the encoder '{self.base}', not '{encoder.revision}'; "
                "materialize it again for the encoder in text.encoder"
            )
        if not self.tensors:
            return encoder
        from peft import set_peft_model_state_dict

        model = _low_rank(encoder, self.config)
        set_peft_model_state_dict(model, dict(self.tensors))
        return encoder.with_model(model.merge_and_unload(), self.digest, self)

    def to_bytes(self) -> bytes:
        """Safetensors of the low-rank weights, with everything else as metadata."""
        facts = {
            "base": self.base,
            "config": self.config.model_dump(mode="json"),
            "figures": dict(self.figures),
            "reason": self.reason,
        }
        # One key only: safetensors writes several in an order that changes from run to run.
        return save_tensors(dict(self.tensors), {"segflow": json.dumps(facts, sort_keys=True)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Adapter:
        """The inverse of `to_bytes`. Raises UserError for bytes that are cut, are something else, or hold NaN."""
        try:
            tensors = load_tensors(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            facts = json.loads(header["__metadata__"]["segflow"])
            adapter = cls(tensors=tensors, **{**facts, "config": AdaptationConfig.model_validate(facts["config"])})
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"text.adaptation: {len(data)} bytes are no whole adapter ({reason}); materialize it again"
            ) from error
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise UserError(f"text.adaptation: the adapter holds NaN in '{name}'; materialize it again")
        return adapter


def adapt(
    encoder: Encoder,
    sessions: pa.Table,
    item_ids: Sequence[str],
    item_texts: Sequence[str],
    config: AdaptationConfig,
    seed: int,
    threads: int = 1,
    log: Log = lambda step, metrics: None,
) -> Adapter:
    """Learn from `sessions`; those of the last `validation_days` decide when to stop and are never trained on.

    Args:
        sessions: columns start (timestamp) and items (list of item ids), of the log before the snapshot.
        item_ids, item_texts: the catalogue; items of equal text are one.
        log: called before the first step and at each check with the step and `valid_mrr`, `valid_recall_at_10` (of
            the partners of held-out pairs, ranked among the catalogue's texts) and `train_loss`.

    Raises UserError for an encoder without attention layers that can be adapted.
    """
    if len(item_ids) != len(item_texts):
        raise UserError(f"item_texts: {len(item_texts)} texts for {len(item_ids)} items; pass one each")
    identity = Adapter(encoder.revision, config, {}, {})
    if config.method == "none":
        return _because(identity, "text.adaptation.method is none")
    texts, training, held_out = _split(sessions, item_ids, item_texts, config)
    if not len(training):
        return _because(identity, f"no related items in the sessions before the last {config.validation_days:g} days")
    if len(held_out) < _LEAST_PAIRS:
        return _because(
            identity,
            f"only {len(held_out)} pairs of related items in the last {config.validation_days:g} days, "
            f"{_LEAST_PAIRS} are needed to tell a gain; raise text.adaptation.validation_days",
        )
    with _one_model(threads, seed):
        rng = np.random.default_rng(seed)
        check = _Retrieval(held_out, len(texts), config, rng)
        trainer = _Trainer(encoder, texts, training, check, config, rng)
        tensors, figures = trainer.train(log)
    reason = "" if tensors else f"the partners of held-out items were not found better in {trainer.step} steps"
    return Adapter(identity.base, config, tensors, figures, reason)


def attention_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers that make attention's queries and values.

    Raises UserError for a model that has none under a known name.
    """
    names = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in _ATTENTION
    ]
    if not names:
        raise UserError(
            f"text.adaptation: {type(model).__name__} has no attention layers that can be adapted; "
            "set `method: none` or choose another text.encoder"
        )
    return names


def _because(identity: Adapter, reason: str) -> Adapter:
    return Adapter(identity.base, identity.config, {}, {"steps": 0.0}, reason)


def _split(
    sessions: pa.Table, item_ids: Sequence[str], item_texts: Sequence[str], config: AdaptationConfig
) -> tuple[list[str], Pairs, Pairs]:
    """Distinct texts, their pairs in the sessions to train on, and those in the held-out sessions."""
    texts = sorted({text for text in item_texts if text})
    index = {text: place for place, text in enumerate(texts)}
    text_of = np.array([index.get(text, -1) for text in item_texts], np.int64)
    latest = sessions.sort_by("start").slice(max(0, sessions.num_rows - config.sessions))
    starts = latest["start"].to_numpy().astype("datetime64[us]")
    items = latest["items"].combine_chunks()
    baskets = baskets_of(items, item_ids, text_of, len(texts))
    length = np.timedelta64(int(config.validation_days * 86_400_000_000), "us")
    early = starts < starts.max() - length if len(starts) else np.zeros(0, bool)
    return texts, pairs_of(baskets[early]), pairs_of(baskets[~early])


def _low_rank(encoder: Encoder, config: AdaptationConfig) -> Any:
    """peft's copy of the encoder's model with low-rank changes that do nothing yet; only they can be trained."""
    from peft import LoraConfig, get_peft_model

    model = copy.deepcopy(encoder.model)
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=attention_layers(model),
    )
    # Dropout stays off: it took a fifth of the time, and the held-out days already guard against learning by heart.
    return get_peft_model(model, settings).eval()


class _Retrieval:
    """How well the partner of a held-out text is found among the catalogue's texts."""

    def __init__(self, pairs: Pairs, count: int, config: AdaptationConfig, rng: np.random.Generator) -> None:
        # Each pair once: its two directions rise and fall together, so they would count as more than they are.
        drawn = np.unique(np.sort(pairs.draw(config.validation_pairs, rng), axis=1), axis=0)
        # The candidates are the whole catalogue as long as that is affordable.
        others = rng.permutation(np.setdiff1d(np.arange(count), drawn))[: max(0, config.candidates - len(drawn))]
        self.texts = np.union1d(drawn, others)
        self.anchors, self.partners = np.searchsorted(self.texts, drawn).T

    def ranks(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """(P,) rank of each partner by the likeness to its anchor, from 1; vectors: unit length, of `texts`."""
        ranks = np.empty(len(self.anchors), np.int64)
        for part in np.array_split(np.arange(len(ranks)), -(-len(ranks) // 512)):
            anchors = self.anchors[part]
            likeness = vectors[anchors] @ vectors.T
            own = likeness[np.arange(len(part)), self.partners[part]]
            likeness[np.arange(len(part)), anchors] = -np.inf
            # A tie counts against: equal vectors for all must not look like a find.
            ranks[part] = (likeness >= own[:, None]).sum(1)
        return ranks


class _Trainer:
    """Steps of Adam over the low-rank weights, looking at the held-out days in between."""

    def __init__(
        self,
        encoder: Encoder,
        texts: list[str],
        pairs: Pairs,
        check: _Retrieval,
        config: AdaptationConfig,
        rng: np.random.Generator,
    ) -> None:
        self.encoder, self.pairs, self.check, self.config, self.rng = encoder, pairs, check, config, rng
        self.tokens = encoder.tokens(texts)
        self.lengths = np.array([len(one) for one in self.tokens])
        self.model = _low_rank(encoder, config)
        # The backward pass of fused attention took half the time: in bfloat16 it is slow on CPUs.
        self.model.get_base_model().set_attn_implementation("eager")
        self.device = next(self.model.parameters()).device
        self.step = 0
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.Adam(weights, lr=config.learning_rate)

    def train(self, log: Log) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The low-rank weights of the best check, none if nothing was gained, and the figures before and after."""
        before = best = self._look()
        log(0, _figures(before))
        tensors: dict[str, Tensor] = {}
        best_step = checks = 0
        while self.step < self.config.steps and checks < self.config.patience:
            loss = self._steps(min(self.config.check_every, self.config.steps - self.step))
            now = self._look()
            log(self.step, {"train_loss": loss, **_figures(now)})
            checks += 1
            if (1 / now).mean() > (1 / best).mean():
                best, best_step, checks, tensors = now, self.step, 0, self._weights()
        gain = 1 / best - 1 / before
        error = float(gain.std() / np.sqrt(len(gain)))
        if gain.mean() <= _ERRORS * error:
            best, best_step, tensors = before, 0, {}
        figures = {"steps": float(self.step), "best_step": float(best_step), "pairs": float(len(self.pairs))}
        figures |= {"held_out_pairs": float(len(before)), "standard_error": error}
        return tensors, figures | _figures(before, "_before") | _figures(best)

    def _weights(self) -> dict[str, Tensor]:
        from peft import get_peft_model_state_dict

        return {name: weight.clone().contiguous() for name, weight in get_peft_model_state_dict(self.model).items()}

    def _look(self) -> npt.NDArray[np.int64]:
        with torch.inference_mode():
            vectors = self._vectors(self.check.texts)
        return self.check.ranks(vectors.float().cpu().numpy())

    def _steps(self, count: int) -> float:
        losses = []
        for _ in range(count):
            # A short warm-up, then down to nothing at the last step.
            pace = min(1.0, (self.step + 1) / (0.1 * self.config.steps), 1.0 - self.step / self.config.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * pace
            loss = self._contrastive() if self.config.method == "contrastive" else self._masked()
            if not torch.isfinite(loss):
                raise UserError(
                    f"text.adaptation.learning_rate: the loss is no number any more at step {self.step + 1}; "
                    f"set it below {self.config.learning_rate:g}"
                )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1
            losses.append(float(loss.detach()))
        return float(np.mean(losses))

    def _contrastive(self) -> Tensor:
        """InfoNCE over pairs; negatives are all texts of the batch that are not linked to the anchor."""
        drawn = self.pairs.draw(self.config.batch_tokens, self.rng)
        # As many pairs as fit the budget; a text that comes again costs nothing.
        first = np.unique(drawn.ravel(), return_index=True)[1]
        cost = np.zeros(drawn.size, np.int64)
        cost[first] = self.lengths[drawn.ravel()[first]]
        drawn = drawn[: max(2, int(np.searchsorted(np.cumsum(cost)[1::2], self.config.batch_tokens, side="right")))]
        texts, place = np.unique(drawn, return_inverse=True)
        anchors, partners = place.reshape(-1, 2).T
        vectors = self._vectors(texts).float()
        likeness = (vectors @ vectors.T) / self.config.temperature
        barred = (self.pairs.linked_among(texts) | np.eye(len(texts), dtype=bool))[anchors]
        barred[np.arange(len(anchors)), partners] = False
        logits = likeness[anchors].masked_fill(moved(barred, self.device), -torch.inf)
        return functional.cross_entropy(logits, moved(partners, self.device))

    def _masked(self) -> Tensor:
        """Cross-entropy of hidden tokens; the head is the table of the input embeddings."""
        order = self.rng.permutation(len(self.tokens))
        texts = order[
            : max(1, int(np.searchsorted(np.cumsum(self.lengths[order]), self.config.batch_tokens, side="right")))
        ]
        tokenizer = self.encoder.tokenizer
        if tokenizer.mask_token_id is None:
            raise UserError("text.adaptation: the encoder has no mask token; set `method: contrastive`")
        batch = self.encoder.batch([self.tokens[text] for text in texts])
        plain = ~np.isin(batch["input_ids"].cpu().numpy(), tokenizer.all_special_ids)
        hidden = moved(plain & (self.rng.random(plain.shape) < self.config.masked_share), self.device)
        wanted = batch["input_ids"][hidden]
        batch["input_ids"] = batch["input_ids"].masked_fill(hidden, tokenizer.mask_token_id)
        with rounded(self.device):
            states = self.model(**batch).last_hidden_state[hidden]
            logits = states @ self.model.get_input_embeddings().weight.T
        # A small batch may happen to hide nothing.
        return functional.cross_entropy(logits.float(), wanted, reduction="sum") / max(1, len(wanted))

    def _vectors(self, texts: npt.NDArray[np.int64]) -> Tensor:
        """(n, d) unit vectors of texts, in batches of like length so that short ones do not pay for the longest."""
        order = np.argsort(self.lengths[texts], kind="stable")
        parts = np.array_split(order, -(-int(self.lengths[texts].sum()) // _BATCH_TOKENS))
        with rounded(self.device):
            made = [self.encoder.forward(self.model, [self.tokens[texts[row]] for row in part]) for part in parts]
        return torch.cat(made)[torch.from_numpy(np.argsort(order))]


def _figures(ranks: npt.NDArray[np.int64], when: str = "") -> dict[str, float]:
    return {f"valid_mrr{when}": float((1 / ranks).mean()), f"valid_recall_at_10{when}": float((ranks <= 10).mean())}


@contextmanager
def _one_model(threads: int, seed: int) -> Iterator[None]:
    """Threads and random numbers of one training, without a trace afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
