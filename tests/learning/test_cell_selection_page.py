"""The page of the scenarios that need mobile-env: its tables are as the scenarios say."""

from __future__ import annotations

from pathlib import Path

from edgebed.simulation.pages import missing_tables, page_name, up_to_date
from edgebed.simulation.scenarios import cell_selection

PAGE = Path(__file__).parents[2] / "docs" / "scenarios" / "cell-selection.md"


def test_the_tables_are_the_scenarios() -> None:
    assert page_name(cell_selection) == PAGE.name
    text = PAGE.read_text(encoding="utf-8")
    assert missing_tables(cell_selection, text) == []
    assert up_to_date(text) == text, "its tables are old; make them by: python -m edgebed.simulation.pages"
