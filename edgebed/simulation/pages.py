"""The tables of the scenarios' pages, written from the scenarios themselves, so that pages cannot drift.

    python -m edgebed.simulation.pages [docs/scenarios]

A page belongs to a module of `edgebed.simulation.scenarios`. Its text is written by hand; between
``<!-- NAME TABLE -->`` and ``<!-- end -->`` stands a table of the scenario NAME with its default parameters. A page
that does not exist yet begins with what the module's docstring says. A test compares.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from edgebed.simulation import scenarios
from edgebed.simulation.base import Parameters, Scenario
from edgebed.types import Feature

_BLOCK = re.compile(r"<!-- (?P<name>\S+) (?P<table>\w+) -->\n.*?<!-- end -->", re.DOTALL)


def modules() -> Iterator[ModuleType]:
    """The modules that define scenarios."""
    for info in pkgutil.iter_modules(scenarios.__path__, f"{scenarios.__name__}."):
        module = importlib.import_module(info.name)
        if hasattr(module, "SCENARIOS"):
            yield module


def page_name(module: ModuleType) -> str:
    """File of a module's page."""
    return module.__name__.rpartition(".")[2].replace("_", "-") + ".md"


def up_to_date(text: str) -> str:
    """A page with its tables written anew."""

    def table(found: re.Match[str]) -> str:
        scenario = scenarios.make_scenario(found["name"])
        return _block(found["name"], found["table"], _TABLES[found["table"]](scenario))

    return _BLOCK.sub(table, text)


def missing_tables(module: ModuleType, text: str) -> list[str]:
    """The tables that a module's page should have and has not."""
    there = {(found["name"], found["table"]) for found in _BLOCK.finditer(text)}
    wanted = [(kind.spec.name, table) for kind in module.SCENARIOS for table in _TABLES]
    return [f"<!-- {name} {table} -->" for name, table in wanted if (name, table) not in there]


def first_page(module: ModuleType) -> str:
    """What a page begins as: Gymnasium's headings, the tables, and the module's own words."""
    kinds: tuple[type[Scenario], ...] = module.SCENARIOS
    text = (module.__doc__ or "").strip()
    parts = [f"# {', '.join(f'`{kind.spec.name}`' for kind in kinds)}", "", "## Description", "", text, ""]
    for heading, table in _HEADINGS:
        parts += [f"## {heading}", ""]
        for kind in kinds if table else ():
            if len(kinds) > 1:
                parts += [f"`{kind.spec.name}`:", ""]
            parts += [_block(kind.spec.name, table, ""), ""]
    return up_to_date("\n".join(parts))


def _block(name: str, table: str, content: str) -> str:
    return f"<!-- {name} {table} -->\n\n{content}\n\n<!-- end -->"


def _actions(scenario: Scenario) -> str:
    layout = scenario.actions
    parts = []
    if layout.choices:
        shape = "[B, N]" if not layout.numbers else f"[B, N, {layout.width}]"
        what = "Integers" if not layout.numbers else "Floats; the first of each device is its choice"
        rows = [(index, choice) for index, choice in enumerate(layout.choices)]
        parts += [f"{what}, `{shape}`.", "", _table(("choice", "meaning"), rows)]
    if layout.numbers:
        first = 1 if layout.choices else 0
        if not layout.choices:
            parts += [f"Floats, `[B, N, {layout.width}]`."]
        parts += ["", _table(_FEATURE_HEADINGS, _feature_rows(layout.numbers, first))]
    return "\n".join(parts).strip()


def _observation(scenario: Scenario) -> str:
    count = len(scenario.device_features)
    total = scenario.devices * count + len(scenario.shared_features)
    shared = len(scenario.shared_features)
    parts = [
        f"{total} numbers, float32: {count} for each of the {scenario.devices} devices, {shared} shared.",
        "",
        f"Of device i, at {count} i + index:",
        "",
        _table(_FEATURE_HEADINGS, _feature_rows(scenario.device_features)),
    ]
    if scenario.shared_features:
        first = scenario.devices * count
        parts += ["", "Shared:", "", _table(_FEATURE_HEADINGS, _feature_rows(scenario.shared_features, first))]
    return "\n".join(parts)


def _parameters(scenario: Scenario) -> str:
    headings = ("parameter", "default", "unit", "allowed", "meaning", "source")
    return _table(headings, parameter_rows(scenario.spec.parameters)) if _fields(scenario) else "There are none."


def _fields(scenario: Scenario) -> tuple[str, ...]:
    return scenario.spec.parameters.__struct_fields__


def parameter_rows(kind: type[Parameters]) -> Iterator[tuple[str, ...]]:
    """Name, default, unit, range, meaning and source of each setting."""
    defaults = kind()
    for name, hint in get_type_hints(kind, include_extras=True).items():
        note = get_args(hint)[1]
        extra = note.extra or {}
        default = _plain(getattr(defaults, name))
        yield (
            f"`{name}`",
            default,
            extra.get("unit", ""),
            _allowed(note),
            note.description or "",
            extra.get("source", ""),
        )


def _allowed(note: Any) -> str:
    bounds = (("at least", note.ge), ("above", note.gt), ("at most", note.le), ("below", note.lt))
    return ", ".join(f"{word} {_plain(bound)}" for word, bound in bounds if bound is not None)


def _heuristics(scenario: Scenario) -> str:
    rows = []
    for name, kind in scenario.heuristics.items():
        options = ", ".join(f"`{row[0].strip('`')}` ({row[1]}): {row[4]}" for row in parameter_rows(kind.options_type))
        rows.append((f"`{name}`", (kind.__doc__ or "").strip().partition("\n")[0], options))
    return _table(("policy", "what it does", "options (default)"), rows)


_FEATURE_HEADINGS = ("index", "name", "unit", "range", "meaning")


def _feature_rows(features: Iterable[Feature], first: int = 0) -> Iterator[tuple[object, ...]]:
    for index, one in enumerate(features, first):
        yield index, f"`{one.name}`", one.unit, f"{_plain(one.low)} to {_plain(one.high)}", one.meaning


def _plain(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    if isinstance(value, float) and abs(value) >= 1e6:
        digits, exponent = f"{value:.9e}".split("e")
        return f"{float(digits):g}e{int(exponent)}"
    return str(value) if isinstance(value, int) else re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.10g}")


def _table(headings: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    names = list(headings)
    lines: list[Iterable[object]] = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


_TABLES: dict[str, Callable[[Scenario], str]] = {
    "actions": _actions,
    "observation": _observation,
    "parameters": _parameters,
    "heuristics": _heuristics,
}
_HEADINGS = (
    ("Action Space", "actions"),
    ("Observation Space", "observation"),
    ("Rewards", ""),
    ("Starting State", ""),
    ("Episode End", ""),
    ("Parameters", "parameters"),
    ("Heuristics", "heuristics"),
    ("Anchors", ""),
)


def main(arguments: list[str]) -> None:
    """Write the tables of every page anew, and begin the pages that are missing."""
    folder = Path(arguments[0] if arguments else "docs/scenarios")
    folder.mkdir(parents=True, exist_ok=True)
    for module in modules():
        page = folder / page_name(module)
        text = up_to_date(page.read_text(encoding="utf-8")) if page.exists() else first_page(module)
        page.write_text(text, encoding="utf-8")
        for marker in missing_tables(module, text):
            print(f"{page}: has no table {marker}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
