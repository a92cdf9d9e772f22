"""Rules a person can read that imitate the clustering: a shallow decision tree over named features.

What does not live here: the clustering. The tree explains it and assigns nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier

from segflow.representation.users import UserFeatures, natural_units

_DEPTH = 3
_HELD_OUT = 0.3


def surrogate_rules(features: UserFeatures, segments: Sequence[str], seed: int, min_cell: int) -> dict[str, Any]:
    """Fit the tree on 70 % of the users and report, on the other 30 %, how well its rules imitate the segments.

    Returns `fidelity` (accuracy on the held-out users), `baseline` (accuracy of always naming the largest segment),
    `held_out_users`, and `rules`: per leaf the segment, its conditions in natural units, `precision` (share of the
    held-out users in the leaf that are of the segment) and `coverage` (share of the segment's held-out users in the
    leaf). A leaf has at least `min_cell` users to learn from; a figure is None where fewer than that are held out.
    With one segment, or too few users for two leaves, there is nothing to explain: no rules. A global surrogate as in
    Craven and Shavlik, NIPS 1996.
    """
    labels = np.asarray(segments)
    if len(set(segments)) < 2 or round(_HELD_OUT * len(labels)) < min_cell:
        return {"fidelity": None, "baseline": None, "held_out_users": 0, "rules": []}
    order = np.random.default_rng(seed).permutation(len(labels))
    held_out, fitted = np.split(order, [round(_HELD_OUT * len(labels))])
    smallest_leaf = max(min_cell, round(0.01 * len(fitted)))
    tree = DecisionTreeClassifier(max_depth=_DEPTH, min_samples_leaf=smallest_leaf, random_state=seed)
    tree.fit(features.matrix[fitted], labels[fitted])
    truth, leaves = labels[held_out], tree.apply(features.matrix[held_out])
    values, counts = np.unique(labels[fitted], return_counts=True)
    rules = []
    for leaf, conditions in _leaves(tree, features.names):
        segment = str(tree.classes_[tree.tree_.value[leaf, 0].argmax()])
        hits = int((truth[leaves == leaf] == segment).sum())
        inside, total = int((leaves == leaf).sum()), int((truth == segment).sum())
        rules.append(
            {
                "segment_id": segment,
                "rule": " and ".join(conditions) or "everybody",
                "precision": hits / inside if inside >= min_cell else None,
                "coverage": hits / total if total >= min_cell else None,
            }
        )
    return {
        "fidelity": float((tree.predict(features.matrix[held_out]) == truth).mean()),
        "baseline": float((truth == values[counts.argmax()]).mean()),
        "held_out_users": len(held_out),
        "rules": rules,
    }


def _leaves(tree: DecisionTreeClassifier, names: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Every leaf with its path as readable conditions, left to right; one bound per feature and side."""
    structure = tree.tree_
    found: list[tuple[int, list[str]]] = []
    # Bounds: (feature, is upper) -> threshold. Deeper bounds on a feature are tighter, so the last one wins.
    stack: list[tuple[int, dict[tuple[int, bool], float]]] = [(0, {})]
    while stack:
        node, bounds = stack.pop()
        feature = int(structure.feature[node])
        if structure.children_left[node] == structure.children_right[node]:
            conditions = [_condition(names[f], "<=" if upper else ">", t) for (f, upper), t in bounds.items()]
            found.append((node, conditions))
            continue
        threshold = float(structure.threshold[node])
        stack.append((int(structure.children_right[node]), bounds | {(feature, False): threshold}))
        stack.append((int(structure.children_left[node]), bounds | {(feature, True): threshold}))
    return found


def _condition(name: str, sign: str, threshold: float) -> str:
    limit: NDArray[np.floating]
    shown, limit = natural_units(name, np.array([threshold]))
    return f"{shown} {sign} {limit[0]:.3g}"
