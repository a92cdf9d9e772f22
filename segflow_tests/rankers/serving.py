"""What tests of the bundle ask it: requests of users of the log, and what its answers hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from segflow.rankers.new_items import NewItems
from segflow.rankers.recommend import Shown
from segflow.rankers.requests import read_requests
from segflow.rankers.rules import Catalogue
from segflow.rankers.served import Answer, ServedRanker
from segflow.rankers.snapshot import RankingWeek
from segflow_tests.rankers.conftest import ITEMS, SNAPSHOT, WEEK, World

NOW = SNAPSHOT + WEEK
CATALOGUE = Catalogue({f"i{item:02}": f"Item {item}" for item in range(ITEMS)}, {})


def moment(microseconds: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()


def request_of(world: World, user: int, **more: Any) -> dict[str, Any]:
    """What a caller knows of a user of the log at the moment that the ranker was made for."""
    log = world.log.before(NOW)
    rows = range(log.offsets[user], log.offsets[user + 1])
    events = [
        {
            "item_id": str(log.item_ids[log.items[row]]),
            "event_type": log.event_types[log.types[row]],
            "ts": moment(int(log.times[row])),
            "value": float(log.values[row]),
        }
        for row in rows
    ]
    return {"user_id": str(log.user_ids[user]), "events": events, **more}


def shown_of(week: RankingWeek) -> Shown:
    texts = np.ones((ITEMS, 4), np.float32)
    return Shown(CATALOGUE, texts[week.history.candidates], {}, NewItems.of(week, texts, 0))


def ask(served: ServedRanker, *rows: dict[str, Any]) -> list[Answer]:
    return served.recommend(read_requests(rows))


def ids(answer: Answer) -> list[str]:
    return [one["item_id"] for one in answer["items"]]
