"""``docs/scenarios``: a page a module, every table as the scenario says, nothing left to be written."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from edgebed.simulation.pages import first_page, missing_tables, modules, page_name, up_to_date
from edgebed.simulation.scenarios import dc_drl, scenario_names

PAGES = Path(__file__).parents[2] / "docs" / "scenarios"
HEADINGS = [
    "Description",
    "Action Space",
    "Observation Space",
    "Rewards",
    "Starting State",
    "Episode End",
    "Parameters",
    "Heuristics",
    "Anchors",
]
REMAKE = "make it by: python -m edgebed.simulation.pages"

NEEDS_EXTRA = "cell-selection.md"
"""Made from mobile-env's stations: `make test-learning` checks it."""

each_module = pytest.mark.parametrize(
    "module", [module for module in modules() if page_name(module) != NEEDS_EXTRA], ids=page_name
)


def page(module: ModuleType) -> str:
    path = PAGES / page_name(module)
    assert path.is_file(), f"{path} is missing; {REMAKE}"
    return path.read_text(encoding="utf-8")


@each_module
def test_the_tables_are_the_scenario_s(module: ModuleType) -> None:
    text = page(module)
    assert missing_tables(module, text) == []
    assert up_to_date(text) == text, f"the tables of {page_name(module)} are old; {REMAKE}"


@each_module
def test_a_page_has_gymnasium_s_headings_and_words_below_each(module: ModuleType) -> None:
    parts = re.split(r"^## (.+)\n", page(module), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert [heading for heading in sections if heading in HEADINGS] == HEADINGS
    empty = [heading for heading in HEADINGS if not sections[heading].strip()]
    assert not empty, f"{page_name(module)}: nothing is said below {', '.join(empty)}"


def test_every_page_belongs_to_a_module_and_the_list_names_all() -> None:
    names = {page_name(module) for module in modules()}
    assert {path.name for path in PAGES.glob("*.md")} - {"README.md"} == names
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    assert [name for name in names if f"({name})" not in index] == []
    assert [name for name in scenario_names() if f"`{name}`" not in index] == []


def test_an_old_table_is_noticed_and_made_anew() -> None:
    fresh = first_page(dc_drl)
    assert missing_tables(dc_drl, fresh) == []
    for old, new in (("| 0.6 | s |", "| 0.7 | s |"), ("`queue_s`", "`queue_m`"), ("channel 4", "channel five")):
        changed = fresh.replace(old, new)
        assert changed != fresh
        assert up_to_date(changed) == fresh
    assert missing_tables(dc_drl, fresh.replace("dc-drl actions", "dc-drl deeds")) == ["<!-- dc-drl actions -->"]
