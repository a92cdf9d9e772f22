"""Pictures: the same input gives the same bytes, names are text, and what is drawn is what the tables say."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segflow.segments.drawing import INK, PAPER, Picture, colours, spread, wrapped
from segflow.segments.migration import Flows, migration_flow
from segflow.segments.pictures import contrast_map, segment_map, selection_curve, sizes_over_weeks
from segflow.segments.story import more_of
from segflow_tests.segments import page_inputs as inputs

SVG = "{http://www.w3.org/2000/svg}"


def _all() -> list[Picture]:
    vectors, segments = inputs.users()
    contrasts = {row["segment_id"]: json.loads(row["details"])["contrasts"] for row in inputs.profiles()}
    found = [
        segment_map(vectors, segments, inputs.NAMES, 0),
        sizes_over_weeks(inputs.profiles(), inputs.NAMES),
        migration_flow(inputs.ledger(), inputs.WEEK, 10),
        contrast_map(contrasts, inputs.NAMES, more_of),
        selection_curve(inputs.sweep()),
    ]
    assert all(found)
    return [one for one in found if one is not None]


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return _all()


def _texts(picture: Picture) -> str:
    return " ".join(" ".join(ElementTree.fromstring(picture.standalone()).itertext()).split())


def test_same_input_gives_same_bytes(pictures: list[Picture]) -> None:
    assert _all() == pictures


def test_they_are_well_formed_small_and_described(pictures: list[Picture]) -> None:
    for one in pictures:
        root = ElementTree.fromstring(one.standalone())
        assert root.get("aria-label") == one.caption
        assert root.get("role") == "img"
        assert len(one.svg) < 150_000
        assert len(one.caption) > 60


def test_ink_is_the_pages_and_a_file_of_its_own_is_dark_on_white(pictures: list[Picture]) -> None:
    for one in pictures:
        assert INK not in one.svg
        assert PAPER not in one.svg
        assert "currentColor" in one.svg
        alone = one.standalone()
        assert "currentColor" not in alone
        assert "var(" not in alone
        assert "background: #fff" in alone
        root = ElementTree.fromstring(alone)
        assert f"0 0 {root.get('width')} {root.get('height')}" == root.get("viewBox")


def test_several_fit_in_one_page(pictures: list[Picture]) -> None:
    ids = [found for one in pictures for found in set(re.findall(r' id="([^"]+)"', one.svg))]
    assert len(ids) == len(set(ids))
    assert not any("<style" in one.svg or "<!--" in one.svg for one in pictures)


def test_names_are_text_and_nothing_else(pictures: list[Picture]) -> None:
    by_name = {one.name: one for one in pictures}
    for name in ("map", "migration", "sizes"):
        shown = _texts(by_name[name])
        assert "<b>high-value</b>" in shown.replace(" ", "")
        assert "$5to$9" in shown.replace(" ", "")
        assert "日本" in shown
        assert "\u202e" not in by_name[name].svg
        assert "<b>" not in by_name[name].svg


def _dots(picture: Picture) -> int:
    paths = list(ElementTree.fromstring(picture.standalone()).iter(f"{SVG}path"))
    return sum((one.get("d") or "").count("M") for one in paths if "stroke-linecap: round" in (one.get("style") or ""))


def test_map_draws_every_user_but_not_more_than_two_thousand(pictures: list[Picture]) -> None:
    assert _dots(pictures[0]) == 220
    vectors, segments = inputs.users()
    many = segment_map(np.tile(vectors, (12, 1)), segments * 12, inputs.NAMES, 0)
    assert _dots(many) == 2000
    assert "2,000 of 2,640" in many.caption


def test_map_of_users_who_do_not_differ_and_of_one_dimension() -> None:
    same = segment_map(np.ones((30, 4), np.float32), ["s001"] * 30, {"s001": "All"}, 0)
    assert "0% of all differences" in same.caption
    line = segment_map(np.arange(30, dtype=np.float32)[:, None], ["s001"] * 30, {"s001": "All"}, 0)
    assert "100% of all differences" in line.caption


def test_who_left_and_who_came_is_counted() -> None:
    flows = Flows.of([row for row in inputs.ledger() if row["week"] == inputs.WEEK])
    assert flows.side(0) == {"s001": 100, "s002": 100, "new": 31}
    assert flows.side(1) == {"s001": 110, "s003": 60, "s004": 30, "left": 31}
    assert flows.users["s001", "left"] == 20
    assert flows.users["s002", "left"] == 11


def test_migration_tells_what_happened_and_leaves_out_few_users(pictures: list[Picture]) -> None:
    flow = next(one for one in pictures if one.name == "migration")
    assert f"“{inputs.FORMER}” ended (it split)" in flow.caption
    assert "47% are in the same one" in flow.caption  # 80 of the 169 who are in a segment at both times
    assert "fewer than 10 users are not drawn" in flow.caption
    fewer = migration_flow(inputs.ledger(), inputs.WEEK, 2)
    assert fewer is not None
    assert "not drawn" not in fewer.caption
    assert fewer.svg.count("opacity: 0.42") == 8
    assert flow.svg.count("opacity: 0.42") == 6
    shown = _texts(flow)
    assert "100 users" in shown
    assert shown.count("(new, by a split)") == 2
    assert "(new)" not in shown


def test_without_a_snapshot_before_there_is_nothing_to_draw() -> None:
    assert migration_flow(inputs.ledger(), inputs.WEEKS[0], 10) is None


def test_contrasts_show_the_figures(pictures: list[Picture]) -> None:
    shown = _texts(next(one for one in pictures if one.name == "contrasts"))
    assert shown.count("+1.3") == shown.count("× 2.0") == shown.count("−0.9") == 3
    assert "come more often" in shown
    assert "unheard of" in shown
    assert "Never" not in shown
    assert contrast_map({}, inputs.NAMES, more_of) is None


def test_selection_says_what_was_chosen() -> None:
    assert "marks the choice: 3." in selection_curve(inputs.sweep()).caption
    none = selection_curve([row | {"null_silhouette": None} for row in inputs.sweep("no segment structure")])
    assert "No number was chosen." in none.caption
    assert "shuffled" not in none.caption


def test_one_week_is_enough_for_sizes() -> None:
    only = [row | {"share_of_value": 0.0} for row in inputs.profiles() if row["week"] == inputs.WEEK]
    one = sizes_over_weeks(only, inputs.NAMES)
    assert "in the week of 2026-01-19" in one.caption
    assert "money" not in one.caption


def test_a_segment_keeps_its_colour() -> None:
    assert colours(["s001", "s003"])["s003"] == colours(["s003", "s009"])["s003"]
    many = colours(f"s{number:03d}" for number in range(1, 13))
    assert len(set(many.values())) == 12
    clash = colours(["s001", "s013"])
    assert clash["s001"] != clash["s013"]


@given(
    st.lists(st.tuples(st.floats(-50, 150), st.floats(1, 30)), min_size=1, max_size=12),
    st.floats(0, 40),
)
def test_labels_do_not_overlap_and_keep_their_order(labels: list[tuple[float, float]], low: float) -> None:
    wanted, sizes = [one for one, _ in labels], [size for _, size in labels]
    high = low + 100
    placed = spread(wanted, sizes, low, high)
    order = sorted(range(len(labels)), key=lambda i: (wanted[i], i))
    for below, above in pairwise(order):
        assert placed[above] - placed[below] >= (sizes[above] + sizes[below]) / 2 - 1e-6
    assert min(p - s / 2 for p, s in zip(placed, sizes, strict=True)) >= low - 1e-6
    if sum(sizes) <= 100:
        assert max(p + s / 2 for p, s in zip(placed, sizes, strict=True)) <= high + 1e-6


@given(st.text(), st.integers(5, 40), st.integers(1, 4))
def test_wrapped_text_is_bounded_and_printable(text: str, width: int, lines: int) -> None:
    found = wrapped(text, width, lines).split("\n")
    assert len(found) <= lines
    assert all(len(line) <= max(width, 1) for line in found)
    assert not any(ord(letter) < 32 for line in found for letter in line)
