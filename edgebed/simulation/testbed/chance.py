"""What is random about each planned task, as uniform numbers that belong to (seed, device, task).

They are drawn before anything is decided, so every policy meets the same contents, bytes, speeds and links, and a task
keeps its numbers whatever else is simulated beside it. `edgebed.simulation.random_streams` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgebed.simulation.random_streams import Uint64Array, named_keys, uniforms
from edgebed.simulation.testbed.ingredients import FloatArray, IndexArray

PER_TASK = ("bytes", "device", "server", "same_content", "uplink", "uplink_delay", "downlink", "refusal")
"""Columns of a task's chances."""

PER_DECISION = ("delay", "compute")


def column(name: str) -> int:
    """Where a task's chance of this name is."""
    return PER_TASK.index(name)


def device_keys(seed: int, devices: Sequence[str], what: str) -> Uint64Array:
    """The stream of each device, ``[devices]``.

    Args:
        seed: the cell's.
        devices: their names.
        what: ``task``, ``decision`` or ``frame``.
    """
    return named_keys(seed, [("testbed", what, device) for device in devices])


def task_chances(keys: Uint64Array, index: IndexArray) -> FloatArray:
    """Chances of tasks, ``[n, len(PER_TASK)]``.

    Args:
        keys: ``[n]``, of their devices' streams for ``task``.
        index: ``[n]``, their numbers on their devices.
    """
    return uniforms(keys, index * len(PER_TASK), len(PER_TASK))


def decision_chances(keys: Uint64Array, epoch: IndexArray) -> FloatArray:
    """Chances of decisions, ``[n, 2]``: of their delay and of their computing.

    Args:
        keys: ``[n]``, of the deciding devices' streams for ``decision``.
        epoch: ``[n]``, of the decision; where tasks are decided one by one, their numbers.
    """
    return uniforms(keys, epoch * len(PER_DECISION), len(PER_DECISION))


MOST_FRAMES = 1024
"""Positions that a task has in its device's stream for ``frame``; a clip has no more frames than that."""


def correct_frames(keys: Uint64Array, index: IndexArray, frames: IndexArray, accuracy: FloatArray) -> IndexArray:
    """How many frames of each task are recognised correctly.

    Args:
        keys: ``[n]``, of their devices' streams for ``frame``.
        index: ``[n]``, their numbers on their devices.
        frames: ``[n]``.
        accuracy: ``[n, most frames]``, probability for each frame.
    """
    most = accuracy.shape[1]
    drawn = uniforms(keys, index * MOST_FRAMES, most)
    found = (drawn < accuracy) & (np.arange(most) < frames[:, None])
    counts: IndexArray = found.sum(axis=1)
    return counts
