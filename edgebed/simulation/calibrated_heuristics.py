"""The hosts' own policies as heuristics of a calibrated scenario: the same code that decides on devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgebed.policies import make_policy
from edgebed.simulation.base import ActionArray, Heuristic

if TYPE_CHECKING:
    from edgebed.policies.base import Policy
    from edgebed.simulation.calibrated import CalibratedScenario


class HostsPolicy(Heuristic):
    """A policy of hosts, one instance an environment, seeded with the environment's seed.

    Args:
        scenario: whose observations it is shown, as hosts would show them.
        options: of the policy.

    Raises:
        BadInput: an option is unknown or of the wrong type.
    """

    policy: ClassVar[str]
    scenario: CalibratedScenario

    def __init__(self, scenario: CalibratedScenario, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(scenario)
        self._options = dict(options or {})
        make_policy(self.policy, scenario.observation_spec, self._options)  # a wrong option is told at once
        self._policies: list[Policy] = []

    def act(self) -> ActionArray:
        """What the policy decides in each environment, ``[B, N]``."""
        scenario = self.scenario
        values, server = scenario.hosts_values()
        actions = np.zeros((scenario.batch, scenario.devices), np.int64)
        self._prepare(scenario)
        for row, policy in enumerate(self._policies):
            decision = policy.decide(scenario.observation(row, values, server))
            offload = 1 + decision.server * scenario.channels + decision.channel
            actions[row] = np.where(decision.site == 0, 0, offload)
        return actions

    def _prepare(self, scenario: CalibratedScenario) -> None:
        """A policy for each environment, started over where an episode begins."""
        del self._policies[scenario.batch :]
        while len(self._policies) < scenario.batch:
            policy = make_policy(self.policy, scenario.observation_spec, self._options)
            policy.reset(int(scenario.seeds[len(self._policies)]))
            self._policies.append(policy)
        for row in np.flatnonzero(scenario.step_index == 0):
            self._policies[row].reset(int(scenario.seeds[row]))


class AllEdge(HostsPolicy):
    """Everything on the edge servers, spread evenly."""

    policy = "all_edge"


class AllLocal(HostsPolicy):
    """Everything on the devices."""

    policy = "all_local"


class GreedyLatency(HostsPolicy):
    """Where it is predicted to be done first."""

    policy = "greedy_latency"


class QueueThreshold(HostsPolicy):
    """Offloads where the own queue is longer than the server's."""

    policy = "queue_threshold"


class UniformRandom(HostsPolicy):
    """A coin for the site, a die for server and channel."""

    policy = "uniform_random"


HEURISTICS: dict[str, type[Heuristic]] = {
    kind.policy: kind for kind in (AllEdge, AllLocal, GreedyLatency, QueueThreshold, UniformRandom)
}
