"""How users of a segment move from one state to the next: typical steps, and where sessions begin and end.

A state is an event type or, in a log of one type, a category (`sql/segments/steps.sql`). What does not live here: hidden
states (`hidden_states.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segflow.segments.terms import MIN_LIFT

Row = dict[str, Any]
# A graph with more nodes can be neither drawn nor read.
_STATES = 12


def transition_lifts(counts: pd.DataFrame, top: int, min_cell: int) -> list[Row]:
    """The steps that set each segment's journeys apart: `top` rows per segment, best first.

    `counts` has segment_id, from_state, to_state, steps and users. `probability` is that of the next state given the
    present one (a first-order Markov chain); the lift divides it by the same probability among all other users.
    Kept are steps with `min_cell` users on either side and a lift of 1.2, in the order of their part in the divergence
    of the two chains (share of the segment's steps * log lift): by lift alone the rarest steps would lead.
    """
    states = pd.Index(sorted(set(counts["from_state"]) | set(counts["to_state"])))
    origins = states.get_indexer(pd.Index(counts["from_state"]))
    targets = states.get_indexer(pd.Index(counts["to_state"]))
    rows_of, segments = pd.factorize(counts["segment_id"], sort=True)
    shape = (len(segments), len(states), len(states))
    steps, users = np.zeros(shape), np.zeros(shape)
    steps[rows_of, origins, targets] = counts["steps"]
    users[rows_of, origins, targets] = counts["users"]
    rows: list[Row] = []
    for i, segment in enumerate(segments):
        rest = steps.sum(axis=0) - steps[i]
        with np.errstate(divide="ignore", invalid="ignore"):
            probability = steps[i] / steps[i].sum(axis=1, keepdims=True)
            lift = probability / (rest / rest.sum(axis=1, keepdims=True))
        enough = np.minimum(users[i], users.sum(axis=0) - users[i]) >= min_cell
        origin, target = np.nonzero(enough & (lift >= MIN_LIFT))
        part = steps[i, origin, target] * np.log(lift[origin, target])
        best = np.argsort(-part, kind="stable")[:top]
        rows.extend(
            {
                "segment_id": segment,
                "from": states[origin[b]],
                "to": states[target[b]],
                "probability": float(probability[origin[b], target[b]]),
                "lift": float(lift[origin[b], target[b]]),
                "users": int(users[i, origin[b], target[b]]),
            }
            for b in best
        )
    return rows


def journey_graph(
    states: pd.DataFrame, transitions: pd.DataFrame, ends: pd.DataFrame, segment: str, min_cell: int
) -> Row:
    """The transition graph of one segment: at most twelve states, the most frequent first, and the steps among them.

    `states` has segment_id, state, moments and users; `transitions` as in `transition_lifts`; `ends` has side (entry,
    exit), segment_id, state, sessions and users. Returns `states`: state, share of the segment's moments, the same of
    the rest, share of its sessions that begin (entry) and end (exit) there, users; and `steps`: from, to, probability
    of `to` after `from`, users. A share is None, and a state or step is left out, where fewer than `min_cell` users
    stand behind it.
    """
    own = states[states["segment_id"] == segment].set_index("state")
    rest = states[states["segment_id"] != segment].groupby("state")[["moments", "users"]].sum()
    kept = own[own["users"] >= min_cell].reset_index().sort_values(["moments", "state"], ascending=[False, True])
    names = kept["state"].tolist()[:_STATES]
    entries, exits = (_ends(ends, segment, side, min_cell) for side in ("entry", "exit"))
    total, others = int(own["moments"].sum()), int(rest["moments"].sum())
    elsewhere = rest["moments"].where(rest["users"] >= min_cell).dropna()
    steps = transitions[transitions["segment_id"] == segment]
    leaving = steps.groupby("from_state")["steps"].sum()
    steps = steps[steps["from_state"].isin(names) & steps["to_state"].isin(names) & (steps["users"] >= min_cell)]
    return {
        "states": [
            {
                "state": name,
                "share": float(own.loc[name, "moments"] / total),
                "share_rest": float(elsewhere[name] / others) if name in elsewhere else None,
                "entry": entries.get(name),
                "exit": exits.get(name),
                "users": int(own.loc[name, "users"]),
            }
            for name in names
        ],
        "steps": [
            {
                "from": row["from_state"],
                "to": row["to_state"],
                "probability": float(row["steps"] / leaving[row["from_state"]]),
                "users": int(row["users"]),
            }
            for row in steps.sort_values(["from_state", "to_state"]).to_dict("records")
        ],
    }


def _ends(ends: pd.DataFrame, segment: str, side: str, min_cell: int) -> dict[str, float]:
    own = ends[(ends["segment_id"] == segment) & (ends["side"] == side)]
    shares: NDArray[np.float64] = (own["sessions"] / own["sessions"].sum()).to_numpy(np.float64)
    enough = (own["users"] >= min_cell).to_numpy()
    return {str(state): float(share) for state, share in zip(own["state"][enough], shares[enough], strict=True)}
