"""What counts as an id in a text: all its spellings, never a part of a longer one."""

from __future__ import annotations

import html
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from segflow.erasure import audit, files
from segflow.erasure.needles import ERASED, Needles, is_common

ODD = 'o\'brien "x" <é> & co\\'


@pytest.mark.parametrize(
    "text",
    [
        "user42",
        "of user42.",
        "(user42)",
        '{"user": "user42"}',
        "user42: failed",
        "user42@20240114T101500.000000",
        "user42,7",
    ],
)
def test_an_id_is_found_where_it_stands_by_itself(text: str) -> None:
    needles = Needles(["user42"])
    assert needles.found(text.encode())
    assert needles.redacted(text) == text.replace("user42", ERASED)


@pytest.mark.parametrize(
    "text", ["user421", "auser42", "user42-b", "b-user42", "user42.b", "user42@example.org", "user42é"]
)
def test_a_longer_id_that_holds_it_is_another_one(text: str) -> None:
    needles = Needles(["user42"])
    assert not needles.found(text.encode())
    assert needles.redacted(text) == text


def test_escapes_of_json_are_no_letters_of_an_id() -> None:
    needles = Needles(["u0041", "user42"])
    assert needles.found(json.dumps("line\nu0041").encode())
    assert needles.redacted(json.dumps("line\nuser42\tu0041")) == json.dumps(f"line\n{ERASED}\t{ERASED}")
    script = r"text.replace('\u0041', '')"
    assert not needles.found(script.encode())
    assert needles.redacted(script) == script


@given(st.text(min_size=5).filter(lambda one: not is_common(one)))
def test_every_spelling_is_found(user: str) -> None:
    needles = Needles([user])
    once = json.dumps({"user": user})
    for text in (
        user,
        once,
        json.dumps(user, ensure_ascii=False),
        json.dumps(once),
        html.escape(user),
        str(escape(user)),
    ):
        assert needles.found(f"[{text}]".encode(errors="surrogatepass"))


def test_an_id_that_texts_hold_by_chance_is_not_looked_for() -> None:
    needles = Needles(["42", "123456789", "ab"], ["f" * 64])
    assert needles.common == ["42", "123456789", "ab"]
    assert not needles.found(b"42 rows, 123456789 bytes, ab")
    assert needles.redacted(f"<{'f' * 64}>") == f"<{ERASED}>"
    assert not Needles(["42"]).found(b"42")


def test_files_are_searched_and_mended(tmp_path: Path) -> None:
    needles = Needles(["user42", ODD])
    page, log, other, model = (tmp_path / name for name in ("a/page.html", "log", "other.txt", "model.bin"))
    page.parent.mkdir()
    page.write_text(f"<b>{escape(ODD)}</b> and user421", encoding="utf-8")
    log.write_text(json.dumps({"note": f"of {ODD} and user42"}), encoding="utf-8")
    other.write_text("user421 and user42-b", encoding="utf-8")
    model.write_bytes(b"\xff\xfe user42 \xff")
    assert files.naming(tmp_path, needles) == (4, [page, log, model])
    before = other.stat()
    assert files.mend(page, needles)
    assert files.mend(log, needles)
    assert not files.mend(model, needles), "of a file of unknown form nothing is cut out"
    assert files.naming(tmp_path, needles) == (4, [model])
    assert page.read_text(encoding="utf-8") == f"<b>{ERASED}</b> and user421"
    assert json.loads(log.read_text(encoding="utf-8")) == {"note": f"of {ERASED} and {ERASED}"}
    assert other.stat() == before
    assert files.naming(tmp_path / "absent", needles) == (0, [])


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_keeps_no_trace_in_cells_nor_in_unused_pages(tmp_path: Path, mode: str) -> None:
    file, needles = tmp_path / "records.db", Needles(["user42"])
    with closing(sqlite3.connect(file)) as database:
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute('CREATE TABLE "the events" ("key" TEXT, body TEXT, number INTEGER)')
        # Cells have nothing between them: only read one by one do they tell the id from `view`.
        rows = [("user42", "view", 1), ("x", '{"of": "user42"}', 2), ("user421", "y", 3), ("z", "user42 " * 500, 4)]
        database.executemany('INSERT INTO "the events" VALUES (?, ?, ?)', rows)
        database.execute('DELETE FROM "the events" WHERE number = 4')
        database.commit()
    assert files.naming(tmp_path, needles)[1] == [file]
    assert files.mend(file, needles)
    assert files.naming(tmp_path, needles) == (1, [])
    assert b"user42" not in file.read_bytes().replace(b"user421", b"")
    with closing(sqlite3.connect(file)) as database:
        kept = database.execute('SELECT * FROM "the events" ORDER BY number').fetchall()
    assert kept == [(ERASED, "view", 1), ("x", f'{{"of": "{ERASED}"}}', 2), ("user421", "y", 3)]


def test_the_line_tells_who_asks_with_the_id_and_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "data" / "erasures.jsonl"
    audit.record(file, ["user42", ODD], {"outcome": "erased"})
    audit.record(file, ["user42"], {"outcome": "left"})
    first, second = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert (first["outcome"], second["outcome"]) == ("erased", "left")
    assert first["users"] == [audit.fingerprint(one, bytes.fromhex(first["salt"])) for one in ("user42", ODD)]
    assert second["users"][0] not in first["users"], "lines cannot be joined"
    assert b"user42" not in file.read_bytes()
