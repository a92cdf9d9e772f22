"""The cache of text vectors: each distinct text is encoded once, and what is damaged is noticed."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segflow.arrow import matrix, vector_column
from segflow.config import TextConfig
from segflow.errors import UserError
from segflow.representation import text_cache
from segflow.representation.encoder import Encoder, Progress, Vectors
from segflow.representation.text import encode_new, journey_vectors
from segflow.representation.text_cache import TextCache, keys_of
from segflow_tests.compute.engines import sending
from segflow_tests.representation.models import make_model


class Counted:
    """Stands in for an encoder: a text's vector is drawn from its hash, and what is encoded is written down."""

    def __init__(self, name: str = "model@1", width: int = 4) -> None:
        self.name, self.width = name, width
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        self.encoded += texts
        if progress:
            progress(len(texts), len(texts))
        return np.array([self.vector(text) for text in texts], np.float32).reshape(-1, self.width)

    def vector(self, text: str) -> Vectors:
        seed = int.from_bytes(hashlib.sha256(f"{self.name}{text}".encode()).digest()[:8], "little")
        return np.random.default_rng(seed).normal(size=self.width).astype(np.float32)


def items(*texts: str) -> pa.Table:
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    ids = [f"i{number}" for number in range(len(texts))]
    return pa.table({"item_id": ids, "text": texts, "text_hash": hashes})


def shards(folder: Path, kind: str = "vectors") -> list[Path]:
    return sorted(folder.rglob(f"*.{kind}"))


def test_each_distinct_text_is_encoded_once_ever(tmp_path: Path) -> None:
    encoder, cache = Counted(), TextCache(tmp_path)
    first = cache.vectors(encoder, ["a", "b", "a", "", "c"])
    assert encoder.encoded == ["a", "b", "", "c"]
    np.testing.assert_array_equal(first, [encoder.vector(text) for text in ("a", "b", "a", "", "c")])
    second = TextCache(tmp_path).vectors(encoder, ["d", "c", "", "d", "a"])
    assert encoder.encoded == ["a", "b", "", "c", "d"]
    np.testing.assert_array_equal(second, [encoder.vector(text) for text in ("d", "c", "", "d", "a")])
    assert cache.vectors(encoder, []).shape == (0, 4)


def test_one_percent_of_new_items_is_all_that_is_encoded(tmp_path: Path) -> None:
    encoder, cache = Counted(), TextCache(tmp_path)
    old = [f"item {number}" for number in range(1000)]
    rows, looked = encode_new(encoder, items(*old, "item 7"), cache)
    assert (looked.encoded, looked.reused) == (1000, 0)
    np.testing.assert_array_equal(matrix(rows["vector"])[-1], matrix(rows["vector"])[7])
    _, looked = encode_new(encoder, items(*old[::-1], *(f"new {number}" for number in range(10))), cache)
    assert (looked.encoded, looked.reused) == (10, 1000)
    # Away for a while, and back.
    _, looked = encode_new(encoder, items("item 3"), cache)
    _, looked = encode_new(encoder, items(*old), cache)
    assert (looked.encoded, looked.reused, looked.texts_per_second) == (0, 1000, 0.0)
    rows, looked = encode_new(Counted("model@2"), items(*old), cache)
    assert (looked.encoded, looked.reused) == (1000, 0)
    assert set(rows["encoder"].to_pylist()) == {"model@2"}
    assert looked.texts_per_second > 0


def test_encoders_do_not_mix(tmp_path: Path) -> None:
    cache = TextCache(tmp_path)
    one, other, slashed = Counted("a/b@1"), Counted("a_b@1"), Counted("../x" * 60)
    for encoder in (one, other, slashed):
        np.testing.assert_array_equal(cache.vectors(encoder, ["tea"])[0], encoder.vector("tea"))
        assert encoder.encoded == ["tea"]
    assert all(tmp_path in file.resolve().parents for file in shards(tmp_path))
    assert len(shards(tmp_path)) == 3


def _halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [_halved, *map(_flipped, (0, 8, 16, 30, 60, 200)), lambda _: b"", lambda content: content + b"x"],
)  # fmt: skip
def test_a_damaged_shard_is_named_and_encoded_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    encoder, cache = Counted(), TextCache(tmp_path)
    cache.vectors(encoder, ["whole"])
    (kept,) = shards(tmp_path)
    expected = cache.vectors(encoder, ["a", "b", "whole"])
    (file,) = set(shards(tmp_path)) - {kept}
    file.write_bytes(damage(file.read_bytes()))
    encoder.encoded.clear()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(TextCache(tmp_path).vectors(encoder, ["a", "b", "whole"]), expected)
    assert encoder.encoded == ["a", "b"]
    assert str(file) in caplog.text
    assert shards(tmp_path, "damaged") == [file.with_suffix(".damaged")]
    assert len(shards(tmp_path)) == 2
    caplog.clear()
    cache.vectors(encoder, ["a", "b"])
    assert not caplog.text


def test_what_a_table_holds_is_adopted(tmp_path: Path) -> None:
    encoder, cache = Counted(), TextCache(tmp_path)
    known = items("tea", "wine", "tea")
    vectors = np.array([encoder.vector(text) for text in ("tea", "wine", "tea")])
    table = known.append_column("encoder", pa.array([encoder.name, "other@1", encoder.name]))
    table = table.append_column("vector", vector_column(vectors))
    assert not cache.holds(encoder)
    cache.adopt(encoder, table.slice(1, 1))
    assert not cache.holds(encoder)
    cache.adopt(encoder, table)
    assert cache.holds(encoder)
    cache.vectors(encoder, ["tea", "wine"])
    assert encoder.encoded == ["wine"]


def test_keys_are_those_of_the_column_in_any_layout() -> None:
    hashes = items("a", "b", "c", "d")["text_hash"]
    expected = [value.encode() for value in hashes.to_pylist()]
    for column in (hashes, pa.chunked_array([hashes.chunk(0).slice(1, 2), hashes.chunk(0).slice(3)])):
        assert list(keys_of(column)) == [value.encode() for value in column.to_pylist()]
    assert list(keys_of(hashes.slice(2))) == expected[2:]
    assert len(keys_of(hashes.slice(4))) == 0


def test_a_failed_pass_keeps_nothing(tmp_path: Path) -> None:
    class Failing(Counted):
        def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        TextCache(tmp_path).vectors(Failing(), ["a"])
    assert not shards(tmp_path)


def _fill(folder: Path, start: int) -> None:
    encoder = Counted()
    for number in range(start, start + 30):
        TextCache(folder).vectors(encoder, [f"text {number}", f"text {number + 1}"])


def test_processes_may_fill_it_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fill, args=(tmp_path, start)) for start in (0, 10, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    encoder = Counted()
    texts = [f"text {number}" for number in range(51)]
    found = TextCache(tmp_path).vectors(encoder, texts)
    assert encoder.encoded == []
    np.testing.assert_array_equal(found, [encoder.vector(text) for text in texts])
    assert not shards(tmp_path, "unfinished")
    assert not shards(tmp_path, "damaged")


def test_whole_sessions_are_read_by_the_encoder_itself(tmp_path: Path) -> None:
    encoder = Encoder.load(TextConfig(encoder=str(make_model(tmp_path / "model"))))
    cache = TextCache(tmp_path / "cache")
    sessions = pa.chunked_array([["red wine, green tea", None], ["tea", "red wine, green tea"]])
    vectors = journey_vectors(encoder, cache, sessions)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1, 1], atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[3])
    np.testing.assert_array_equal(journey_vectors(encoder, cache, sessions), vectors)
    # A changed revision encodes all again: the file of another seed is another encoder.
    other = Encoder.load(TextConfig(encoder=str(make_model(tmp_path / "other", seed=1))))
    assert not cache.holds(other)
    assert not (journey_vectors(other, cache, sessions) == vectors).all()


def test_other_machines_encode_the_same_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_cache, "_SHARD", 3)
    config = TextConfig(encoder=str(make_model(tmp_path / "model")))
    encoder = Encoder.load(config, threads=2)
    texts = [f"{'red wine, ' * number}green tea" for number in range(8)]
    told: dict[str, list[tuple[int, int]]] = {"here": [], "there": []}
    here = TextCache(tmp_path / "here").vectors(encoder, texts, lambda *done: told["here"].append(done))
    with sending(tmp_path / "exchange") as engine:
        there = TextCache(tmp_path / "there").vectors(
            encoder, texts, lambda *done: told["there"].append(done), engine=engine
        )
        assert len(engine.given) == 3
        assert max(engine.given) < 5_000
        # Nobody is asked when all is known.
        TextCache(tmp_path / "there").vectors(encoder, texts, engine=engine)
        assert len(engine.given) == 3
    np.testing.assert_array_equal(here, there)
    names = [sorted(file.name for file in shards(tmp_path / place)) for place in ("here", "there")]
    assert names[0] == names[1]
    assert told["there"] == [(3, 8), (6, 8), (8, 8)]
    assert told["here"][-1] == (8, 8)


def test_a_machine_with_another_encoder_makes_nothing(tmp_path: Path) -> None:
    encoder = Encoder.load(TextConfig(encoder=str(make_model(tmp_path / "model", seed=2))))
    make_model(tmp_path / "model", seed=3)
    with (
        sending(tmp_path / "exchange") as engine,
        pytest.raises(UserError, match=r"text\.encoder: it is 'model@\S+' here and 'model@\S+' where the step runs"),
    ):
        TextCache(tmp_path / "cache").vectors(encoder, ["tea"], engine=engine)
    assert not shards(tmp_path)
