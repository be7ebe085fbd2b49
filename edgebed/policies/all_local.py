"""Everything on the devices, at full frequency: the baseline that needs no edge server."""

from __future__ import annotations

import numpy as np

from edgebed.policies.base import Policy, settle
from edgebed.types import Decision, Observation, PolicySpec


class AllLocal(Policy):
    """Runs every task where it arrived."""

    spec = PolicySpec("all_local", sets=("site", "server", "channel"))

    def decide(self, observation: Observation) -> Decision:
        """The device for every slot; where that is not allowed, the first server and channel that are."""
        preferred = np.zeros(len(observation.present), np.int32)
        return Decision.from_actions(settle(preferred, observation), self.observation_spec)


POLICY = AllLocal
