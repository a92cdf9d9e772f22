"""The page of a week's segments, for people who know no statistics: what there is, who they are, what changed.

What lives here: what the page is told, from the rows of the tables. What does not: the sentences about one segment
(`story.py`), the drawings (`pictures.py`, `migration.py`), and the markup (`segments.html.jinja`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from segflow.pages import environment
from segflow.segments.drawing import Picture, colours
from segflow.segments.migration import migration_flow, names_before, names_of
from segflow.segments.naming import readable
from segflow.segments.pictures import contrast_map, segment_map, selection_curve, sizes_over_weeks
from segflow.segments.selection import NO_STRUCTURE, UNSTABLE
from segflow.segments.story import more_of

Row = dict[str, Any]

_SURE = 0.05
_SHOWN = 5


@dataclass(frozen=True)
class Card:
    """One segment. `known` are (what, text) about attributes; texts are sentences or parts of one."""

    segment_id: str
    name: str
    colour: str
    users: int
    share_of_users: float
    share_of_value: float
    story: str
    journeys: Sequence[str]
    rules: Sequence[str]
    items: Sequence[str]
    words: Sequence[str]
    baskets: Sequence[str]
    known: Sequence[tuple[str, str]]
    news: str
    contrasts: Sequence[Row]


@dataclass(frozen=True)
class SegmentPage:
    """A finished page: the HTML, its pictures by name, and the sentence that says how sure the segments are."""

    html: str
    pictures: dict[str, Picture]
    sentence: str

    def pictures_json(self) -> str:
        """Name -> title, caption and svg, for other pages to show."""
        return json.dumps(
            {one.name: {"title": one.title, "caption": one.caption, "svg": one.svg} for one in self.pictures.values()}
        )


def write_page(
    *,
    week: date,
    profiles: Sequence[Row],
    ledger: Sequence[Row],
    sweep: Sequence[Row],
    vectors: npt.NDArray[np.floating],
    segments: Sequence[str],
    min_cell: int,
    seed: int,
) -> SegmentPage:
    """Draw the pictures and render the page.

    profiles, ledger: rows of the tables of this and earlier weeks; sweep: of `segmentation`, of this week; vectors:
    (U, D) of the users with enough history, with the segment of each; min_cell: users below which nothing is shown.
    A week without segments has a page that says so.
    """
    latest = [row for row in ledger if row["week"] == week]
    described = {row["segment_id"]: row for row in profiles if row["week"] == week}
    names = {one: name for one, name in names_of(ledger, week).items() if one in described}
    details = {one: json.loads(described[one]["details"]) for one in sorted(names)}
    earlier = max((row["week"] for row in ledger if row["week"] < week), default=None)
    before = names_before(ledger, week)
    shared: Row = next(iter(details.values()), {})
    # Exact counts must not stand beside noised ones.
    exact = not names or shared["privacy"]["epsilon"] is None
    contrasts = {one: found["contrasts"] for one, found in details.items()}
    drawn = [
        segment_map(vectors, segments, names, seed) if names else None,
        contrast_map(contrasts, names, more_of),
        migration_flow(ledger, week, min_cell) if names and exact else None,
        sizes_over_weeks([row for row in profiles if row["segment_id"] in names], names) if names else None,
        selection_curve(sweep),
    ]
    pictures = {one.name: one for one in drawn if one is not None}
    news = {row["segment_id"]: _news(row, before, exact) for row in latest if row["cluster"] is not None}
    sentence = how_sure(sweep)
    html = (
        environment("segflow.segments")
        .get_template("segments.html.jinja")
        .render(
            week=week.isoformat(),
            earlier=earlier and earlier.isoformat(),
            sentence=sentence,
            answer=_answer(len(names), sweep),
            tiles=_tiles(list(described.values()), sweep, latest, bool(earlier)),
            cards=_cards(described, names, details, news),
            ended=[(row["name"], _ENDED[row["event"]]) for row in latest if row["cluster"] is None],
            pictures=pictures,
            exact=exact,
            shared=shared,
            names=names,
        )
    )
    return SegmentPage(html, pictures, sentence)


def how_sure(sweep: Sequence[Row]) -> str:
    """How far the segments can be trusted, in plain words, from the rows of `segmentation` of one week."""
    chosen = next((row for row in sweep if row["chosen"]), None)
    if chosen is None:
        return _why_none(sweep)
    mean, least = chosen["stability_mean"], chosen["stability_min"]
    word = next(word for level, word in _TRUST if mean >= level)
    parts = []
    if chosen["verdict"] == NO_STRUCTURE:
        parts.append(
            "These segments divide users who differ by degrees: there are no gaps between them, and the settings ask for a "
            "division all the same."
        )
    parts += [
        f"They are {word}: when users are drawn again and the search is repeated, {mean:.0%} of a segment comes back on "
        f"average, and {least:.0%} of the one that is least sure."
    ]
    if (null := chosen["null_silhouette"]) is not None:
        parts.append(
            f"They lie {_clearly(chosen['silhouette'], null)} apart than groups in data that were shuffled so that "
            f"nothing is there to find ({chosen['silhouette']:.3f} against {null:.3f}; 1 would be islands)."
        )
    if chosen["silhouette"] < _SOFT:
        parts.append("Their borders are soft: many users lie between two segments.")
    return " ".join(parts)


def _why_none(sweep: Sequence[Row]) -> str:
    if sweep[0]["verdict"] == UNSTABLE:
        return (
            "Groups can be drawn, but when users are drawn again, other groups come out: at best "
            f"{max(row['stability_mean'] for row in sweep):.0%} of a group comes back. None is worth acting on."
        )
    compared = [row for row in sweep if row["separation"] is not None]
    sentence = (
        "The users do not fall into groups: a division can be drawn, but no better one than in data without any groups"
    )
    if not compared:
        return f"{sentence}."
    best = max(compared, key=lambda row: row["separation"])
    return (
        f"{sentence} (how far apart: {best['silhouette']:.3f} against {best['null_silhouette']:.3f}; users who lie between "
        f"two groups: {best['border']:.0%} against {best['null_border']:.0%})."
    )


_TRUST = ((0.85, "very dependable"), (0.75, "dependable"), (0.6, "fairly dependable"), (0.0, "not dependable"))
# Below it no substantial structure is claimed (Kaufman and Rousseeuw, Finding Groups in Data, 1990, table 4).
_SOFT = 0.25


def _clearly(found: float, null: float) -> str:
    return "much further" if found > 2 * null else "further" if found > 1.2 * null else "hardly further"


def _answer(count: int, sweep: Sequence[Row]) -> str:
    if count:
        return f"{count} segment{'s' if count > 1 else ''}"
    if any(row["chosen"] for row in sweep):
        return "Segments too small to be shown"
    return str(sweep[0]["verdict"]).capitalize()


def _tiles(
    described: Sequence[Row], sweep: Sequence[Row], latest: Sequence[Row], earlier: bool
) -> list[tuple[str, str, str]]:
    """Heading, figure and note of each tile under the answer."""
    chosen = next((row for row in sweep if row["chosen"]), None)
    if chosen is None or not described:
        return []
    largest = max(described, key=lambda row: (row["users"], row["segment_id"]))
    events = [row["event"] for row in latest]
    living = [row for row in latest if row["cluster"] is not None]
    new, gone = sum(row["event"] != "survive" for row in living), len(latest) - len(living)
    tiles = [
        ("Users in a segment", f"{sum(row['users'] for row in described):,}", "all others are treated alike"),
        ("Largest", f"{largest['share_of_users']:.0%}", largest["name"]),
        ("Come back when drawn again", f"{chosen['stability_mean']:.0%}", "of a segment, on average"),
    ]
    if earlier:
        kept = events.count("survive")
        tiles.append(("Since the snapshot before", f"{kept} kept", f"{new} new, {gone} ended"))
    return tiles


def _cards(
    described: Mapping[str, Row], names: Mapping[str, str], details: Mapping[str, Row], news: Mapping[str, str]
) -> list[Card]:
    """The segments, the largest first."""
    paint = colours(names)
    order = sorted(names, key=lambda one: (-described[one]["users"], one))
    return [_card(described[one], names[one], paint[one], details[one], news[one]) for one in order]


def _card(row: Row, name: str, colour: str, details: Row, news: str) -> Card:
    graph, known = details["graph"], [one for one in details["contrasts"] if _is_known(one)]
    known.sort(key=lambda one: (-abs(one["share_segment"] - one["share_rest"]), one["attribute"], one["value"]))
    return Card(
        segment_id=row["segment_id"],
        name=name,
        colour=colour,
        users=row["users"],
        share_of_users=row["share_of_users"],
        share_of_value=row["share_of_value"],
        story=details["story"],
        journeys=[*_entries(graph), *(_step(one) for one in details["journeys"][:3])],
        rules=[_rule(one) for one in details["rules"][:2]],
        items=[one["title"] or one["item_id"] for one in details["items"][:_SHOWN]],
        words=[one["word"] for one in details["words"][: 2 * _SHOWN]],
        baskets=[_basket(one) for one in details["baskets"][:3]],
        known=[
            (
                f"{readable(one['attribute'])}: {one['value']}",
                f"{one['share_segment']:.0%}, others {one['share_rest']:.0%}",
            )
            for one in known[:4]
        ],
        news=news,
        contrasts=details["contrasts"],
    )


def _is_known(row: Row) -> bool:
    return row["kind"] == "attribute" and row["q_value"] is not None and row["q_value"] < _SURE


def _entries(graph: Row) -> list[str]:
    """Where visits begin and end most often."""
    found = []
    for column, verb in (("entry", "begin"), ("exit", "end")):
        shares = [(row[column], row["state"]) for row in graph["states"] if row[column]]
        if shares:
            share, state = max(shares)
            found.append(f"Visits most often {verb} with {readable(state)} ({share:.0%})")
    return found


def _step(row: Row) -> str:
    start, end = readable(row["from"]), readable(row["to"])
    ending = f"more {end}" if start == end else end
    return f"After {start} comes {ending}, {row['lift']:.1f} times as often as with others"


# The features that rules speak of, in the words of people who are not analysts.
_PLAIN = {
    "sessions_per_week_long": "visits a week",
    "sessions_per_week_recent": "visits a week lately",
    "events_per_session": "steps a visit",
    "minutes_per_session": "minutes a visit",
    "value_per_session": "money a visit",
    "value_total": "money in all",
    "gap_days_mean": "days between visits",
    "recency_days": "days since the last visit",
    "tenure_days": "days since the first visit",
    "share_repeated_items": "share of repeats",
    "share_night": "share of visits at night",
    "share_morning": "share of visits in the morning",
    "share_afternoon": "share of visits in the afternoon",
    "share_evening": "share of visits in the evening",
    "share_weekend": "share of visits at the weekend",
}


def _rule(row: Row) -> str:
    words = re.sub(r"\w+_\w+", lambda name: _PLAIN.get(name.group(), name.group().replace("_", " ")), row["rule"])
    words = words.replace(" <= ", " at most ").replace(" > ", " more than ")
    if row["precision"] is None:
        return words
    found = f"true of {row['coverage']:.0%} of them" if row["coverage"] is not None else "seldom true of them"
    return f"{words} ({found}; {row['precision']:.0%} of those for whom it holds belong here)"


def _basket(row: Row) -> str:
    with_what = " and ".join(readable(one) for one in row["antecedents"])
    others = f", others {row['confidence_rest']:.0%}" if row["confidence_rest"] is not None else ""
    return f"With {with_what} comes {readable(row['consequent'])} ({row['confidence']:.0%}{others})"


_ENDED = {
    "split": "split into others",
    "merge": "absorbed by another",
    "vanish": "its users are in no segment any more",
}


def _news(row: Row, before: Mapping[str, str], exact: bool) -> str:
    """What happened to a living segment since the snapshot before."""
    parents = [f"“{before.get(one, one)}”" for one in row["parents"] if one != row["segment_id"]]
    if row["event"] == "emerge":
        return "New." if before else ""
    if row["event"] in ("split", "merge"):
        return f"New: {'split off from' if row['event'] == 'split' else 'merged from'} {' and '.join(parents)}."
    change = row["users"] - row["previous_users"]
    size = "" if not exact else f", {change:+,} users".replace("-", "−") if change else ", the same number of users"
    named = f"; it was called “{row['former_name']}”" if row["former_name"] else ""
    return f"Known from before{size}{named}."
