"""ExplabOff's system: a few devices, two or three base stations, partial offloading, and one missed deadline ends it.

Everything is in the published code's abstract units: a device does 1 unit of work a second, stations 6 and 12. It
does not say what a unit is; sizes, capacities and times only matter relative to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta
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
from edgebed.simulation.compute.fifo import first_come_first_served
from edgebed.simulation.episodes import EpisodicScenario, Rows, RowsStep
from edgebed.simulation.random_streams import FloatArray, normals, stream_keys, uniforms
from edgebed.simulation.scenarios.explaboff_heuristics import HEURISTICS, StaticSplit
from edgebed.types import BoolArray, Feature, Float32Array, Site

PAPER = "ExplabOff: Towards Explorative and Collaborative Task Offloading via Mutual Information-Enhanced MARL"
PUBLISHED = "published code"

Positive = Annotated[float, Meta(gt=0.0, le=1e6)]


class ExplaboffParameters(Parameters, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``explaboff-3x2``; the other two have other capacities and profiles."""

    steps: Annotated[int, parameter("1", "steps an episode", PUBLISHED, ge=1, le=1_000_000)] = 10
    step_s: Annotated[float, parameter("s", "length of a step", PUBLISHED, gt=0, le=1e6)] = 1.0
    device_capacity: Annotated[float, parameter("work/s", "capacity of a device", PUBLISHED, gt=0, le=1e6)] = 1.0
    station_capacities: Annotated[
        tuple[Positive, ...], parameter("work/s", "capacity of each station", PUBLISHED, min_length=1)
    ] = (6.0, 12.0)
    task_means: Annotated[
        tuple[Positive, ...],
        parameter("work", "mean size of each profile, one a device", PUBLISHED, min_length=1),
    ] = (7.0, 6.0, 3.0)
    deadlines_s: Annotated[
        tuple[Positive, ...], parameter("s", "deadline of each profile", PUBLISHED, min_length=1)
    ] = (1.808, 1.806, 1.805)
    size_deviation: Annotated[float, parameter("work", "standard deviation of a size", PUBLISHED, ge=0, le=1e6)] = 0.1
    upload_s: Annotated[float, parameter("s", "the first device's upload time", "published for 3", ge=0, le=1e6)] = (
        0.301
    )
    upload_step_s: Annotated[float, parameter("s", "what each next device's adds", "published for 3", ge=0, le=1e6)] = (
        0.001
    )
    switch_s: Annotated[
        float, parameter("s", "switch time of the first device at the first station", "published for 3x2", ge=0, le=1e6)
    ] = 0.101
    switch_step_s: Annotated[
        float,
        parameter("s", "what the next pair's adds; stations first, then devices", "published for 3x2", ge=0, le=1e6),
    ] = 0.001
    miss_weight: Annotated[float, parameter("1/s", "w in a miss's reward, -w x time", PUBLISHED, ge=0, le=1e6)] = 10.0
    success_weight: Annotated[
        float, parameter("s^2", "w in a completed episode's reward, w x mean time^-2", PUBLISHED, ge=0, le=1e6)
    ] = 60.0


class Explaboff5x2Parameters(ExplaboffParameters, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``explaboff-5x2``."""

    station_capacities: Annotated[
        tuple[Positive, ...], parameter("work/s", "capacity of each station", PUBLISHED, min_length=1)
    ] = (10.0, 19.0)
    task_means: Annotated[
        tuple[Positive, ...], parameter("work", "mean size of each profile, one a device", min_length=1)
    ] = (7.0, 6.0, 3.0, 7.0, 6.0)
    deadlines_s: Annotated[tuple[Positive, ...], parameter("s", "deadline of each profile", min_length=1)] = (
        2.206,
    ) * 5


class Explaboff7x3Parameters(ExplaboffParameters, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``explaboff-7x3``."""

    station_capacities: Annotated[
        tuple[Positive, ...], parameter("work/s", "capacity of each station", PUBLISHED, min_length=1)
    ] = (10.0, 19.0, 26.0)
    task_means: Annotated[
        tuple[Positive, ...], parameter("work", "mean size of each profile, one a device", min_length=1)
    ] = (7.0, 6.0, 3.0, 7.0, 6.0, 3.0, 7.0)
    deadlines_s: Annotated[tuple[Positive, ...], parameter("s", "deadline of each profile", min_length=1)] = (
        2.206,
    ) * 7


SIZE_SCALE = 10.0
DEADLINE_SCALE_S = 2.5
UPLOAD_SCALE_S = 0.5
BACKLOG_SCALE_S = 2.0


class Explaboff(EpisodicScenario):
    """Three devices share two stations; a task is split between its device and one station.

    Sizes are normal around the device's profile and redrawn every step. The profiles (mean size and deadline) are
    permuted over the devices at each episode; the permutations of seeds 2k and 2k + 1 are each other's reverse, so
    that the mean over a few consecutive seeds does not depend on who happened to get which profile.

    At a station, in the order of the devices' upload times, with ``b`` its backlog, ``u`` an upload time, ``f`` the
    offloaded fraction of a task of size ``z`` and ``F`` the capacity:
    ``finish_0 = max(u_0, b) + switch_0 + f z / F``, ``finish_k = max(u_k, finish_{k-1}) + switch_k + f z / F``; then
    ``b <- max(0, b + sum(switch + f z / F) - step)``. The switch time is charged on a device's first use of a station
    in an episode. The rest, ``(1 - f) z``, runs on the device meanwhile, which has no queue. The later of the two is
    the task's time, and that is its cost. A fraction of 0 sends nothing, and uses no station.

    A miss ends the episode (terminated), with a reward of ``-10 / N x`` the times of those that missed. The last step
    of a completed episode (truncated) earns ``60 x mean time^-2``; every other step 0.
    """

    spec = ScenarioSpec(
        "explaboff-3x2", "Partial offloading of 3 devices to 2 stations under deadlines", PAPER, ExplaboffParameters
    )
    heuristics: ClassVar[Mapping[str, type[Heuristic]]]
    parameters: ExplaboffParameters

    def __init__(self, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(parameters)
        settings = self.parameters
        if len(settings.task_means) != len(settings.deadlines_s):
            raise BadInput(
                f"scenario {self.spec.name}: `task_means` has {len(settings.task_means)} entries and `deadlines_s` "
                f"{len(settings.deadlines_s)}; both need one a device"
            )
        self.devices = len(settings.task_means)
        self.servers = len(settings.station_capacities)
        self.steps = settings.steps
        self._profiles = np.array([settings.task_means, settings.deadlines_s])
        self.station_capacity: FloatArray = np.array(settings.station_capacities)
        pairs = np.arange(self.devices * self.servers, dtype=np.float64).reshape(self.devices, self.servers)
        self.upload_s: FloatArray = settings.upload_s + settings.upload_step_s * np.arange(float(self.devices))
        self._switch_s: FloatArray = settings.switch_s + settings.switch_step_s * pairs
        self.actions = ActionLayout(
            tuple(f"station {station + 1}" for station in range(self.servers)),
            (Feature("edge_fraction", "1", 0.0, 1.0, "share of the task that the station computes"),),
        )
        self.device_features, self.shared_features = self._features()

    @property
    def size(self) -> FloatArray:
        """``[B, N]``, of each device's task."""
        return self._size

    @property
    def backlog_s(self) -> FloatArray:
        """``[B, S]``, seconds of work left at each station."""
        return self._backlog_s

    @property
    def switch_s(self) -> FloatArray:
        """``[B, N, S]``, what a device's next use of a station would be charged: 0 after the first."""
        due: FloatArray = self._switch_s * ~self._used
        return due

    def _allocate(self, batch: int) -> None:
        self._mean: FloatArray = np.zeros((batch, self.devices))
        self._deadline_s: FloatArray = np.zeros((batch, self.devices))
        self._size: FloatArray = np.zeros((batch, self.devices))
        self._used: BoolArray = np.zeros((batch, self.devices, self.servers), np.bool_)
        self._backlog_s: FloatArray = np.zeros((batch, self.servers))
        self._last: NDArray[np.int64] = np.zeros((batch, self.devices), np.int64)
        self._missed: BoolArray = np.zeros(batch, np.bool_)

    def _begin(self, rows: Rows) -> None:
        order = _permutations(self.seeds[rows], self.devices)
        self._mean[rows], self._deadline_s[rows] = self._profiles[0, order], self._profiles[1, order]
        self._used[rows] = False
        self._backlog_s[rows] = 0.0
        self._last[rows] = 0
        self._missed[rows] = False
        self._draw_sizes(rows, self.step_index[rows])

    def _draw_sizes(self, rows: Rows, step: NDArray[np.int64]) -> None:
        spread = normals(stream_keys(self.seeds[rows], "sizes"), step * (2 * self.devices), self.devices)
        self._size[rows] = np.maximum(self._mean[rows] + self.parameters.size_deviation * spread, 0.0)

    def _advance(self, rows: Rows, actions: NDArray[Any]) -> RowsStep:
        station, fraction = actions[..., 0].astype(np.int64), actions[..., 1]
        time_s = np.maximum(self._serve(rows, station, fraction), self._local_s(self._size[rows], fraction))
        missed = time_s > self._deadline_s[rows]
        ends = np.asarray(missed.any(axis=1))
        self._missed[rows] = ends
        reward = self._reward(rows, time_s, missed, ends)
        self._last[rows] = station + 1
        self._draw_sizes(rows, self.step_index[rows] + 1)
        return RowsStep(reward, time_s, ends)

    def _serve(self, rows: Rows, station: NDArray[np.int64], fraction: FloatArray) -> FloatArray:
        """When each device's share is back from its station, ``[R, N]``; 0 where it sent nothing."""
        sends = (station[..., None] == np.arange(self.servers)) & (fraction > 0.0)[..., None]
        work_s = (fraction * self._size[rows])[..., None] / self.station_capacity
        work_s = sends * (work_s + self._switch_s * ~self._used[rows])
        self._used[rows] |= sends
        ready_s = np.where(sends, self.upload_s[:, None], np.inf)
        served = first_come_first_served(
            _a_row_each_station(ready_s),
            _a_row_each_station(work_s),
            self._backlog_s[rows].ravel(),
            self.parameters.step_s,
        )
        finish_s = served.finish_s.reshape(-1, self.servers, self.devices)
        self._backlog_s[rows] = served.backlog_s.reshape(-1, self.servers)
        at_station: FloatArray = np.where(sends, finish_s.swapaxes(1, 2), 0.0).max(axis=2)
        return at_station

    def _local_s(self, size: FloatArray, fraction: FloatArray) -> FloatArray:
        rest_s: FloatArray = (1.0 - fraction) * size / self.parameters.device_capacity
        return rest_s

    def _reward(self, rows: Rows, time_s: FloatArray, missed: BoolArray, ends: BoolArray) -> FloatArray:
        settings = self.parameters
        failure = -settings.miss_weight * (time_s * missed).sum(axis=1) / self.devices
        mean_s = (self._cost_sum[rows] + time_s.sum(axis=1)) / (self.steps * self.devices)
        last = self.step_index[rows] == self.steps - 1
        success = settings.success_weight / np.square(np.where(mean_s > 0.0, mean_s, np.inf))
        reward: FloatArray = np.where(ends, failure, np.where(last, success, 0.0))
        return reward

    def observe(self) -> BatchObservation:
        """See `edgebed.simulation.base.Scenario.observe`; the features say how each number is scaled."""
        devices = np.empty((self.batch, self.devices, 4 + self.servers), np.float32)
        devices[..., 0] = self.parameters.device_capacity / self.station_capacity.max()
        devices[..., 1] = self._size / SIZE_SCALE
        devices[..., 2] = self._deadline_s / DEADLINE_SCALE_S
        devices[..., 3:-1] = self.upload_s[:, None] / UPLOAD_SCALE_S
        devices[..., -1] = self._last / self.servers
        capacities = np.broadcast_to(self.station_capacity / self.station_capacity.max(), self._backlog_s.shape)
        shared = np.concatenate([capacities, self._backlog_s / BACKLOG_SCALE_S], axis=1)
        return BatchObservation(devices, shared.astype(np.float32))

    def device_views(self) -> Float32Array:
        """What each device knows, ``[B, N, V]``: 16 numbers with 3 devices and 2 stations, see `view_features`."""
        seen = self.observe()
        batch, count, stations = self.batch, self.devices, self.servers
        shared = np.broadcast_to(seen.shared[:, None, :], (batch, count, 2 * stations))
        sizes = np.broadcast_to(seen.devices[:, None, :, 1], (batch, count, count))
        index = np.broadcast_to(np.eye(count, dtype=np.float32), (batch, count, count))
        parts = [shared[..., :stations], seen.devices[..., :3], sizes, index, seen.devices[..., 3:-1]]
        return np.concatenate([*parts, shared[..., stations:], seen.devices[..., -1:]], axis=2)

    @property
    def view_features(self) -> tuple[Feature, ...]:
        """Columns of `device_views`."""
        device, shared, count = self.device_features, self.shared_features, self.devices
        sizes = tuple(self._size_feature(f"size_{at + 1}", f"size of device {at + 1}'s task") for at in range(count))
        index = tuple(Feature(f"is_{at + 1}", "1", 0.0, 1.0, f"1 on device {at + 1}, else 0") for at in range(count))
        stations = self.servers
        return (*shared[:stations], *device[:3], *sizes, *index, *device[3:-1], *shared[stations:], device[-1])

    def decisions(self, actions: ActionArray) -> Decisions:
        """See `edgebed.simulation.base.Scenario.decisions`."""
        numbers = self.checked(actions)
        fraction = numbers[..., 1]
        site = np.where(fraction <= 0.0, Site.DEVICE, np.where(fraction >= 1.0, Site.EDGE, Site.SPLIT))
        whole = np.ones_like(fraction)
        return Decisions(
            site=site.astype(np.int32),
            server=numbers[..., 0].astype(np.int32),
            channel=np.zeros(site.shape, np.int32),
            edge_fraction=fraction.copy(),
            cpu_fraction=whole,
            power_fraction=whole.copy(),
        )

    def _own_metrics(self) -> dict[str, FloatArray]:
        """``completed``: 1 where the episode has run all its steps without a miss."""
        return {"completed": np.asarray(~self._missed & (self.step_index >= self.steps), np.float64)}

    def _features(self) -> tuple[tuple[Feature, ...], tuple[Feature, ...]]:
        stations, most = range(1, self.servers + 1), self.station_capacity.max()
        own, upload = self.parameters.device_capacity / most, max(1.0, float(self.upload_s.max()) / UPLOAD_SCALE_S)
        deadline = float(self._profiles[1].max()) / DEADLINE_SCALE_S
        device = (
            Feature("capacity", "1", 0.0, max(1.0, own), f"its capacity / {most:g}, the largest station's"),
            self._size_feature("size", "size of its task"),
            Feature("deadline", "1", 0.0, max(1.0, deadline), f"its deadline / {DEADLINE_SCALE_S:g} s"),
            *(
                Feature(f"upload_{at}", "1", 0.0, upload, f"upload time to station {at} / {UPLOAD_SCALE_S:g} s")
                for at in stations
            ),
            Feature("last_station", "1", 0.0, 1.0, f"its last choice, counted from 1, / {self.servers}; 0 at first"),
        )
        shared = (
            *(Feature(f"capacity_{at}", "1", 0.0, 1.0, f"capacity of station {at} / {most:g}") for at in stations),
            *(
                Feature(f"backlog_{at}", "1", 0.0, self._most_backlog(at), f"backlog there / {BACKLOG_SCALE_S:g} s")
                for at in stations
            ),
        )
        return device, shared

    def _most_backlog(self, station: int) -> float:
        """Scaled, if every device sends all of its largest tasks there in every step."""
        work_s = self.devices * self._largest_task() / self.station_capacity[station - 1]
        return float(self.steps * (work_s + self._switch_s[:, station - 1].sum()) / BACKLOG_SCALE_S)

    def _largest_task(self) -> float:
        """Normal numbers from 53 random bits (Box and Muller) do not exceed 8.6."""
        return float(self._profiles[0].max() + 8.6 * self.parameters.size_deviation)

    def _size_feature(self, name: str, meaning: str) -> Feature:
        return Feature(name, "1", 0.0, max(1.0, self._largest_task() / SIZE_SCALE), f"{meaning} / {SIZE_SCALE:g}")


def _a_row_each_station(values: FloatArray) -> FloatArray:
    """``[R, N, S]`` as ``[R * S, N]``."""
    return np.ascontiguousarray(values.swapaxes(1, 2)).reshape(-1, values.shape[1])


def _permutations(seeds: NDArray[np.int64], count: int) -> NDArray[np.intp]:
    """``[R, count]``: uniform permutations of (seed // 2), reversed for odd seeds (antithetic)."""
    order = np.argsort(uniforms(stream_keys(seeds // 2, "profiles"), 0, count), axis=1, kind="stable")
    return np.where((seeds % 2 == 1)[:, None], order[:, ::-1], order)


class Explaboff3x2(Explaboff):
    """The published scenario; see `Explaboff`."""

    heuristics: ClassVar[Mapping[str, type[Heuristic]]] = {**HEURISTICS, "static_split": StaticSplit}


class Explaboff5x2(Explaboff):
    """Five devices and two stations; profiles, upload and switch times continue the published pattern (assumed)."""

    spec = ScenarioSpec(
        "explaboff-5x2", "Partial offloading of 5 devices to 2 stations under deadlines", PAPER, Explaboff5x2Parameters
    )
    heuristics: ClassVar[Mapping[str, type[Heuristic]]] = HEURISTICS


class Explaboff7x3(Explaboff):
    """Seven devices and three stations; profiles, upload and switch times continue the published pattern (assumed)."""

    spec = ScenarioSpec(
        "explaboff-7x3", "Partial offloading of 7 devices to 3 stations under deadlines", PAPER, Explaboff7x3Parameters
    )
    heuristics: ClassVar[Mapping[str, type[Heuristic]]] = HEURISTICS


SCENARIOS = (Explaboff3x2, Explaboff5x2, Explaboff7x3)
