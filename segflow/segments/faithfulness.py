"""Do names say what the segments are? Each name is given to a text encoder, which must find the profile it belongs to.

What does not live here: making names. The score holds a name against the facts it was made of, so it tells a wrong or empty
name from a fitting one; it does not tell whether the segments are real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segflow.segments.story import facts

Row = dict[str, Any]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> (n, d) vectors of unit length, such as `Encoder.encode`."""


def name_fits(names: Mapping[str, str], contrasts: Mapping[str, Sequence[Row]], embed: Embed) -> dict[str, Row]:
    """For each named segment, how near its name is to its own profile among all profiles of `contrasts`.

    `rank` is the place of its own profile by cosine, 1 is best and a tie counts against it; `nearest` is the segment
    whose profile is nearest; `cosine` that to its own. Profiles are described in words without numbers (`story.facts`).
    """
    profiles = sorted(contrasts)
    named = sorted(names)
    if not named:
        return {}
    vectors = embed([*(facts(contrasts[one]) for one in profiles), *(names[one] for one in named)])
    described, given = vectors[: len(profiles)], vectors[len(profiles) :]
    cosines = np.asarray(given, np.float64) @ np.asarray(described, np.float64).T
    found: dict[str, Row] = {}
    for segment, row in zip(named, cosines, strict=True):
        own = profiles.index(segment)
        found[segment] = {
            "rank": int((row >= row[own]).sum()),
            "nearest": profiles[int(row.argmax())],
            "cosine": float(row[own]),
        }
    return found


def faithfulness(fits: Mapping[str, Row]) -> Row:
    """`share`: of the names, those that are nearest to their own profile; `by_chance`: the same for names dealt out at random."""
    if not fits:
        return {"share": None, "by_chance": None}
    return {"share": sum(fit["rank"] == 1 for fit in fits.values()) / len(fits), "by_chance": 1 / len(fits)}
