"""What a task costs, and so what a decision earns: one formula for devices, sealing and replay."""

from __future__ import annotations

from edgebed.protocol.cells import RewardSettings
from edgebed.trace.schema import TaskRecord
from edgebed.types import Outcome


def task_cost(record: TaskRecord, reward: RewardSettings, task_timeout_s: float) -> float | None:
    """Cost of a task, positive; the reward of an epoch is the negative sum over the tasks decided in it.

    ``latency * latency_s + energy * (device_energy_j + server_energy_j) + miss_penalty [if the deadline was missed]``

    A failed task is charged ``task_timeout_s`` as its latency, the penalty, and the energy that is known to be spent.

    Returns:
        None when it cannot be known: the outcome is unknown, or energy counts and is not known.
    """
    if record.outcome == Outcome.FAILED:
        spent_j = (record.device_energy_j or 0.0) + (record.server_energy_j or 0.0)
        return reward.latency * task_timeout_s + reward.energy * spent_j + reward.miss_penalty
    if record.outcome != Outcome.DONE or record.latency_s is None:
        return None
    cost = reward.latency * record.latency_s
    if reward.energy > 0:
        if record.device_energy_j is None or record.server_energy_j is None:
            return None
        cost += reward.energy * (record.device_energy_j + record.server_energy_j)
    return cost + (reward.miss_penalty if record.deadline_met is False else 0.0)
