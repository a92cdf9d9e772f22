"""Settings of the segments: clustering, its selection, the ledger, and profiles."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from segflow.config.base import Section


class ProfileConfig(Section):
    """What is told of a segment, and how little may stand behind it."""

    top: int = Field(
        10, ge=1, le=100, description="categories, items, words, steps, rules and exemplars kept in a profile"
    )
    min_cell: int = Field(10, ge=2, description="users below which a figure is not published")
    permutations: int = Field(999, ge=99, description="permutations behind the p-value of a static attribute")
    sessions: int = Field(
        20_000,
        ge=100,
        description="sessions of a segment that rules, entries and exits are counted in; a sample of more",
    )
    basket_level: Literal["category", "item"] = Field(
        "category", description="what association rules speak of; items where the catalogue has no categories"
    )
    basket_things: int = Field(30, ge=2, le=200, description="most frequent categories or items that rules speak of")
    basket_support: float = Field(
        0.01, gt=0, lt=1, description="least share of a segment's sessions that a rule covers"
    )
    hidden_states: Annotated[int, Field(ge=2, le=20)] | Literal["auto"] | None = Field(
        None,
        description="hidden Markov states of journeys, `auto` for the number with the best BIC; needs `segflow[journeys]`",
    )
    hidden_users: int = Field(500, ge=100, description="most users that hidden states are learned from")
    namer: str = Field(
        "template",
        description="`template`, or a causal language model (folder or hub name) whose names are used where they fit",
    )
    salt: str = Field(
        "SEGFLOW_SALT",
        pattern=r"^[A-Z_][A-Z0-9_]*$",
        description="environment variable that holds the secret key of exemplars' hashes",
    )
    epsilon: float | None = Field(
        None, gt=0, description="budget of differentially private sizes in a profile; needs `segflow[privacy]`"
    )


class LedgerConfig(Section):
    """When a segment of this snapshot is one of the snapshot before, and when it was split or merged."""

    survive_jaccard: float = Field(
        0.5, gt=0, le=1, description="member Jaccard from which a segment keeps its id; above 0.5 a majority match"
    )
    split_share: float = Field(0.25, gt=0, le=1, description="least part of a segment that counts when it splits")
    merge_share: float = Field(0.5, ge=0.5, le=1, description="part of a segment that must move for it to be absorbed")
    evidence_users: int = Field(
        10, ge=0, description="users of both snapshots from which members alone decide; centres stand for missing ones"
    )
    centroid_ratio: float = Field(
        0.25, ge=0, le=1, description="distance, over the spread of all centres, within which two centres are the same"
    )


Algorithm = Literal[
    "kmeans",
    "minibatch_kmeans",
    "bisecting_kmeans",
    "gaussian_mixture",
    "hdbscan",
    "dbscan",
    "ward",
    "spectral",
    "lda",
    "rfm",
    "attribute",
    "category",
]


class ExportConfig(Section):
    """How memberships leave the project."""

    user_ids: Literal["raw", "hashed"] = Field(
        "raw",
        description="user ids as they are, or as HMAC-SHA256 with the key in the environment variable `profiles.salt`",
    )


class SegmentConfig(Section):
    """Clustering, its selection, the ledger, and profiles."""

    algorithms: list[Algorithm] = Field(default=["kmeans"], min_length=1, description="clusterers to try")
    attribute: str | None = Field(None, description="static attribute whose values the `attribute` baseline takes")
    k_min: int = Field(2, ge=2, le=100, description="fewest segments to try")
    k_max: int = Field(16, ge=2, le=100, description="most segments to try")
    dims: int = Field(16, ge=1, le=1000, description="principal components of the user vectors that are clustered")
    min_share: float = Field(0.01, ge=0, le=0.5, description="smallest share of users that a segment may hold")
    min_users: int = Field(20, ge=2, description="fewest users that a segment may hold")
    starts: int = Field(20, ge=1, le=100, description="k-means starts of a candidate; the best is kept")
    bootstraps: int = Field(20, ge=2, le=1000, description="resamples behind the stability of a candidate")
    bootstrap_starts: int = Field(
        2, ge=1, le=100, description="k-means starts in one resample, and on copies without structure"
    )
    stable: float = Field(
        0.75, ge=0, le=1, description="bootstrap Jaccard from which a segment counts as stable; most have to be"
    )
    unstable: float = Field(
        0.6, ge=0, le=1, description="bootstrap Jaccard below which a segment is not published as it is"
    )
    unstable_clusters: Literal["merge", "unpublish"] = Field(
        "merge", description="unstable clusters are merged into the nearest one, or their users are unassigned"
    )
    tolerance: float = Field(0.05, ge=0, lt=1, description="loss of separation accepted for fewer segments, as a share")
    null_margin: float = Field(
        0.03, ge=0, le=1, description="how far the silhouette must lie above that of copies without structure"
    )
    null_border: float = Field(
        0.6, gt=0, le=1, description="most users between segments, over those in copies without structure"
    )
    without_structure: Literal["withhold", "divide"] = Field(
        "withhold",
        description="where no structure is found: nobody is in a segment, or the users are divided all the same, if that "
        "can be done stably, and the verdict says so",
    )
    null_repeats: int = Field(3, ge=1, le=100, description="copies without structure, of each of two kinds")
    sample_users: int = Field(10_000, ge=100, description="most users that candidates are compared on")
    silhouette_users: int = Field(3_000, ge=100, le=20_000, description="most users that a silhouette is computed on")
    outlier_quantile: float = Field(0.99, gt=0.5, le=1, description="share of a cluster's users within its bound")
    ledger: LedgerConfig = LedgerConfig()
    profiles: ProfileConfig = ProfileConfig()
    export: ExportConfig = Field(ExportConfig(), exclude=True)  # how rows leave decides no row

    @model_validator(mode="after")
    def _ordered(self) -> SegmentConfig:
        if self.k_min > self.k_max:
            raise ValueError(f"k_min ({self.k_min}) must not exceed k_max ({self.k_max})")
        if "attribute" in self.algorithms and self.attribute is None:
            raise ValueError("attribute: name the static attribute that the `attribute` clusterer shall take")
        if self.unstable > self.stable:
            raise ValueError(f"unstable ({self.unstable}) must not exceed stable ({self.stable})")
        return self
