"""The few directions in which users differ most: clusters are looked for there, and not in the rest, which is mostly noise.

What does not live here: the vectors themselves (`segflow.representation`) and the clusterers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from segflow.segments.population import Points

# Users projected at once: double precision of all of them would be several times the vectors themselves.
_CHUNK = 65_536


@dataclass(frozen=True)
class Projection:
    """Principal axes: x becomes (x - mean) @ axes.T. Axes are orthonormal, so distances within their span are kept."""

    mean: NDArray[np.float64]  # (D,)
    axes: NDArray[np.float64]  # (d, D)

    @classmethod
    def fit(cls, points: Points, dims: int) -> Projection:
        """The first principal axes (scikit-learn's PCA) of points (U, D): min(dims, D, U - 1) of them.

        Columns are not standardized: the fusion has given each view its weight, and its small components theirs.
        """
        width = max(1, min(dims, points.shape[1], len(points) - 1))
        fitted = PCA(width, svd_solver="covariance_eigh").fit(points.astype(np.float64))
        return cls(fitted.mean_, fitted.components_)

    def apply(self, points: Points) -> Points:
        """Points (U, D) along the axes: (U, d) float32.

        Computed in double precision: how many rows are multiplied together then does not change the result.
        """
        projected = np.empty((len(points), len(self.axes)), np.float32)
        for start in range(0, len(points), _CHUNK):
            chunk = points[start : start + _CHUNK].astype(np.float64)
            projected[start : start + len(chunk)] = (chunk - self.mean) @ self.axes.T
        return projected

    def lift(self, projected: Points) -> NDArray[np.float64]:
        """Where projected points (k, d) lie in the whole space: (k, D). Which of them is nearest to a user is the same."""
        return self.mean + projected.astype(np.float64) @ self.axes

    def to_tensors(self) -> dict[str, NDArray[np.float64]]:
        """Everything needed to rebuild the projection."""
        return {"mean": self.mean, "axes": np.ascontiguousarray(self.axes)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Projection:
        """The projection written by `to_tensors`."""
        return cls(tensors["mean"], tensors["axes"])
