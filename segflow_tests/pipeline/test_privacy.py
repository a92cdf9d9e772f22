"""A whole run with pseudonyms and secrets in the environment: everything that was written and said is searched for both.

Then one of the users is erased, while the source goes on holding them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from segflow import tables
from segflow_tests.pipeline.conftest import open_instance
from segflow_tests.pipeline.project import EMBEDDED, SOURCE, Deployment, Project
from segflow_tests.pipeline.searched import files_with
from segflow_tests.planted import START, planted_log

pytestmark = pytest.mark.slow

OWN = {"events.csv", "items.csv", "users.csv", "ties.csv"}
KEY = "canary-key-0001-of-the-user-ids"
SECRETS = {
    "SEGFLOW_USER_KEY": KEY,
    "SEGFLOW_SALT": "canary-salt-0002-of-the-exemplars",
    "SEGFLOW_NOTIFY_URL": "http://127.0.0.1:9/canary-hook-0003",
    "STORE_SECRET": "canary-store-0004",
    "AWS_SECRET_ACCESS_KEY": "canary-aws-0005",
    "MLFLOW_TRACKING_PASSWORD": "canary-mlflow-0006",
    "MLFLOW_TRACKING_TOKEN": "canary-mlflow-0007",
}
ADDRESS = "@person.example"


def words() -> list[bytes]:
    """The secrets, their hexadecimal form, and the key as the engine is given it."""
    block = KEY.encode().ljust(64, b"\0")
    masked = [bytes(byte ^ mask for byte in block)[: len(KEY)] for mask in (0x36, 0x5C)]
    plain = [value.rsplit("/")[-1].encode() for value in SECRETS.values()]
    return [
        *plain,
        *(one.hex().encode() for one in plain),
        *masked,
        *(one.hex().encode() for one in masked),
        ADDRESS.encode(),
    ]


def made(folder: Path) -> tuple[Project, pd.DataFrame]:
    """A project of people with addresses for ids, and the rows of its source."""
    log = planted_log(folder, users=120, weeks=10, dirt=True)
    rows = pd.read_csv(log.events, dtype=str, keep_default_na=False)
    rows["user"] = [f"{user}{ADDRESS}" if user else "" for user in rows["user"]]
    rows.to_csv(log.events, index=False)
    with log.events.open("a", encoding="utf-8") as file:
        # A field too many, and fields out of place: what could not be read may be a user.
        file.write(
            f"u0001{ADDRESS},x,view,2024-01-03 10:00:00,1,u0001{ADDRESS}\nx,x,view,u0001{ADDRESS},u0001{ADDRESS}\n"
        )
    people = sorted(set(rows["user"]) - {""})
    pd.DataFrame(
        {"user_id": people, "tier": ["gold", "silver"] * (len(people) // 2) + ["gold"] * (len(people) % 2)}
    ).to_csv(folder / "users.csv", index=False)
    pd.DataFrame({"user_id": people[:-1], "other_id": people[1:]}).to_csv(folder / "ties.csv", index=False)
    source = {
        **SOURCE,
        "users": {"path": "users.csv", "attributes": ["tier"]},
        "edges": {"path": "ties.csv"},
        "pseudonyms": {"enabled": True},
    }
    project = Project.make(
        folder,
        log.start,
        log.end,
        Deployment(EMBEDDED.dagster, SECRETS),
        source=source,
        storage={"options": {"aws_secret_access_key": "${STORE_SECRET}"}},
        automation={"notify": {"to": "webhook"}},
    )
    return project, rows


def test_no_id_and_no_secret_is_written_or_said_and_who_is_erased_stays_away(tmp_path: Path) -> None:
    project, rows = made(tmp_path)
    said = []
    for command in (
        ["check", "--json"],
        ["run", "--weeks", "1"],
        ["report"],
        ["doctor", "--json"],
        ["export", "out.csv"],
    ):
        done = project.segflow(*command)
        said += [done.stdout, done.stderr]
        assert done.returncode == 0 or command[0] == "doctor", done.stderr
    said.append(project.segflow("run", "--weeks", "200").stderr)
    assert not any(word.decode(errors="replace") in "".join(said) for word in words())
    assert files_with(tmp_path, *words(), leaving_out=OWN) == []

    expected = {hmac.new(KEY.encode(), user.encode(), hashlib.sha256).hexdigest() for user in rows["user"] if user}
    for table in (tables.EVENTS, tables.SESSIONS, tables.USERS, tables.USER_EDGES, tables.RECOMMENDATIONS):
        held = set(project.read(table)["user_id"].to_pylist())
        assert held, table.name
        assert held <= expected, table.name
    unread = set(project.read(tables.QUARANTINED_EVENTS)["unparsed"].to_pylist()) - {None}
    assert unread
    assert all("=(withheld)" in one and "@" not in one for one in unread)

    (tmp_path / "out.csv").unlink()  # what is exported is out of reach
    _erased_and_read_again(project, rows)


def _erased_and_read_again(project: Project, rows: pd.DataFrame) -> None:
    user = rows["user"][rows["user"] != ""].value_counts().index[0]
    pseudonym = hmac.new(KEY.encode(), user.encode(), hashlib.sha256).hexdigest().encode()
    assert files_with(project.folder / "data", pseudonym)
    done = project.segflow("erase", "--user", user, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["outcome"], told["users_newly_suppressed"]) == ("erased", 1)
    assert files_with(project.folder, pseudonym, user.encode(), leaving_out=OWN) == []

    # The source still has them, and more of them.
    source = project.folder / "events.csv"
    more = rows[rows["user"] == user].tail(3).assign(price="77.5")
    pd.concat([rows, more]).to_csv(source, index=False)
    span = f"{START + timedelta(weeks=8)}..{START + timedelta(days=69)}"
    assets = "source_files,items,users,user_edges,days"
    again = project.segflow("backfill", span, "--assets", assets, "--force")
    assert again.returncode == 0, again.stderr
    assert files_with(project.folder, pseudonym, user.encode(), leaving_out=OWN) == []
    with open_instance(project) as instance:
        (record,) = instance.fetch_materializations(dg.AssetKey("source_files"), limit=1).records
    assert record.asset_materialization is not None
    assert record.asset_materialization.metadata["suppressed_rows"].value == sum(rows["user"] == user) + 3
    assert project.read(tables.USERS).num_rows == len(set(rows["user"]) - {"", user})
