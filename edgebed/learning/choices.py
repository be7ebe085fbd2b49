"""Learning in scenarios whose devices choose: which they are, how observations are scaled, how policies are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from edgebed.errors import BadInput
from edgebed.learning.base import TrainingTask
from edgebed.policies.forward import Layer, Network
from edgebed.policies.inputs import Inputs
from edgebed.policies.policy_file import save_policy
from edgebed.simulation.base import Scenario
from edgebed.simulation.network_actor import policy_file
from edgebed.simulation.random_streams import FloatArray, stream_keys, uniforms
from edgebed.simulation.scenarios import make_scenario
from edgebed.types import BoolArray, Float32Array

__all__ = ["Scaling", "compressed", "observation_inputs", "save_choices", "scenario_of_choices"]

_EPISODES = 64
_LOCAL_SHARE = 0.7
_CLIP = 5.0
_LEAST_SHARE = 0.1

Scaling = Literal["mostly_local", "heuristics"]


def scenario_of_choices(task: TrainingTask, learner: str) -> Scenario:
    """The task's scenario, if all that a device does there is to choose.

    Raises:
        BadInput: it is not; what it is, and what would do, are named.
    """
    scenario = make_scenario(task.scenario, task.parameters)
    actions = scenario.actions
    if actions.numbers or len(actions.choices) < 2:
        parts = [f"{len(actions.choices)} choices"] + [one.name for one in actions.numbers]
        raise BadInput(
            f"learner {learner}: the scenario {task.scenario} has an action of {', '.join(parts)}; "
            "this learner needs at least 2 choices and no numbers, as in dc-drl"
        )
    return scenario


def observation_inputs(scenario: Scenario, scaling: Scaling = "mostly_local") -> Inputs:
    """How the scenario's joint observation is scaled to about [-1, 1].

    By mean and standard deviation over episodes that depend on the scenario alone. What never changes becomes 0.

    Args:
        scenario: its own copy.
        scaling: ``mostly_local``: of random choices, most of them local (the first one). ``heuristics``: of these and
            of every hand-written policy of the scenario, so that queues are as long as any of them lets them become;
            and shares of processors, whose simulation is a rough one, are scaled by a tenth at least.
    """
    seen = [_mostly_local(scenario)]
    if scaling == "heuristics":
        seen += _under_heuristics(scenario)
    rows = np.concatenate(seen).astype(np.float64)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    varies = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-12)
    if scaling == "heuristics":
        deviation = np.where(_is_share(scenario), np.maximum(deviation, _LEAST_SHARE), deviation)
    return Inputs(mean.astype(np.float32), np.where(varies, deviation, 1.0).astype(np.float32), clip=_CLIP)


def _mostly_local(scenario: Scenario) -> Float32Array:
    seeds = np.arange(_EPISODES) + (1 << 39)
    keys = stream_keys(seeds, "observation inputs")
    channels = len(scenario.actions.choices) - 1
    scenario.reset(seeds)
    seen = [scenario.observe().joint()]
    for step in range(scenario.steps):
        drawn = uniforms(keys, 2 * scenario.devices * step, 2 * scenario.devices)
        where, which = np.split(drawn, 2, axis=1)
        scenario.step(np.where(where < _LOCAL_SHARE, 0, 1 + (which * channels).astype(np.int64)))
        seen.append(scenario.observe().joint())
    return np.concatenate(seen)


def _under_heuristics(scenario: Scenario) -> list[Float32Array]:
    seen = []
    for name in sorted(scenario.heuristics):
        scenario.reset(np.arange(_EPISODES // 8) + (1 << 39))
        policy = scenario.heuristics[name](scenario, {})
        for _ in range(scenario.steps):
            seen.append(scenario.observe().joint())
            scenario.step(policy.act())
    return seen


def _is_share(scenario: Scenario) -> BoolArray:
    """Which columns of the joint observation are shares of something."""
    columns = [*scenario.device_features * scenario.devices, *scenario.shared_features]
    return np.array([(each.unit, each.low, each.high) == ("1", 0.0, 1.0) for each in columns])


def compressed(costs: FloatArray, knee: float) -> FloatArray:
    """``c`` up to the knee ``k``, and ``k (1 + ln(c / k))`` above it.

    A single upload beside a nearer device costs up to forty missed deadlines; counted in full, such events drown all
    else that a critic could learn.
    """
    found: FloatArray = np.where(costs <= knee, costs, knee * (1.0 + np.log(np.maximum(costs, knee) / knee)))
    return found


def save_choices(
    folder: Path,
    task: TrainingTask,
    index: int,
    scenario: Scenario,
    inputs: Inputs,
    layers: Sequence[Layer],
    steps: int,
    others: Mapping[str, Network] | None = None,
) -> None:
    """Write a joint policy whose last layer gives a score for each choice of each device.

    Args:
        folder: does not exist yet.
        task: what was learned.
        index: of the seed in ``task.seeds``.
        scenario: where it was trained.
        inputs: scaling of observations.
        layers: of the actor.
        steps: environment steps it was trained for.
        others: further networks, by name.
    """
    training = {"seed": task.seeds[index], "steps": steps, "config": msgspec.to_builtins(task.config)}
    policy = policy_file(
        scenario, Network(layers), inputs=inputs, others=others, learner=task.learner, training=training
    )
    save_policy(folder, policy)
