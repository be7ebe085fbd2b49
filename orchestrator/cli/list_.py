"""List the policies, scenarios, learners, workloads, boards or meters that there are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from orchestrator.cli.output import Output

EXAMPLES = ("edgebed list policies", "edgebed list boards --json")


FAKES = "workloads.testing"


class Kind(StrEnum):
    """What can be listed."""

    POLICIES = "policies"
    SCENARIOS = "scenarios"
    LEARNERS = "learners"
    WORKLOADS = "workloads"
    BOARDS = "boards"
    METERS = "meters"


def command(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List what experiments and hosts files may name, those of other installed packages included."""
    found = _LISTS[kind]()
    output = Output(as_json)
    width = max((len(name) for name in found), default=0)
    for name, facts in found.items():
        output.text(f"{name:<{width}}  {facts['summary']}")
    output.answer({kind.value: [{"name": name, **facts} for name, facts in found.items()]})


def _policies() -> dict[str, dict[str, Any]]:
    from edgebed.policies import policy_class, policy_names

    found = {}
    for name in policy_names():
        kind = policy_class(name)
        found[name] = {
            "summary": _first_line(kind),
            "placements": [placement.value for placement in kind.spec.placements],
            "sets": list(kind.spec.sets),
            "options": kind.spec.options,
        }
    return found


def _scenarios() -> dict[str, dict[str, Any]]:
    from edgebed.simulation.scenarios import scenario_class, scenario_names

    kinds = {name: scenario_class(name) for name in scenario_names()}
    return {
        name: {
            "summary": kind.spec.title,
            "paper": kind.spec.paper,
            "heuristics": list(kind.heuristics),
            "parameters": list(kind.spec.parameters.__struct_fields__),
        }
        for name, kind in kinds.items()
    }


def _workloads() -> dict[str, dict[str, Any]]:
    from workloads import workload_class, workload_names

    kinds = {name: workload_class(name) for name in workload_names()}
    # The contract's fake recognises nothing: it is there for tests, which name it without asking what there is.
    return {name: {"summary": _first_line(kind)} for name, kind in kinds.items() if kind.__module__ != FAKES}


def _learners() -> dict[str, dict[str, Any]]:
    from edgebed.learning import learner_class, learner_names
    from edgebed.learning.settings_table import settings_of

    found = {}
    for name in learner_names():
        spec = learner_class(name).spec
        found[name] = {"summary": spec.title, "paper": spec.paper, "settings": settings_of(spec.config)}
    return found


def _boards() -> dict[str, dict[str, Any]]:
    from orchestrator.inventory import known_boards
    from orchestrator.shipped import LOCAL_HOSTS

    return {
        name: {
            "summary": f"{board.title}; power model {board.power_kind}, {board.idle_w:g} to {board.max_w:g} W "
            f"+-{board.error_fraction:.0%}",
            "cores": board.cores,
            "nominal_hz": board.nominal_hz,
            "idle_w": board.idle_w,
            "max_w": board.max_w,
            "error_fraction": board.error_fraction,
            "power_source": board.power_source,
        }
        for name, board in known_boards(LOCAL_HOSTS).items()
    }


def _meters() -> dict[str, dict[str, Any]]:
    from edgebed.metering.registry import meter_drivers

    return {
        name: {"summary": driver.summary, "measures": driver.measures, "settings": dict(driver.settings)}
        for name, driver in meter_drivers().items()
    }


def _first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


_LISTS: dict[Kind, Callable[[], dict[str, dict[str, Any]]]] = {
    Kind.POLICIES: _policies,
    Kind.SCENARIOS: _scenarios,
    Kind.WORKLOADS: _workloads,
    Kind.LEARNERS: _learners,
    Kind.BOARDS: _boards,
    Kind.METERS: _meters,
}
