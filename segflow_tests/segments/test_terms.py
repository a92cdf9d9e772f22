"""Items and words that set a segment apart, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from segflow.segments.terms import distinctive_terms


def test_distinctive_items_by_hand():
    counts = pd.DataFrame(
        {
            "segment_id": ["s001", "s001", "s001", "s002", "s002"],
            "item_id": ["everywhere", "special", "few", "everywhere", "other"],
            "events": [60, 30, 10, 60, 40],
            "users": [50, 20, 3, 50, 30],
        }
    )
    first, second = distinctive_terms(counts, "item_id", 5, 10)
    assert (first["segment_id"], first["item_id"], second["item_id"]) == ("s001", "special", "other")
    assert first["c_tf_idf"] == pytest.approx(0.3 * np.log(1 + 100 / 30))
    assert first["lift"] is None  # nobody else takes it


def test_nobody_is_set_apart_alone():
    counts = pd.DataFrame({"segment_id": ["s001"], "word": ["tea"], "events": [9], "users": [9]})
    assert distinctive_terms(counts, "word", 5, 2) == []
    assert distinctive_terms(counts.iloc[:0], "word", 5, 2) == []
