"""Meta-RL's system: binary offloading of ten devices to one server, one fading state after the other.

An episode is one *task scenario*: places, weights and inputs of the devices, drawn once. Each of its 256 steps is a
*sample*: fresh gains of the channels, and one decision for all devices. `TaskScenario` and the functions beside it are
the same system without episodes, for learners that want many samples of many task scenarios at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput
from edgebed.simulation.base import (
    ActionArray,
    ActionLayout,
    BatchObservation,
    Decisions,
    Heuristic,
    Parameters,
    ScenarioSpec,
    parameter,
)
from edgebed.simulation.cost.weighted_delay import (
    MOST_ENUMERATED,
    Delays,
    best_sets,
    descended,
    per_device,
)
from edgebed.simulation.episodes import EpisodicScenario, Rows, RowsStep
from edgebed.simulation.radio.log_distance import faded_gains, path_loss_db
from edgebed.simulation.radio.shannon import shannon_bps, watts_of_dbm
from edgebed.simulation.random_streams import FloatArray, normals, stream_keys, uniforms
from edgebed.types import BoolArray, Feature, Site

PAPER = "Adaptive offloading based on meta reinforcement learning (in Chinese)"
STATED = "the paper"

_LEAST_GAIN_DB = -300.0
_MOST_GAIN_DB = 100.0


class MetaRlParameters(Parameters, frozen=True):
    """Settings of ``meta-rl``."""

    n: Annotated[int, parameter("1", "devices", STATED, ge=1, le=1000)] = 10
    samples: Annotated[int, parameter("1", "samples (steps) of an episode", ge=1, le=1_000_000)] = 256
    local_hz: Annotated[float, parameter("cycle/s", "speed of a device", STATED, gt=0, le=1e15)] = 2.84e9
    edge_hz: Annotated[float, parameter("cycle/s", "speed of the edge server", STATED, gt=0, le=1e15)] = 1e11
    bandwidth_hz: Annotated[float, parameter("Hz", "bandwidth of the link", STATED, gt=0, le=1e12)] = 10e6
    transmit_dbm: Annotated[float, parameter("dBm", "power of a device that sends", STATED, ge=-100, le=60)] = 23.0
    noise_dbm: Annotated[float, parameter("dBm", "noise", STATED, ge=-250, le=50)] = -95.0
    loss_at_1_km_db: Annotated[float, parameter("dB", "path loss at 1 km", STATED, ge=0, le=300)] = 103.8
    loss_per_decade_db: Annotated[float, parameter("dB", "more for ten times as far", STATED, ge=0, le=100)] = 20.9
    devices_per_m2: Annotated[float, parameter("1/m^2", "density of devices", STATED, gt=0, le=1e3)] = 3e-4
    distance_min_m: Annotated[float, parameter("m", "no device is nearer", ge=0.01, le=1e6)] = 10.0
    shadowing_db: Annotated[float, parameter("dB", "deviation of log-normal shadowing", ge=0, le=20)] = 10.0
    weight_min: Annotated[float, parameter("1", "least weight of a device", gt=0, le=1e6)] = 0.2
    weight_max: Annotated[float, parameter("1", "most", gt=0, le=1e6)] = 2.0
    input_min_bits: Annotated[float, parameter("bit", "least input of a task", gt=0, le=1e15)] = 0.2e6
    input_max_bits: Annotated[float, parameter("bit", "most", gt=0, le=1e15)] = 2e6
    output_share: Annotated[float, parameter("1", "output over input", ge=0, le=100)] = 0.1
    cycles_per_bit: Annotated[float, parameter("cycle/bit", "work of a task", gt=0, le=1e9)] = 165.0
    equal_split: Annotated[bool, parameter("1", "link and server are shared equally, not at best")] = False


@dataclass(frozen=True, slots=True)
class TaskScenario:
    """What stays the same over an episode, ``[R, N]`` each: of R task scenarios.

    Attributes:
        loss_db: path loss to the server.
        weight: of a device's delay.
        input_bits: of its tasks.
    """

    loss_db: FloatArray
    weight: FloatArray
    input_bits: FloatArray


def draw_scenarios(settings: MetaRlParameters, seeds: NDArray[np.int64]) -> TaskScenario:
    """The task scenarios of these seeds: devices uniform in a ring of the density's area, weights and inputs uniform.

    Args:
        settings: of the system.
        seeds: ``[R]``, not negative.
    """
    place, weight, size = (
        uniforms(stream_keys(seeds, "task scenario"), 0, 3 * settings.n)
        .reshape(-1, 3, settings.n)[:, [0, 1, 2]]
        .swapaxes(0, 1)
    )
    least_m2 = settings.distance_min_m**2
    distance_m = np.sqrt(least_m2 + place * (_radius_m(settings) ** 2 - least_m2))
    return TaskScenario(
        loss_db=path_loss_db(distance_m, settings.loss_at_1_km_db, settings.loss_per_decade_db),
        weight=settings.weight_min + weight * (settings.weight_max - settings.weight_min),
        input_bits=settings.input_min_bits + size * (settings.input_max_bits - settings.input_min_bits),
    )


def draw_gains(
    settings: MetaRlParameters, scenario: TaskScenario, seeds: NDArray[np.int64], sample: NDArray[np.int64] | int
) -> FloatArray:
    """Gains ``h`` of one sample of each task scenario, ``[R, N]``.

    Args:
        settings: of the system.
        scenario: R of them.
        seeds: ``[R]``, theirs.
        sample: its number, for all or ``[R]``.
    """
    keys = stream_keys(seeds, "gains")
    first = np.asarray(sample) * (3 * settings.n)
    shadowing_db = settings.shadowing_db * normals(keys, first, settings.n)
    fading = -np.log1p(-uniforms(keys, first + 2 * settings.n, settings.n))
    return faded_gains(scenario.loss_db, shadowing_db, np.maximum(fading, 1e-12))


def delays_of(settings: MetaRlParameters, gains: FloatArray, scenario: TaskScenario) -> Delays:
    """What Q is made of, for `edgebed.simulation.cost.weighted_delay`.

    Args:
        settings: of the system.
        gains: ``[R, N]``, or ``[R, K, N]``, K samples of each task scenario.
        scenario: R of them.

    Returns:
        arrays ``[R, N]``; ``[R * K, N]`` for K samples each.
    """
    weight, bits = scenario.weight, scenario.input_bits
    if gains.ndim == 3:
        weight, bits = (np.broadcast_to(one[:, None], gains.shape) for one in (weight, bits))
        gains, weight, bits = (one.reshape(-1, gains.shape[-1]) for one in (gains, weight, bits))
    noise_w, power_w = watts_of_dbm(settings.noise_dbm), watts_of_dbm(settings.transmit_dbm)
    rate_bps = shannon_bps(settings.bandwidth_hz, gains * (power_w / noise_w))
    cycles = bits * settings.cycles_per_bit
    return Delays(
        local=weight * cycles / settings.local_hz,
        link=weight * (1.0 + settings.output_share) * bits / rate_bps,
        server=weight * cycles / settings.edge_hz,
        equal_split=settings.equal_split,
    )


def best_decisions(delays: Delays) -> tuple[BoolArray, FloatArray]:
    """Decisions ``[R, N]`` and their Q ``[R]``: the best of all, or by steepest descent where there are too many."""
    return best_sets(delays) if delays.local.shape[1] <= MOST_ENUMERATED else descended(delays)


def greedy_decisions(gains: FloatArray, delays: Delays) -> BoolArray:
    """By falling gain, offload while Q falls, and stop at the first device that would not lower it; ``[R, N]``."""
    order = np.argsort(-gains, axis=1, kind="stable")
    local, link, server = (np.take_along_axis(one, order, axis=1) for one in (delays.local, delays.link, delays.server))
    total = _of_the_first(Delays(local, link, server, delays.equal_split))
    falls = total[:, 1:] < total[:, :-1]
    count = np.where(falls.all(axis=1), falls.shape[1], falls.argmin(axis=1))
    rank = np.argsort(order, axis=1)
    chosen: BoolArray = rank < count[:, None]
    return chosen


def _of_the_first(delays: Delays) -> FloatArray:
    """Q if the first k devices offload, for k from 0 to N; ``[R, N + 1]``."""
    rows, devices = delays.local.shape
    sums = np.zeros((3, rows, devices + 1))
    parts = [delays.link, delays.server] if delays.equal_split else [np.sqrt(delays.link), np.sqrt(delays.server)]
    for total, part in zip(sums, [delays.local, *parts], strict=True):
        np.cumsum(part, axis=1, out=total[:, 1:])
    kept, link, server = sums[0, :, -1:] - sums[0], sums[1], sums[2]
    if delays.equal_split:
        equal: FloatArray = kept + np.arange(devices + 1) * (link + server)
        return equal
    best: FloatArray = kept + np.square(link) + np.square(server)
    return best


def _radius_m(settings: MetaRlParameters) -> float:
    return float(np.sqrt(settings.n / settings.devices_per_m2 / np.pi))


class MetaRl(EpisodicScenario):
    """Ten devices, each with a task in every sample: compute it, or offload it over a link that all of them share.

    With ``in`` an input and ``w`` a weight, ``c = 165 in`` cycles, ``out = 0.1 in``, ``r = B log2(1 + p h / noise)``:
    ``Q = sum over local of w c / f_0 + (sum over offloaded of sqrt(w (in + out) / r))^2 +
    (sum over offloaded of sqrt(w c))^2 / f_e``, as link time and the server's cycles are shared so that Q is least
    (`edgebed.simulation.cost.weighted_delay`; an equal split is an option). The reward is -Q, a device's cost its part
    of Q. A gain ``h`` is path loss, times log-normal shadowing, times Rayleigh power, each drawn anew for every sample.
    The decisions of one sample do not influence the next.

    The paper leaves open how link and server are shared, and what varies between task scenarios: with nothing shared
    each device could be decided on alone. Both are assumed here.
    """

    spec = ScenarioSpec(
        "meta-rl", "Binary offloading of 10 devices over fading channels to one server", PAPER, MetaRlParameters
    )
    heuristics: ClassVar[Mapping[str, type[Heuristic]]]
    parameters: MetaRlParameters
    task_scenario: TaskScenario

    def __init__(self, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(parameters)
        settings = self.parameters
        _check_ranges(settings)
        self.devices, self.steps = settings.n, settings.samples
        self.actions = ActionLayout(("local", "offload"))
        self.device_features = (
            Feature("gain_db", "dB", _LEAST_GAIN_DB, _MOST_GAIN_DB, "10 log10 h of its channel"),
            Feature("weight", "1", settings.weight_min, settings.weight_max, "weight of its delay"),
            Feature("input_bits", "bit", settings.input_min_bits, settings.input_max_bits, "input of its task"),
        )
        self.shared_features = ()

    @property
    def gains(self) -> FloatArray:
        """``[B, N]``, of the sample to decide on."""
        return self._gains

    @property
    def delays(self) -> Delays:
        """What Q of the sample to decide on is made of."""
        return delays_of(self.parameters, self._gains, self.task_scenario)

    def _allocate(self, batch: int) -> None:
        shape = (batch, self.devices)
        self.task_scenario = TaskScenario(np.zeros(shape), np.zeros(shape), np.zeros(shape))
        self._gains: FloatArray = np.zeros(shape)
        self._score_sum: FloatArray = np.zeros(batch)
        self._best_sum: FloatArray = np.zeros(batch)

    def _begin(self, rows: Rows) -> None:
        drawn = draw_scenarios(self.parameters, self.seeds[rows])
        mine = self.task_scenario
        mine.loss_db[rows], mine.weight[rows], mine.input_bits[rows] = drawn.loss_db, drawn.weight, drawn.input_bits
        self._score_sum[rows] = 0.0
        self._best_sum[rows] = 0.0
        self._draw(rows, self.step_index[rows])

    def _draw(self, rows: Rows, sample: NDArray[np.int64]) -> None:
        self._gains[rows] = draw_gains(self.parameters, self._of(rows), self.seeds[rows], sample)

    def _of(self, rows: Rows) -> TaskScenario:
        mine = self.task_scenario
        return TaskScenario(mine.loss_db[rows], mine.weight[rows], mine.input_bits[rows])

    def _advance(self, rows: Rows, actions: NDArray[Any]) -> RowsStep:
        delays = delays_of(self.parameters, self._gains[rows], self._of(rows))
        costs = per_device(delays, actions == 1)
        total = costs.sum(axis=1)
        _, best = best_decisions(delays)
        self._score_sum[rows] += np.minimum(best / total, 1.0)
        self._best_sum[rows] += best
        self._draw(rows, self.step_index[rows] + 1)
        return RowsStep(-total, costs, np.zeros(len(costs), np.bool_), total)

    def _own_metrics(self) -> dict[str, FloatArray]:
        """``score``: mean of Q*/Q, 1 is optimal; ``best_cost_per_task``: what the best decisions would have cost."""
        steps = np.maximum(self.step_index, 1)
        return {"score": self._score_sum / steps, "best_cost_per_task": self._best_sum / (steps * self.devices)}

    def observe(self) -> BatchObservation:
        """See `edgebed.simulation.base.Scenario.observe`; nothing is shared."""
        devices = np.empty((self.batch, self.devices, 3), np.float32)
        devices[..., 0] = np.clip(10.0 * np.log10(self._gains), _LEAST_GAIN_DB, _MOST_GAIN_DB)
        devices[..., 1] = self.task_scenario.weight
        devices[..., 2] = self.task_scenario.input_bits
        return BatchObservation(devices, np.zeros((self.batch, 0), np.float32))

    def decisions(self, actions: ActionArray) -> Decisions:
        """See `edgebed.simulation.base.Scenario.decisions`."""
        edge = self.checked(actions) == 1
        whole = np.ones(edge.shape)
        return Decisions(
            site=np.where(edge, Site.EDGE, Site.DEVICE).astype(np.int32),
            server=np.zeros(edge.shape, np.int32),
            channel=np.zeros(edge.shape, np.int32),
            edge_fraction=edge.astype(np.float64),
            cpu_fraction=whole,
            power_fraction=whole.copy(),
        )


class _Rule(Heuristic):
    scenario: MetaRl

    @property
    def shape(self) -> tuple[int, int]:
        return self.scenario.batch, self.scenario.devices


class AllLocal(_Rule):
    """Every device computes its own task."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        return np.zeros(self.shape, np.int32)


class AllEdge(_Rule):
    """Every device offloads."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        return np.ones(self.shape, np.int32)


class UniformRandom(_Rule):
    """Each device offloads with probability 1/2."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        return (self.draw(self.scenario.devices) < 0.5).astype(np.int32)


class GreedyLatency(_Rule):
    """By falling gain, offload while the weighted delay falls; stop at the first rise. Knows the equations."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        return greedy_decisions(self.scenario.gains, self.scenario.delays).astype(np.int32)


class Optimal(_Rule):
    """The best of all decisions, by trying them (above 20 devices: by steepest descent). Knows the equations."""

    def act(self) -> ActionArray:
        """See `Heuristic.act`."""
        return best_decisions(self.scenario.delays)[0].astype(np.int32)


MetaRl.heuristics = {
    "all_local": AllLocal,
    "all_edge": AllEdge,
    "uniform_random": UniformRandom,
    "greedy_latency": GreedyLatency,
    "optimal": Optimal,
}


def _check_ranges(settings: MetaRlParameters) -> None:
    for least, most in (("weight_min", "weight_max"), ("input_min_bits", "input_max_bits")):
        low, high = getattr(settings, least), getattr(settings, most)
        if low > high:
            raise BadInput(f"scenario meta-rl: `{least}` is {low:g}, above `{most}`, {high:g}")
    radius_m = _radius_m(settings)
    if settings.distance_min_m >= radius_m:
        raise BadInput(
            f"scenario meta-rl: `distance_min_m` is {settings.distance_min_m:g}, but {settings.n} devices at "
            f"{settings.devices_per_m2:g} a square metre lie within {radius_m:.3g} m"
        )


SCENARIOS = (MetaRl,)
