"""How many positions a second the behaviour model trains, and the log that it is timed on.

A position is one interaction that is predicted from those before it, once in an epoch; padding does not count.
"""

from __future__ import annotations

import numpy as np

from segflow.config import BehaviorConfig
from segflow.representation.behavior import fit_behavior_model
from segflow.representation.sequences import EventSequences

_TASTES = 50
_MINUTES = 60_000_000


def log_of(users: int, items: int, longest: int, seed: int = 0, *, full: bool = False) -> EventSequences:
    """A seeded log whose every event has a time of its own and an item of a skewed catalogue.

    Users have 3 to ``longest`` events, with a long tail, or all of them ``longest`` if ``full``. Many events lie next
    to the one before in the catalogue, so that there is something to learn.
    """
    rng = np.random.default_rng(seed)
    tail = np.clip(rng.lognormal(2.9, 0.8, users), 3, longest).astype(np.int64)
    lengths = np.full(users, longest) if full else tail
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    count = int(offsets[-1])
    own = (rng.zipf(1.3, count) - 1) % items
    own = (own + (rng.integers(0, _TASTES, users) * (items // _TASTES)).repeat(lengths)) % items
    follows = rng.random(count) < 0.5
    catalogue = np.where(follows, (np.roll(own, 1) + 1) % items, own)
    # Every item occurs, if there are events enough: a library that reads the catalogue off the log sees the same one.
    everywhere = rng.permutation(count)[:items]
    catalogue[everywhere] = np.arange(len(everywhere))
    gaps = (rng.lognormal(7.5, 1.5, count) * _MINUTES).astype(np.int64) + 1
    times = np.cumsum(gaps)
    times = times - times[offsets[:-1]].repeat(lengths)
    return EventSequences(
        user_ids=np.char.add("u", np.char.zfill(np.arange(users).astype(str), 7)),
        offsets=offsets.astype(np.int64),
        items=catalogue.astype(np.int32),
        types=rng.integers(0, 3, count).astype(np.int8),
        times=times,
        values=rng.lognormal(2.0, 1.0, count).astype(np.float32),
        item_ids=np.char.add("i", np.char.zfill(np.arange(items).astype(str), 7)),
        event_types=("cart", "purchase", "view"),
    )


def positions_per_second(
    log: EventSequences,
    *,
    width: int,
    layers: int,
    heads: int,
    length: int,
    epochs: int = 2,
    seed: int = 0,
    text_width: int = 384,
    **settings: object,
) -> float:
    """Positions of ``log`` a second over ``epochs`` passes, one pass to warm up and validation not counted.

    settings: other keys of ``BehaviorConfig``, such as ``negatives``, ``tasks`` or ``inputs``.
    """
    # All of the log is trained on: nothing is kept for validation but its last instant.
    config = BehaviorConfig.model_validate(
        {
            "width": width,
            "layers": layers,
            "heads": heads,
            "context": length,
            "epochs": epochs + 1,
            "patience": epochs + 1,
            "validation_days": 1e-9,
            **settings,
        }
    )
    vectors = np.random.default_rng(seed).normal(size=(len(log.item_ids), text_width)).astype(np.float32)
    speeds: list[float] = []
    fit_behavior_model(log, vectors, config, seed, lambda _, metrics: speeds.append(metrics["positions_per_second"]))
    # A user's last moment is trained too (will there be another?), but there is no interaction to be predicted from it.
    predicted = 1 - len(log.user_ids) / len(log.times)
    return float(predicted * len(speeds[1:]) / np.sum(1 / np.array(speeds[1:])))
