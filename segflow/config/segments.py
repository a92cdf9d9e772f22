"""Settings of the segments: clustering, its selection, the ledger, and profiles."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from segflow.config.base import Section


class SegmentConfig(Section):
    """Clustering, its selection, the ledger, and profiles."""

    algorithms: list[Literal["kmeans", "bisecting_kmeans", "ward"]] = Field(
        default=["kmeans"], min_length=1, description="clusterers to try"
    )
    k_min: int = Field(2, ge=2, le=100, description="fewest segments to try")
    k_max: int = Field(10, ge=2, le=100, description="most segments to try")
    min_share: float = Field(0.05, ge=0, le=0.5, description="smallest share of users that a segment may hold")
    starts: int = Field(10, ge=1, le=100, description="k-means starts of a candidate; the best is kept")
    bootstraps: int = Field(10, ge=2, le=1000, description="resamples behind the stability of a candidate")
    bootstrap_starts: int = Field(3, ge=1, le=100, description="k-means starts in one resample")
    stable: float = Field(0.75, ge=0, le=1, description="bootstrap Jaccard from which a segment counts as stable")
    unstable: float = Field(0.6, ge=0, le=1, description="bootstrap Jaccard below which no segment may lie")
    silhouette_tolerance: float = Field(0.05, ge=0, lt=1, description="loss of silhouette accepted for a smaller k")
    sample_users: int = Field(10_000, ge=100, description="most users that candidates are compared on")
    silhouette_users: int = Field(3_000, ge=100, le=20_000, description="most users that a silhouette is computed on")
    null_repeats: int = Field(5, ge=1, le=100, description="permuted copies behind the null silhouette")
    outlier_quantile: float = Field(0.99, gt=0.5, le=1, description="share of a cluster's users within its bound")
    survive_jaccard: float = Field(
        0.5, gt=0, le=1, description="member Jaccard from which a segment keeps its id; above 0.5 a majority match"
    )
    split_share: float = Field(0.25, gt=0, le=1, description="least part of a segment that counts when it splits")
    merge_share: float = Field(0.5, ge=0.5, le=1, description="part of a segment that must move for it to be absorbed")
    centroid_ratio: float = Field(
        0.25, ge=0, le=1, description="centre distance, over the spread of centres, that matches without shared users"
    )
    permutations: int = Field(999, ge=99, description="permutations behind the p-value of a static attribute")
    top: int = Field(10, ge=1, le=100, description="categories, items, transitions and exemplars kept in a profile")

    @model_validator(mode="after")
    def _ordered(self) -> SegmentConfig:
        if self.k_min > self.k_max:
            raise ValueError(f"k_min ({self.k_min}) must not exceed k_max ({self.k_max})")
        if self.unstable > self.stable:
            raise ValueError(f"unstable ({self.unstable}) must not exceed stable ({self.stable})")
        return self
