"""A scenario as a Gymnasium environment: one environment, one joint action for all devices."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from edgebed.envs.seeding import episode_seed
from edgebed.envs.spaces import Column, box_of, describe_columns, joint_action_space, joint_features, to_layout
from edgebed.simulation.base import Scenario
from edgebed.simulation.network_actor import slot_names
from edgebed.types import Float32Array

SEEDS = 2**31
"""Seeds that are drawn when none is given lie below it."""


class GymScenario(gymnasium.Env[Any, Any]):
    """All devices of a scenario as one agent.

    ``reset(seed=K)`` starts the episode with the environment's seed K, as ``edgebed evaluate --seed K`` does. The time
    limit truncates. ``info`` has ``costs`` (of each device), and with an episode's last step ``metrics``.

    Args:
        scenario: becomes this environment's own.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.slots = slot_names(scenario)
        columns = joint_features(self.slots, scenario.device_features, scenario.shared_features)
        self.observation_space = box_of(columns)
        self.action_space = joint_action_space(scenario.actions, scenario.devices)
        self._shape = (1, scenario.devices)
        self._first_seed: int | None = None
        self._episode = 0

    def describe(self) -> list[Column]:
        """The observation, number by number, with units."""
        return describe_columns(self.slots, self.scenario.device_features, self.scenario.shared_features)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: of this episode, and of those that follow without one.
            options: there are none.
        """
        super().reset(seed=seed)
        if seed is not None or self._first_seed is None:
            self._first_seed = int(self.np_random.integers(SEEDS)) if seed is None else seed
            self._episode = 0
        else:
            self._episode += 1
        self.scenario.reset([episode_seed(self._first_seed, self._episode)])
        return self.scenario.observe().joint()[0], {}

    def step(self, action: Any) -> tuple[Float32Array, float, bool, bool, dict[str, Any]]:
        """One epoch.

        Raises:
            BadInput: the action does not fit the space.
        """
        step = self.scenario.step(to_layout(self.scenario.actions, action, self._shape))
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        info: dict[str, Any] = {"costs": np.array(step.costs[0])}
        if terminated or truncated:
            info["metrics"] = {name: float(values[0]) for name, values in self.scenario.metrics().items()}
        return self.scenario.observe().joint()[0], float(step.reward[0]), terminated, truncated, info
