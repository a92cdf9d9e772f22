"""Hidden Markov states: moods that journeys move through, learned from all segmented users, and each segment's part in them.

What does not live here: the observed states (`journeys.py`).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segflow.errors import UserError

Row = dict[str, Any]

_MOST = 6
_STARTS = 10
_FIRST_ITERATIONS = 10
_ITERATIONS = 50
_TOLD = 5


def hidden_states(steps: pd.DataFrame, states: int | Literal["auto"], seed: int, min_cell: int) -> list[Row]:
    """What each hidden state emits, and how much of its time each segment spends there; a row per segment and state.

    `steps` has segment_id, user_id and state, in order of user and time. One categorical hidden Markov model (Rabiner
    1989, by hmmlearn; the best of ten short starts) is learned from all users, so that segments can be compared; "auto"
    takes the number from 2 to 6 with the smallest BIC. A row has `hidden` (from 1, by falling share of all time),
    `share` of the segment's moments in it (most likely path), `share_rest`, `users` who were in it, `stays` (chance
    that the next moment is in it too), `emits` (its most likely states with their chances) and `bic`. Left out are
    states and rows with fewer than `min_cell` users, and all rows when fewer than two states remain.
    Raises UserError when hmmlearn is not installed.
    """
    common = steps.groupby("state")["user_id"].nunique() >= min_cell
    steps = steps[steps["state"].map(common)]
    codes, names = pd.factorize(steps["state"], sort=True)
    if len(names) < 2:
        return []
    lengths = steps.groupby("user_id", sort=False).size().to_numpy()
    counts = range(2, _MOST + 1) if states == "auto" else [states]
    fitted = [_fit(codes, lengths, number, len(names), seed) for number in counts]
    bic, model = min(fitted, key=lambda one: one[0])
    path = model.predict(codes[:, None], lengths)
    rows: list[Row] = []
    order = np.argsort(-np.bincount(path, minlength=model.n_components), kind="stable")
    for number, state in enumerate(order, start=1):
        there = steps.assign(there=path == state).groupby("segment_id", sort=True)["there"]
        users = steps[path == state].groupby("segment_id")["user_id"].nunique()
        moments, total = there.sum(), there.count()
        for segment in moments.index:
            own, others = int(users.get(segment, 0)), int(users.drop(segment, errors="ignore").sum())
            if own < min_cell:
                continue
            elsewhere = (moments.sum() - moments[segment]) / max(total.sum() - total[segment], 1)
            rows.append(
                {
                    "segment_id": segment,
                    "hidden": number,
                    "share": float(moments[segment] / total[segment]),
                    "share_rest": float(elsewhere) if others >= min_cell else None,
                    "users": own,
                    "stays": float(model.transmat_[state, state]),
                    "emits": _emissions(model.emissionprob_[state], names),
                    "bic": bic,
                }
            )
    return sorted(rows, key=lambda row: (row["segment_id"], row["hidden"]))


def _fit(
    codes: NDArray[np.integer], lengths: NDArray[np.integer], number: int, emitted: int, seed: int
) -> tuple[float, Any]:
    """The BIC and the model of `number` states: of random starts that look good early, one is followed to its end."""
    try:
        from hmmlearn.hmm import CategoricalHMM
    except ImportError as error:
        raise UserError(
            "segments.profiles.hidden_states needs hmmlearn; run `pip install segflow[journeys]`"
        ) from error
    X = codes[:, None]
    tried = []
    for start in range(_STARTS):
        model = CategoricalHMM(
            number, n_features=emitted, n_iter=_FIRST_ITERATIONS, random_state=seed + start, implementation="scaling"
        )
        tried.append((float(model.fit(X, lengths).score(X, lengths)), -start, model))
    best = max(tried)[-1]
    best.n_iter, best.init_params = _ITERATIONS, ""
    best.fit(X, lengths)
    return float(best.bic(X, lengths)), best


def _emissions(chances: NDArray[np.float64], names: pd.Index) -> list[Row]:
    likely = np.argsort(-chances, kind="stable")[:_TOLD]
    return [{"state": names[one], "probability": float(chances[one])} for one in likely]
