"""Business rules against a small catalogue: what they hide and add, and every mistake by its key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segflow.config import RecommendationConfig
from segflow.errors import UserError
from segflow.rankers.rules import Catalogue, Rules, digest_of_file, rules_of
from segflow.settings import load

CATALOGUE = Catalogue(
    {"a": "Apples", "b": "Bread", "c": "Cider", "d": "Dates"},
    {"a": ["food", "fruit"], "b": ["food", "bakery"], "c": ["drinks"], "d": ["food", "fruit"]},
)
CANDIDATES = ("a", "b", "c")


def _rules(**settings: object) -> Rules:
    return rules_of(RecommendationConfig.model_validate(settings), CATALOGUE, CANDIDATES)


def test_nothing_is_said_by_default() -> None:
    assert _rules().added.tolist() == [0, 0, 0]


def test_factors_multiply_and_exclusion_wins() -> None:
    rules = _rules(
        boost={"items": {"a": 2, "b": 0.5}, "categories": {"food": 3, "fruit": 4, "drinks": 5}},
        exclude={"categories": ["bakery"], "items": ["d"]},
    )
    np.testing.assert_allclose(rules.added, np.log([24, 0, 5], where=[True, False, True], out=np.full(3, -np.inf)))


def test_a_file_of_ids(tmp_path: Path) -> None:
    file = tmp_path / "out of stock.txt"
    file.write_text("c\n\n  gone \nd\n", encoding="utf-8")
    rules = _rules(exclude={"file": str(file)})
    assert rules.added.tolist() == [0, 0, -np.inf]
    assert rules.unknown == 1
    before = digest_of_file(str(file))
    file.write_text("a\n", encoding="utf-8")
    assert digest_of_file(str(file)) != before
    assert digest_of_file(None) == "none"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exclude": {"items": ["x"]}}, "recommendations.exclude.items: 'x' is not in the catalogue"),
        ({"exclude": {"categories": ["fruits"]}}, "recommendations.exclude.categories: 'fruits'.*'fruit'"),
        ({"boost": {"items": {"x": 2}}}, "recommendations.boost.items: 'x'"),
        ({"boost": {"categories": {"a": 2}}}, "recommendations.boost.categories: 'a'"),
        ({"exclude": {"categories": ["food", "drinks"]}}, "recommendations.exclude: no item is left"),
    ],
)
def test_mistakes_name_their_key(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _rules(**settings)


def test_the_file_lies_beside_the_settings(tmp_path: Path) -> None:
    settings = tmp_path / "segflow.yaml"
    settings.write_text(
        "source: {events: {path: e.csv, columns: {user_id: u, item_id: i, event_type: t, ts: s}}}\n"
        "calendar: {start: 2024-01-01, end: 2024-03-01}\n"
        "recommendations: {exclude: {file: gone.txt}}\n",
        encoding="utf-8",
    )
    assert load(settings).recommendations.exclude.file == str(tmp_path / "gone.txt")


def test_mistakes_of_the_file_name_it(tmp_path: Path) -> None:
    file = tmp_path / "stock.txt"
    with pytest.raises(UserError, match=r"exclude.file: .*stock.txt: No such file"):
        _rules(exclude={"file": str(file)})
    file.write_text("id;stock\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"none of the 1 ids in .*stock.txt is an item"):
        _rules(exclude={"file": str(file)})
    file.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UserError, match="not UTF-8"):
        _rules(exclude={"file": str(file)})
