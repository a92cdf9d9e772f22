"""What every part of the settings shares."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


def did_you_mean(near: list[str]) -> str:
    """The close matches of a misspelled name, as the end of a message."""
    return f" (did you mean '{near[0]}'?)" if near else ""


class Section(BaseModel):
    """A part of the settings; unknown keys are errors and values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
