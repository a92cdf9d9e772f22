"""Names by template and by a language model, and what an encoder makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segflow.errors import UserError
from segflow.segments.faithfulness import faithfulness, name_fits
from segflow.segments.language_names import LanguageNamer
from segflow.segments.naming import name, names_for
from segflow.segments.story import facts
from segflow_tests.representation.models import make_model


def feature(name: str, difference: float) -> dict:
    return {
        "kind": "feature",
        "feature": name,
        "difference": difference,
        "low": difference - 0.1,
        "high": difference + 0.1,
    }


def category(name: str, lift: float, share: float = 0.2) -> dict:
    return {"kind": "category", "category": name, "lift": lift, "low": lift * 0.9, "share_segment": share}


FACTS = [
    feature("log_sessions_per_week_long", 0.9),
    feature("log_gap_days_mean", -1.2),
    feature("log_value_total", 0.8),
    feature("share_weekend", 0.1),
    category("MEAT", 2.0),
    category("MEAT_PACKAGED", 1.9),
    category("FRESH", 3.0),
    category("FUEL", 0.5),
]


def words(texts) -> np.ndarray:
    """A stand-in for an encoder: texts as bags of words, of unit length."""
    split = [text.lower().replace(",", " ").replace(";", " ").split() for text in texts]
    known = sorted({word for one in split for word in one})
    vectors = np.array([[one.count(word) for word in known] for one in split], np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def test_name_takes_the_strongest_contrasts_once_each():
    assert name(FACTS, []) == "Frequent high-value, fresh & meat"
    assert name([feature("price_level", -0.5)], []) == "Budget"
    assert name([category("TOYS", 2.0)], []) == "Toys"
    assert name([feature("share_evening", 0.5), feature("share_night", 0.9)], []) == "Night"
    assert name([], []) == "Typical"


@settings(max_examples=60)
@given(st.integers(2, 6))
def test_names_are_unique_and_do_not_depend_on_order(count):
    contrasts = {f"s{number:03d}": FACTS for number in range(1, count + 1)}
    named = names_for(list(contrasts), contrasts, ["FREQUENT high-value, fresh & meat", "Typical"])
    assert len({one.casefold() for one in [*named.values(), "frequent high-value, fresh & meat"]}) == count + 1
    backwards = dict(reversed(contrasts.items()))
    assert named == names_for(list(backwards), backwards, ["Frequent high-value, fresh & meat", "Typical"])
    assert name([], ["Typical", "typical 2"]) == "Typical 3"


CONTRASTS = {"s001": [category("TOYS", 2.0)], "s002": [category("FRESH", 3.0)], "s003": []}


def test_a_name_belongs_to_the_nearest_profile():
    fits = name_fits({"s001": "Toys", "s002": "Like toys", "s003": "Like everybody"}, CONTRASTS, words)
    assert [fit["rank"] for fit in fits.values()] == [1, 2, 1]
    assert fits["s002"]["nearest"] == "s001"
    assert faithfulness(fits) == {"share": pytest.approx(2 / 3), "by_chance": pytest.approx(1 / 3)}
    # A name that fits all of them alike belongs to none.
    assert name_fits({"s001": "nothing"}, CONTRASTS, words)["s001"]["rank"] == 3
    assert faithfulness({}) == {"share": None, "by_chance": None}


def test_a_proposal_is_used_where_it_is_free_and_the_template_elsewhere():
    proposals = {"s001": "Toy lovers", "s002": "toy lovers", "s003": None}
    named = names_for(list(CONTRASTS), CONTRASTS, ["Typical"], lambda segment, contrasts: proposals[segment])
    assert named == {"s001": "Toy lovers", "s002": "Fresh", "s003": "Typical 2"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("gpt2"), "gpt2", seed=2)  # others write nothing but special tokens


def test_a_random_model_is_loaded_heard_and_not_believed(tiny: Path):
    namer = LanguageNamer.load(str(tiny), words)
    proposed = namer.proposal(facts(FACTS))
    assert proposed == LanguageNamer.load(str(tiny), words).proposal(facts(FACTS))
    assert proposed
    assert namer("s001", CONTRASTS) is None
    assert names_for(list(CONTRASTS), CONTRASTS, [], namer) == names_for(list(CONTRASTS), CONTRASTS, [])


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("Toys", "Toys"),
        ("fresh", None),  # nearer to another profile
        ("", None),
        ("toys \u200b toys\x07", None),
        ("toys " * 20, None),
    ],
)
def test_only_a_short_printable_fitting_name_passes(tiny: Path, monkeypatch, written, used):
    monkeypatch.setattr(LanguageNamer, "proposal", lambda self, told: written)
    assert LanguageNamer.load(str(tiny), words)("s001", CONTRASTS) == used


def test_what_is_no_language_model_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"segments\.profiles\.namer: cannot load"):
        LanguageNamer.load(str(tmp_path / "nowhere"), words)
    encoder = make_model(tmp_path / "t5", "t5")
    with pytest.raises(UserError, match=r"segments\.profiles\.namer: cannot load"):
        LanguageNamer.load(str(encoder), words)
