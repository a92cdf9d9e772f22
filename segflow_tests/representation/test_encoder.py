"""The language model: what it is made from, what is refused, and that fast ways give what slow ones do."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segflow.config import TextConfig
from segflow.errors import UserError
from segflow.representation import encoder as encoder_module
from segflow.representation.encoder import Encoder
from segflow_tests.representation.models import WORDS, make_model

TEXTS = [
    " ".join(np.random.default_rng(row).choice(WORDS, length))
    for row, length in enumerate([1, 5, 5, 60, 9, 2, 33, 9, 9, 70, 1])
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("bert"))


def load(folder: Path, **settings: object) -> Encoder:
    return Encoder.load(TextConfig.model_validate({"encoder": str(folder), "precision": "float32"} | settings))


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_sqrt_len_tokens": True},
        {"pooling_mode": "lasttoken"},
        {"pooling_mode": "mean"},
    ],
)
def test_vectors_are_those_of_sentence_transformers(tmp_path: Path, pooling: dict[str, object]) -> None:
    from sentence_transformers import SentenceTransformer

    folder = make_model(tmp_path / "model", pooling={"embedding_dimension": 32} | pooling)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(load(folder, batch_tokens=128).encode(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "packed"), [("bert", True), ("roberta", True), ("distilbert", True), ("gpt2", False)])
def test_batches_do_not_change_a_text(tmp_path: Path, kind: str, packed: bool) -> None:
    encoder = load(make_model(tmp_path, kind, pooling={"pooling_mode": "lasttoken"}), batch_tokens=128)
    assert encoder.packed == packed
    with torch.inference_mode():
        alone = np.concatenate([encoder.forward(encoder.model, encoder.tokens([text])).numpy() for text in TEXTS])
    together = encoder.encode(TEXTS)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1]), together[::-1], atol=1e-5)
    assert (encoder.encode(TEXTS) == together).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_either_attention_gives_the_same_vectors(bert: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    encoder = load(bert, precision=precision)
    plain = encoder.encode(TEXTS)
    monkeypatch.setattr(encoder_module.packing, "_PLAIN", 8)
    fused = encoder.encode(TEXTS)
    assert not (fused == plain).all()
    np.testing.assert_allclose(fused, plain, atol=1e-5 if precision == "float32" else 0.01)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scores", [1.0, 60.0, 1e3, -1e3])
def test_attention_bears_any_scores(kind: torch.dtype, scores: float) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 2, 7, 8) for _ in range(3))
    key[..., 0], query[..., 0] = 1, scores
    given = [one.to(kind) for one in (query, key, value)]
    found = encoder_module.packing._plain_attention(*given, scaling=1.0)
    expected = torch.softmax(given[0].double() @ given[1].double().transpose(2, 3), -1) @ given[2].double()
    assert found.isfinite().all()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4 if kind == torch.float32 else 0.03)


def test_packing_is_left_where_it_disagrees(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module.packing, "packed_states", lambda model, tokens, first: torch.ones(
        sum(map(len, tokens)), 32
    ))  # fmt: skip
    encoder = load(bert)
    assert not encoder.packed
    assert np.ptp(encoder.encode(TEXTS), axis=0).min() > 0


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_rounded_precision_says_what_it_loses(bert: Path, precision: str) -> None:
    exact, rounded = load(bert), load(bert, precision=precision)
    cosines = np.einsum("nd,nd->n", exact.encode(TEXTS), rounded.encode(TEXTS))
    assert rounded.precision == precision
    assert 0.99 < rounded.precision_cosine < 1.0
    assert abs(cosines.min() - rounded.precision_cosine) < 0.01
    assert rounded.name != exact.name


def test_a_precision_that_loses_too_much_is_not_used(
    bert: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(encoder_module, "LEAST_COSINE", 1.1)
    monkeypatch.setattr(encoder_module, "use_bfloat16", lambda device: True)
    with caplog.at_level(logging.WARNING):
        encoder = load(bert, precision="auto")
    assert (encoder.precision, encoder.precision_cosine) == ("float32", 1.0)
    assert "float32 is used" in caplog.text
    with pytest.raises(UserError, match=r"text\.precision: bfloat16 keeps a cosine of .* use `auto`"):
        load(bert, precision="bfloat16")


def test_auto_is_what_the_processor_has(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for native, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(encoder_module, "use_bfloat16", lambda device, native=native: native)
        assert load(bert, precision="auto").precision == precision


def test_texts_without_a_word_are_zeros(bert: Path) -> None:
    encoder = load(bert)
    vectors = encoder.encode(["", "  \t\n", "tea", "\U0001f600", "\U0001f600 tea", ""])
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(lengths, [0, 0, 1, 1, 1, 0], atol=1e-6)
    assert encoder.encode([]).shape == (0, 32)
    assert (encoder.encode(["", " "]) == 0).all()


def test_a_long_text_is_cut_before_it_is_split(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(bert)
    seen: list[int] = []
    tokenizer = encoder.tokenizer

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(tokenizer, name)

        def __call__(self, texts: list[str], **options: object) -> object:
            seen.extend(map(len, texts))
            return tokenizer(texts, **options)

    monkeypatch.setattr(Encoder, "tokenizer", Watched())
    found = encoder.encode(["red wine " * 5556, "red wine " * 31])
    assert max(seen) <= 64 * 32
    # 64 tokens are read: 62 words and two special ones.
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert len(encoder.tokens(["tea" * 50_000])[0]) == 3


def test_progress_ends_with_all_texts(bert: Path) -> None:
    said: list[tuple[int, int]] = []
    load(bert, batch_tokens=128).encode([*TEXTS, "", ""], lambda done, of: said.append((done, of)))
    assert said[-1] == (len(TEXTS) + 2, len(TEXTS) + 2)
    assert said == sorted(said)


def test_the_revision_changes_with_what_decides_vectors(bert: Path, tmp_path: Path) -> None:
    first = load(bert)
    moved = Path(shutil.copytree(bert, tmp_path / "moved"))
    (moved / "README.md").write_text("a page about it")
    assert load(moved).revision == first.revision
    assert load(moved, max_tokens=16).revision != first.revision
    tokenizer = json.loads((moved / "tokenizer.json").read_text())
    tokenizer["normalizer"] = None
    (moved / "tokenizer.json").write_text(json.dumps(tokenizer))
    changed = load(moved).revision
    assert changed != first.revision
    assert load(make_model(tmp_path / "other", seed=1)).revision not in (first.revision, changed)


def test_an_adapted_model_is_another_revision(bert: Path, tmp_path: Path) -> None:
    first = load(bert)
    other = load(make_model(tmp_path, seed=1))
    adapted = first.with_model(other.model, "abc")
    assert adapted.revision == f"{first.revision}+abc"
    assert adapted.name != first.name
    np.testing.assert_array_equal(adapted.encode(TEXTS), other.encode(TEXTS))
    assert not (first.encode(TEXTS) == other.encode(TEXTS)).all()


def test_training_sees_the_model_as_it_was(bert: Path) -> None:
    encoder = load(bert)
    before = encoder.model.config._attn_implementation
    encoder.encode(TEXTS)
    assert encoder.model.config._attn_implementation == before
    vectors = encoder.forward(encoder.model, encoder.tokens(TEXTS[:2]))
    vectors.sum().backward()
    assert any(weight.grad is not None for weight in encoder.model.parameters())


def broken(folder: Path, name: str) -> Path:
    weights = load_file(folder / "model.safetensors")
    key = next(key for key in weights if key.endswith("query.weight"))
    if name == "nan":
        weights[key][0, 0] = torch.nan
    if name == "infinite":
        weights[key][0, 0] = torch.inf
    if name == "missing":
        del weights[key]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def no_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "notes.txt").write_text("nothing")
    return folder


def without(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).unlink()
    return folder


def cut(folder: Path) -> Path:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none", "there is no folder '.*none'; name the folder of an encoder"),
        (no_model, "cannot load .*name the folder of an encoder"),
        (lambda folder: without(make_model(folder), "model.safetensors"), "cannot load"),
        (lambda folder: without(make_model(folder), "tokenizer.json", "tokenizer_config.json"), "cannot load"),
        (lambda folder: cut(make_model(folder)), "cannot load"),
        (lambda folder: broken(make_model(folder), "nan"), "holds NaN in .*query.weight; train or fetch it again"),
        (lambda folder: broken(make_model(folder), "infinite"), "holds infinite numbers in .*query.weight"),
        (lambda folder: broken(make_model(folder), "missing"), "has no weights for .*query.weight"),
        (lambda folder: make_model(folder, "gpt2"), "writes text and is no encoder"),
        (lambda folder: make_model(folder, "t5"), "an encoder with a decoder"),
        (lambda folder: make_model(folder, pooling={"pooling_mode": "weightedmean"}), "pools by weightedmean, which"),
        (lambda folder: make_model(folder, pooling={"pooling_mode": ["cls", "max"]}), "pools by cls and max, which"),
    ],
)  # fmt: skip
def test_what_is_no_encoder_is_refused_in_one_line(tmp_path: Path, make: object, message: str) -> None:
    with pytest.raises(UserError, match=rf"^text\.encoder: .*{message}") as raised:
        load(make(tmp_path / "model"))  # type: ignore[operator]
    assert "\n" not in str(raised.value)


def test_a_name_that_the_hub_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"text\.encoder: 'nobody/nothing' is no folder, and no model of the hub"):
        Encoder.load(TextConfig(encoder="nobody/nothing"))
    with pytest.raises(UserError, match="package 'no_such_package' is not installed"):
        Encoder.load(TextConfig(encoder="packaged:no_such_package"))
