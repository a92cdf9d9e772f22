"""The page of a week's segments: complete in itself, every value escaped, and a sentence for every outcome."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from segflow.segments.page import SegmentPage, how_sure, write_page
from segflow_tests.segments import page_inputs as inputs


def _page(**other: Any) -> SegmentPage:
    vectors, segments = inputs.users()
    rows = {"profiles": inputs.profiles(), "ledger": inputs.ledger(), "sweep": inputs.sweep()}
    return write_page(
        **{"week": inputs.WEEK, **rows, "vectors": vectors, "segments": segments, "min_cell": 10, "seed": 0, **other}
    )


@pytest.fixture(scope="module")
def page() -> SegmentPage:
    return _page()


class _Tags(HTMLParser):
    void = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_loads_nothing(page: SegmentPage) -> None:
    tags = _Tags()
    tags.feed(page.html)
    assert tags.open == []
    assert not {"script", "img", "link", "iframe", "b"} & set(tags.seen)
    assert "://" not in page.html
    assert all(one.startswith("#") for one in tags.addresses)
    targets = set(re.findall(r' id="([^"]+)"', page.html))
    assert {one[1:] for one in tags.addresses} <= targets


def test_page_shows_every_segment_and_picture(page: SegmentPage) -> None:
    assert set(page.pictures) == {"map", "contrasts", "migration", "sizes", "selection"}
    assert page.html.count('<article class="card"') == 3
    assert "3 segments" in page.html
    assert page.html.count("They come more often.") == 3
    for text in ("Oat milk", "i2", "organic", "After produce comes dairy, 2.2 times as often as with others"):
        assert text in page.html
    assert "Visits most often begin with produce (60%)" in page.html
    assert "visits a week more than 0.77" in page.html
    assert "age group: 25-34" in page.html
    assert "split off from “Weekend, toys”" in page.html
    assert "“Weekend, toys” ended: split into others." in page.html
    assert "Known from before, +10 users" in page.html


def test_cards_come_largest_first(page: SegmentPage) -> None:
    cards = re.findall(r'<h3>.*?<span class="id">(s\d+)</span>', page.html)
    assert cards == ["s001", "s003", "s004"]


def test_pictures_can_be_shown_elsewhere(page: SegmentPage) -> None:
    stored = json.loads(page.pictures_json())
    assert {name: one["svg"] for name, one in stored.items()} == {name: one.svg for name, one in page.pictures.items()}


def test_same_rows_give_the_same_page(page: SegmentPage) -> None:
    assert _page() == page


def test_how_sure_is_said_in_words() -> None:
    sure = how_sure(inputs.sweep())
    assert sure.startswith("They are very dependable")
    assert "much further apart" in sure
    assert "soft" not in sure
    weak = [row | {"silhouette": 0.11, "stability_mean": 0.61, "stability_min": 0.3} for row in inputs.sweep()]
    assert "fairly dependable" in how_sure(weak)
    assert "hardly further apart" in how_sure(weak)
    assert "borders are soft" in how_sure(weak)
    assert "no gaps" not in how_sure(weak)
    divided = [row | {"verdict": "no segment structure"} for row in weak]
    assert how_sure(divided).startswith("These segments divide users who differ by degrees: there are no gaps")


@pytest.mark.parametrize(
    ("verdict", "said"),
    [("no segment structure", "do not fall into groups"), ("no stable segments", "other groups come out")],
)
def test_a_week_without_segments_has_a_page_that_says_so(verdict: str, said: str) -> None:
    earlier = [row for row in inputs.ledger() if row["week"] < inputs.WEEK]
    segments = ["unassigned"] * 220
    found = _page(ledger=earlier, profiles=[], sweep=inputs.sweep(verdict), segments=segments)
    assert verdict.capitalize() in found.html
    assert said in found.sentence
    assert said in found.html
    assert set(found.pictures) == {"selection"}
    assert "<article" not in found.html


def test_segments_without_a_profile_are_not_shown() -> None:
    found = _page(profiles=[])
    assert "Segments too small to be shown" in found.html
    assert not any(name in found.html for name in inputs.NAMES)
    assert set(found.pictures) == {"selection"}


def test_a_first_week_has_nothing_to_compare_with() -> None:
    week = inputs.WEEKS[0]
    vectors, _ = inputs.users()
    found = _page(
        week=week,
        ledger=[row for row in inputs.ledger() if row["week"] == week],
        profiles=[row for row in inputs.profiles() if row["week"] == week],
        segments=["s001"] * 110 + ["s002"] * 110,
        vectors=vectors,
    )
    assert "migration" not in found.pictures
    assert "no earlier snapshot" in found.html


def test_exact_numbers_do_not_stand_beside_noised_ones() -> None:
    found = _page(profiles=inputs.profiles(epsilon=1.0))
    assert "migration" not in found.pictures
    assert "Who moved is not shown" in found.html
    assert "+10 users" not in found.html
    assert "epsilon 1.0" in found.html
