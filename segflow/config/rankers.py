"""The settings of the rankers: what is a candidate, how the global ranker trains, what segments may add to it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from segflow.config.base import LocalPath, Section

SegmentMethod = Literal["deltas", "last_layer", "bias", "weights", "full", "feature", "ease"]


class RankerConfig(Section):
    """The global ranker and the segment rankers."""

    minimum_item_events: int = Field(20, ge=1, description="events before the snapshot that make an item a candidate")
    minimum_item_users: int = Field(5, ge=1, description="users before the snapshot that make an item a candidate")
    half_life_days: float = Field(120.0, gt=0, description="age at which a day with the item counts half, in days")
    cooccurrence_items: int = Field(2000, ge=1, le=20_000, description="most items in the co-occurrence model")
    cooccurrence_regularization: float = Field(1000.0, gt=0, description="ridge of the co-occurrence models")
    neighbours: int = Field(100, ge=1, le=10_000, description="most alike users whose items are looked at")
    reference_users: int = Field(
        3000, ge=2, le=100_000, description="users among whom the most alike are sought; of more users, a sample"
    )
    training_weeks: int = Field(12, ge=1, le=52, description="weeks before the snapshot whose items are learned from")
    example_memory: int = Field(
        1000, ge=1, description="memory for the scores that training reads, in MB; of more examples, a sample is used"
    )
    hidden: int = Field(64, ge=4, le=256, description="hidden units of the network of items that a user already had")
    explore_hidden: int = Field(16, ge=4, le=256, description="hidden units of the network of items new to a user")
    steps: int = Field(700, ge=1, description="training steps of the global ranker")
    batch_users: int = Field(96, ge=8, description="users in one training step")
    check_every: int = Field(100, ge=1, description="steps between two looks at the validation week")
    learning_rate: float = Field(0.007, gt=0, le=1, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW")
    new_item_weight: float = Field(0.5, ge=0, description="weight of the loss over items new to the user")
    bias_prior: float = Field(
        30.0,
        gt=0,
        description="how much a segment's counted item biases are shrunk to everybody's, in expected events of the item",
    )
    checkpoints: LocalPath = Field(
        "data/checkpoints", exclude=True, description="folder in which an interrupted training finds where it was"
    )
    segment_method: SegmentMethod = Field(
        "deltas",
        description="what a segment changes of scores that are found once for all: `deltas` everything, `last_layer` all but "
        "the state query, `bias` item biases alone, `weights` the weights of the explore inputs and of the repeat head alone. "
        "To compare, with the global network run again for each group: `full` every weight of the network, `feature` the "
        "weights of one more input that tells the segment (all others stay frozen, so that each segment can be trained "
        "alone), `ease` the item co-occurrence that the network reads, which is then that of the segment's users",
    )
    delta_rank: int = Field(4, ge=1, le=64, description="rank of a segment's change of the state query")
    delta_steps: int = Field(60, ge=1, description="training steps of all segments and control groups together")
    delta_passes: int = Field(2, ge=1, description="times that these steps go through all training examples")
    delta_learning_rate: float = Field(
        0.002, gt=0, le=1, description="learning rate of a segment's delta; `full` may need ten times as much"
    )
    delta_weight_decay: float = Field(
        0.1, ge=0, description="weight decay of a segment's delta: toward the global ranker"
    )
    placebos: int = Field(5, ge=1, le=50, description="placebo segmentations: random groups of the segments' sizes")
    repeats: int = Field(
        2,
        ge=0,
        le=50,
        description="times that all rankers of the test are trained again with other seeds, to tell luck from gain; what is "
        "served is the first training",
    )
    gate_users: float = Field(
        200.0, ge=0, description="users at which half of the gate is left that the validation week chose"
    )
