"""The docs say what is: generated pages are current, and what the README names exists and works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from segflow import reference
from segflow import settings as settings_file
from segflow.cli.app import segflow
from segflow.events.preflight import preflight

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WRITTEN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", reference.pages())
def test_generated_page_is_current(name: str) -> None:
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert page == reference.pages()[name], "stale: run `make docs`"


def test_every_setting_and_column_is_documented() -> None:
    settings, tables = reference.settings_page(), reference.tables_page()
    for name in ("minimum_relative_gain", "gap_minutes", "history_weeks", "encoder", "root", "seed"):
        assert f"`{name}`" in settings
    for table in reference.ALL.values():
        assert f"## {table.name}\n" in tables
        assert all(f"| `{column.name}` | `{column.type}` |" in tables for column in table.columns)


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^\s*)make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_commands_parse() -> None:
    commands = re.findall(r"(?:^segflow (?=run|check|report)|`segflow (?=compare))([^#\n`]*)", README, re.MULTILINE)
    assert {"run", "check", "report", "compare"} <= {command.split()[0] for command in commands}
    for command in commands:
        name, *rest = command.split()
        # Parsed like a command line, and not run.
        segflow.commands[name].make_context(name, rest)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), f"{page.name}: no file {target}"


def test_worked_example_passes_the_check(tmp_path: Path) -> None:
    log, settings = _blocks("csv")[0], _blocks("yaml")[0]
    (tmp_path / yaml.safe_load(settings)["source"]["events"]["path"]).write_text(log, encoding="utf-8")
    (tmp_path / settings_file.FILE_NAME).write_text(settings, encoding="utf-8")
    found = preflight(settings_file.load(tmp_path / settings_file.FILE_NAME))
    rows = len(log.strip().splitlines()) - 1
    assert found[0].startswith(f"events: {rows} rows")
    assert found[0].endswith("0 without a readable time")
    assert found[1] == f"items: {len({line.split(',')[1] for line in log.splitlines()[1:]})}"
