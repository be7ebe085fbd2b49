"""A small environment that a DDPG agent solves within seconds, and the loop that trains one in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from edgebed.learning.ddpg import Ddpg
from edgebed.learning.noise import Counted
from edgebed.learning.replay import RUNNING, TRUNCATED, Replay, Trajectory

LENGTH, EPISODES = 20, 35
BATCH, NOISE = 64, 0.2

Learn = Callable[[Ddpg, Replay, np.ndarray[Any, Any]], None]
"""An update, given uniform numbers ``[S, BATCH]`` to sample rows with."""


class Boat(gymnasium.Env[np.ndarray[Any, Any], np.ndarray[Any, Any]]):
    """To be brought to the origin of a plane: linear dynamics, quadratic cost, an episode of fixed length."""

    observation_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1.0, 1.0, 2)
        self.count = 0
        return self.place.astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        force = np.clip(action, -1.0, 1.0)
        self.place = np.clip(self.place + 0.3 * force, -2.0, 2.0)
        self.count += 1
        cost = (self.place**2).sum() + 0.01 * (force**2).sum()
        return self.place.astype(np.float32), -float(cost), False, self.count >= LENGTH, {}


def mean_return(act: Any) -> float:
    """Of twenty episodes, each from a place of its own."""
    env, total = Boat(), 0.0
    for episode in range(20):
        seen, _ = env.reset(seed=1000 + episode)
        for _ in range(LENGTH):
            seen, reward, _, _, _ = env.step(act(seen))
            total += reward
    return total / 20


def trained(agent: Ddpg, replay: Replay, learn: Learn, seeds: Sequence[int]) -> list[float]:
    """Mean returns after training all seeds as one batch: an update a step, from the second episode on."""
    rows, noise = Counted(seeds, "rows"), Counted(seeds, "noise")
    envs = [Boat() for _ in seeds]
    updates = 0
    for episode in range(EPISODES):
        seen = np.stack([env.reset(seed=100 * seed + episode)[0] for seed, env in zip(seeds, envs, strict=True)])
        parts: list[Any] = []
        for step in range(LENGTH):
            with torch.no_grad():
                mean = agent.actor(torch.from_numpy(seen[:, None])).tanh().numpy()[:, 0]
            draw = NOISE * noise.normal(episode * LENGTH + step, 2)
            actions = np.clip(mean + draw, -1.0, 1.0).astype(np.float32)
            done = [env.step(action) for env, action in zip(envs, actions, strict=True)]
            parts.append((seen, actions, np.array([[one[1]] for one in done], np.float32)))
            seen = np.stack([one[0] for one in done])
            if replay.sizes.min() >= BATCH // 2:
                learn(agent, replay, rows.uniform(updates, BATCH))
                updates += 1
        kinds = np.array([RUNNING] * (LENGTH - 1) + [TRUNCATED])
        before, done_there, paid = (np.stack(column, axis=1) for column in zip(*parts, strict=True))
        replay.append(
            [Trajectory.of_episode(before[i], done_there[i], paid[i], kinds, seen[i]) for i in range(len(seeds))]
        )

    def acting(index: int) -> Any:
        def act(one: Any) -> Any:
            with torch.no_grad():
                batch = torch.from_numpy(np.tile(one, (len(seeds), 1, 1)))
                return agent.actor(batch).tanh().numpy()[index, 0]

        return act

    return [mean_return(acting(index)) for index in range(len(seeds))]
