"""Small heads on frozen vectors: every user is foretold by heads that were fitted without that user.

Lives here: logistic and ridge heads and their regularization. Does not live here: what is foretold, and how well (`probe`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.linear_model import RidgeCV

FloatArray = npt.NDArray[np.float64]

# Per training user and standardized column, from so strong that nothing is learned to nearly free.
_PENALTIES = (1.0, 0.1, 0.03, 0.01, 0.003, 0.001)
_STEPS = 25
_TOLERANCE = 1e-4


def foretell(
    vectors: npt.NDArray[np.floating], targets: FloatArray, folds: npt.NDArray[np.int64], *, logistic: bool
) -> FloatArray:
    """(n, T) out-of-fold predictions of (n, T) targets from (n, d) vectors, as ranks within each fold in (0, 1).

    folds: (n,) the part each user lies in. Targets of logistic heads are 0 and 1. Ranks, because heads of different
    folds differ in level, which would blur an order of all users. Columns are standardized by all users, which tells
    nothing of the targets.
    """
    exact = vectors.astype(np.float64)
    spread = exact.std(axis=0)
    varies = spread > 1e-6 * np.maximum(np.abs(exact).max(axis=0, initial=0.0), 1e-6)
    x = (exact[:, varies] - exact[:, varies].mean(axis=0)) / spread[varies]
    x = np.hstack([x, np.ones((len(x), 1))])
    told = np.zeros_like(targets, np.float64)
    for fold in np.unique(folds):
        held = folds == fold
        for column in range(targets.shape[1]):
            fit = _logistic if logistic else _ridge
            raw = x[held] @ fit(x[~held], targets[~held, column])
            told[held, column] = (rankdata(raw) - 0.5) / held.sum()
    return told


def _ridge(x: FloatArray, y: FloatArray) -> FloatArray:
    """Coefficients; the penalty by leave-one-out in closed form."""
    head = RidgeCV(alphas=[one * len(x) for one in _PENALTIES]).fit(x[:, :-1], y)
    return np.append(head.coef_, head.intercept_)


def _logistic(x: FloatArray, y: FloatArray) -> FloatArray:
    """Coefficients of the best penalty, from strong to weak until the leave-one-out loss rises.

    Leaving a user out is one Newton step from the fit of all (Rad and Maleki, 2020). The last column is the intercept,
    which is not penalized.
    """
    share = np.clip(y.mean(), 1e-3, 1 - 1e-3)
    beta = np.append(np.zeros(x.shape[1] - 1), np.log(share / (1 - share)))
    best, best_loss = beta, np.inf
    for penalty in _PENALTIES:
        beta, loss = _newton(x, y, beta, penalty * len(x))
        if loss > best_loss:
            break
        best, best_loss = beta, loss
    return best


def _newton(x: FloatArray, y: FloatArray, beta: FloatArray, penalty: float) -> tuple[FloatArray, float]:
    """The penalized fit, starting at `beta`, and its approximate leave-one-out log loss."""
    ridge = np.append(np.full(x.shape[1] - 1, penalty), 1e-6)
    for _ in range(_STEPS):
        p = expit(x @ beta)
        weight = np.maximum(p * (1 - p), 1e-6)
        hessian = (x * weight[:, None]).T @ x
        hessian[np.diag_indices_from(hessian)] += ridge
        step = np.linalg.solve(hessian, x.T @ (y - p) - ridge * beta)
        beta = beta + step
        if np.abs(step).max() < _TOLERANCE:
            break
    leverage = ((x @ np.linalg.inv(hessian)) * x).sum(axis=1)
    left_out = x @ beta + leverage * (p - y) / np.maximum(1 - weight * leverage, 1e-3)
    return beta, float(np.logaddexp(0.0, np.where(y > 0.5, -left_out, left_out)).mean())
