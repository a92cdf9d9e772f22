"""Settings of what is made of scores: how many items, which never, which rather, and how varied the lists are."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from segflow.config.base import Section

Factor = Annotated[float, Field(gt=0, le=1000)]


class ExclusionConfig(Section):
    """What nobody is recommended."""

    items: list[str] = Field([], description="item ids")
    categories: list[str] = Field([], description="categories, of any level of the path")
    file: str | None = Field(
        None,
        description="text file with one item id a line, such as what is out of stock; ids that are no items are counted",
    )


class BoostConfig(Section):
    """What is recommended as if it were so many times as likely; factors of an item and its categories multiply."""

    items: dict[str, Factor] = Field({}, description="factors by item id; below 1 an item is recommended less")
    categories: dict[str, Factor] = Field({}, description="factors by category, of any level of the path")


class RecommendationConfig(Section):
    """The lists: their length, business rules, and re-ranking, which is off by default."""

    count: int = Field(20, ge=1, le=1000, description="items recommended to each user")
    exclude_seen: bool = Field(False, description="leave out what the user had; for films, not for groceries")
    new_items: int = Field(
        0,
        ge=0,
        le=1000,
        description="most places of a list for items of the catalogue that nobody had yet, scored by the items whose texts "
        "are alike; 0 is off",
    )
    exclude: ExclusionConfig = ExclusionConfig()
    boost: BoostConfig = BoostConfig()
    diversity: float = Field(
        0.0, ge=0, le=1, description="weight of being unlike the items before in the list, against the score; 0 is off"
    )
    exposure: float | None = Field(
        None, gt=0, le=1, description="most lists that one item may be in, as a share of all lists; none: any number"
    )
