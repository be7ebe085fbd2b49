"""Everything on the edge servers, spread evenly: the baseline that never computes on a device."""

from __future__ import annotations

import numpy as np

from edgebed.policies.base import Policy, settle
from edgebed.policies.features import offload_action
from edgebed.types import BoolArray, Decision, Observation, PolicySpec


class AllEdge(Policy):
    """Offloads every task: device i on channel i mod C; the servers take turns, C devices at a time.

    Taking turns that way uses every channel of every server, also when there are as many servers as channels.
    """

    spec = PolicySpec("all_edge", sets=("site", "server", "channel"))

    def decide(self, observation: Observation) -> Decision:
        """An edge server for every slot; the device only where no server is allowed."""
        slots = range(len(observation.present))
        preferred = np.array([self._turn(slot, observation.allowed_actions[slot]) for slot in slots], np.int32)
        return Decision.from_actions(settle(preferred, observation), self.observation_spec)

    def _turn(self, slot: int, allowed: BoolArray) -> int:
        """The slot's own server and channel, or else the next server on that channel, or else the next channel."""
        spec = self.observation_spec
        servers, channels = len(spec.servers), spec.channels
        for channel_step in range(channels):
            for server_step in range(servers):
                server = (slot // channels + server_step) % servers
                action = offload_action(spec, server, (slot + channel_step) % channels)
                if allowed[action]:
                    return action
        return 0


POLICY = AllEdge
