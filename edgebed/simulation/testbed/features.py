"""What hosts would show of the queues to those who decide: the same features, by the same rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.testbed.hosts import Testbed, Work
from edgebed.simulation.testbed.ingredients import FloatArray
from edgebed.simulation.testbed.pipeline import Load
from edgebed.types import CHANNEL_FEATURES, DEVICE_FEATURES, SERVER_FEATURES, Float32Array


@dataclass(frozen=True, slots=True)
class Waiting:
    """The tasks that wait for a decision, ``[lanes, devices]`` each; 0 where none does."""

    tasks: FloatArray
    frames: FloatArray
    bytes: FloatArray
    deadline_s: FloatArray
    waited_s: FloatArray


def waiting_of(work: Work, deadline_s: FloatArray, now_s: float, lanes: int, devices: int) -> Waiting:
    """Sum up the tasks that wait.

    Args:
        work: those that do, ``[n]``.
        deadline_s: ``[n]``, from arrival.
        now_s: the tick.
        lanes: how many there are.
        devices: in each.
    """
    size = lanes * devices
    where = work.device

    def total(values: FloatArray) -> FloatArray:
        return np.bincount(where, values, size).astype(np.float64).reshape(lanes, devices)

    least_s = np.full(size, np.inf)
    np.minimum.at(least_s, where, deadline_s)
    waited_s = np.zeros(size)
    np.maximum.at(waited_s, where, now_s - work.arrived_s)
    return Waiting(
        tasks=total(np.ones(len(work))),
        frames=total(work.frames.astype(np.float64)),
        bytes=total(work.bytes_of(work.frames)),
        deadline_s=np.where(np.isfinite(least_s), least_s, 0.0).reshape(lanes, devices),
        waited_s=waited_s.reshape(lanes, devices),
    )


def device_features(
    testbed: Testbed, waiting: Waiting, load: Load, cpu_chance: FloatArray | None = None
) -> Float32Array:
    """``[lanes, devices, device features]``, in the order of `edgebed.types.DEVICE_FEATURES`.

    Args:
        testbed: the hosts.
        waiting: the tasks that wait for a decision.
        load: the state of their queues.
        cpu_chance: ``[lanes, devices]``, see `Testbed.device_cpu`.
    """
    shape = waiting.tasks.shape
    cycles = testbed.profile.cycles_per_frame
    rate_bps = np.where(testbed.link_rate_bps > 0, testbed.link_rate_bps, load.measured_bps)
    x_m, y_m = testbed.positions_m.T
    values = {
        "waiting_tasks": waiting.tasks,
        "waiting_frames": waiting.frames,
        "waiting_bytes": waiting.bytes,
        "waiting_cycles": waiting.frames * cycles,
        "deadline_s": waiting.deadline_s,
        "waited_s": waiting.waited_s,
        "device_queue_delay_s": load.device_queue_delay_s,
        "device_speed_hz": cycles / np.maximum(load.device_frame_s, 1e-9),
        "uplink_queue_bytes": load.uplink_queue_bytes,
        "link_rate_bps": rate_bps,
        "round_trip_s": testbed.round_trip_s,
        "device_cpu": testbed.device_cpu(load.device_is_busy, cpu_chance),
        "battery": np.ones(shape),
        "position_x_m": x_m,
        "position_y_m": y_m,
    }
    columns = [np.broadcast_to(values[feature.name], shape) for feature in DEVICE_FEATURES]
    return np.stack(columns, axis=-1).astype(np.float32)


def server_features(
    testbed: Testbed,
    load: Load,
    channels: int,
    channel_rate_bps: float | FloatArray,
    cpu_chance: FloatArray | None = None,
) -> Float32Array:
    """``[lanes, servers * server width]``, as `edgebed.types.ObservationSpec.server_names` names them.

    Args:
        testbed: the hosts.
        load: the state of their queues.
        channels: of each server.
        channel_rate_bps: of one; or ``[servers]``, of each server's, see `Layout.channel_alone_bps`.
        cpu_chance: ``[lanes, servers]``, see `Testbed.device_cpu`.
    """
    shape = load.server_tasks.shape
    cycles = testbed.profile.cycles_per_frame
    values = {
        "queue_tasks": load.server_tasks,
        "queue_delay_s": load.server_queue_delay_s,
        "workers": np.array(testbed.workers, np.float64),
        "worker_speed_hz": cycles / np.maximum(load.server_frame_s, 1e-9),
        "server_cpu": testbed.server_cpu(load.server_busy_workers, load.server_tasks, cpu_chance),
        "uploading_bytes": load.uploading_bytes,
    }
    columns: list[NDArray[np.float64]] = [np.broadcast_to(values[feature.name], shape) for feature in SERVER_FEATURES]
    for channel in range(channels):
        of_channel = {
            "channel_rate_bps": np.full(shape, channel_rate_bps),
            "channel_uploads": load.channel_uploads[..., channel],
        }
        columns += [np.broadcast_to(of_channel[feature.name], shape) for feature in CHANNEL_FEATURES]
    return np.stack(columns, axis=-1).reshape(shape[0], -1).astype(np.float32)
