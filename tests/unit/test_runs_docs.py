"""``docs/trace.md`` has every column, in order, with its type, and the thresholds of the verdict as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgebed.trace.runs import TABLES
from edgebed.trace.schema import columns
from orchestrator import verdict
from orchestrator.run_facts import INCIDENTS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "trace.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_explained_in_order(table: str) -> None:
    section = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(f"`{table}`")]
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z\[\]]+) \|([^|]*)\| ([^|]+) \|$", text, flags=re.MULTILINE)
    assert [(name, sql_type) for name, sql_type, _, _ in rows] == [tuple(column) for column in columns(TABLES[table])]
    for name, _, unit, _ in rows:
        suffix = {"s": "s", "bps": "bit/s", "hz": "Hz", "j": "J", "w": "W", "bytes": "B"}.get(name.rpartition("_")[2])
        assert suffix is None or unit.strip() == suffix, name


def test_the_verdicts_thresholds_are_those_of_the_code() -> None:
    assert (verdict.INVALID_DOWN_SHARE, verdict.INVALID_NOT_RUN_SHARE) == (0.05, 0.05)
    assert (verdict.SUSPECT_UNKNOWN_SHARE, verdict.SUSPECT_LATE_SHARE, verdict.SUSPECT_FALLBACK_SHARE) == (0.05,) * 3
    assert (verdict.SUSPECT_CLOCK_ERROR_S, verdict.SUSPECT_CLOCK_SHARE, verdict.SUSPECT_FLAG_SHARE) == (0.01,) * 3
    assert verdict.IMPROBABLE == 1e-6
    assert verdict.SUSPECT_OTHER_WORK_SHARE == 0.5
    assert "above 10 ms | above 1 % |" in TEXT
    for name in (*verdict.DOWN_REASONS, *INCIDENTS, verdict.NOT_RUN, *verdict._TROUBLE_FLAGS):
        assert f"`{name}`" in TEXT
