"""Personas: for each segment its size and value, what sets it apart, its journeys, rules and exemplars.

What does not live here: the parts of a persona, each in a module of its own; here they are put together.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from segflow.config import ProfileConfig, View
from segflow.representation.users import UserFeatures
from segflow.segments.aggregates import Aggregates
from segflow.segments.baskets import basket_rules
from segflow.segments.contrasts import (
    adjust,
    attribute_associations,
    attribute_contrasts,
    category_affinity,
    feature_contrasts,
)
from segflow.segments.faithfulness import Embed, faithfulness, name_fits
from segflow.segments.hidden_states import hidden_states
from segflow.segments.journeys import journey_graph, transition_lifts
from segflow.segments.naming import names_for, strongest_categories, strongest_features
from segflow.segments.privacy import Key, hashed, noised, without_counts
from segflow.segments.rules import surrogate_rules
from segflow.segments.story import story
from segflow.segments.terms import distinctive_terms

Row = dict[str, Any]
Contrasts = dict[str, list[Row]]


@dataclass(frozen=True)
class Material:
    """What is known of the segmented users before the snapshot. All but events, members and features may be missing.

    events: user_id, item_id, event_type, ts, value, category; members: user_id, segment_id, distance (to the centre),
    one row per segmented user; features cover at least these users; sessions: user_id, session_id, start, end, items,
    whole sessions that ended before the snapshot; items: item_id, title, category (the widest), text; attributes:
    user_id, attribute, value; vectors: (U, D) float32, the clustered vector of `features.user_ids[u]`; seen: the kinds
    of facts that the clustering saw, out of "feature", "category" and "attribute".
    """

    events: pa.Table
    members: pd.DataFrame
    features: UserFeatures
    sessions: pa.Table | None = None
    items: pa.Table | None = None
    attributes: pd.DataFrame | None = None
    vectors: NDArray[np.floating] | None = None
    seen: Collection[str] = ("feature", "category")

    def aligned(self, min_cell: int) -> Material:
        """The same with members in order of id, features and vectors in their order, and without segments below `min_cell`.

        Raises ValueError when a user is listed twice, or has no features, or not as many vectors as features are there.
        """
        members = self.members.sort_values("user_id", ignore_index=True)
        if members["user_id"].duplicated().any():
            raise ValueError("profiles: a user belongs to two segments")
        large = members.groupby("segment_id")["user_id"].transform("size") >= min_cell
        members = members[large].reset_index(drop=True)
        places = pd.Index(self.features.user_ids).get_indexer(pd.Index(members["user_id"]))
        if (places < 0).any():
            raise ValueError(f"profiles: {int((places < 0).sum())} members have no features")
        if self.vectors is not None and len(self.vectors) != len(self.features.user_ids):
            raise ValueError("profiles: the users with vectors and those with features differ")
        features = UserFeatures(members["user_id"].tolist(), self.features.matrix[places], self.features.names)
        vectors = None if self.vectors is None else self.vectors[places]
        return Material(self.events, members, features, self.sessions, self.items, self.attributes, vectors, self.seen)


@dataclass(frozen=True)
class Profile:
    """The persona of one segment. `details` can be written as JSON as it is; its keys are described in `ProfileReport`."""

    segment_id: str
    users: int
    share_of_users: float
    value: float
    share_of_value: float  # 0 when the log carries no values
    summary: str
    details: Row


@dataclass(frozen=True)
class ProfileReport:
    """All personas of a snapshot, by segment id; none for segments with fewer than `min_cell` users.

    Keys of `details` of a profile. A figure that is undefined, or rests on too few users, is None; a table that the log
    does not allow for is empty. `users` are members behind a row, None where sizes are noised.

    - story: two to four sentences in plain words.
    - contrasts: what sets the segment apart from the rest, what was not clustered on first. Every row has segment_id,
      kind, clustered_on, low and high (95 % interval), p_value and q_value (both None where clustered_on), and
        kind "attribute": attribute, value, share_segment, share_rest, lift;
        kind "category": category, share_segment, share_rest (of value or events), lift;
        kind "feature": feature, shown_as, median_, mean_ and variance_segment and _rest (natural units),
        difference (Hedges' g), wasserstein (pooled standard deviations).
    - items: item_id, title, c_tf_idf, lift, users; words: word, c_tf_idf, lift, users (of the texts of items).
    - journeys: steps that are likelier than elsewhere: from, to, probability, lift, users.
    - graph: states (state, share, share_rest, entry, exit, users) and steps (from, to, probability, users).
    - hidden: hidden, share, share_rest, users, stays, emits (state, probability), bic; empty unless asked for.
    - baskets: antecedents, consequent, support, confidence, lift, confidence_rest, users.
    - rules: of the surrogate tree: rule, precision, coverage.
    - exemplars: hashes of the users nearest to the centre.
    The same in every profile of the snapshot:
    - associations: attribute, users, cramers_v, cramers_v_by_chance, p_value, q_value, eta_squared,
      eta_squared_by_chance, eta_p_value.
    - surrogate: fidelity, baseline, held_out_users, rules.
    - distances: segments and matrix (distances of centres, in units of the pooled within-segment spread).
    - privacy: min_cell, exemplars ("keyed" or "pseudonym"), epsilon, mechanism and counts (what is noised); the last
      three None without noise.
    `profile_rows` adds name_fit (rank, nearest, cosine) and, the same in every profile, naming (given and template: share,
    by_chance).
    """

    profiles: list[Profile]
    contrasts: Contrasts = field(default_factory=dict)


def kinds_seen(views: Collection[View], algorithm: str) -> set[str]:
    """The kinds of facts that a clustering by `algorithm` saw, if it clusters vectors that are fused of `views`."""
    rules = {"rfm": {"feature"}, "attribute": {"attribute"}, "category": {"category"}, "lda": {"category"}}
    if algorithm in rules:
        return rules[algorithm]
    # What users take is read off the texts and the sequence of items.
    kinds = {"engagement": "feature", "attributes": "attribute"}
    return {kinds.get(view, "category") for view in views}


def segment_contrasts(material: Material, config: ProfileConfig, seed: int) -> Contrasts:
    """Segment id -> its rows of `contrasts.py`, with q-values: one Benjamini-Hochberg correction over all segments.

    Raises ValueError when a user is listed twice, or has no features.
    """
    material = material.aligned(config.min_cell)
    with _open(material, config, seed) as counted:
        return _contrasts(material, counted, config)


def profile_segments(material: Material, config: ProfileConfig, seed: int, key: Key) -> ProfileReport:
    """Describe every segment against all other segmented users; without any segment there is nothing to describe.

    One Benjamini-Hochberg correction covers every test of every segment before anything is left out. `key` is what
    exemplars are hashed with (`privacy.py`). Raises ValueError when a user is listed twice, or has no features, and
    UserError when a library that the settings need is not installed.
    """
    material = material.aligned(config.min_cell)
    members = material.members
    if members.empty:
        return ProfileReport([])
    with _open(material, config, seed) as counted:
        contrasts = _contrasts(material, counted, config)
        tables = _tables(counted, contrasts, material, config, seed)
        values = members.merge(counted.count("user_values"), on="user_id", validate="1:1")
    surrogate = surrogate_rules(material.features, members["segment_id"].tolist(), seed, config.min_cell)
    shared = {
        "associations": _associations(material, config, seed),
        "surrogate": surrogate,
        "distances": _distances(material),
        "privacy": _privacy(config, key),
    }
    total = float(values["value"].sum())
    groups = [(segment, values[values["segment_id"] == segment]) for segment in contrasts]
    sizes = np.array([len(frame) for _, frame in groups])
    if config.epsilon is not None:
        sizes = noised(sizes, config.epsilon)
    profiles = []
    for (segment, frame), users in zip(groups, sizes.tolist(), strict=True):
        value, share = float(frame["value"].sum()), users / int(sizes.sum())
        share_of_value = value / total if total > 0 else 0.0
        own = contrasts[segment]
        closest = frame.sort_values(["distance", "user_id"])["user_id"].head(config.top)
        details = {
            "story": story(share, share_of_value, own),
            "contrasts": _kept(own, config.top),
            **{name: found[segment] for name, found in tables.items()},
            "rules": [row for row in surrogate["rules"] if row["segment_id"] == segment],
            "exemplars": [hashed(str(user), key) for user in closest],
            **shared,
        }
        shown = details if config.epsilon is None else without_counts(details)
        summary = _summary(share, share_of_value, own)
        profiles.append(Profile(segment, users, share, value, share_of_value, summary, shown))
    return ProfileReport(profiles, contrasts)


def profile_rows(report: ProfileReport, names: Mapping[str, str], embed: Embed) -> tuple[list[Row], Row]:
    """Rows of `segment_profiles` but for the week, with the names and how well each fits; and `naming` of them all.

    `names` has a name for each profile; `embed` is the text encoder that judges them (`faithfulness.py`), beside those that
    the template would give now.
    """
    ids = [one.segment_id for one in report.profiles]
    if not ids:
        return [], {}
    fits = name_fits({one: names[one] for one in ids}, report.contrasts, embed)
    template = name_fits(names_for(ids, report.contrasts, []), report.contrasts, embed)
    naming = {"given": faithfulness(fits), "template": faithfulness(template)}
    rows = [
        {
            "segment_id": one.segment_id,
            "name": names[one.segment_id],
            "users": one.users,
            "share_of_users": one.share_of_users,
            "value": one.value,
            "share_of_value": one.share_of_value,
            "summary": one.summary,
            "details": json.dumps({**one.details, "name_fit": fits[one.segment_id], "naming": naming}),
        }
        for one in report.profiles
    ]
    return rows, naming


def _open(material: Material, config: ProfileConfig, seed: int) -> Any:
    return Aggregates.over(material.events, material.members, material.sessions, material.items, config, seed)


def _contrasts(material: Material, counted: Aggregates, config: ProfileConfig) -> Contrasts:
    members, least = material.members, config.min_cell
    segments = members["segment_id"].tolist()
    rows = feature_contrasts(material.features, segments, "feature" in material.seen, least)
    rows += category_affinity(counted.count("user_categories"), members, "category" in material.seen, least)
    if material.attributes is not None:
        rows += attribute_contrasts(material.attributes, members, "attribute" in material.seen, least)
    return _by_segment(adjust(rows), sorted(set(segments)))


def _tables(
    counted: Aggregates, contrasts: Contrasts, material: Material, config: ProfileConfig, seed: int
) -> dict[str, dict[str, Any]]:
    """Name of a table of details -> segment -> its rows (or its graph)."""
    least, top, segments = config.min_cell, config.top, sorted(contrasts)
    counted.keep("steps", "sampled_sessions")
    transitions = counted.count("transitions")
    states, ends = counted.count("states"), counted.count("session_ends")
    items = distinctive_terms(counted.count("segment_items"), "item_id", top, least)
    words = counted.count("segment_words")
    words = words[~words["word"].isin(ENGLISH_STOP_WORDS)]
    hidden: list[Row] = []
    if config.hidden_states is not None:
        hidden = hidden_states(counted.count("hidden_steps"), config.hidden_states, seed, least)
    return {
        "items": _by_segment(_titled(items, material.items), segments),
        "words": _by_segment(distinctive_terms(words, "word", top, least), segments),
        "journeys": _by_segment(transition_lifts(transitions, top, least), segments),
        "graph": {one: journey_graph(states, transitions, ends, one, least) for one in segments},
        "hidden": _by_segment(hidden, segments),
        "baskets": _by_segment(basket_rules(counted.baskets(), config.basket_support, top, least), segments),
    }


def _by_segment(rows: Sequence[Row], segments: Sequence[str]) -> Contrasts:
    return {segment: [row for row in rows if row["segment_id"] == segment] for segment in segments}


def _titled(rows: Sequence[Row], items: pa.Table | None) -> list[Row]:
    titles = {} if items is None else dict(zip(items["item_id"].to_pylist(), items["title"].to_pylist(), strict=True))
    return [row | {"title": titles.get(row["item_id"])} for row in rows]


def _associations(material: Material, config: ProfileConfig, seed: int) -> list[Row]:
    if material.attributes is None:
        return []
    found = attribute_associations(material.attributes, material.members, config.permutations, seed, config.min_cell)
    return adjust(found)


def _distances(material: Material) -> Row:
    """Distances of the segments' centres, over the root of the mean squared distance of users to their own centre."""
    segments = sorted(set(material.members["segment_id"]))
    if material.vectors is None:
        return {"segments": segments, "matrix": None}
    labels = np.searchsorted(segments, material.members["segment_id"].to_numpy(str))
    points = np.asarray(material.vectors, np.float64)
    centres = np.stack([points[labels == number].mean(axis=0) for number in range(len(segments))])
    within = ((points - centres[labels]) ** 2).sum()
    spread = np.sqrt(within / max(len(points) - len(segments), 1))
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    return {"segments": segments, "matrix": (apart / spread).tolist() if spread > 0 else None}


def _privacy(config: ProfileConfig, key: Key) -> Row:
    noise = config.epsilon is not None
    return {
        "min_cell": config.min_cell,
        "exemplars": key.kind,
        "epsilon": config.epsilon,
        "mechanism": "discrete Laplace (OpenDP), scale 1 / epsilon" if noise else None,
        "counts": ["users", "share_of_users"] if noise else None,
    }


def _kept(contrasts: Sequence[Row], top: int) -> list[Row]:
    """Attributes and features whole; of the categories those that diverge most from the rest, either way."""
    categories = [row for row in contrasts if row["kind"] == "category" and row["lift"]]
    categories.sort(key=lambda row: (-abs(row["share_segment"] * np.log(row["lift"])), row["category"]))
    attributes, features = ([r for r in contrasts if r["kind"] == kind] for kind in ("attribute", "feature"))
    return sorted(attributes + categories[:top] + features, key=lambda row: row["clustered_on"])


def _summary(share_of_users: float, share_of_value: float, contrasts: Sequence[Row]) -> str:
    facts = [f"{share_of_users:.0%} of users" + (f", {share_of_value:.0%} of value" if share_of_value else "")]
    for row in strongest_features(contrasts)[:2]:
        shown = row["shown_as"].replace("_", " ")
        facts.append(f"{shown} {row['median_segment']:.3g} (others {row['median_rest']:.3g})")
    favourites = [f"{row['category']} (x{row['lift']:.2g})" for row in strongest_categories(contrasts)[:2]]
    if favourites:
        facts.append("favours " + " and ".join(favourites))
    return "; ".join(facts)
