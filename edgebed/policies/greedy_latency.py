"""Predict the latency of every action and take the shortest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgebed.policies.base import Policy
from edgebed.policies.features import (
    Float64Array,
    allowed_offloads,
    channel_feature,
    device_feature,
    offload_action,
    server_feature,
)
from edgebed.types import BoolArray, Decision, Observation, ObservationSpec, PolicySpec


class GreedyLatency(Policy):
    """Takes, device by device, the action whose predicted latency is the shortest; the device wins a tie.

    Predicted until the last of a device's waiting tasks is done::

        device:  queue + cycles / device speed
        edge:    8 (bytes queued for the uplink + bytes) / rate + round trip + server queue
                 + cycles / (worker speed * min(workers, tasks))
        rate:    min(link, channel / (uploads on it + 1))

    The devices that gain most from the edge choose first; each choice lengthens its server's queue and crowds its
    channel before the next is judged. A single present slot, on a device, is judged by the same formula.

    Approximations: the tasks of a device count as one piece of work; the server's queue does not drain during the
    upload; nothing is known of tasks still to come. A rate of 0 is unknown and taken as fast, a round trip of 0 as
    instant. A speed of 0 is unknown and taken as the fastest one known, so that queues and link decide.
    """

    spec = PolicySpec(
        "greedy_latency",
        sets=("site", "server", "channel"),
        needs=(
            "waiting_tasks",
            "waiting_bytes",
            "waiting_cycles",
            "device_queue_delay_s",
            "device_speed_hz",
            "uplink_queue_bytes",
            "link_rate_bps",
            "round_trip_s",
        ),
        needs_server=("queue_delay_s", "workers", "worker_speed_hz", "channel_rate_bps", "channel_uploads"),
    )

    def decide(self, observation: Observation) -> Decision:
        """The device for every slot that does not gain from an edge server."""
        spec = self.observation_spec
        actions = np.zeros(len(spec.slots), np.int32)
        if not spec.servers:
            return Decision.from_actions(actions, spec)
        work, edge = _read(spec, observation)
        local_s = np.where(observation.allowed_actions[:, 0], work.local_s, np.inf)
        allowed = allowed_offloads(spec, observation)
        for slot in _by_gain(local_s, work, edge, allowed & observation.present[:, None, None]):
            edge_s = np.where(allowed[slot], edge.latency_s(work, slot), np.inf)
            server, channel = divmod(int(edge_s.argmin()), spec.channels)
            if edge_s[server, channel] < local_s[slot]:
                actions[slot] = offload_action(spec, server, channel)
                edge.add(work, slot, server, channel)
        return Decision.from_actions(actions, spec)


@dataclass(frozen=True, slots=True)
class _Work:
    """What each device has waiting and how it would reach an edge server; all ``[slots]``."""

    tasks: Float64Array
    cycles: Float64Array
    upload_bits: Float64Array
    rate_bps: Float64Array
    round_trip_s: Float64Array
    local_s: Float64Array


@dataclass(frozen=True, slots=True)
class _Edge:
    """The state of servers ``[servers]`` and channels ``[servers, channels]``; grows with each assignment."""

    queue_s: Float64Array
    workers: Float64Array
    speed_hz: Float64Array
    rate_bps: Float64Array
    uploads: Float64Array

    def latency_s(self, work: _Work, slot: int) -> Float64Array:
        """Predicted latency of one slot's work on every channel, ``[servers, channels]``."""
        rate_bps = np.minimum(work.rate_bps[slot], self.rate_bps / (self.uploads + 1))
        parallel = np.minimum(self.workers, max(1.0, work.tasks[slot]))
        served_s = self.queue_s + work.cycles[slot] / (self.speed_hz * parallel)
        latency_s: Float64Array = work.upload_bits[slot] / rate_bps + work.round_trip_s[slot] + served_s[:, None]
        return latency_s

    def add(self, work: _Work, slot: int, server: int, channel: int) -> None:
        """Count one slot's work as queued there, if it has any."""
        if work.tasks[slot] > 0:
            self.queue_s[server] += work.cycles[slot] / (self.speed_hz[server] * self.workers[server])
            self.uploads[server, channel] += 1


def _by_gain(local_s: Float64Array, work: _Work, edge: _Edge, allowed: BoolArray) -> list[int]:
    """The slots that would gain from the edge if they were alone, largest gain first, ties in slot order.

    Nobody else can come to gain: assignments only ever add load.
    """
    gains: list[tuple[float, int]] = []
    for slot in np.flatnonzero(allowed.any(axis=(1, 2))).tolist():
        best_s = edge.latency_s(work, slot)[allowed[slot]].min()
        if best_s < local_s[slot]:
            gains.append((best_s - local_s[slot], slot))
    return [slot for _, slot in sorted(gains)]


def _read(spec: ObservationSpec, observation: Observation) -> tuple[_Work, _Edge]:
    def device(name: str) -> Float64Array:
        return device_feature(spec, observation, name)

    device_speed_hz, worker_speed_hz = device("device_speed_hz"), server_feature(spec, observation, "worker_speed_hz")
    fastest_hz = max(device_speed_hz.max(initial=0.0), worker_speed_hz.max(initial=0.0)) or np.inf
    cycles = device("waiting_cycles")
    work = _Work(
        tasks=device("waiting_tasks"),
        cycles=cycles,
        upload_bits=8 * (device("uplink_queue_bytes") + device("waiting_bytes")),
        rate_bps=_known_or(device("link_rate_bps"), np.inf),
        round_trip_s=device("round_trip_s"),
        local_s=device("device_queue_delay_s") + cycles / _known_or(device_speed_hz, fastest_hz),
    )
    edge = _Edge(
        queue_s=server_feature(spec, observation, "queue_delay_s"),
        workers=np.maximum(server_feature(spec, observation, "workers"), 1.0),
        speed_hz=_known_or(worker_speed_hz, fastest_hz),
        rate_bps=_known_or(channel_feature(spec, observation, "channel_rate_bps"), np.inf),
        uploads=channel_feature(spec, observation, "channel_uploads"),
    )
    return work, edge


def _known_or(values: Float64Array, unknown: float) -> Float64Array:
    """The values, with ``unknown`` where they are 0."""
    return np.where(values > 0, values, unknown)


POLICY = GreedyLatency
