"""Secrets in the settings are refused without being repeated, and those of the environment are named, never shown.

`pipeline/test_privacy.py` searches everything that a whole run writes for them.
"""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
import yaml

from segflow import settings
from segflow.config import Config
from segflow.defs.logged import settings_of
from segflow.errors import UserError
from segflow.secrets import in_address, is_telling
from segflow.storage import Storage
from segflow.storage.health import storage_findings

CANARY = "hunter2-canary-4711"
MINIMAL = {
    "source": {"events": {"path": "log.csv", "columns": {"user_id": "u", "ts": "t"}, "event_type": "view"}},
    "calendar": {"start": "2024-01-01"},
}


def written(folder: Path, key: str, value: object) -> Path:
    """A settings file with `value` at the dotted `key`."""
    values: dict[str, object] = yaml.safe_load(yaml.safe_dump(MINIMAL))
    place: dict[str, object] = values
    *above, last = key.split(".")
    for part in above:
        place = place.setdefault(part, {})  # type: ignore[assignment]
    place[last] = value
    (folder / "segflow.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder / "segflow.yaml"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "storage.options",
            {"aws_secret_access_key": CANARY},
            "write ${AWS_SECRET_ACCESS_KEY} and set that environment",
        ),
        ("storage.options", {"azure_storage_account_key": CANARY}, "is a secret, which stands in no file"),
        ("storage.options", {"sas_token": CANARY}, "is a secret"),
        ("storage.options", {"google_service_account_key": CANARY}, "is a secret"),
        ("storage.root", f"s3://key:{CANARY}@bucket/tables", "the address carries a secret"),
        ("tracking.uri", f"https://me:{CANARY}@mlflow.example.org", "MLFLOW_TRACKING_PASSWORD"),
        ("tracking.uri", f"postgresql://me:{CANARY}@host/mlflow", "the address carries a secret"),
        ("source.events.path", f"s3://key:{CANARY}@bucket/log", "the address carries a secret"),
        ("source.events.path", f"s3://bucket/log?secret_key={CANARY}", "the address carries a secret"),
        (
            "source.items",
            {"path": f"https://host/items.csv?sig={CANARY}", "columns": {}},
            "the address carries a secret",
        ),
        ("automation.notify.url_variable", f"https://hooks.example.org/{CANARY}", "String should match pattern"),
        ("segments.profiles.salt", CANARY, "String should match pattern"),
        ("source.pseudonyms.key_variable", CANARY, "String should match pattern"),
        ("storage.password", CANARY, "unknown key"),
    ],
)
def test_a_secret_in_the_settings_is_refused_and_not_repeated(
    tmp_path: Path, key: str, value: object, said: str
) -> None:
    with pytest.raises(UserError) as raised:
        settings.load(written(tmp_path, key, value))
    assert said in str(raised.value)
    assert key.split(".")[0] in str(raised.value)
    assert CANARY not in "".join(traceback.format_exception(raised.value))


def test_an_option_names_the_environment_variable_that_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"aws_secret_access_key": "${STORE_SECRET}", "aws_access_key_id": "AKIA", "aws_region": "eu-west-1"}
    config = settings.load(written(tmp_path, "storage.options", options))
    with pytest.raises(
        UserError, match=r"storage\.options\.aws_secret_access_key: the environment variable STORE_SECRET"
    ):
        Storage(config.storage.root, config.storage.options)
    (finding,) = storage_findings(config.storage, 0)
    assert (finding.state, "STORE_SECRET is not set" in finding.says) == ("fault", True)
    monkeypatch.setenv("STORE_SECRET", CANARY)
    storage = Storage(config.storage.root, config.storage.options)
    assert storage.options == {**options, "aws_secret_access_key": CANARY}
    shown = [config.model_dump_json(), repr(config), str(settings_of(config, list(Config.model_fields))), repr(storage)]
    assert not any(CANARY in one for one in shown)


@pytest.mark.parametrize(
    "address",
    [
        "data/tables",
        "/a:b@c",
        "s3://bucket/a@b:c",
        "s3://bucket?endpoint_override=http://127.0.0.1:9000",
        "http://me@host",
        "package:x/y",
    ],
)
def test_addresses_without_a_secret_pass(address: str) -> None:
    assert not in_address(address)


@pytest.mark.parametrize(
    "name", ["aws_access_key_id", "aws_region", "endpoint", "allow_http", "google_service_account_path"]
)
def test_options_that_are_no_secret_pass(name: str) -> None:
    assert not is_telling(name)
