"""Learned policies in scenarios: written from what a scenario says of itself, and asked in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from edgebed.errors import SchemaMismatch
from edgebed.policies.forward import Network
from edgebed.policies.heads import Head
from edgebed.policies.inputs import Inputs
from edgebed.policies.policy_file import ACTOR, JOINT, PolicyFile
from edgebed.simulation.base import ActionArray, Scenario
from edgebed.types import Feature, Float32Array


def slot_names(scenario: Scenario) -> tuple[str, ...]:
    """Names of a scenario's devices: its own ``slots`` where it has such (a calibrated one), else ``device-0``..."""
    names: tuple[str, ...] | None = getattr(scenario, "slots", None)
    return names or tuple(f"device-{index}" for index in range(scenario.devices))


def scenario_name(scenario: Scenario) -> str:
    """What policies and runs call it: its ``full_name`` where it has one (``calibrated:PROFILE``), else its name."""
    name: str = getattr(scenario, "full_name", scenario.spec.name)
    return name


def policy_file(
    scenario: Scenario,
    actor: Network,
    *,
    scope: str = JOINT,
    kind: str = "categorical_per_device",
    squash: str = "tanh",
    inputs: Inputs | None = None,
    others: Mapping[str, Network] | None = None,
    learner: str = "",
    version: str = "",
    training: Mapping[str, Any] | None = None,
) -> PolicyFile:
    """A policy trained in a scenario, ready for `edgebed.policies.policy_file.save_policy`.

    Args:
        scenario: says slots, features and actions.
        actor: of ``joint`` scope: all devices' features and the shared ones in, all devices' outputs out; of
            ``device`` scope: a device's view in, its outputs out.
        scope: ``joint`` or ``device``.
        kind: one of `edgebed.policies.heads.HEADS`.
        squash: one of `edgebed.policies.heads.SQUASHES`.
        inputs: normalisation; unchanged unless given.
        others: further networks by name.
        learner: the learner's registered name.
        version: made from the checksum unless given.
        training: where it comes from; plain data.
    """
    is_joint = scope == JOINT
    devices = scenario.device_features if is_joint else scenario.view_features
    shared = scenario.shared_features if is_joint else ()
    width = len(devices) * (scenario.devices if is_joint else 1) + len(shared)
    layout = scenario.actions
    return PolicyFile(
        scenario=scenario_name(scenario),
        scenario_parameters=msgspec.to_builtins(scenario.parameters),
        scope=scope,
        slots=slot_names(scenario),
        device_features=tuple(devices),
        shared_features=tuple(shared),
        choices=layout.choices,
        head=Head(kind, len(layout.choices), layout.numbers, squash),
        inputs=inputs or Inputs.unchanged(width),
        networks={ACTOR: actor, **(others or {})},
        learner=learner,
        version=version,
        training=dict(training or {}),
    )


class NetworkActor:
    """A learned policy as a scenario's policy: noise-free, the best choice and the numbers as they are.

    Args:
        policy: from `edgebed.policies.policy_file.load_policy`.
        scenario: what it is to act in, when that is known: a misfit is then told before the first step.

    Raises:
        SchemaMismatch: the policy does not fit the scenario; both sides are named.
    """

    def __init__(self, policy: PolicyFile, scenario: Scenario | None = None) -> None:
        self.policy = policy
        self._checked: Scenario | None = None
        if scenario is not None:
            self._check(scenario)

    def act(self, scenario: Scenario) -> ActionArray:
        """Actions for the state that the scenario is in, as its layout says.

        Raises:
            SchemaMismatch: the policy does not fit the scenario; both sides are named.
        """
        if scenario is not self._checked:
            self._check(scenario)
        return self.act_on(scenario.observe().joint() if self.policy.scope == JOINT else scenario.device_views())

    def act_on(self, x: Float32Array) -> ActionArray:
        """Actions for observations: ``[B, width]`` of a joint policy, ``[B, N, width]`` of a device's."""
        return self.policy.head.actions(self.policy.outputs(np.asarray(x, np.float32)))

    def _check(self, scenario: Scenario) -> None:
        problems = fit_problems(self.policy, scenario)
        if problems:
            raise SchemaMismatch(
                f"policy {self.policy.version or 'without a version'} does not fit the scenario "
                f"{scenario_name(scenario)}: " + "; ".join(problems)
            )
        self._checked = scenario


def fit_problems(policy: PolicyFile, scenario: Scenario) -> list[str]:
    """Everything about a policy that does not fit a scenario, both sides named; empty when it fits."""
    elsewhere = policy.scenario != scenario_name(scenario)
    return [*([f"it was trained in {policy.scenario}"] if elsewhere else []), *space_problems(policy, scenario)]


def space_problems(policy: PolicyFile, scenario: Scenario) -> list[str]:
    """As `fit_problems`, but the policy may have been trained in another scenario of the same spaces."""
    problems = []
    is_joint = policy.scope == JOINT
    if (is_joint or policy.actor.count is not None) and len(policy.slots) != scenario.devices:
        problems.append(f"it was trained for {len(policy.slots)} devices, the scenario has {scenario.devices}")
    sides: list[tuple[str, Sequence[Feature], Sequence[Feature]]] = [
        ("device features", policy.device_features, scenario.device_features if is_joint else scenario.view_features),
        ("shared features", policy.shared_features, scenario.shared_features if is_joint else ()),
        ("numbers", policy.head.numbers, scenario.actions.numbers),
    ]
    for what, given, expected in sides:
        ours, theirs = [one.name for one in given], [one.name for one in expected]
        if ours != theirs:
            problems.append(f"its {what} are {', '.join(ours) or 'none'}; the scenario's {', '.join(theirs) or 'none'}")
    if policy.choices != scenario.actions.choices:
        problems.append(
            f"its choices are {', '.join(policy.choices) or 'none'}; the scenario's "
            f"{', '.join(scenario.actions.choices) or 'none'}"
        )
    return problems
