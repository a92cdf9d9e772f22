"""Adaptation of the text encoder: it learns what belongs together, from the past only, or says that there was nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from segflow.config import AdaptationConfig, TextConfig
from segflow.errors import UserError
from segflow.representation.adaptation import Adapter, adapt, attention_layers
from segflow.representation.cooccurrence import baskets_of, pairs_of
from segflow.representation.encoder import Encoder
from segflow_tests.compute.engines import sent

GROUPS, BRANDS = 6, 6
NOUNS = [f"noun{number:02}" for number in range(GROUPS * BRANDS)]
START = datetime(2024, 1, 1, tzinfo=UTC)
CONFIG = AdaptationConfig(
    method="contrastive", steps=60, check_every=20, batch_tokens=256, learning_rate=0.02, rank=4, validation_days=10
)

IDS = [f"i{number:02}" for number in range(GROUPS * BRANDS)]
# Every brand has one item in each group, so texts look alike by brand while sessions go by group.
TEXTS = [f"brand{number % BRANDS} {NOUNS[number]}" for number in range(GROUPS * BRANDS)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A tiny BERT with random weights, saved and loaded as any encoder on disk."""
    return _tiny_bert(tmp_path_factory.mktemp("bert"), seed=0)


def _tiny_bert(folder: Path, seed: int) -> Encoder:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"brand{n}" for n in range(BRANDS)), *NOUNS]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(seed)
    model = BertModel(
        BertConfig(
            vocab_size=len(words), hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96
        )
    )
    model.save_pretrained(folder)
    BertTokenizerFast(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder)
    return Encoder.load(TextConfig(encoder=str(folder)))


def _sessions(seed: int, related: bool = True, days: int = 40, a_day: int = 10) -> pa.Table:
    """Sessions of three items of one group, or of any three."""
    rng = np.random.default_rng(seed)
    starts, items = [], []
    for day in range(days):
        for number in range(a_day):
            pool = rng.integers(GROUPS) * BRANDS + np.arange(BRANDS) if related else np.arange(len(IDS))
            starts.append(START + timedelta(days=day, hours=8, minutes=number))
            items.append([IDS[item] for item in rng.choice(pool, 3, replace=False)])
    return pa.table({"start": pa.array(starts, pa.timestamp("us", "UTC")), "items": items})


@pytest.fixture(scope="module")
def adapter(encoder: Encoder) -> Adapter:
    return adapt(encoder, _sessions(0), IDS, TEXTS, CONFIG, seed=0)


def _neighbours_of_own_group(encoder: Encoder) -> float:
    """Share of each item's five nearest that are of its own group; chance is 1 / 7."""
    vectors = encoder.encode(TEXTS)
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -1)
    near = np.argsort(-likeness, axis=1)[:, : BRANDS - 1]
    return float((near // BRANDS == np.arange(len(IDS))[:, None] // BRANDS).mean())


def test_learns_what_is_bought_together_where_the_text_misleads(encoder: Encoder, adapter: Adapter) -> None:
    assert adapter.figures["valid_mrr"] > 1.5 * adapter.figures["valid_mrr_before"]
    before, after = _neighbours_of_own_group(encoder), _neighbours_of_own_group(adapter.apply(encoder))
    assert before < 0.3
    assert after > 0.7


def test_the_same_sessions_and_seed_give_the_same_adapter(encoder: Encoder, adapter: Adapter) -> None:
    assert adapt(encoder, _sessions(0), IDS, TEXTS, CONFIG, seed=0).to_bytes() == adapter.to_bytes()
    assert adapt(encoder, _sessions(0), IDS, TEXTS, CONFIG, seed=1).digest != adapter.digest


def test_training_leaves_the_encoder_and_the_random_numbers_alone(encoder: Encoder) -> None:
    before, state = encoder.encode(TEXTS), torch.random.get_rng_state()
    adapt(encoder, _sessions(0), IDS, TEXTS, CONFIG.model_copy(update={"steps": 2}), seed=0)
    assert np.array_equal(encoder.encode(TEXTS), before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_bytes_come_back_as_the_same_adapter(encoder: Encoder, adapter: Adapter) -> None:
    again = Adapter.from_bytes(adapter.to_bytes())
    assert again.config == adapter.config
    assert again.figures == adapter.figures
    assert again.digest == adapter.digest
    assert np.array_equal(again.apply(encoder).encode(TEXTS), adapter.apply(encoder).encode(TEXTS))
    assert len(adapter.to_bytes()) < sum(weight.nbytes for weight in encoder.model.parameters()) / 4


def test_an_adapted_encoder_has_its_own_name(encoder: Encoder, adapter: Adapter) -> None:
    adapted = adapter.apply(encoder)
    assert adapted.name != encoder.name
    assert adapter.digest in adapted.name


def test_an_adapted_encoder_is_made_again_in_another_process(encoder: Encoder, adapter: Adapter) -> None:
    adapted = adapter.apply(encoder)
    again = sent(adapted)
    assert again is not adapted
    assert again.name == adapted.name
    np.testing.assert_array_equal(again.encode(["tea", "red wine"]), adapted.encode(["tea", "red wine"]))


def test_an_adapter_is_refused_by_another_encoder(adapter: Adapter, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text\.adaptation: .* changes the encoder"):
        adapter.apply(_tiny_bert(tmp_path, seed=1))


@pytest.mark.parametrize("part", [0, 5, 300, -1])
def test_cut_bytes_are_refused(adapter: Adapter, part: int) -> None:
    with pytest.raises(UserError, match="no whole adapter"):
        Adapter.from_bytes(adapter.to_bytes()[:part])


def test_bytes_of_something_else_are_refused() -> None:
    from safetensors.torch import save

    with pytest.raises(UserError, match="no whole adapter"):
        Adapter.from_bytes(save({"weight": torch.zeros(2)}))


def test_nan_is_refused(adapter: Adapter) -> None:
    name = next(iter(adapter.tensors))
    broken = Adapter(adapter.base, adapter.config, {**adapter.tensors, name: adapter.tensors[name] * torch.nan}, {})
    with pytest.raises(UserError, match=f"NaN in '{name}'"):
        Adapter.from_bytes(broken.to_bytes())


def test_random_sessions_leave_the_encoder_as_it_is(encoder: Encoder) -> None:
    adapter = adapt(encoder, _sessions(0, related=False, a_day=60), IDS, TEXTS, CONFIG, seed=0)
    assert not adapter.tensors
    assert "not found better in" in adapter.reason
    assert adapter.figures["valid_mrr"] == adapter.figures["valid_mrr_before"]
    again = Adapter.from_bytes(adapter.to_bytes())
    assert again.apply(encoder) is encoder


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (pa.table({"start": pa.array([], pa.timestamp("us", "UTC")), "items": pa.array([], pa.list_(pa.string()))}),
         "no related items in the sessions before"),
        (_sessions(0, days=5), "no related items in the sessions before"),
        (_sessions(0, a_day=2), "pairs of related items in the last 10 days, 30 are needed"),
        (pa.table({"start": pa.array([START + timedelta(days=d) for d in range(30)], pa.timestamp("us", "UTC")),
                   "items": [["i00"]] * 30}), "no related items in the sessions before"),
    ],
    ids=["no sessions", "held-out days only", "few held-out pairs", "one item each"],
)  # fmt: skip
def test_nothing_to_learn_from_says_so(encoder: Encoder, rows: pa.Table, reason: str) -> None:
    adapter = adapt(encoder, rows, IDS, TEXTS, CONFIG, seed=0)
    assert not adapter.tensors
    assert reason in adapter.reason


def test_method_none_trains_nothing(encoder: Encoder) -> None:
    adapter = adapt(encoder, _sessions(0), IDS, TEXTS, AdaptationConfig(), seed=0)
    assert adapter.apply(encoder) is encoder
    assert "none" in adapter.reason


def test_no_held_out_pair_is_trained_on(encoder: Encoder) -> None:
    """Other sessions in the held-out days change when training stops, and nothing of what is learned until then."""
    config = CONFIG.model_copy(update={"steps": 4, "check_every": 2})
    curves = []
    for seed in (0, 1):
        early, late = _sessions(0, days=30), _sessions(5 + seed, days=40).slice(300)
        seen: list[dict[str, float]] = []
        adapt(
            encoder, pa.concat_tables([early, late]), IDS, TEXTS, config, 0, log=lambda _, one, to=seen: to.append(one)
        )
        curves.append(seen)
    assert [one["train_loss"] for one in curves[0][1:]] == [one["train_loss"] for one in curves[1][1:]]
    assert curves[0][0]["valid_mrr"] != curves[1][0]["valid_mrr"]


def test_masked_words_are_learned(encoder: Encoder) -> None:
    config = CONFIG.model_copy(update={"method": "masked", "patience": 10, "masked_share": 0.5})
    seen: list[dict[str, float]] = []
    adapt(encoder, _sessions(0), IDS, TEXTS, config, seed=0, log=lambda _, one: seen.append(one))
    assert seen[-1]["train_loss"] < seen[1]["train_loss"]


def test_a_loss_that_is_no_number_stops_the_training(encoder: Encoder) -> None:
    config = CONFIG.model_copy(update={"temperature": 1e-45})
    with pytest.raises(UserError, match=r"text\.adaptation\.learning_rate: .* at step 1"):
        adapt(encoder, _sessions(0), IDS, TEXTS, config, seed=0)


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(UserError, match="no attention layers"):
        attention_layers(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_attention_layers_are_found_by_kind_in_other_families() -> None:
    from transformers import AutoConfig, AutoModel

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    settings = {
        "roberta": small,
        "mpnet": small,
        "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 16},
        "deberta-v2": small,
        "modernbert": small,
        "xlm-roberta": small,
    }
    for kind, sizes in settings.items():
        model = AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=32, pad_token_id=0, **sizes))
        layers = attention_layers(model)
        assert len(layers) == (2 if kind == "modernbert" else 4), kind


def test_pairs_are_texts_together_more_often_than_chance() -> None:
    """Bread is in every session and says nothing; the pair of tea and cup is in a fifth of them."""
    items = [["bread", "tea", "cup"]] * 20 + [["bread", f"x{n % 8}"] for n in range(80)]
    ids = ["bread", "tea", "cup", *(f"x{n}" for n in range(8)), "unused"]
    baskets = baskets_of(pa.array(items), ids, np.arange(len(ids)), len(ids))
    assert baskets.sum() == 60 + 160
    pairs = pairs_of(baskets)
    assert (1, 2) in set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
    assert (0, 1) not in set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
    assert np.array_equal(pairs.linked_among(np.array([2, 0, 1])), pairs.linked_among(np.array([2, 0, 1])).T)


def test_items_of_one_text_are_no_pair_and_unknown_items_are_left_out() -> None:
    baskets = baskets_of(pa.array([["a", "b", "gone", "none"], None, []]), ["a", "b", "none"], np.array([0, 0, -1]), 1)
    assert baskets.toarray().tolist() == [[1], [0], [0]]
    assert len(pairs_of(baskets)) == 0
