"""A coin for the site, a die for server and channel: the baseline that a policy must beat to have learned anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from edgebed.policies.base import Options, Policy
from edgebed.randomness import stream
from edgebed.types import BoolArray, Decision, Observation, ObservationSpec, PolicySpec


class CoinOptions(Options):
    """Settings of `UniformRandom`."""

    p: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5


class UniformRandom(Policy):
    """Offloads with probability p, to a server and channel drawn uniformly among those that are allowed.

    Each slot has a random stream of its own, named after the device, and draws from it at every decision. So what one
    device is dealt does not depend on who else there is.
    """

    spec = PolicySpec(
        "uniform_random",
        sets=("site", "server", "channel"),
        options={"p": "probability of offloading, in [0, 1]; 0.5 unless given"},
    )
    options_type = CoinOptions
    options: CoinOptions

    def __init__(self, observation_spec: ObservationSpec, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(observation_spec, options)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start every slot's stream from ``seed``."""
        super().reset(seed)
        self._streams = [stream(seed, "uniform_random", name) for name in self.observation_spec.slots]

    def decide(self, observation: Observation) -> Decision:
        """One throw a slot."""
        throws = np.array([draws.random(2) for draws in self._streams])
        actions = np.zeros(len(throws), np.int32)
        for slot in np.flatnonzero(observation.present):
            actions[slot] = self._action(throws[slot, 0], throws[slot, 1], observation.allowed_actions[slot])
        return Decision.from_actions(actions, self.observation_spec)

    def _action(self, coin: float, die: float, allowed: BoolArray) -> int:
        offloads = 1 + np.flatnonzero(allowed[1:])
        if not len(offloads) or (coin >= self.options.p and allowed[0]):
            return 0
        return int(offloads[int(die * len(offloads))])


POLICY = UniformRandom
