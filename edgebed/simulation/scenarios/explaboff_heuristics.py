"""Hand-written policies of the ExplabOff scenarios."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.base import ActionArray, Heuristic
from edgebed.simulation.random_streams import FloatArray

if TYPE_CHECKING:
    from edgebed.simulation.scenarios.explaboff import Explaboff


class ExplaboffHeuristic(Heuristic):
    """What the rules here share."""

    scenario: Explaboff

    def pairs(self, station: NDArray[Any], fraction: NDArray[Any]) -> FloatArray:
        """Actions ``[B, N, 2]``."""
        shape = (self.scenario.batch, self.scenario.devices)
        pairs: FloatArray = np.empty((*shape, 2))
        pairs[..., 0], pairs[..., 1] = station, fraction
        return pairs


class AllLocal(ExplaboffHeuristic):
    """Nothing is sent."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        return self.pairs(np.array(0), np.array(0.0))


class AllEdge(ExplaboffHeuristic):
    """Everything is sent, device i to station i modulo their number."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        return self.pairs(np.arange(self.scenario.devices) % self.scenario.servers, np.array(1.0))


class UniformRandom(ExplaboffHeuristic):
    """A station and a fraction, both uniform."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        count = self.scenario.devices
        drawn = self.draw(2 * count)
        return self.pairs((drawn[:, :count] * self.scenario.servers).astype(np.int64), drawn[:, count:])


class GreedyLatency(ExplaboffHeuristic):
    """The station and fraction with which a device, alone at the stations, would be done first.

    With ``s`` the later of upload and backlog, plus the switch time, both parts end together at
    ``f = (z / d - s) / (z / d + z / F)``, d the device's and F the station's capacity; below 0: keep all.
    """

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        scenario = self.scenario
        local_s = (scenario.size / scenario.parameters.device_capacity)[..., None]
        start_s = np.maximum(scenario.upload_s[:, None], scenario.backlog_s[:, None, :])
        start_s = start_s + scenario.switch_s
        edge_s = scenario.size[..., None] / scenario.station_capacity
        fraction = np.clip((local_s - start_s) / np.maximum(local_s + edge_s, 1e-12), 0.0, 1.0)
        station = ((1.0 - fraction) * local_s).argmin(axis=2)
        return self.pairs(station, np.take_along_axis(fraction, station[..., None], axis=2)[..., 0])


class StaticSplit(ExplaboffHeuristic):
    """Nine tenths are sent: the middle-sized task to the first station, the others to the second."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        rank = np.argsort(np.argsort(self.scenario.size, axis=1, kind="stable"), axis=1, kind="stable")
        return self.pairs(np.where(rank == self.scenario.devices // 2, 0, self.scenario.servers - 1), np.array(0.9))


HEURISTICS: Mapping[str, type[Heuristic]] = {
    "all_local": AllLocal,
    "all_edge": AllEdge,
    "uniform_random": UniformRandom,
    "greedy_latency": GreedyLatency,
}
