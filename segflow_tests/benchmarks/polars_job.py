"""The full job once more, in Polars: an independent reading of the same rules, to check results against and to compare with.

Nothing of segflow is used here. What makes it fast: ids stay categories from file to file, so that all work is on numbers;
one stable sort by user and time packed into one number; sessions are runs of that order, and their lists slices of its columns.
The whole log is one pass: Polars has no spans of days of its own.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import yaml

_EVENTS_PER_DAY = 5000
_CLOCKWORK_EVENTS = 500
_CLOCKWORK_SHARE = 0.9
_PAUSE = timedelta(minutes=30)
_HALF_DAY = timedelta(hours=12)
_REASONS = pl.Enum(
    [
        "unreadable_field",
        "missing_user",
        "missing_time",
        "outside_calendar",
        "missing_type",
        "duplicate",
        "non_positive_value",
        "bot_rate",
        "bot_pattern",
    ]
)


def run(folder: Path, out: Path) -> None:
    """Write `out`/sessions and `out`/quarantine from the generated log in `folder`."""
    for name in ("sessions", "quarantine"):
        (out / name).mkdir(parents=True)
    calendar = yaml.safe_load((folder / "segflow.yaml").read_text(encoding="utf-8"))["calendar"]
    start, end = calendar["start"], calendar["end"]
    files = sorted((folder / "events").iterdir())
    events = _events(files, start, end, out / "quarantine" / "all.parquet")
    items = pl.read_parquet(folder / "items.parquet", columns=["item_id", "title"])
    sessions = _sessions(_ordered(events, start, end), items).lazy()
    # Spelling out on the way to the file takes less than half the time that writing categories does.
    spelled = sessions.with_columns(pl.col("items", "event_types").cast(pl.List(pl.String)))
    spelled.sink_parquet(out / "sessions" / "all.parquet", compression="snappy", row_group_size=200_000)


def _events(files: list[Path], start: date, end: date, quarantine: Path) -> pl.DataFrame:
    """The sound rows; the others are written to the file `quarantine`."""
    rows = _judged(_read(files, start, end), start, end)
    refused = rows.filter(pl.col("reason").is_not_null())
    _placed(refused, files).write_parquet(quarantine, compression="snappy")
    return rows.filter(pl.col("reason").is_null()).select("user_id", "item_id", "event_type", "ts", "value")


def _read(files: list[Path], start: date, end: date) -> pl.DataFrame:
    """All rows in the order of arrival, `row` being their place in it, with trimmed texts and the day they belong to."""
    moment, value = pl.col("ts"), pl.col("price")
    rows = (
        pl.scan_parquet(files, row_index_name="row")
        .select(
            "row",
            "event_id",
            pl.col("user_id", "item_id", "event_type").cast(pl.Categorical),
            "ts",
            pl.when(value.is_finite()).then(value).alias("value"),
            pl.when(value.is_infinite()).then(pl.lit("value=") + value.cast(pl.String)).alias("unparsed"),
            pl.when((moment >= start) & (moment < end)).then(moment.dt.date()).alias("day"),
        )
        .collect()
    )
    return rows.with_columns(
        _at_home(rows["day"], files),
        _tidied(rows["user_id"]),
        _tidied(rows["item_id"]),
        _tidied(rows["event_type"], lower=True),
    )


def _at_home(days: pl.Series, files: list[Path]) -> pl.Series:
    """`days` with the last day of its file for each row that has none."""
    parts, before = [], 0
    for file in files:
        rows = pq.read_metadata(file).num_rows
        part = days[before : before + rows]
        parts.append(part.fill_null(part.max()))
        before += rows
    return pl.concat(parts, rechunk=True)


def _tidied(ids: pl.Series, lower: bool = False) -> pl.Series:
    """`ids` without blanks around them, empty ones missing. Each different one is looked at once."""
    known = ids.unique().drop_nulls()
    texts = known.cast(pl.String).str.strip_chars()
    texts = texts.str.to_lowercase() if lower else texts
    if (texts == known.cast(pl.String)).all() and not (texts == "").any():
        return ids
    tidy = pl.select(pl.when(texts != "").then(texts)).to_series().cast(pl.Categorical)
    return ids.replace_strict(known, tidy, return_dtype=pl.Categorical)


def _judged(rows: pl.DataFrame, start: date, end: date) -> pl.DataFrame:
    """`rows` with the reason for which they are refused, if any."""
    moment = pl.col("ts")
    flaws = {
        "unreadable_field": pl.col("unparsed").is_not_null(),
        "missing_user": pl.col("user_id").is_null(),
        "missing_time": moment.is_null(),
        "outside_calendar": (moment < start) | (moment >= end),
        "missing_type": pl.col("event_type").is_null(),
    }
    reason = pl.lit(None, _REASONS)
    for name, holds in reversed(flaws.items()):
        reason = pl.when(holds).then(pl.lit(name, _REASONS)).otherwise(reason)
    rows = rows.with_columns(reason.alias("reason"))
    copies = _copies(rows)
    rows = rows.with_columns(rows["reason"].scatter(copies["row"], copies["verdict"]))
    # A row counts for its user's pace even if its value is refused.
    bots = _bots(rows)
    poor = pl.col("reason").is_null() & (pl.col("value") <= 0)
    rows = rows.with_columns(
        pl.when(poor).then(pl.lit("non_positive_value", _REASONS)).otherwise("reason").alias("reason")
    )
    if not bots.height:
        return rows
    # Only the rows of users that are bots on some day go through the join.
    theirs = rows.lazy().filter(pl.col("user_id").is_in(bots["user_id"].implode()), pl.col("reason").is_null())
    refused = theirs.select("row", "day", "user_id").join(bots.lazy(), on=["day", "user_id"]).collect()
    return rows.with_columns(rows["reason"].scatter(refused["row"], refused["verdict"]))


def _copies(rows: pl.DataFrame) -> pl.DataFrame:
    """(row, verdict) of rows whose event has come before on the same day."""
    sound = rows.lazy().filter(pl.col("reason").is_null(), pl.col("event_id").is_not_null())
    repeated = sound.group_by("event_id").len().filter(pl.col("len") > 1).select("event_id")
    return (
        sound.select("row", "event_id", "day")
        .join(repeated, on="event_id", how="semi")
        .filter(pl.col("row") > pl.col("row").min().over("event_id", "day"))
        .select("row", pl.lit("duplicate", _REASONS).alias("verdict"))
        .collect(engine="streaming")
    )


def _bots(rows: pl.DataFrame) -> pl.DataFrame:
    """(day, user_id, verdict) of users that were too fast, or as regular as clockwork, on a day."""
    sound = rows.lazy().filter(pl.col("reason").is_null())
    # Days and users packed into one number count in a third of the time.
    packed = pl.col("day").to_physical().cast(pl.UInt64) * 2**32 + pl.col("user_id").to_physical()
    busy = sound.group_by(packed.alias("packed")).len().filter(pl.col("len") >= _CLOCKWORK_EVENTS)
    suspected = sound.select("day", "user_id", "ts", packed.alias("packed")).join(busy, on="packed", how="semi")
    theirs = suspected.collect(engine="streaming").sort("day", "user_id", "ts")
    pauses = (
        theirs.with_columns((pl.col("ts").diff().over("day", "user_id").dt.total_microseconds() / 1e6).alias("pause"))
        .filter(pl.col("pause") > 0)
        .group_by("day", "user_id", pl.col("pause").round())
        .len()
        .group_by("day", "user_id")
        .agg(pl.col("len").sum().alias("pauses"), pl.col("len").max().alias("commonest"))
    )
    regular = pl.col("commonest") / pl.col("pauses") >= _CLOCKWORK_SHARE
    return (
        theirs.group_by("day", "user_id")
        .len()
        .join(pauses, on=["day", "user_id"], how="left")
        .select(
            "day",
            "user_id",
            pl.when(pl.col("len") > _EVENTS_PER_DAY)
            .then(pl.lit("bot_rate", _REASONS))
            .when((pl.col("pauses") + 1 >= _CLOCKWORK_EVENTS) & regular)
            .then(pl.lit("bot_pattern", _REASONS))
            .alias("verdict"),
        )
        .drop_nulls("verdict")
    )


def _placed(refused: pl.DataFrame, files: list[Path]) -> pl.DataFrame:
    """Refused rows as they are kept, with the file and the row in it in place of the row in all."""
    lengths = [pq.read_metadata(file).num_rows for file in files]
    starts = pl.DataFrame(
        {"source_file": [file.name for file in files], "before": [sum(lengths[:n]) for n in range(len(files))]},
        schema_overrides={"before": pl.Int64},
    )
    return (
        refused.with_columns(pl.col("row").cast(pl.Int64))
        .join_asof(starts, left_on="row", right_on="before")
        .select(
            "day",
            pl.col("event_id").cast(pl.String),
            "user_id",
            "item_id",
            "event_type",
            pl.col("ts").dt.replace_time_zone("UTC"),
            "value",
            pl.lit(None, pl.Float64).alias("quantity"),
            pl.lit(None, pl.String).alias("session_id"),
            pl.lit(None, pl.String).alias("text"),
            "unparsed",
            "source_file",
            (pl.col("row") - pl.col("before")).alias("source_row"),
            "reason",
        )
    )


def _ordered(events: pl.DataFrame, start: date, end: date) -> pl.DataFrame:
    """`events` by user and time, rows of the same moment as they arrived, numbered by `session`."""
    span = (end - start) // timedelta(microseconds=1)
    user = pl.col("user_id").to_physical().cast(pl.UInt64)
    most = events.select(pl.col("user_id").to_physical().max()).item() or 0
    if most >= 2**64 // span - 1:
        raise ValueError("too many users to pack user and time into one number")
    key = user * span + (pl.col("ts") - start).dt.total_microseconds().cast(pl.UInt64)
    events = events.with_columns(key.alias("key")).sort("key", maintain_order=True).drop("key")
    day = pl.col("ts").dt.date()
    events = events.with_columns(
        pl.col("ts").diff().alias("pause"),
        (pl.col("user_id").to_physical().diff().fill_null(1) != 0).alias("other"),
    ).with_columns((pl.col("other") | (pl.col("pause") > _PAUSE)).alias("starts"))
    # What came over midnight is cut at noon: from then on it counts as the new day's.
    begun = pl.when("starts").then(day).forward_fill()
    events = events.with_columns(pl.max_horizontal(begun, (pl.col("ts") - _HALF_DAY).dt.date()).alias("begun"))
    begins = pl.col("starts") | (pl.col("begun") != pl.col("begun").shift())
    seconds = pl.col("pause").dt.total_microseconds() / 1e6
    return events.select(
        "user_id",
        "ts",
        "item_id",
        "event_type",
        pl.col("value").fill_null(0.0),
        pl.when(begins).then(0.0).otherwise(seconds).cast(pl.Float32).alias("gap"),
        begins.cum_sum().set_sorted().alias("session"),
    )


def _sessions(events: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """One row a session."""
    types = events["event_type"].unique().cast(pl.String).sort().to_list()
    sessions = events.group_by("session", maintain_order=True).agg(
        pl.col("user_id").first(),
        pl.col("ts").first().alias("start"),
        pl.col("ts").last().alias("end"),
        pl.len().cast(pl.Int32).alias("events"),
        *[(pl.col("event_type") == name).sum().cast(pl.Int64).alias(f"type {name}") for name in types],
        pl.col("value").sum(),
        pl.col("item_id").drop_nulls().alias("items"),
        pl.col("event_type").alias("event_types"),
        pl.col("gap").alias("gaps"),
    )
    different = sessions["items"].list.unique(maintain_order=True)
    return sessions.select(
        pl.col("start").dt.date().alias("day"),
        pl.concat_str("user_id", pl.lit("@"), pl.col("start").dt.strftime("%Y%m%dT%H%M%S%.6f")).alias("session_id"),
        "user_id",
        pl.col("start", "end").dt.replace_time_zone("UTC"),
        ((pl.col("end") - pl.col("start")).dt.total_microseconds() / 1e6).alias("duration"),
        "events",
        pl.struct(pl.col(f"type {name}").alias(name) for name in types).alias("type_counts"),
        different.list.len().cast(pl.Int32).alias("distinct_items"),
        "value",
        pl.col("events").cast(pl.Float64).alias("weight"),
        "items",
        "event_types",
        "gaps",
        _texts(different, items).alias("text"),
    )


def _texts(items_of: pl.Series, items: pl.DataFrame) -> pl.Series:
    """The titles of each session's items."""
    codes = items.select(pl.col("item_id").cast(pl.Categorical).to_physical().alias("code"), "title")
    listed = pl.DataFrame({"code": items_of}).with_row_index("session").explode("code", empty_as_null=False)
    listed = listed.with_columns(pl.col("code").to_physical()).join(codes, on="code", how="left", maintain_order="left")
    titles = listed.with_columns(pl.col("session").set_sorted()).group_by("session", maintain_order=True).agg("title")
    return titles["title"].list.join("; ", ignore_nulls=True)
