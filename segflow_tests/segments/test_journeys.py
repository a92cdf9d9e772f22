"""Transitions and graphs of journeys by hand, and hidden states that were planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from segflow.segments.hidden_states import hidden_states
from segflow.segments.journeys import journey_graph, transition_lifts

STEPS = pd.DataFrame(
    [
        ("s001", "view", "buy", 60, 30),
        ("s001", "view", "view", 40, 30),
        ("s002", "view", "buy", 20, 20),
        ("s002", "view", "view", 80, 40),
        ("s002", "buy", "view", 5, 2),
    ],
    columns=["segment_id", "from_state", "to_state", "steps", "users"],
)


def test_transition_probabilities_by_hand():
    first, second = transition_lifts(STEPS, 5, 10)
    assert (first["segment_id"], first["from"], first["to"]) == ("s001", "view", "buy")
    assert first["probability"] == pytest.approx(0.6)
    assert first["lift"] == pytest.approx(3)
    assert (second["segment_id"], second["to"], second["lift"]) == ("s002", "view", pytest.approx(2))


def test_graph_by_hand():
    columns = ["segment_id", "state", "moments", "users"]
    states = pd.DataFrame(
        [("s001", "view", 70, 30), ("s001", "buy", 30, 25), ("s002", "view", 60, 40), ("s002", "buy", 40, 5)],
        columns=columns,
    )
    ends = pd.DataFrame(
        [
            ("entry", "s001", "view", 45, 30),
            ("entry", "s001", "buy", 5, 3),
            ("exit", "s001", "view", 20, 20),
            ("exit", "s001", "buy", 30, 25),
            ("entry", "s002", "view", 50, 40),
        ],
        columns=["side", "segment_id", "state", "sessions", "users"],
    )
    found = journey_graph(states, STEPS, ends, "s001", 10)
    assert found["states"] == [
        {"state": "view", "share": 0.7, "share_rest": 0.6, "entry": 0.9, "exit": 0.4, "users": 30},
        # Five users of the rest, three who began there: too few to be told.
        {"state": "buy", "share": 0.3, "share_rest": None, "entry": None, "exit": 0.6, "users": 25},
    ]
    assert [(row["from"], row["to"], row["probability"]) for row in found["steps"]] == [
        ("view", "buy", 0.6),
        ("view", "view", 0.4),
    ]
    other = journey_graph(states, STEPS, ends, "s002", 10)
    assert [row["state"] for row in other["states"]] == ["view"]
    assert [(row["from"], row["to"]) for row in other["steps"]] == [("view", "view")]


def moods(users: int = 60, moments: int = 40) -> pd.DataFrame:
    """Users of s001 are mostly in a mood for tea and cake, those of s002 in one for nails and paint."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        home = user % 2
        mood = home
        for _ in range(moments):
            if rng.random() < 0.1:
                mood = home if rng.random() < 0.8 else 1 - home
            words = (("tea", "cake"), ("nails", "paint"))[mood]
            rows.append((f"s00{home + 1}", f"u{user:03d}", words[int(rng.random() < 0.4)]))
    return pd.DataFrame(rows, columns=["segment_id", "user_id", "state"])


def test_planted_moods_are_found_by_bic_and_told_apart():
    found = hidden_states(moods(), "auto", 0, 10)
    assert {row["hidden"] for row in found} == {1, 2}
    for segment, words in (("s001", {"tea", "cake"}), ("s002", {"nails", "paint"})):
        main = max((row for row in found if row["segment_id"] == segment), key=lambda row: row["share"])
        assert {one["state"] for one in main["emits"][:2]} == words
        assert main["share"] > 0.7 > 0.3 > main["share_rest"]
        assert main["stays"] > 0.85
    assert found == hidden_states(moods(), "auto", 0, 10)


def test_hidden_states_keep_small_cells_back():
    steps = moods()
    rare = pd.DataFrame({"segment_id": "s001", "user_id": "u000", "state": ["secret"] * 5})
    found = hidden_states(pd.concat([steps, rare]), 2, 0, 10)
    assert "secret" not in str(found)
    assert hidden_states(steps.assign(state="tea"), 2, 0, 10) == []
    assert hidden_states(steps, 2, 0, 61) == []
