"""A scenario as a batch of Gymnasium environments, stepped at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from edgebed.envs.gym import SEEDS
from edgebed.envs.seeding import episode_seeds
from edgebed.envs.spaces import Column, box_of, describe_columns, joint_action_space, joint_features, to_layout
from edgebed.errors import BadInput
from edgebed.simulation.base import Scenario
from edgebed.simulation.network_actor import slot_names
from edgebed.simulation.random_streams import FloatArray
from edgebed.types import BoolArray, Float32Array


class VectorScenario(VectorEnv[Float32Array, Any, Any]):
    """``num_envs`` environments of a scenario; environment i with seed K does what `GymScenario` does with K + i.

    Autoreset is *next step*, Gymnasium's default: the step after an episode's last one ignores the action, starts the
    next episode and earns 0.

    Args:
        scenario: becomes this environment's own.
        num_envs: environments in the batch.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, scenario: Scenario, num_envs: int) -> None:
        if num_envs < 1:
            raise BadInput(f"num_envs is {num_envs}; at least 1 is needed")
        self.scenario = scenario
        self.num_envs = num_envs
        self.slots = slot_names(scenario)
        columns = joint_features(self.slots, scenario.device_features, scenario.shared_features)
        self.single_observation_space = box_of(columns)
        self.single_action_space = joint_action_space(scenario.actions, scenario.devices)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._first_seeds: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None
        self._episodes = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, np.bool_)

    def describe(self) -> list[Column]:
        """The observation of one environment, number by number, with units."""
        return describe_columns(self.slots, self.scenario.device_features, self.scenario.shared_features)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """Start an episode in every environment.

        Args:
            seed: of environment 0; environment i gets ``seed + i``. A list gives each its own.
            options: there are none.
        """
        if seed is not None or self._first_seeds is None:
            self._first_seeds = self._seeds_from(seed)
            self._episodes[:] = 0
        else:
            self._episodes += 1
        self._ended[:] = False
        self.scenario.reset(episode_seeds(self._first_seeds, self._episodes))
        return self.scenario.observe().joint(), {}

    def step(self, actions: Any) -> tuple[Float32Array, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """One epoch of every environment; those that have ended start anew instead.

        Raises:
            BadInput: the actions do not fit the space.
        """
        if self._first_seeds is None:
            raise BadInput("step() before reset()")
        shape = (self.num_envs, self.scenario.devices)
        step = self.scenario.step(to_layout(self.scenario.actions, actions, shape))
        info: dict[str, Any] = {"costs": step.costs}
        started = self._ended
        self._ended = step.terminated | step.truncated
        if started.any():
            # The scenario left them as they were: no reward, no cost.
            self._episodes[started] += 1
            self.scenario.reset(episode_seeds(self._first_seeds, self._episodes), where=started)
            self._ended = self._ended & ~started
        if self._ended.any():
            info["metrics"] = {name: values.copy() for name, values in self.scenario.metrics().items()}
            info["_metrics"] = self._ended.copy()
        terminated, truncated = step.terminated & ~started, step.truncated & ~started
        return self.scenario.observe().joint(), step.reward, terminated, truncated, info

    def _seeds_from(self, seed: int | list[int | None] | None) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        if isinstance(seed, list):
            if len(seed) != self.num_envs or any(one is None for one in seed):
                raise BadInput(f"seed: a list of {len(seed)} for {self.num_envs} environments; one each is needed")
            return np.array(seed, np.int64)
        super().reset(seed=seed)
        first = int(self.np_random.integers(SEEDS)) if seed is None else seed
        return first + np.arange(self.num_envs, dtype=np.int64)
