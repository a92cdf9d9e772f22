"""What every part of the settings shares."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from segflow.secrets import in_address


def did_you_mean(near: list[str]) -> str:
    """The close matches of a misspelled name, as the end of a message."""
    return f" (did you mean '{near[0]}'?)" if near else ""


def _on_this_machine(path: str) -> str:
    if "://" in path:
        raise ValueError(
            f"'{path}' is not on this machine; name a folder or file here: of what segflow writes, only storage.root and "
            "compute.exchange may lie in an object store"
        )
    return path


LocalPath = Annotated[str, AfterValidator(_on_this_machine)]
"""A file or folder of this machine: what is written there is appended to, mapped into memory, locked or renamed."""


class Section(BaseModel):
    """A part of the settings; unknown keys are errors and values do not change after loading. Numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _without_secret(address: str) -> str:
    if in_address(address):
        raise ValueError(
            "the address carries a secret, which would stand in logs and records; take it out, and set the environment "
            "variables that its client reads (AWS_SECRET_ACCESS_KEY, MLFLOW_TRACKING_PASSWORD and the like)"
        )
    return address


Address = Annotated[str, AfterValidator(_without_secret)]
"""A path or URI without a password."""
