"""Every command of the docs: all can be parsed and name what exists; those that do not take hours are run, page by page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from segflow_tests.docs.blocks import PAGES, ROOT, Block, Reader, blocks, missing
from segflow_tests.pipeline.project import SMALL
from segflow_tests.planted import planted_log

ALL = [block for page in PAGES for block in blocks(page)]
RUN = ("README.md", "tutorial.md", "howto.md")


@pytest.mark.parametrize("block", ALL, ids=str)
def test_what_a_command_names_exists(block: Block) -> None:
    assert missing(block) == []
    assert block.how == "parse" or re.fullmatch(r"run|server \d+", block.how), block.how
    assert block.how == "parse" or block.page.name in RUN, "no test runs this page: mark the block, or add the page"


def test_a_command_that_does_not_exist_is_found() -> None:
    text = "nosuchprogram x\nmake nosuchtarget\nsegflow run --nosuch\nsegflow nosuch\nif then\n"
    assert len(missing(Block(ROOT / "README.md", 1, "run", text))) >= 5


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    for name in ("home", "tools"):
        (tmp_path / name).mkdir()
    return Reader(tmp_path / "home", tmp_path / "tools")


def shrink(settings: Path) -> None:
    """Small models, so that minutes become seconds; what a reader types stays as it is."""
    values: dict[str, Any] = yaml.safe_load(settings.read_text(encoding="utf-8"))
    small = {key: value for key, value in SMALL.items() if key not in ("cleaning", "users", "text")}
    settings.write_text(yaml.safe_dump({**small, **values}), encoding="utf-8")


def page(name: str) -> list[Block]:
    return [block for block in ALL if block.page.name == name and block.how != "parse"]


@pytest.mark.slow
def test_the_tutorial_and_the_how_to(reader: Reader) -> None:
    first, *rest = page("tutorial.md")
    reader.type(first)
    assert reader.folder.name == "shop"
    shrink(reader.folder / "segflow.yaml")
    said = [reader.type(block) for block in rest]
    runs = [one for one in said if "Verdict: " in one]
    assert " rows in " in runs[0]
    assert " rows in " not in runs[1], "nothing is made twice"
    week = re.search(r"Segments of week (\S+)", runs[0])
    assert week is not None
    # The page that the text sends the reader to.
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    for named in set(re.findall(r"data/reports/\S+?\.html", text)):
        assert (reader.folder / named).is_file(), named
    assert json.loads(said[-1][said[-1].index('{"') :])["week"] == week[1]
    made = "".join(reader.type(block) for block in page("howto.md"))
    assert "to make: " in made


@pytest.mark.slow
def test_the_worked_example_of_the_readme(reader: Reader) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    log, settings = (
        re.findall(rf"^```{one}\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)[0] for one in ("csv", "yaml")
    )
    planted = planted_log(reader.folder, users=80, weeks=14)
    titles = pd.read_csv(planted.items).set_index("product")["name"]
    rows = pd.read_csv(planted.events).rename(columns={"type": "event", "time": "when"})
    rows["title"] = rows["item"].map(titles)
    rows[log.splitlines()[0].split(",")].to_csv(reader.folder / "shop_events.csv", index=False)
    (reader.folder / "segflow.yaml").write_text(settings, encoding="utf-8")
    shrink(reader.folder / "segflow.yaml")
    said = "".join(reader.type(block) for block in page("README.md"))
    assert "Verdict: " in said
    assert list((reader.folder / "out" / "sessions").glob("*.parquet"))
