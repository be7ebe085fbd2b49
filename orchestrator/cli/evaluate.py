"""Evaluate a policy in a scenario: fixed episodes, simulated, with an interval.

A policy is a heuristic of the scenario, by name, or a folder with a learned one. Episode i has the seed K + i.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgebed.errors import BadInput
from edgebed.simulation.evaluation import BatchPolicy, Evaluation, evaluate
from edgebed.simulation.scenarios import make_scenario
from orchestrator.cli.output import Output
from orchestrator.documents import parse_value

if TYPE_CHECKING:
    from edgebed.simulation.base import Scenario

EXAMPLES = (
    "edgebed evaluate dc-drl --policy all_local --episodes 50",
    "edgebed evaluate dc-drl --policy greedy_sampled --set n=20 --set policy.m=1000 --json",
    "edgebed evaluate dc-drl --policy runs/dc-drl/latest/policies/seed-0 --seed 1000",
)

POLICY_PREFIX = "policy."


def command(
    scenario: Annotated[str, typer.Argument(help="A scenario's name, see `edgebed list scenarios`.")],
    policy: Annotated[
        str, typer.Option("--policy", metavar="NAME|FOLDER", help="A heuristic of the scenario, or a policy's folder.")
    ],
    episodes: Annotated[int, typer.Option("--episodes", metavar="N", help="How many episodes.")] = 50,
    seed: Annotated[int, typer.Option("--seed", metavar="K", help="Episode i has the seed K + i.")] = 0,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the scenario, or policy.NAME of the policy."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Evaluate a policy in a scenario: noise-free, on fixed episodes."""
    parameters, options = read_changes(changes or [])
    made = make_scenario(scenario, parameters)
    found = evaluate(made, lambda one: choose_policy(one, policy, options), episodes=episodes, seed=seed)
    output = Output(as_json)
    for line in lines(scenario, policy, found):
        output.text(line)
    output.answer(answer(scenario, policy, seed, found))


def read_changes(changes: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``--set`` texts as the scenario's parameters and the policy's options.

    Raises:
        BadInput: one is not ``name=value``, or its value is not YAML.
    """
    parameters: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for text in changes:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise BadInput(f"--set {text}: name=value is needed, for example --set n=20")
        name = name.strip()
        found = parse_value(value, f"--set {text}")
        if name.startswith(POLICY_PREFIX):
            options[name.removeprefix(POLICY_PREFIX)] = found
        else:
            parameters[name] = found
    return parameters, options


def choose_policy(scenario: Scenario, policy: str, options: Mapping[str, Any]) -> BatchPolicy:
    """The heuristic of this name, or the learned policy in this folder.

    Raises:
        BadInput: there is neither, or an option is wrong.
        SchemaMismatch: a learned policy's spaces do not fit.
    """
    if policy in scenario.heuristics:
        kind = scenario.heuristics[policy]
        return kind(scenario, options) if options else kind(scenario)
    if not Path(policy).exists():
        raise BadInput(
            f"policy: {scenario.spec.name} has no heuristic {policy!r}, and there is no such folder; its heuristics: "
            f"{', '.join(scenario.heuristics) or 'none'}; or name a folder with a policy.json, as trainings write it"
        )
    if options:
        raise BadInput(f"--set {POLICY_PREFIX}{next(iter(options))}: a learned policy has no options")
    from edgebed.simulation.learned import LearnedPolicy

    return LearnedPolicy.load(scenario, Path(policy))


def answer(scenario: str, policy: str, seed: int, found: Evaluation) -> dict[str, Any]:
    """What ``--json`` prints; the interval of a single episode is null."""
    interval = found.return_ci95
    return {
        "scenario": scenario,
        "policy": policy,
        "episodes": len(found.returns),
        "seed": seed,
        "return_mean": found.return_mean,
        "return_ci95": None if interval is None else list(interval),
        "returns": found.returns.tolist(),
        "cost_per_task_mean": found.cost_per_task_mean,
        "metrics": found.metric_means,
    }


def lines(scenario: str, policy: str, found: Evaluation) -> list[str]:
    """What people read."""
    interval = found.return_ci95
    spread = "" if interval is None else f" (95 % interval {interval[0]:.4g} to {interval[1]:.4g})"
    width = max(len(name) for name in found.metrics)
    return [
        f"{policy} in {scenario}, {len(found.returns)} episodes",
        f"  {'return':<{width}}  {found.return_mean:.5g}{spread}",
        *(f"  {name:<{width}}  {mean:.5g}" for name, mean in found.metric_means.items()),
    ]
