"""``docs/trace.md`` has every column, in order, with its type, and the thresholds of the verdict as they are."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from edgebed.protocol.messages import ErrorCode, RefusalReason
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


REASON_GIVERS = {
    "device_agent.agent": {"refused"},
    "device_agent.cell": {"_end"},
    "device_agent.dispatch": {"fail", "lose", "refused", "_refuse", "_give_up"},
    "device_agent.member": {"_drop"},
}
"""Modules that end tasks, and their calls that are handed the reason."""


def texts(node: ast.AST, module: ModuleType) -> Iterator[str]:
    """The texts that an expression may be: literals, and constants of its module; of an f-string the beginning."""
    for leaf in ast.walk(node):
        if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
            yield leaf.value
        elif isinstance(leaf, ast.Name) and isinstance(getattr(module, leaf.id, None), str):
            yield getattr(module, leaf.id)


def reasons_in(name: str, calls: set[str]) -> set[str]:
    module = importlib.import_module(name)
    found: set[str] = set()
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in calls:
            found.update(*(texts(each, module) for each in (*node.args, *node.keywords)))
        elif isinstance(node, ast.Assign) and any(ast.unparse(each) == "reason" for each in node.targets):
            found.update(texts(node.value, module))
    return found


def reasons_of_unreported() -> set[str]:
    module = importlib.import_module("orchestrator.unreported")
    tree = ast.parse(Path(str(module.__file__)).read_text())
    returns = [node for node in ast.walk(tree) if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple)]
    return {text for node in returns for text in texts(node, module)}


def test_every_reason_is_explained_and_nothing_else() -> None:
    explained = re.search(r"^\| reason \|.*?\n\n", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert explained
    rows = re.findall(r"^\| (`.+?) \| (\w+)", explained.group(), flags=re.MULTILINE)
    on_page = [reason for names, _ in rows for reason in re.findall(r"`([\w<>]+)`", names)]
    in_code = {reason.value for reason in RefusalReason} | reasons_of_unreported()
    for name, calls in REASON_GIVERS.items():
        found = reasons_in(name, calls)
        assert found, f"{name} ends no task any more: take it out, and add who does"
        in_code |= found
    assert sorted(on_page) == sorted({"error_<code>" if reason == "error_" else reason for reason in in_code})
    codes = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert all(f"`{code.value}`" in codes for code in ErrorCode)
