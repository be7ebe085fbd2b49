"""Hand-written policies of the CCM-MADRL scenarios: CPU and power in full, and a rule for offers and ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from edgebed.simulation.base import ActionArray, Heuristic
from edgebed.simulation.radio.shannon import shannon_bps
from edgebed.simulation.random_streams import FloatArray

if TYPE_CHECKING:
    from edgebed.simulation.scenarios.ccm import Ccm

_BITS_PER_KIB = 8 * 1024


class CcmHeuristic(Heuristic):
    """What the rules here share."""

    scenario: Ccm

    def full(self, offer: ArrayLike, rank: ArrayLike = 0.0) -> FloatArray:
        """Offers (1 or -1) and ranks as actions, at full frequency and power."""
        actions: FloatArray = np.ones((self.scenario.batch, self.scenario.devices, 4))
        actions[..., 0], actions[..., 3] = offer, rank
        return actions

    def upload_s(self) -> FloatArray:
        """Upload times at full power, ``[B, N]``."""
        scenario = self.scenario
        settings = scenario.parameters
        rate_bps = shannon_bps(settings.bandwidth_hz / settings.channels, scenario.power_w * scenario.gain)
        upload_s: FloatArray = scenario.size_kib * _BITS_PER_KIB / rate_bps
        return upload_s

    def gain_s(self) -> FloatArray:
        """By how much a task's time falls if its device alone offloads it, ``[B, N]``."""
        cycles = self.scenario.cycles
        edge_s = self.upload_s() + cycles / self.scenario.parameters.unit_hz
        gain_s: FloatArray = cycles / self.scenario.cpu_hz - edge_s
        return gain_s


class AllLocal(CcmHeuristic):
    """Every device computes its own task, at full frequency."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        return self.full(-1.0)


class AllEdge(CcmHeuristic):
    """Every device offers its task; lower devices go first."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        return self.full(1.0)


class UniformRandom(CcmHeuristic):
    """All four numbers uniform in [-1, 1]."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        shape = (self.scenario.batch, self.scenario.devices, 4)
        return self.draw(shape[1] * shape[2]).reshape(shape) * 2.0 - 1.0


class GreedyLatency(CcmHeuristic):
    """Offers what alone would be done sooner at the edge; the master ranks by the time gained."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        gain_s = self.gain_s()
        return self.full(np.where(gain_s > 0.0, 1.0, -1.0), _squashed(gain_s))


class GreedyTimeGain(CcmHeuristic):
    """Offloads at most as many tasks as the server has units: those whose time falls the most."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        gain_s = self.gain_s()
        rank = np.argsort(np.argsort(-gain_s, axis=1, kind="stable"), axis=1, kind="stable")
        chosen = (rank < self.scenario.parameters.units) & (gain_s > 0.0)
        return self.full(np.where(chosen, 1.0, -1.0), _squashed(gain_s))


class DeadlineSizeFirst(CcmHeuristic):
    """Every device offers; the master ranks by deadline over size, the least first."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        return self.full(1.0, _squashed(-self.scenario.deadline_s / self.scenario.size_kib))


class OffloadTimeFirst(CcmHeuristic):
    """Every device offers; the master ranks by upload time, the shortest first."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        return self.full(1.0, _squashed(-self.upload_s()))


def _squashed(numbers: FloatArray) -> FloatArray:
    """Into [-1, 1], in the same order."""
    squashed: FloatArray = numbers / (1.0 + np.abs(numbers))
    return squashed


HEURISTICS: Mapping[str, type[Heuristic]] = {
    "all_local": AllLocal,
    "all_edge": AllEdge,
    "uniform_random": UniformRandom,
    "greedy_latency": GreedyLatency,
    "greedy_time_gain": GreedyTimeGain,
    "deadline_size_first": DeadlineSizeFirst,
    "offload_time_first": OffloadTimeFirst,
}
