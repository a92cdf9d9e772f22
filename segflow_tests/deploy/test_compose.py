"""What containers get from the environment."""

from __future__ import annotations

import yaml

from segflow_tests.pipeline.project import ROOT


def test_variables_of_an_object_store_are_not_set_to_nothing() -> None:
    """An empty address is taken for one, and no store is found there."""
    environment = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["x-environment"]
    passed = {name: value for name, value in environment.items() if name.startswith("AWS_")}
    assert {"AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(passed)
    assert set(passed.values()) == {None}
