"""Representation: vectors of items, sessions and users."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from segflow import tables
from segflow.arrow import conform, vector_column
from segflow.defs.automation import CHANGES, FOLLOWS
from segflow.defs.materializes import materializes
from segflow.defs.partitions import CONFIG, DAILY, HISTORY, HISTORY_AND_WEEK, SAME_DAY, SAME_WEEK, SNAPSHOT, WEEKLY
from segflow.defs.reading import FUSED_WINDOWS, events_with_category, fused_views
from segflow.defs.representation.reading import ENCODER, encoder_of_items, view_sources, view_windows
from segflow.defs.step import Step
from segflow.reading.rankers import event_sequences, item_vectors, some_sequences, start_of

GROUP = "representation"
_SLICE = 16_384
_ENCODER = [
    f"representation/{name}.py" for name in ("encoder", "language_model", "devices", "packing", "integers", "rounding")
]


def encoder_files() -> str:
    """Which files the folder of an encoder holds: other weights may come under the same name. Nothing of an installed one."""
    folder = Path(CONFIG.text.encoder).expanduser()
    if not folder.is_dir():
        return ""
    found = [(file.relative_to(folder), file.stat()) for file in sorted(folder.rglob("*")) if file.is_file()]
    return hashlib.sha256(repr([(str(name), one.st_size, one.st_mtime_ns) for name, one in found]).encode()).hexdigest()


@materializes(
    tables.ITEM_EMBEDDINGS,
    group=GROUP,
    reads={tables.ITEMS: SNAPSHOT},
    observes=encoder_files,
    code=[*_ENCODER, "representation/text.py", "representation/text_cache.py"],
    settings=["text"],
    kinds=["huggingface", "pytorch"],
    automation=FOLLOWS,
)
def item_embeddings(step: Step) -> None:
    """Each distinct text is encoded once, ever: its vector is kept by the text's hash and the encoder's name."""
    from segflow.representation.text import Encoder, TextCache, encode_new

    items = step.read(tables.ITEMS, ["item_id", "text", "text_hash"])
    encoder = Encoder.load(step.config.text, step.config.compute.threads)
    cache = TextCache(step.config.text.cache)
    if not cache.holds(encoder):
        cache.adopt(encoder, step.storage.read(step.connection, tables.ITEM_EMBEDDINGS))
    rows, looked = encode_new(encoder, items, cache, step.progress, step.engine)
    step.note(
        encoder=encoder.name,
        precision=encoder.precision,
        precision_cosine=encoder.precision_cosine,
        encoded_texts=looked.encoded,
        reused_texts=looked.reused,
        texts_per_second=looked.texts_per_second,
    )
    step.write(tables.ITEM_EMBEDDINGS, rows)


@materializes(
    tables.SESSION_EMBEDDINGS,
    group=GROUP,
    reads={tables.SESSIONS: SAME_DAY, tables.ITEM_EMBEDDINGS: SNAPSHOT},
    partitions=DAILY,
    one_run_for_a_range=True,
    code=["representation/text.py"],
    kinds=["duckdb"],
    automation=FOLLOWS,
)
def session_embeddings(step: Step) -> None:
    """Costs a sparse product per day, not a pass through the language model."""
    from segflow.representation.text import pool_sessions

    ids, vectors = item_vectors(step)
    schema = tables.SESSION_EMBEDDINGS.arrow

    def embed(part: pa.Table) -> pa.RecordBatch:
        pooled = pool_sessions(part["items"].combine_chunks(), ids, vectors)
        kept = [part[name].combine_chunks().cast(schema.field(name).type) for name in schema.names[:-1]]
        return pa.record_batch([*kept, vector_column(pooled)], schema=schema)

    for days in step.spans(tables.EVENTS):
        step.view(tables.SESSIONS, days=days)
        sessions = step.query("SELECT day, session_id, user_id, start, value, items FROM sessions ORDER BY ALL")
        # Vectors are many times larger than what they are made of: they exist for one slice at a time.
        slices = (sessions.slice(start, _SLICE) for start in range(0, sessions.num_rows, _SLICE))
        made = pa.RecordBatchReader.from_batches(schema, (embed(part) for part in slices))
        step.write(tables.SESSION_EMBEDDINGS, made, days)
    encoder = encoder_of_items(step)
    step.aspects(tables.SESSION_EMBEDDINGS, {key: {ENCODER: encoder} for key in step.keys})


@materializes(
    tables.BEHAVIOR_MODEL,
    group=GROUP,
    reads={tables.EVENTS: HISTORY, tables.ITEM_EMBEDDINGS: SNAPSHOT},
    partitions=WEEKLY,
    code=[
        "representation/sequences.py",
        "representation/moments.py",
        "representation/behavior.py",
        "representation/behavior_network.py",
        "representation/behavior_training.py",
        "representation/process_group.py",
        "representation/devices.py",
        "representation/pretraining.py",
        "representation/compression.py",
        "representation/quantization.py",
        "representation/some_users.sql",
    ],
    settings=["behavior", "seed", "compute.training_processes"],
    kinds=["pytorch"],
    automation=CHANGES,
)
def behavior_model(step: Step) -> None:
    """A causal transformer; its loss is the mean over: which items next, which type next, will the user return, and when."""
    from segflow.representation.behavior import fit_behavior_model
    from segflow.representation.compression import compare, variants_of
    from segflow.representation.training_processes import Processes

    ids, vectors = item_vectors(step)
    config = step.config.behavior
    sequences, share = some_sequences(step, ids, config.events, step.config.seed)
    if share < 1:
        step.log(f"behavior_model: learns from {share:.1%} of the users; behavior.events is {config.events:,}")
    step.note(events_learned_from=len(sequences.times), share_of_users=share)
    curve = step.curve()
    # Another version of the code would not go on where this one stopped.
    checkpoint = Path(config.checkpoints) / f"behavior_model-{step.week}-{step.code_version}.safetensors"
    compute = step.config.compute
    processes = Processes(compute.training_processes, compute.patience, compute.spill)
    model = fit_behavior_model(sequences, vectors, config, step.config.seed, curve, checkpoint, processes)
    variants = variants_of(model, sequences)
    table = compare(variants, sequences)
    for row in table:
        step.log(f"behavior_model: {row.summary}")
        step.run.metrics({f"{row.variant}/{name}": value for name, value in row.figures.items()})
    step.note(variant=config.variant, **{f"variant_{row.variant}": row.summary for row in table})
    step.write(tables.BEHAVIOR_MODEL, step.model_row(variants[config.variant].to_bytes(), curve.best("valid_loss")))


@materializes(
    tables.TEXT_ADAPTER,
    group=GROUP,
    reads={tables.SESSIONS: HISTORY, tables.ITEMS: SNAPSHOT},
    observes=encoder_files,
    partitions=WEEKLY,
    code=[*_ENCODER, "representation/adaptation.py", "representation/cooccurrence.py"],
    settings=["text", "seed"],
    kinds=["huggingface", "pytorch"],
    automation=CHANGES if "adapted" in CONFIG.users.views else None,
    awaited="adapted" in CONFIG.users.views,
)
def text_adapter(step: Step) -> None:
    """Optional (`text.adaptation`). What it is worth, the probe says: it makes the view `adapted` of the users."""
    from segflow.representation.adaptation import adapt
    from segflow.representation.encoder import Encoder

    sessions = step.read(tables.SESSIONS, ["start", "items"])
    items = step.read(tables.ITEMS, ["item_id", "text"])
    curve = step.curve()
    # On one thread, like all training: the order in which threads add up changes the last bits.
    adapter = adapt(
        Encoder.load(step.config.text),
        sessions,
        items["item_id"].to_pylist(),
        items["text"].to_pylist(),
        step.config.text.adaptation,
        step.config.seed,
        log=curve,
    )
    if adapter.reason:
        step.note(identity=adapter.reason)
    step.write(tables.TEXT_ADAPTER, step.model_row(adapter.to_bytes(), adapter.figures))


@materializes(
    tables.USER_VIEWS,
    group=GROUP,
    reads=view_windows(HISTORY),
    partitions=WEEKLY,
    code=[
        *(f"representation/{name}.py" for name in ("views", "users", "histories")),
        *(f"representation/{name}.sql" for name in ("engagement", "category_prices")),
    ],
    settings=["users", "text"],
    kinds=["python"],
    automation=CHANGES,
)
def user_views(step: Step) -> None:
    """Several descriptions of a user before the week. Users who are known but did nothing yet are rows too."""
    from segflow.representation.views import make_views

    start = start_of(step.week)
    views = make_views(view_sources(step, start), start, step.config.users)
    step.note(users=len(views.user_ids), cold_users=int(views.cold.sum()), views=", ".join(views.views))
    step.write(tables.USER_VIEWS, conform(views.to_table(step.week), tables.USER_VIEWS.arrow))


@materializes(
    tables.REPRESENTATION_PROBE,
    group=GROUP,
    reads={tables.USER_VIEWS: SAME_WEEK, tables.EVENTS: HISTORY_AND_WEEK, tables.ITEMS: SNAPSHOT},
    partitions=WEEKLY,
    code=[
        *(
            f"representation/{name}.py"
            for name in ("probe", "probe_rows", "heads", "baselines", "autoencoder", "views")
        ),
        "representation/aggregated.sql",
        "representation/aggregated_parts.sql",
    ],
    settings=["probe", "users", "seed"],
    kinds=["scikitlearn", "pytorch"],
    automation=FOLLOWS,
)
def representation_probe(step: Step) -> None:
    """Small heads on frozen vectors foretell the snapshot week, which nothing that made the vectors has seen."""
    from segflow.representation.probe import probe_week
    from segflow.representation.views import UserViews

    config = step.config
    rows = probe_week(
        UserViews.from_table(step.read(tables.USER_VIEWS), config.users.views),
        events_with_category(step),
        event_sequences(step, step.read(tables.ITEMS, ["item_id"])["item_id"].to_pylist()),
        start_of(step.week),
        config.users,
        config.probe,
        config.seed,
    )
    # MLflow takes no plus sign in a name.
    step.note(**{f"skill/{row.candidate.replace('+', 'and')}": row.score for row in rows if row.task == "mean"})
    step.note(chosen=next(row.candidate for row in rows if row.chosen))
    found = [{"week": step.week, **asdict(row)} for row in rows]
    step.write(tables.REPRESENTATION_PROBE, pa.Table.from_pylist(found, schema=tables.REPRESENTATION_PROBE.arrow))


@materializes(
    tables.USER_EMBEDDINGS,
    group=GROUP,
    reads={tables.USER_VIEWS: SAME_WEEK, **FUSED_WINDOWS},
    partitions=WEEKLY,
    code=["representation/views.py", "representation/users.py"],
    settings=["users"],
    kinds=["scikitlearn"],
    automation=CHANGES,
)
def user_embeddings(step: Step) -> None:
    """Each view is standardized and reduced by its principal components before they are put side by side."""
    from segflow.representation.views import UserViews, fuse_views

    chosen = fused_views(step)
    views = UserViews.from_table(step.read(tables.USER_VIEWS), chosen)
    fused = fuse_views(views, chosen, step.config.users)
    step.note(fused_views=", ".join(chosen), fused_columns=", ".join(fused.columns))
    step.write(
        tables.USER_EMBEDDINGS,
        pa.table(
            {
                "week": pa.array([step.week] * len(views.user_ids), pa.date32()),
                "user_id": views.user_ids,
                "enough_history": views.enough_history,
                "cold": views.cold,
                "fused": vector_column(fused.matrix),
            }
        ),
    )
