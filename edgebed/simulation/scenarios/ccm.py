"""CCM-MADRL's system: fifty devices with batteries, one server with ten channels and eight units, a master that admits.

The three variants differ in length, batteries and weights. Random numbers come from NumPy's legacy generator in the
order of the published code, so that results compare digit by digit; ``streams=counter`` draws from the product's own
streams instead, which is faster and has the same distributions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput
from edgebed.simulation.base import (
    ActionArray,
    ActionLayout,
    BatchObservation,
    Decisions,
    Heuristic,
    ScenarioSpec,
)
from edgebed.simulation.bounds import not_negative
from edgebed.simulation.compute.fifo import arrival_order
from edgebed.simulation.compute.units import finish_on_units_s
from edgebed.simulation.energy.battery import MJ_PER_J, charge_after_mj
from edgebed.simulation.energy.frequency_law import computing_at_j
from edgebed.simulation.episodes import EpisodicScenario, Rows, RowsStep
from edgebed.simulation.legacy_streams import LegacyStreams
from edgebed.simulation.radio.shannon import shannon_bps
from edgebed.simulation.random_streams import FloatArray, stream_keys, uniforms
from edgebed.simulation.scenarios.ccm_admission import admitted, counts
from edgebed.simulation.scenarios.ccm_heuristics import HEURISTICS
from edgebed.simulation.scenarios.ccm_parameters import (
    CcmParameters,
    CcmS100Lambda5Parameters,
    CcmS100Parameters,
    check_ranges,
    device_constants,
    features_of,
)
from edgebed.types import BoolArray, Feature, Site

BITS_PER_KIB = 8 * 1024
LEAST_FRACTION = 0.01
"""Of CPU and power: what an action of -1 means."""


@dataclass(frozen=True, slots=True)
class Uploads:
    """The admitted tasks of a step, ``[A]`` each, environment by environment and device by device.

    Attributes:
        place: of each in an array ``[R, N]``, flattened.
        count: ``[R]``, how many an environment has.
        energy_j: of sending.
        finish_s: when the server has finished.
    """

    place: NDArray[np.intp]
    count: NDArray[np.intp]
    energy_j: FloatArray
    finish_s: FloatArray


class Ccm(EpisodicScenario):
    """Fifty devices offer their tasks to one server, or compute them; a master admits what the server has room for.

    An action is four numbers in [-1, 1]. The first offers the task if it is at least 0. The second and third are the
    share of CPU and of transmit power, with -1 for 0.01 and 1 for 1 (as the published code scales its actors' tanh).
    The fourth is the master's ranking, higher first; it matters only where more is offered than there is room for, and
    may be left out (then lower devices go first). What is offered and not admitted is computed locally.

    Offers are admitted outright if there are at most 10 and their sizes add up to at most 400 KiB; otherwise they are
    visited by falling rank, and taken while there is a place and the size fits.

    With ``z`` bits, ``c`` cycles a bit, frequency ``f`` and power ``p`` in watts:
    ``T_local = z c / f``, ``E_local = 5e-27 z c f`` (linear in f, as published: ``energy_exponent=2`` is physics),
    ``rate = 4 MHz log2(1 + p 10^(gain/10))``, ``T_up = z / rate``, ``E_up = p T_up``. The server's units serve by
    upload time, see `edgebed.simulation.compute.units` for what the published code over-counts. Times are capped at
    1 s; an empty battery makes the time 1 s. A device costs ``lE E + lT T + lE max(0, 0.5 - battery) 1e6 +
    lT max(0, T - deadline)``, battery in MJ and after the step; the reward is minus the sum over all devices.

    A reset draws size, cycles and deadline device by device; a step draws N normal numbers (the harvest, whose
    deviation is 0) and then the next tasks: one stream an environment, seeded with the environment's seed.
    """

    spec = ScenarioSpec(
        "ccm-s10",
        "Offloading of 50 devices with batteries to a server with admission, 10 steps",
        "Gebrekidan et al. 2024, Client-Master Multiagent Deep Reinforcement Learning for Task Offloading in Mobile "
        "Edge Computing",
        CcmParameters,
    )
    heuristics: ClassVar[Mapping[str, type[Heuristic]]] = HEURISTICS
    parameters: CcmParameters

    def __init__(self, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(parameters)
        settings = self.parameters
        check_ranges(self.spec.name, settings)
        self.devices, self.channels, self.steps = settings.n, settings.channels, settings.steps
        self.constants = device_constants(settings)
        self.power_w: FloatArray = 10.0 ** ((self.constants.power_dbm - 30.0) / 10.0)
        self.gain: FloatArray = 10.0 ** (self.constants.gain_db / 10.0)
        self.cpu_hz: FloatArray = self.constants.cpu_ghz * 1e9
        self._low = (settings.size_min_kib, settings.cycles_min_per_bit, settings.deadline_min_s)
        high = (settings.size_max_kib, settings.cycles_max_per_bit, settings.deadline_max_s)
        self._span = tuple(most - least for most, least in zip(high, self._low, strict=True))
        self._seen = np.zeros((self.devices, 7), np.float32)  # what is seen of a device, with what never changes
        self._seen[:, 0], self._seen[:, 1] = self.constants.power_dbm, self.constants.gain_db
        self._seen[:, 6] = self.constants.cpu_ghz
        a_step = 3 * self.devices + 4 / np.pi * self.devices  # on average; then some more, not to be short of a few
        self._legacy = LegacyStreams(0, int(3 * self.devices + min(self.steps, 10) * a_step + 60))
        self.actions = ActionLayout(numbers=_ACTIONS)
        self.device_features, self.shared_features = features_of(settings), ()

    def checked(self, actions: ActionArray) -> NDArray[Any]:
        """As its parent's; the fourth number of an action, the rank, may be left out."""
        given = np.asarray(actions)
        if given.shape == (self.batch, self.devices, len(_ACTIONS) - 1):
            given = np.concatenate([given, np.zeros((self.batch, self.devices, 1))], axis=2)
        return super().checked(given)

    @property
    def size_kib(self) -> FloatArray:
        """``[B, N]``, input of each device's task; until the next step."""
        size_kib: FloatArray = self._tasks[0]
        return size_kib

    @property
    def deadline_s(self) -> FloatArray:
        """``[B, N]``; until the next step."""
        deadline_s: FloatArray = self._tasks[2]
        return deadline_s

    @property
    def cycles(self) -> FloatArray:
        """``[B, N]``, work of each device's task."""
        return _cycles(self._tasks[0], self._tasks[1])

    def _allocate(self, batch: int) -> None:
        self._tasks: FloatArray = np.zeros((3, batch, self.devices))
        self._battery_mj: FloatArray = np.zeros((batch, self.devices))
        self._sums: FloatArray = np.zeros((4, batch))
        if self.parameters.streams == "published" and self._legacy.batch != batch:
            self._legacy = LegacyStreams(batch, self._legacy.block)

    def _begin(self, rows: Rows) -> None:
        self._battery_mj[rows] = self.constants.battery_mj
        self._sums[:, rows] = 0.0
        if self.parameters.streams == "published":
            self._seed(rows)
        self._draw_tasks(rows, self.step_index[rows])

    def _seed(self, rows: Rows) -> None:
        most = int(self.seeds[rows].max(initial=0))
        if most >= 2**32:
            raise BadInput(
                f"scenario {self.spec.name}: NumPy's legacy generator takes seeds up to {2**32 - 1}, not {most}; "
                "take smaller ones, or set streams=counter"
            )
        self._legacy.seed(rows, self.seeds[rows])

    def _draw_tasks(self, rows: Rows, step: NDArray[np.int64]) -> None:
        count = 3 * self.devices
        if self.parameters.streams == "published":
            drawn = self._legacy.uniforms(rows, count)
        else:
            drawn = uniforms(stream_keys(self.seeds[rows], "tasks"), step * count, count)
        is_all = isinstance(rows, slice)
        tasks = self._tasks if is_all else np.empty((3, len(drawn), self.devices))
        for number, (low, span) in enumerate(zip(self._low, self._span, strict=True)):
            np.multiply(drawn[:, number::3], span, out=tasks[number])
            tasks[number] += low
        if not is_all:
            self._tasks[:, rows] = tasks

    def _advance(self, rows: Rows, actions: NDArray[Any]) -> RowsStep:
        settings = self.parameters
        size_kib, cycles_per_bit, deadline_s = self._tasks[:, rows]
        cycles = _cycles(size_kib, cycles_per_bit)
        frequency_hz = _fraction(actions[..., 1])
        frequency_hz *= self.cpu_hz
        time_s = cycles / frequency_hz
        energy_j = computing_at_j(cycles, frequency_hz, settings.energy_coefficient, settings.energy_exponent)
        uploads = self._uploads(size_kib, cycles, actions)
        time_s.ravel()[uploads.place] = uploads.finish_s
        energy_j.ravel()[uploads.place] = uploads.energy_j
        time_s.clip(0.0, settings.time_max_s, out=time_s)  # with numbers, several times as fast as `np.minimum`
        lacking_j = self._discharge(rows, energy_j, time_s)
        late_s = not_negative(np.subtract(time_s, deadline_s, out=frequency_hz))
        self._count(rows, time_s, energy_j, late_s, uploads.count)
        costs = self._costs(time_s, late_s, energy_j, lacking_j)
        if settings.streams == "published":
            self._legacy.skip_normals(rows, self.devices)
        self._draw_tasks(rows, self.step_index[rows] + 1)
        total = costs.sum(axis=1)
        return RowsStep(-total, costs, np.zeros(len(costs), np.bool_), total)

    def _discharge(self, rows: Rows, energy_j: FloatArray, time_s: FloatArray) -> FloatArray | None:
        """Draw from the batteries; what lacks to their least charge, ``[R, N]``, or None where nothing does."""
        settings = self.parameters
        charge_mj = charge_after_mj(self._battery_mj[rows], energy_j, settings.harvest_j, settings.battery_max_mj)
        self._battery_mj[rows] = charge_mj
        least = charge_mj.min()
        if least <= 0.0:
            time_s[charge_mj <= 0.0] = settings.time_max_s
        if least >= settings.battery_min_mj:
            return None
        lacking: FloatArray = np.maximum(settings.battery_min_mj - charge_mj, 0.0)
        lacking /= MJ_PER_J
        return lacking

    def _costs(
        self, time_s: FloatArray, late_s: FloatArray, energy_j: FloatArray, lacking_j: FloatArray | None
    ) -> FloatArray:
        """What the tasks cost; ``energy_j`` is overwritten."""
        costs = time_s + late_s
        costs *= self.parameters.time_weight
        if lacking_j is not None:
            energy_j += lacking_j
        energy_j *= self.parameters.energy_weight
        costs += energy_j
        return costs

    def _admitted(self, size_kib: FloatArray, actions: NDArray[Any]) -> BoolArray:
        settings = self.parameters
        offers = actions[..., 0] >= 0.0
        return admitted(offers, size_kib, actions[..., 3], settings.channels, settings.storage_kib)

    def _uploads(self, size_kib: FloatArray, cycles: FloatArray, actions: NDArray[Any]) -> Uploads:
        settings = self.parameters
        place = np.flatnonzero(self._admitted(size_kib, actions))
        row = place // self.devices
        device = place - row * self.devices  # several times as fast as `divmod`
        count = np.bincount(row, minlength=len(cycles))
        power_w = _fraction(actions.take(place * actions.shape[2] + 2, mode="clip"))
        power_w *= self.power_w.take(device, mode="clip")
        rate_bps = shannon_bps(settings.bandwidth_hz / settings.channels, power_w * self.gain.take(device, mode="clip"))
        upload_s = size_kib.take(place, mode="clip")
        upload_s *= BITS_PER_KIB
        upload_s /= rate_bps
        work_s = cycles.take(place, mode="clip")
        work_s /= settings.unit_hz
        finish_s = self._serve(upload_s, work_s, count) if len(place) else upload_s
        return Uploads(place, count, power_w * upload_s, finish_s)

    def _serve(self, upload_s: FloatArray, work_s: FloatArray, count: NDArray[np.intp]) -> FloatArray:
        """When uploads, environment by environment, are finished; ``count`` says how many each has."""
        settings = self.parameters
        shape = len(count), int(count.max())
        if len(upload_s) == shape[0] * shape[1]:
            exists: BoolArray | None = None
            upload, work = upload_s.reshape(shape), work_s.reshape(shape)
        else:
            exists = np.arange(shape[1]) < count[:, None]
            upload, work = np.full(shape, np.inf), np.zeros(shape)
            upload[exists], work[exists] = upload_s, work_s
        place = by_upload(upload)
        finish_s = np.empty(shape)
        finish_s.ravel()[place] = finish_on_units_s(
            upload.take(place, mode="clip").T,
            work.take(place, mode="clip").T,
            settings.units,
            settings.server_counting == "published",
        ).T
        return finish_s.ravel() if exists is None else finish_s[exists]

    def _count(
        self, rows: Rows, time_s: FloatArray, energy_j: FloatArray, late_s: FloatArray, uploads: NDArray[np.intp]
    ) -> None:
        self._sums[0, rows] += time_s.sum(axis=1)
        self._sums[1, rows] += energy_j.sum(axis=1)
        self._sums[2, rows] += counts(late_s > 0.0)
        self._sums[3, rows] += uploads

    def _own_metrics(self) -> dict[str, FloatArray]:
        """``time_s_per_task``, ``energy_j_per_task``, ``miss_rate`` and ``offload_rate``."""
        tasks = np.maximum(self.step_index, 1) * float(self.devices)
        names = ("time_s_per_task", "energy_j_per_task", "miss_rate", "offload_rate")
        return {name: total / tasks for name, total in zip(names, self._sums, strict=True)}

    def observe(self) -> BatchObservation:
        """The published seven numbers a device, in natural units; nothing is shared."""
        devices = np.empty((self.batch, self.devices, len(self.device_features)), np.float32)
        devices[:] = self._seen
        devices[..., 2] = self._battery_mj
        for number, values in enumerate(self._tasks, 3):
            devices[..., number] = values
        return BatchObservation(devices, np.zeros((self.batch, 0), np.float32))

    def decisions(self, actions: ActionArray) -> Decisions:
        """What the master admits goes to the edge, the first of an environment on channel 0, and so on."""
        numbers = self.checked(actions)
        edge = self._admitted(self.size_kib, numbers)
        return Decisions(
            site=np.where(edge, Site.EDGE, Site.DEVICE).astype(np.int32),
            server=np.zeros(edge.shape, np.int32),
            channel=(edge * (np.cumsum(edge, axis=1) - 1)).astype(np.int32),
            edge_fraction=edge.astype(np.float64),
            cpu_fraction=_fraction(numbers[..., 1]),
            power_fraction=_fraction(numbers[..., 2]),
        )


class CcmS100(Ccm):
    """A hundred steps, and batteries that are nearly empty from the start; see `Ccm`."""

    spec = ScenarioSpec(
        "ccm-s100",
        "Offloading of 50 devices with nearly empty batteries to a server with admission, 100 steps",
        Ccm.spec.paper,
        CcmS100Parameters,
    )


class CcmS100Lambda5(Ccm):
    """As ``ccm-s100``, with ten times the weight on energy and twice that on time; see `Ccm`."""

    spec = ScenarioSpec(
        "ccm-s100-lambda5",
        "Offloading of 50 devices with nearly empty batteries, energy weighing most, 100 steps",
        Ccm.spec.paper,
        CcmS100Lambda5Parameters,
    )


_ACTIONS = (
    Feature("offer", "1", -1.0, 1.0, "offers the task if at least 0"),
    Feature("cpu", "1", -1.0, 1.0, "share of the CPU's frequency: -1 is 0.01, 1 is 1"),
    Feature("power", "1", -1.0, 1.0, "share of the transmit power: -1 is 0.01, 1 is 1"),
    Feature("rank", "1", -1.0, 1.0, "the master's ranking, higher first, where there is not room for all offers"),
)


def _fraction(number: NDArray[Any]) -> FloatArray:
    """``[-1, 1]`` as a share in ``[0.01, 1]``."""
    share: FloatArray = number + 1.0
    share *= (1.0 - LEAST_FRACTION) / 2.0
    share += LEAST_FRACTION
    return share


def _cycles(size_kib: FloatArray, cycles_per_bit: FloatArray) -> FloatArray:
    cycles: FloatArray = size_kib * BITS_PER_KIB
    cycles *= cycles_per_bit
    return cycles


def by_upload(upload_s: FloatArray) -> NDArray[np.int64]:
    """Places of uploads in the flattened ``[R, K]`` array, by time, and equal ones as they are: ``[K, R]``."""
    place = arrival_order(upload_s)
    ordered = upload_s.take(place, mode="clip")
    if (ordered[1:] < ordered[:-1]).any():  # some differ by so little that it took them for equal
        order = upload_s.argsort(axis=1, kind="stable")
        order += np.arange(0, upload_s.size, upload_s.shape[1])[:, None]
        return order.T
    return place


SCENARIOS = (Ccm, CcmS100, CcmS100Lambda5)
