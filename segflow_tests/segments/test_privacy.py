"""Hashes that need their key, and noise of the stated size."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest

from segflow.errors import UserError
from segflow.segments.privacy import hashed, key_from, noised, without_counts


def test_a_secret_key_makes_hashes_that_the_ids_alone_do_not():
    keyed = key_from({"SALT": "long and secret"}, "SALT", 0)
    assert keyed.kind == "keyed"
    assert hashed("7", keyed) == hmac.new(b"long and secret", b"7", hashlib.sha256).hexdigest()
    assert hashed("7", keyed) != hashed("7", key_from({"SALT": "another"}, "SALT", 0))
    assert hashed("7", keyed) != hashlib.sha256(b"7").hexdigest()


def test_without_a_secret_hashes_are_reproducible_and_called_pseudonyms():
    first, again, other = (key_from({}, "SALT", seed) for seed in (1, 1, 2))
    assert first.kind == "pseudonym"
    assert hashed("7", first) == hashed("7", again) != hashed("7", other)
    with pytest.raises(UserError, match="SALT is set but empty"):
        key_from({"SALT": " "}, "SALT", 0)


def test_noise_is_discrete_laplace_of_the_budget():
    epsilon, draws = 0.5, 4000
    noise = noised(np.full(draws, 1000), epsilon) - 1000
    decay = np.exp(-epsilon)
    assert np.abs(noise.mean()) < 0.3
    assert noise.var() == pytest.approx(2 * decay / (1 - decay) ** 2, rel=0.2)
    assert (noise == 0).mean() == pytest.approx((1 - decay) / (1 + decay), abs=0.04)
    assert noised(np.array([1, 1, 1]), 0.01).min() >= 1


def test_exact_counts_are_taken_out_wherever_they_stand():
    rows = {"items": [{"item_id": "a", "users": 12}], "surrogate": {"held_out_users": 9, "rules": []}, "users": 3}
    assert without_counts(rows) == {
        "items": [{"item_id": "a", "users": None}],
        "surrogate": {"held_out_users": None, "rules": []},
        "users": None,
    }
