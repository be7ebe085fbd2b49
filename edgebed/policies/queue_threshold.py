"""Compare the queues: the rule that many papers use as the queue-aware baseline."""

from __future__ import annotations

import numpy as np

from edgebed.policies.base import Options, Policy, settle
from edgebed.policies.features import Float64Array, allowed_offloads, device_feature, server_feature
from edgebed.types import Decision, IntArray, Observation, PolicySpec


class ThresholdOptions(Options):
    """Settings of `QueueThreshold`."""

    threshold_s: float = 0.0


class QueueThreshold(Policy):
    """Offloads when the device's queue is longer than the shortest server queue by more than a threshold.

    It looks at queues only: neither at the link nor at speeds, nor at what the other devices are about to do at the
    same tick (`greedy_latency` does). Slot i uploads on channel i mod C.
    """

    spec = PolicySpec(
        "queue_threshold",
        sets=("site", "server", "channel"),
        needs=("device_queue_delay_s",),
        needs_server=("queue_delay_s",),
        options={
            "threshold_s": "offload when device_queue_delay_s exceeds the server's queue_delay_s by more than this "
            "many seconds; negative favours the edge; 0 unless given"
        },
    )
    options_type = ThresholdOptions
    options: ThresholdOptions

    def decide(self, observation: Observation) -> Decision:
        """The edge for slots whose own queue is too long, the device for the rest."""
        spec = self.observation_spec
        if not spec.servers:
            return Decision.local(len(spec.slots))
        server, server_delay_s = self._shortest_queues(observation)
        excess_s = device_feature(spec, observation, "device_queue_delay_s") - server_delay_s
        offload = (excess_s > self.options.threshold_s) | ~observation.allowed_actions[:, 0]
        action = 1 + server * spec.channels + self._channels(observation, server)
        return Decision.from_actions(settle(np.where(offload, action, 0).astype(np.int32), observation), spec)

    def _shortest_queues(self, observation: Observation) -> tuple[IntArray, Float64Array]:
        """For each slot, the allowed server with the shortest queue, and that queue's delay (inf if none)."""
        spec = self.observation_spec
        reachable = allowed_offloads(spec, observation).any(axis=2)
        delays_s = np.where(reachable, server_feature(spec, observation, "queue_delay_s"), np.inf)
        return delays_s.argmin(axis=1).astype(np.int32), delays_s.min(axis=1)

    def _channels(self, observation: Observation, server: IntArray) -> IntArray:
        """For each slot i, channel i mod C of its server, or else the next allowed one."""
        spec = self.observation_spec
        slots = np.arange(len(spec.slots))
        ring = (slots[:, None] + np.arange(spec.channels)) % spec.channels
        allowed = allowed_offloads(spec, observation)[slots[:, None], server[:, None], ring]
        channels: IntArray = ring[slots, allowed.argmax(axis=1)].astype(np.int32)
        return channels


POLICY = QueueThreshold
