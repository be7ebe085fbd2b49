"""Tasks of a calibrated scenario: when they arrive, how large they are, and what chance has in store for them.

All of it is a function of (environment's seed, device), drawn before anything is decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.random_streams import FloatArray, Uint64Array, stream_keys, uniforms
from edgebed.simulation.testbed.chance import task_chances
from edgebed.simulation.testbed.hosts import Testbed, Work
from edgebed.simulation.testbed.ingredients import IndexArray
from edgebed.types import ObservationSpec

_BLOCK = 64
"""Arrivals of a device that are drawn at once; more blocks follow until the episode is full."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How tasks arrive at each device: a Poisson process, frames uniform.

    Attributes:
        epochs: of an episode.
        epoch_s: of each.
    """

    rate_per_s: float
    frames_low: int
    frames_high: int
    epochs: int
    epoch_s: float


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks of one environment's episode, in order of their epoch, ``[n]`` arrays.

    Attributes:
        first: ``[epochs + 1]``: the tasks of epoch e are ``first[e]`` to ``first[e + 1] - 1``.
    """

    device: IndexArray
    arrived_s: FloatArray
    frames: IndexArray
    frame_bytes: FloatArray
    chances: FloatArray
    first: IndexArray

    def of_epoch(self, epoch: int, timeout_s: float) -> Work:
        """The tasks that wait for the tick at the end of an epoch; none after the last."""
        if epoch + 1 >= len(self.first):
            rows = slice(0, 0)
        else:
            rows = slice(int(self.first[epoch]), int(self.first[epoch + 1]))
        arrived_s = self.arrived_s[rows]
        return Work(
            task=np.arange(rows.start, rows.stop),
            device=self.device[rows],
            arrived_s=arrived_s,
            limit_s=arrived_s + timeout_s,
            frames=self.frames[rows],
            frame_bytes=self.frame_bytes[rows],
            chances=self.chances[rows],
        )


def draw_tasks(seed: int, devices: Sequence[str], arrivals: Arrivals, testbed: Testbed) -> Tasks:
    """The tasks of an episode.

    Args:
        seed: the environment's.
        devices: names of its slots.
        arrivals: how tasks arrive.
        testbed: whose clips they are.
    """
    keys = _keys(seed, devices, "task")
    when = _arrivals_s(_keys(seed, devices, "arrival"), arrivals)
    device = np.concatenate([np.full(len(times_s), slot) for slot, times_s in enumerate(when)]).astype(np.int64)
    index = np.concatenate([np.arange(len(times_s)) for times_s in when]).astype(np.int64)
    arrived_s = np.concatenate(when)
    frames = np.concatenate([_frames(key, len(times_s), arrivals) for key, times_s in zip(keys, when, strict=True)])
    chances = task_chances(keys[device], index)
    # Tasks in (t - 1, t] wait for tick t.
    epoch = np.clip(np.ceil(arrived_s / arrivals.epoch_s).astype(np.int64) - 1, 0, arrivals.epochs - 1)
    order = np.lexsort((index, device, epoch))
    chances = chances[order]
    return Tasks(
        device=device[order],
        arrived_s=arrived_s[order],
        frames=frames[order],
        frame_bytes=testbed.frame_bytes(chances),
        chances=chances,
        first=np.searchsorted(epoch[order], np.arange(arrivals.epochs + 1)).astype(np.int64),
    )


def _keys(seed: int, devices: Sequence[str], what: str) -> Uint64Array:
    return np.concatenate([stream_keys([seed], "calibrated", what, device) for device in devices])


def decision_keys(seed: int, devices: Sequence[str]) -> Uint64Array:
    """The streams of delays of decisions, ``[devices]``."""
    return _keys(seed, devices, "decision")


def host_chances(seed: int, spec: ObservationSpec) -> FloatArray:
    """A number in [0, 1) for each device, then for each server, for the whole episode; see ``speed_range``."""
    keys = [stream_keys([seed], "calibrated", "speed", host) for host in (*spec.slots, *spec.servers)]
    return uniforms(np.concatenate(keys), 0, 1)[:, 0]


def _arrivals_s(keys: Uint64Array, arrivals: Arrivals) -> list[FloatArray]:
    """Arrival times of each device, up to the last tick."""
    horizon_s = arrivals.epochs * arrivals.epoch_s
    times_s: NDArray[np.float64] = np.zeros((len(keys), 0))
    while not times_s.shape[1] or times_s[:, -1].min() <= horizon_s:
        gaps_s = -np.log1p(-uniforms(keys, times_s.shape[1], _BLOCK)) / arrivals.rate_per_s
        before_s = times_s[:, -1:] if times_s.shape[1] else 0.0
        times_s = np.concatenate([times_s, before_s + np.cumsum(gaps_s, axis=1)], axis=1)
    return [row[(row > 0) & (row <= horizon_s)] for row in times_s]


def _frames(key: np.uint64, count: int, arrivals: Arrivals) -> IndexArray:
    """Frames of a device's tasks; a stream of their own, far behind what the task's chances use up."""
    chance = uniforms(stream_keys([int(key) >> 1], "frames"), 0, count)[0]
    width = arrivals.frames_high - arrivals.frames_low + 1
    frames: IndexArray = arrivals.frames_low + np.floor(chance * width).astype(np.int64)
    return frames
