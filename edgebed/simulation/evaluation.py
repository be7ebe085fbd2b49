"""What a policy is worth in a scenario: fixed episodes, many at a time, nothing explored and nothing learned.

Episode ``i`` has the environment seed ``seed + i``. How many run at a time changes nothing for hand-written policies;
a network's sums may round differently, by the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgebed.errors import BadInput
from edgebed.simulation.base import ActionArray, Scenario
from edgebed.simulation.intervals import t_interval
from edgebed.simulation.random_streams import FloatArray

DEVICES_AT_ONCE = 4096
"""Devices of all episodes that run together: enough to be quick, few enough to stay in the processor's cache."""


class BatchPolicy(Protocol):
    """Decides for every environment that a scenario holds; `edgebed.simulation.base.Heuristic` is one."""

    def act(self) -> ActionArray:
        """Actions for the state that the scenario is in, as its ``actions`` says."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of the episodes, ``[episodes]`` each.

    Attributes:
        returns: sum of the rewards of each episode, not discounted.
        metrics: the scenario's own numbers at the end of each episode; at least ``cost_per_task``.
    """

    returns: FloatArray
    metrics: dict[str, FloatArray]

    @property
    def return_mean(self) -> float:
        """Mean over episodes."""
        return math.fsum(self.returns) / len(self.returns)

    @property
    def return_ci95(self) -> tuple[float, float] | None:
        """Student's t interval of the mean, over episodes; None for a single one."""
        return t_interval(self.returns.tolist())

    @property
    def cost_per_task_mean(self) -> float:
        """Mean over episodes of the mean over an episode's tasks."""
        return self.metric_means["cost_per_task"]

    @property
    def metric_means(self) -> dict[str, float]:
        """Mean of each metric over episodes."""
        return {name: math.fsum(values) / len(values) for name, values in self.metrics.items()}


def evaluate(
    scenario: Scenario,
    policy_of: Callable[[Scenario], BatchPolicy],
    *,
    episodes: int,
    seed: int = 0,
    batch: int | None = None,
) -> Evaluation:
    """Run episodes to their ends.

    Args:
        scenario: it is reset; what it was doing is lost.
        policy_of: makes the policy for the scenario; asked once.
        episodes: at least 1.
        seed: of the first episode.
        batch: episodes at a time.

    Raises:
        BadInput: there are no episodes, or the seed is negative.
    """
    if episodes < 1:
        raise BadInput(f"episodes: {episodes}; at least 1 is needed")
    if not 0 <= seed <= 2**63 - 1 - episodes:
        raise BadInput(f"seed: {seed}; a number from 0 to {2**63 - 1 - episodes} is needed")
    size = batch or max(1, DEVICES_AT_ONCE // scenario.devices)
    policy = policy_of(scenario)
    parts = [
        _run(scenario, policy, np.arange(seed + first, seed + min(first + size, episodes), dtype=np.int64))
        for first in range(0, episodes, size)
    ]
    return Evaluation(
        returns=np.concatenate([part.returns for part in parts]),
        metrics={name: np.concatenate([part.metrics[name] for part in parts]) for name in parts[0].metrics},
    )


def _run(scenario: Scenario, policy: BatchPolicy, seeds: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Evaluation:
    scenario.reset(seeds)
    returns = np.zeros(len(seeds))
    ended = np.zeros(len(seeds), np.bool_)
    while not ended.all():
        step = scenario.step(policy.act())
        returns += step.reward
        ended |= step.terminated | step.truncated
    return Evaluation(returns, scenario.metrics())
