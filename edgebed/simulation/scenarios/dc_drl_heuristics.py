"""Hand-written policies of `dc-drl`, from blind ones to some that know the state and the equations.

The informed ones are references: what a learner could reach if it knew all that they know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import numpy as np

from edgebed.simulation.base import Heuristic, Parameters, parameter
from edgebed.simulation.radio.shannon import shannon_bps
from edgebed.simulation.random_streams import FloatArray, stream_keys, uniforms
from edgebed.simulation.scenarios.dc_drl_epoch import run_epoch
from edgebed.types import BoolArray, IntArray

if TYPE_CHECKING:
    from edgebed.simulation.scenarios.dc_drl import DcDrl

CANDIDATES_AT_ONCE = 20_000
"""Joint actions that are tried in one go: enough to be quick, few enough to stay in the cache."""


class DcDrlHeuristic(Heuristic):
    """What the policies here share."""

    scenario: DcDrl

    @property
    def shape(self) -> tuple[int, int]:
        """``(B, N)``."""
        return len(self.scenario.seeds), self.scenario.devices

    def round_robin(self, offloads: BoolArray) -> IntArray:
        """Those that offload, device i over channel i modulo the number of channels; ``[B, N]``."""
        channel = np.arange(self.scenario.devices) % self.scenario.channels + 1
        return (offloads * channel).astype(np.int32)


class AllLocal(DcDrlHeuristic):
    """Every device computes its own task."""

    def act(self) -> IntArray:
        """See `Heuristic.act`."""
        return np.zeros(self.shape, np.int32)


class AllEdge(DcDrlHeuristic):
    """Every device offloads, device i over channel i modulo the number of channels."""

    def act(self) -> IntArray:
        """See `Heuristic.act`."""
        return self.round_robin(np.ones(self.shape, np.bool_))


class UniformRandom(DcDrlHeuristic):
    """Offload with probability 1/2, over any channel alike."""

    def act(self) -> IntArray:
        """See `Heuristic.act`."""
        return self.scattered(self.draw(self.scenario.devices))

    def scattered(self, numbers: FloatArray) -> IntArray:
        """Uniform numbers in [0, 1) as actions, of the same shape."""
        channel = np.floor((2.0 * numbers - 1.0) * self.scenario.channels).astype(np.int32) + 1
        return np.maximum(channel, 0)


class GreedyLatency(DcDrlHeuristic):
    """Each device on its own does what it predicts to be faster, knowing both queues but not who else will send."""

    def act(self) -> IntArray:
        """See `Heuristic.act`."""
        state, system = self.scenario.state, self.scenario.system
        alone_bps = shannon_bps(system.channels.bandwidth_hz, state.received_w / system.channels.noise_w)
        arrival_s = np.maximum(8.0 * state.input_bytes / alone_bps, state.server_queue_s[:, None])
        local_s = state.cycles / system.power.cpu_hz + state.device_queue_s
        return self.round_robin(arrival_s + state.cycles / system.server_hz < local_s)


class OffloadLate(DcDrlHeuristic):
    """Offload what would miss its deadline locally, device i over channel i modulo the number of channels."""

    def act(self) -> IntArray:
        """See `Heuristic.act`."""
        state, system = self.scenario.state, self.scenario.system
        return self.round_robin(state.cycles / system.power.cpu_hz + state.device_queue_s > system.deadline_s)


class SampledOptions(Parameters, frozen=True):
    """Settings of `GreedySampled`."""

    m: Annotated[int, parameter("1", "joint actions that are tried", ge=1, le=1_000_000)] = 100


class GreedySampled(UniformRandom):
    """Informed: of ``m`` random joint actions the one that costs least in this epoch."""

    options_type = SampledOptions
    options: SampledOptions

    def act(self) -> IntArray:
        """See `Heuristic.act`."""
        batch = len(self.scenario.seeds)
        best = np.zeros(self.shape, np.int32)
        least = np.full(batch, np.inf)
        rows = np.arange(batch)
        at_once = max(1, CANDIDATES_AT_ONCE // batch)
        for first in range(0, self.options.m, at_once):
            tried = self._candidates(first, min(at_once, self.options.m - first))
            costs = joint_costs(self.scenario, tried)
            index = costs.argmin(axis=1)
            better = costs[rows, index] < least
            best[better] = tried[rows, index][better]
            least[better] = costs[rows, index][better]
        return best

    def _candidates(self, first: int, count: int) -> IntArray:
        """Joint actions ``first`` and following of this step's ``m``, ``[B, count, N]``; of no batch."""
        scenario = self.scenario
        start = scenario.step_index * (self.options.m * scenario.devices) + first * scenario.devices
        numbers = uniforms(stream_keys(scenario.seeds, "policy"), start, count * scenario.devices)
        return self.scattered(numbers).reshape(-1, count, scenario.devices)


class DescentOptions(Parameters, frozen=True):
    """Settings of `CoordinateDescent`."""

    sweeps: Annotated[int, parameter("1", "at most so many rounds over all devices", ge=1, le=1000)] = 10


class CoordinateDescent(DcDrlHeuristic):
    """Informed: coordinate descent on this epoch's cost, device by device, from all local."""

    options_type = DescentOptions
    options: DescentOptions

    def act(self) -> IntArray:
        """See `Heuristic.act`."""
        actions = np.zeros(self.shape, np.int32)
        for _ in range(self.options.sweeps):
            before = actions.copy()
            for device in range(self.scenario.devices):
                self._improve(actions, device)
            if (actions == before).all():
                break
        return actions

    def _improve(self, actions: IntArray, device: int) -> None:
        choices = self.scenario.channels + 1
        tried = np.repeat(actions[:, None, :], choices, axis=1)
        tried[:, :, device] = np.arange(choices)
        actions[:, device] = self.judged(tried).argmin(axis=1)

    def judged(self, candidates: IntArray) -> FloatArray:
        """What is to be small, ``[B, M]`` for joint actions ``[B, M, N]``."""
        return joint_costs(self.scenario, candidates)


class PricedOptions(DescentOptions, frozen=True):
    """Settings of `GreedyPriced`."""

    price: Annotated[float, parameter("1/s^2", "of the square of each device's queue", ge=0, le=1e9)] = 0.3
    server_price: Annotated[float, parameter("1/s^2", "of the square of the server's queue", ge=0, le=1e9)] = 3.0


class GreedyPriced(CoordinateDescent):
    """Informed: coordinate descent on this epoch's cost and a price on the squares of the queues that it leaves.

    Drift plus penalty (Neely 2010, "Stochastic network optimization"): looks one epoch ahead, but keeps queues short.
    """

    options_type = PricedOptions
    options: PricedOptions

    def judged(self, candidates: IntArray) -> FloatArray:
        """See `CoordinateDescent.judged`."""
        return joint_costs(self.scenario, candidates, self.options.price, self.options.server_price)


def joint_costs(
    scenario: DcDrl, candidates: IntArray, device_price: float = 0.0, server_price: float = 0.0
) -> FloatArray:
    """What joint actions would cost in this epoch, summed over devices.

    Args:
        scenario: whose state they are tried in.
        candidates: ``[B, M, N]``.
        device_price: added for the square of each device's queue at the end, in seconds.
        server_price: the same for the server's.

    Returns:
        ``[B, M]``.
    """
    batch, tries, devices = candidates.shape
    results = run_epoch(scenario.system, scenario.state.repeated(tries), candidates.reshape(-1, devices))
    costs: FloatArray = results.costs.sum(axis=1)
    if device_price > 0.0 or server_price > 0.0:
        costs += device_price * np.square(results.device_queue_s).sum(axis=1)
        costs += server_price * np.square(results.server_queue_s)
    return costs.reshape(batch, tries)


HEURISTICS: Mapping[str, type[Heuristic]] = {
    "all_local": AllLocal,
    "all_edge": AllEdge,
    "uniform_random": UniformRandom,
    "greedy_latency": GreedyLatency,
    "greedy_sampled": GreedySampled,
    "greedy_priced": GreedyPriced,
    "coordinate_descent": CoordinateDescent,
    "offload_late": OffloadLate,
}
