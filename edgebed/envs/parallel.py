"""A scenario as a PettingZoo parallel environment: each device is an agent that sees its own view."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium.spaces import Space
from pettingzoo import ParallelEnv

from edgebed.envs.gym import SEEDS
from edgebed.envs.seeding import episode_seed
from edgebed.envs.spaces import Column, box_of, describe_columns, device_action_space, to_layout
from edgebed.errors import BadInput
from edgebed.simulation.base import BatchStep, Scenario
from edgebed.simulation.network_actor import slot_names
from edgebed.types import Float32Array

Rewards = Literal["shared", "own"]
ParallelAnswer = tuple[
    dict[str, Float32Array], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
]
"""What a step gives: observations, rewards, terminations, truncations and infos, by agent."""


class ParallelScenario(ParallelEnv[str, Float32Array, Any]):  # type: ignore[misc]  # untyped: their package has no types
    """The devices of a scenario as agents, named by their slots.

    Args:
        scenario: becomes this environment's own.
        rewards: ``shared``: every agent gets the scenario's reward; ``own``: minus the cost of its own task.
    """

    metadata: dict[str, Any] = {"render_modes": [], "name": "edgebed_scenario_v0", "is_parallelizable": True}  # noqa: RUF012

    def __init__(self, scenario: Scenario, rewards: Rewards = "shared") -> None:
        if rewards not in ("shared", "own"):
            raise BadInput(f"rewards is {rewards!r}; allowed: shared, own")
        self.scenario = scenario
        self.possible_agents = list(slot_names(scenario))
        self.agents: list[str] = []
        self.render_mode = None
        self._rewards = rewards
        # A space each, although they are equal: each is seeded by itself.
        self.observation_spaces = {name: box_of(scenario.view_features) for name in self.possible_agents}
        self.action_spaces = {name: device_action_space(scenario.actions) for name in self.possible_agents}
        self._first_seed: int | None = None
        self._episode = 0

    def observation_space(self, agent: str) -> Space[Any]:
        """What an agent sees."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Space[Any]:
        """What an agent can do."""
        return self.action_spaces[agent]

    def describe(self) -> list[Column]:
        """What one agent sees, number by number, with units."""
        return describe_columns(("",), self.scenario.view_features, ())

    def state(self) -> Float32Array:
        """What all devices know together: the joint observation."""
        joint: Float32Array = self.scenario.observe().joint()[0]
        return joint

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Float32Array], dict[str, dict[str, Any]]]:
        """Start an episode; see `edgebed.envs.gym.GymScenario.reset`."""
        if seed is not None or self._first_seed is None:
            self._first_seed = int(np.random.default_rng().integers(SEEDS)) if seed is None else seed
            self._episode = 0
        else:
            self._episode += 1
        self.scenario.reset([episode_seed(self._first_seed, self._episode)])
        self.agents = list(self.possible_agents)
        return self._views(), {name: {} for name in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Float32Array], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """One epoch.

        Raises:
            BadInput: an agent's action is missing, or does not fit its space.
        """
        if not self.agents:
            raise BadInput("step() after the end of the episode; call reset()")
        missing = [name for name in self.agents if name not in actions]
        if missing:
            raise BadInput(f"no action for {', '.join(missing)}; every agent acts in every step")
        joint = np.stack([np.asarray(actions[name]) for name in self.agents])
        step = self.scenario.step(to_layout(self.scenario.actions, joint, (1, self.scenario.devices)))
        return self._answer(step)

    def _answer(self, step: BatchStep) -> ParallelAnswer:
        agents = self.agents
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        shared = float(step.reward[0])
        costs = dict(zip(agents, step.costs[0].tolist(), strict=True))
        rewards = {name: shared if self._rewards == "shared" else -costs[name] for name in agents}
        infos: dict[str, dict[str, Any]] = {name: {"cost": costs[name]} for name in agents}
        if terminated or truncated:
            metrics = {name: float(values[0]) for name, values in self.scenario.metrics().items()}
            for name in agents:
                infos[name]["metrics"] = dict(metrics)
            self.agents = []
        views = self._views()
        return views, rewards, dict.fromkeys(agents, terminated), dict.fromkeys(agents, truncated), infos

    def _views(self) -> dict[str, Float32Array]:
        views = self.scenario.device_views()[0]
        return {name: views[index].copy() for index, name in enumerate(self.possible_agents)}
