"""Hand-written policies of the cell-selection scenarios: each wants a set of stations, and toggles its way there.

They see the true signal-to-noise ratios. A step can toggle one station: first the strongest that is wanted and not
connected, then the weakest that is connected and not wanted, so that the user is not cut off in between.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.base import ActionArray, Heuristic, Parameters, parameter
from edgebed.simulation.random_streams import FloatArray
from edgebed.types import BoolArray

if TYPE_CHECKING:
    from edgebed.simulation.scenarios.cell_selection import CellSelection


class UniformRandom(Heuristic):
    """Stays, or toggles any station, all alike."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        choices = len(self.scenario.actions.choices)
        return (self.draw(1) * choices).astype(np.int32)


class WantedStations(Heuristic):
    """What the other rules share."""

    scenario: CellSelection

    @abstractmethod
    def wanted(self, signal_to_noise: FloatArray, reachable: BoolArray) -> BoolArray:
        """``[B, 7]``, stations that the user should be connected to; arguments are ``[B, 7]`` as well."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        strength, reachable = self.scenario.signal_to_noise, self.scenario.reachable
        connected = self.scenario.connected & reachable
        wanted = self.wanted(strength, reachable) & reachable
        missing, needless = wanted & ~connected, connected & ~wanted
        joined = np.where(missing, strength, -np.inf).argmax(axis=1) + 1
        left = np.where(needless, strength, np.inf).argmin(axis=1) + 1
        toggled = np.where(missing.any(axis=1), joined, np.where(needless.any(axis=1), left, 0))
        return toggled[:, None].astype(np.int32)


class FixedOptions(Parameters, frozen=True):
    """Settings of `Fixed`."""

    station: Annotated[int, parameter("1", "the station, from 1; 2 is in the middle", ge=1, le=7)] = 2


class Fixed(WantedStations):
    """One station, always the same."""

    options_type = FixedOptions

    def wanted(self, signal_to_noise: FloatArray, reachable: BoolArray) -> BoolArray:
        """See `WantedStations.wanted`."""
        return np.broadcast_to(np.arange(reachable.shape[1]) == self.options.station - 1, reachable.shape)


class RandomReachable(WantedStations):
    """A random one of the stations in reach, until it is out of reach."""

    def wanted(self, signal_to_noise: FloatArray, reachable: BoolArray) -> BoolArray:
        """See `WantedStations.wanted`."""
        kept = self.scenario.connected & reachable
        throws = np.where(reachable, self.draw(reachable.shape[1]), -1.0)
        chosen = _only(throws.argmax(axis=1), reachable.shape[1])
        return np.where(kept.sum(axis=1)[:, None] > 0, kept, chosen)


class Full(WantedStations):
    """All stations in reach."""

    def wanted(self, signal_to_noise: FloatArray, reachable: BoolArray) -> BoolArray:
        """See `WantedStations.wanted`."""
        return reachable


class StrongestSnr(WantedStations):
    """The station with the strongest signal."""

    def wanted(self, signal_to_noise: FloatArray, reachable: BoolArray) -> BoolArray:
        """See `WantedStations.wanted`."""
        return _only(signal_to_noise.argmax(axis=1), reachable.shape[1])


class ClusteringOptions(Parameters, frozen=True):
    """Settings of `Clustering`."""

    size: Annotated[int, parameter("1", "stations in a cluster; the last may have fewer", ge=1, le=7)] = 2


class Clustering(WantedStations):
    """The static cluster of stations whose signals add up to the most."""

    options_type = ClusteringOptions

    def wanted(self, signal_to_noise: FloatArray, reachable: BoolArray) -> BoolArray:
        """See `WantedStations.wanted`."""
        members = clusters(_positions(), self.options.size)
        strongest = (signal_to_noise[:, None] * members).sum(axis=2).argmax(axis=1)
        chosen: BoolArray = members[strongest]
        return chosen


class DynamicOptions(Parameters, frozen=True):
    """Settings of `Dynamic`."""

    margin_db: Annotated[float, parameter("dB", "how much weaker than the strongest", ge=0, le=100)] = 6.0


class Dynamic(WantedStations):
    """The station with the strongest signal, and all that are not much weaker."""

    options_type = DynamicOptions

    def wanted(self, signal_to_noise: FloatArray, reachable: BoolArray) -> BoolArray:
        """See `WantedStations.wanted`."""
        least = signal_to_noise.max(axis=1) * 10.0 ** (-self.options.margin_db / 10.0)
        return np.asarray(signal_to_noise >= least[:, None])


def clusters(position_m: FloatArray, size: int) -> BoolArray:
    """Fixed clusters of near stations: the first that is left, with those nearest to it, and so on.

    Args:
        position_m: ``[S, 2]``.
        size: stations in a cluster.

    Returns:
        members, ``[clusters, S]``.
    """
    left = list(range(len(position_m)))
    found = []
    while left:
        away_m = [float(np.hypot(*(position_m[other] - position_m[left[0]]))) for other in left]
        near = [left[at] for at in np.argsort(away_m, kind="stable")[:size]]
        found.append(np.isin(np.arange(len(position_m)), near))
        left = [other for other in left if other not in near]
    return np.array(found)


def _positions() -> FloatArray:
    from edgebed.simulation.scenarios.cell_selection import POSITIONS_M  # that module imports this one

    return POSITIONS_M


def _only(index: NDArray[np.intp], count: int) -> BoolArray:
    chosen: BoolArray = np.arange(count) == index[:, None]
    return chosen


HEURISTICS: Mapping[str, type[Heuristic]] = {
    "uniform_random": UniformRandom,
    "random_reachable": RandomReachable,
    "fixed": Fixed,
    "full": Full,
    "strongest_snr": StrongestSnr,
    "clustering": Clustering,
    "dynamic": Dynamic,
}
