"""The papers' system models, found by walking this folder and the entry-point group ``edgebed.scenarios``.

A module in this folder is a scenario when it defines ``SCENARIOS``, a tuple of `edgebed.simulation.base.Scenario`
classes (variants of one paper lie in one file). ``docs/scenarios/README.md`` says how to add one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from edgebed import entry_points
from edgebed.errors import BadInput
from edgebed.simulation.base import Scenario

ENTRY_POINT_GROUP = "edgebed.scenarios"
CALIBRATED = "calibrated:"

__all__ = ["CALIBRATED", "ENTRY_POINT_GROUP", "make_scenario", "scenario_class", "scenario_names"]


def scenario_names() -> list[str]:
    """The names that `make_scenario` knows, in alphabetical order."""
    return sorted(_sources())


def scenario_class(name: str) -> type[Scenario]:
    """The class registered under ``name``.

    Raises:
        BadInput: no scenario has this name.
    """
    sources = _sources()
    if name not in sources:
        known = ", ".join([*sorted(sources), f"{CALIBRATED}PROFILE"])
        raise BadInput(f"scenario: there is no {name!r}; those that exist: {known}")
    return sources[name]


def make_scenario(name: str, parameters: Mapping[str, Any] | None = None) -> Scenario:
    """Make a scenario; `Scenario.reset` it before use.

    Args:
        name: one of `scenario_names`, or ``calibrated:PROFILE``, a file that ``edgebed calibrate`` wrote.
        parameters: its settings; those left out have defaults.

    Raises:
        BadInput: no scenario has this name, or a parameter is unknown or out of range.
    """
    if name.startswith(CALIBRATED):
        module = importlib.import_module("edgebed.simulation.calibrated")
        made: Scenario = module.make(name.removeprefix(CALIBRATED), parameters)
        return made
    return scenario_class(name)(parameters)


@cache  # it reads the folder, and every installed package's entry points
def _sources() -> dict[str, type[Scenario]]:
    found: dict[str, type[Scenario]] = {}
    for info in pkgutil.iter_modules(__path__, f"{__name__}."):
        for kind in getattr(importlib.import_module(info.name), "SCENARIOS", ()):
            found[kind.spec.name] = kind
    for point in entry_points.points_of(ENTRY_POINT_GROUP):
        found[point.name] = point.load()
    return found
