"""Tiny models of transformers with random weights, and their tokenizers, as folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

WORDS = ("tea", "coffee", "red", "green", "wine", "glass", "garden", "tool", "of", "the", "long", "story", ">", ",")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SMALL = {"vocab_size": len(_SPECIAL) + len(WORDS), "max_position_embeddings": 66}
_BERT = _SMALL | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}

MODELS: dict[str, tuple[type, Any]] = {
    "bert": (BertModel, BertConfig(**_BERT)),
    # Its places are counted from behind the padding token.
    "roberta": (RobertaModel, RobertaConfig(**_BERT, pad_token_id=0, bos_token_id=2, eos_token_id=3)),
    "distilbert": (DistilBertModel, DistilBertConfig(**_SMALL, dim=32, n_layers=2, n_heads=4, hidden_dim=64)),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config(vocab_size=_SMALL["vocab_size"], n_positions=66, n_embd=32, n_layer=2, n_head=4),
    ),
    "t5": (T5Model, T5Config(vocab_size=_SMALL["vocab_size"], d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)),
}


def make_model(folder: Path, kind: str = "bert", *, pooling: dict[str, Any] | None = None, seed: int = 0) -> Path:
    """A checkpoint of `kind` in `folder`; pooling: the content of 1_Pooling/config.json, with a modules.json that names it."""
    torch.manual_seed(seed)
    model_type, config = MODELS[kind]
    model_type(config).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    if pooling is not None:
        listed = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
        modules = [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
            for number, (name, path) in enumerate(listed)
        ]
        (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
        for name in ("1_Pooling", "2_Normalize"):
            (folder / name).mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate((*_SPECIAL, *WORDS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip
