"""Drawn settings files: valid ones whose values, keys, lines or bytes were changed.

Nothing here reads a file.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import strategies as st

_SMALL: dict[str, Any] = {
    "source": {
        "events": {
            "path": "log.csv",
            "columns": {"user_id": "user", "item_id": "item", "event_type": "type", "ts": "time", "value": "price"},
        }
    },
    "calendar": {"start": "2024-01-01", "end": "2024-04-01"},
}
_LARGE: dict[str, Any] = {
    "source": {
        "events": {
            **_SMALL["source"]["events"], "format": "auto", "timezone": "Europe/Paris", "unit": "s", "types": {"view": "look"},
            "event_type": None, "settle_seconds": 5, "missing_files": "drop",
            "csv": {"delimiter": ",", "quote": '"', "escape": '"', "missing": ["NA"], "encoding": "utf-8", "skip": 0},
        },
        "items": {"path": "log.csv", "columns": {"item_id": "item", "title": "item", "category": ["type"], "price": "price"}},
        "users": {"path": "log.csv", "user_id": "user", "attributes": ["type"]},
        "edges": {"path": "log.csv", "user_id": "user", "other_id": "item", "weight": "price", "mutual": True},
        "inputs": {"more": {"path": "log.csv", "format": "csv"}},
    },
    "calendar": {**_SMALL["calendar"], "week_starts": "thursday", "history_weeks": 8},
    "cleaning": {
        "require_positive": ["value"], "require_known_item": True, "exclude_categories": ["fuel"], "type_weights": {"view": 1.5},
        "bots": {"enabled": True, "events_per_day": 100, "events_per_minute": 9, "user_pattern": "^bot", "clockwork_share": 0.9},
        "impute": {"quantity": 1.0, "value": "item_price", "event_type": "view"},
    },
    "sessions": {"gap_minutes": 20, "use_source_ids": False},
    "text": {"template": "{title} {price}", "units": {"oz": "ounces"}, "stop_phrases": ["offer"], "lowercase": False},
    "segments": {"k_min": 2, "k_max": 5, "algorithms": ["kmeans"]},
    "evaluation": {"confidence": 0.9},
    "compute": {"memory_limit": "1GB", "threads": 1},
    "seed": 3,
}  # fmt: skip
_DEEP: Any = "x"
for _ in range(12):
    _DEEP = [_DEEP]
ODD = [
    None, True, False, 0, -1, 1, 2**31, 10**30, -(10**18), 0.5, 1e308, float("nan"), float("inf"), float("-inf"), "", " ", "x",
    "a.csv", "*.csv", "[", "(", "(?<a>b)", "\\", "{", "{title", "{title!r}", "{0}", "'", '"', "';--", "\t", "\n", "\r\n", "\x01",
    "é", "“", "\u2028", "\ud7ff", "\U0010ffff", "~", "~no_such_user", "/", "..", "/dev/null", "package:", "package:yaml/x",
    "package:no_such/x", "s3:/x", "file:///no/such", "gopher://x/y", "2024-01-01", "2024-02-30", "9999-12-31", "0001-01-01",
    "user", "time", "source_file", "localtime", "CON", "x" * 5000, [], [None], ["x"], ["x", "x"], [1, "a", [2]], {}, {"a": 1},
    {"user_id": "user"}, _DEEP, {"": ""},
]  # fmt: skip
"""Values that some key will not expect."""
_KEYS = [
    "",
    "x",
    "user_id",
    "path",
    "columns",
    "1",
    "É",
    "<<",
    "preset",
    "seed",
    "gap_minute",
    "x" * 300,
    "a\nb",
    "[key]",
]
_LINES = [
    "\t", "---", "...", "- a", "? a", ": b", "&a [*a]", "*a", "x: &x [1]", "y: *x", "seed: !!int x", "seed: !x 1",
    "seed: !!python/object/apply:os.getcwd []", "seed: 1", "seed: 0x", "seed: 1_0", "seed: 0o8", "seed: 190:20",
    "<<: {seed: 1}", "<<: 1", "%YAML 1.1", "%TAG ! x", "# é", "preset: complete_journey_types", "preset: nothing", "{a: b",
    "}", "[", '"', "'", "@", "`", "a: b: c", "seed: !!binary é", "seed: !!timestamp x", "seed: 2024-02-30", "~: 1", "1: 2",
    "[1]: 2", "2024-01-01: 3", "seed: !!float x", "seed: !!set {a}", "'seed': 1", "=: 1", "seed: =",
]  # fmt: skip
_BYTES = [
    b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xc3", b"\x07", b"\t", b"\r", b"\x85", b"\xed\xa0\x80", b'"\\ud800"', b"&",
    b"*", b"!", b"%", b"@",
]  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all keys and list entries."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in entries:
        yield (*path, key)
        yield from _places(below, (*path, key))


@st.composite
def settings_files(draw: st.DrawFn) -> bytes:
    """The bytes of a settings file, mostly wrong in one or two ways."""
    values = copy.deepcopy(draw(st.sampled_from([*[_SMALL] * 4, _LARGE])))
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, values)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=draw(st.booleans()))
    if draw(st.booleans()):
        lines = text.splitlines()
        at = draw(st.integers(0, len(lines)))
        indent = draw(st.sampled_from(["", "", "  ", "    ", "\t"]))
        new = {"put in": [indent + draw(st.sampled_from(_LINES))], "twice": lines[at : at + 1] * 2, "take out": []}
        change = draw(st.sampled_from(list(new)))
        lines[at : at if change == "put in" else at + 1] = new[change]
        text = "\n".join(lines) + "\n"
    content = text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"])))
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.sampled_from(_BYTES)) + content[at + draw(st.integers(0, 2)) :]
    return content


def _change(draw: st.DrawFn, values: dict[str, Any]) -> None:
    places = list(_places(values))
    if not places:
        return
    *path, key = draw(st.sampled_from(places))
    place: Any = values
    for part in path:
        place = place[part]
    change = draw(st.sampled_from(["value", "value", "value", "value", "key", "take out", "wrap"]))
    if change == "value":
        place[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
    elif change == "wrap":
        place[key] = draw(st.sampled_from([[place[key]], {"a": place[key]}, str(place[key])]))
    elif change == "key" and isinstance(place, dict):
        place[draw(st.sampled_from(_KEYS))] = place[key]
    else:
        del place[key]
