"""Names by a causal language model, given only what sets a segment apart, and checked before they are used.

What does not live here: the template (`naming.py`), which names every segment whose proposal does not pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segflow.errors import UserError
from segflow.segments.faithfulness import Embed, name_fits
from segflow.segments.story import facts

Row = dict[str, Any]

_LONGEST = 40
_NEW_TOKENS = 16
_QUOTES = "\"'“”‘’`*.:;,-–# "
_TASK = "Name a group of users in two to four words. Use nothing but the facts."
_EXAMPLES = (
    ("come more often; spend more; like garden, tools", "Frequent gardeners"),
    ("come less often; choose the cheaper goods; like toys", "Occasional toy bargain hunters"),
)


class LanguageNamer:
    """Proposes names by greedy decoding: the same facts give the same name."""

    def __init__(self, model: Any, tokenizer: Any, embed: Embed) -> None:
        self._model, self._tokenizer, self._embed = model, tokenizer, embed

    @classmethod
    def load(cls, source: str, embed: Embed) -> LanguageNamer:
        """Any causal language model of transformers: a folder or a hub name; safetensors only, no code of its own is run.

        `embed` is the text encoder that checks names. Raises UserError when the model cannot be loaded.
        """
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                source, use_safetensors=True, trust_remote_code=False, dtype="float32"
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            reason = " ".join(str(error).split("\n")[:1])
            raise UserError(
                f"segments.profiles.namer: cannot load '{source}' as a causal language model: {reason}; "
                "name a folder or a hub model, or `template`"
            ) from error
        return cls(model.eval(), tokenizer, embed)

    def __call__(self, segment_id: str, contrasts: Mapping[str, Sequence[Row]]) -> str | None:
        """A name for the segment; None when the model's is empty, too long, not printable, or nearer to another profile."""
        proposed = self.proposal(facts(contrasts.get(segment_id, [])))
        if not _is_name(proposed):
            return None
        fit = name_fits({segment_id: proposed}, {segment_id: [], **contrasts}, self._embed)[segment_id]
        return proposed if fit["rank"] == 1 else None

    def proposal(self, told: str) -> str:
        """The first line that the model writes about these facts, without quotation marks; not checked."""
        import torch

        tokens = self._tokenizer(self._prompt(told), return_tensors="pt", add_special_tokens=False)
        limit = getattr(self._model.config, "max_position_embeddings", None)
        ids = tokens["input_ids"] if limit is None else tokens["input_ids"][:, -max(limit - _NEW_TOKENS, 1) :]
        with torch.inference_mode():
            written = self._model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=1,
                max_new_tokens=_NEW_TOKENS, pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id,
            )  # fmt: skip
        text: str = self._tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        line = next((line for line in text.splitlines() if line.strip(_QUOTES)), "")
        return " ".join(line.strip(_QUOTES).split())

    def _prompt(self, told: str) -> str:
        if self._tokenizer.chat_template:
            talk = [{"role": "user", "content": f"{_TASK}\nFacts: {told}\nAnswer with the name only."}]
            prompt: str = self._tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
            return prompt
        shown = [f"Facts: {given}\nName: {name}" for given, name in _EXAMPLES]
        return "\n\n".join([_TASK, *shown, f"Facts: {told}\nName:"])


def _is_name(text: str) -> bool:
    return 2 <= len(text) <= _LONGEST and text.isprintable() and any(one.isalpha() for one in text)
