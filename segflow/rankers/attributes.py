"""Which segment a user is likely to be in, by static attributes alone.

Lives here: the classifier, and whether it is worth having. Does not live here: what is shown to such users
(`cold_start.py`), and placing users who have events (`segments`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Attributes = Mapping[str, str]

_FOLDS = 5
_RIDGE = 10.0  # inverse of sklearn's C: attributes say little, so weights are kept small
_FEWEST = 2 * _FOLDS  # users of a segment, or with a value, below which it is not learned
_SURE = 1.96


@dataclass(frozen=True)
class AttributeModel:
    """Multinomial logistic regression over one-hot attributes.

    Attributes:
        names: F "attribute=value" that were learned.
        weights: (F, S), bias: (S,); a segment with too few users has a bias of -inf.
        gain: mean log probability of held-out users' segments above that of the class prior, in nats; error: its standard
            error.
    """

    names: tuple[str, ...]
    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    gain: float
    error: float

    @property
    def better_than_prior(self) -> bool:
        """Whether the 95 % interval of the gain on held-out users lies above zero."""
        return self.gain > _SURE * self.error

    def probabilities(self, attributes: Sequence[Attributes]) -> npt.NDArray[np.float32]:
        """(B, S) membership probabilities; zero for users of whom no learned value is known."""
        hot = _one_hot(attributes, self.names)
        logits = hot @ self.weights + self.bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        known = hot.any(axis=1, keepdims=True)
        return np.where(known, odds / odds.sum(axis=1, keepdims=True), 0).astype(np.float32)


def fit_attribute_model(
    attributes: Mapping[str, Attributes], segment_of: Mapping[str, int], segments: int, seed: int
) -> AttributeModel | None:
    """The classifier with its gain on held-out users; none if fewer than two segments have enough users with attributes.

    Args:
        attributes: user -> attribute -> value.
        segment_of: user -> segment number below ``segments``, of users with events.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    # Users by their ids, so that the folds do not depend on the order of the rows.
    users = sorted(user for user in attributes if attributes[user] and user in segment_of)
    labels = np.array([segment_of[user] for user in users], int)
    enough = np.flatnonzero(np.bincount(labels, minlength=segments) >= _FEWEST)
    users = [user for user, label in zip(users, labels, strict=True) if label in enough]
    labels = labels[np.isin(labels, enough)]
    names = _common([attributes[user] for user in users])
    if len(enough) < 2 or not names:
        return None
    hot = _one_hot([attributes[user] for user in users], names)
    learner = LogisticRegression(C=1 / _RIDGE, max_iter=1000)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    column = np.searchsorted(enough, labels)
    rows = np.arange(len(users))
    learned, prior = (
        np.log(cross_val_predict(one, hot, labels, cv=folds, method="predict_proba")[rows, column])
        for one in (learner, DummyClassifier(strategy="prior"))
    )
    learner.fit(hot, labels)
    weights, bias = _per_segment(learner.coef_, learner.intercept_, enough, segments)
    gain = learned - prior
    return AttributeModel(names, weights, bias, float(gain.mean()), float(gain.std(ddof=1) / len(gain) ** 0.5))


def _per_segment(
    coefficients: npt.NDArray[np.float64], intercept: npt.NDArray[np.float64], learned: npt.NDArray[np.intp], count: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(F, S) weights and (S,) biases; for two classes sklearn keeps only what speaks for the second."""
    if len(learned) == 2:
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercept = np.concatenate([[0.0], intercept])
    weights, bias = np.zeros((coefficients.shape[1], count)), np.full(count, -np.inf)
    weights[:, learned], bias[learned] = coefficients.T, intercept
    return weights, bias


def _common(attributes: Sequence[Attributes]) -> tuple[str, ...]:
    """The "attribute=value" that enough users share, in alphabetical order."""
    held = [f"{name}={value}" for one in attributes for name, value in one.items()]
    found, users = np.unique(np.array(held, str), return_counts=True)
    return tuple(found[users >= _FEWEST].tolist())


def _one_hot(attributes: Sequence[Attributes], names: Sequence[str]) -> npt.NDArray[np.float64]:
    place = {name: column for column, name in enumerate(names)}
    hot = np.zeros((len(attributes), len(names)))
    for row, one in enumerate(attributes):
        hot[row, [place[held] for name, value in one.items() if (held := f"{name}={value}") in place]] = 1
    return hot
