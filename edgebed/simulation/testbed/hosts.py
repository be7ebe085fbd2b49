"""A profile applied to named hosts: per-host arrays, the ingredients of decided tasks, and what they use."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from edgebed.errors import BadInput
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.radio.between_hosts import Interference, interference_of
from edgebed.simulation.random_streams import Uint64Array, named_keys, stream_keys, uniforms
from edgebed.simulation.testbed.chance import column
from edgebed.simulation.testbed.ingredients import (
    NOWHERE,
    Columns,
    FloatArray,
    IndexArray,
    Ingredients,
    Layout,
    ProcessorGroup,
)
from edgebed.simulation.testbed.profile import DeviceProfile, Host, Power, Profile, ServerProfile, draw
from edgebed.types import BoolArray

HostType = TypeVar("HostType", bound=Host)

_GOLDEN = (5.0**0.5 - 1.0) / 2.0


class HostFacts(Protocol):
    """What a hosts file says of a host; `orchestrator.inventory.Host` is one."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def link_rate_bps(self) -> float:
        """Pace of a device's uplink; 0 = not paced."""
        ...

    @property
    def workers(self) -> int:
        """Tasks that an edge server executes at once."""
        ...

    @property
    def queue_tasks(self) -> int:
        """Most tasks that it holds."""
        ...

    @property
    def position_m(self) -> tuple[float, float]:
        """x, y."""
        ...


@dataclass(slots=True)
class Work(Columns):
    """Tasks before their ingredients, ``[n]`` arrays.

    Attributes:
        task: the caller's number for each.
        device: through all lanes.
        arrived_s, limit_s: when it arrived, and when it times out.
        frames: of the clip. frame_bytes: their mean size.
        chances: ``[n, len(chance.PER_TASK)]``.
    """

    task: IndexArray
    device: IndexArray
    arrived_s: FloatArray
    limit_s: FloatArray
    frames: IndexArray
    frame_bytes: FloatArray
    chances: FloatArray

    def bytes_of(self, frames: IndexArray) -> FloatArray:
        """Size of a packed clip of so many of its frames; 0 for none."""
        return np.where(frames > 0, np.rint(4 + frames * (4 + self.frame_bytes)), 0.0)


@dataclass(slots=True)
class Chosen(Columns):
    """What was decided for each of some tasks, ``[n]`` arrays; meanings as in `edgebed.types.SlotDecision`.

    Attributes:
        ready_s: when it was known on the device.
    """

    ready_s: FloatArray
    site: IndexArray
    server: IndexArray
    channel: IndexArray
    edge_fraction: FloatArray

    def edge_frames(self, frames: IndexArray) -> IndexArray:
        """Frames that go to the edge: whole ones, the nearest number to the share, as devices divide a clip."""
        split = np.minimum(frames, np.floor(self.edge_fraction * frames + 0.5).astype(np.int64))
        return np.where(self.site == 0, 0, np.where(self.site == 1, frames, split))


class Kinds(Generic[HostType]):
    """The distinct profiles among some hosts, and which host has which: draws loop over kinds, not over hosts."""

    def __init__(self, profiles: Sequence[HostType]) -> None:
        numbers: dict[int, int] = {}
        self.of_host = np.array([numbers.setdefault(id(each), len(numbers)) for each in profiles], np.int64)
        found: dict[int, HostType] = {id(each): each for each in profiles}
        self._profiles: list[HostType] = [found[key] for key in numbers]
        self._cpu_idle, self._cpu_share = self.each(lambda each: each.cpu_idle), self.each(_cpu_share)
        self._has_resting = self.each(lambda each: bool(_resting(each))) > 0
        self._has_working = self.each(lambda each: bool(_working(each))) > 0

    def each(self, value: Callable[[HostType], float]) -> FloatArray:
        """A number of every host, ``[hosts]``."""
        return np.array([value(each) for each in self._profiles], np.float64)[self.of_host]

    def cpu(self, busy: FloatArray, is_working: BoolArray, chance: FloatArray | None) -> FloatArray:
        """See `Testbed.device_cpu`."""
        found = self._cpu_idle + self._cpu_share * busy
        chances = np.full(busy.shape, 0.5) if chance is None else chance
        host = np.broadcast_to(np.arange(len(self.of_host)), busy.shape)
        for quantiles, has_them, when in (
            (_resting, self._has_resting, ~is_working),
            (_working, self._has_working, is_working),
        ):
            mine = when & has_them
            found[mine] = self.drawn(host[mine], chances[mine], quantiles)
        shares: FloatArray = np.minimum(1.0, found)
        return shares

    def drawn(self, host: IndexArray, chance: FloatArray, quantiles: Callable[[HostType], list[float]]) -> FloatArray:
        """A draw for each task, ``[n]``, from the quantiles of its host."""
        kinds = self.of_host[host]
        drawn = np.empty(len(host))
        for number, profile in enumerate(self._profiles):
            where = kinds == number
            if where.any():
                drawn[where] = draw(quantiles(profile), chance[where])
        return drawn


class Testbed:
    """A profile, applied to the hosts of a plan.

    Args:
        profile: it has every one of these hosts.
        devices: in slot order.
        servers: in the order that decisions index.

    Attributes:
        link_rate_bps: ``[devices]``, what their uplinks are paced to; 0: not paced.
        positions_m: ``[devices, 2]``. round_trip_s: ``[devices]``.

    Raises:
        BadInput: the profile is not for one of them.
    """

    __test__ = False  # it is no test, whatever pytest takes its name for

    def __init__(self, profile: Profile, devices: Sequence[HostFacts], servers: Sequence[HostFacts]) -> None:
        self.profile = profile
        self.devices, self.servers = tuple(devices), tuple(servers)
        self.device_profiles: list[DeviceProfile] = [profile.device(host.name) for host in devices]
        self.server_profiles: list[ServerProfile] = [profile.server(host.name) for host in servers]
        self._here, self._there = Kinds(self.device_profiles), Kinds(self.server_profiles)
        stated_bps = np.array([host.link_rate_bps for host in devices], np.float64)
        fitted = self._here.each(lambda each: -1.0 if each.link.rate_bps is None else each.link.rate_bps)
        self.link_rate_bps = np.where(fitted < 0, stated_bps, fitted)
        self.positions_m = np.array([host.position_m for host in devices], np.float64).reshape(len(devices), 2)
        self.round_trip_s = self._here.each(lambda each: each.link.round_trip_s)
        pairs = zip(self.servers, self.server_profiles, strict=True)
        self.workers = tuple(each.workers or host.workers for host, each in pairs)
        self._overhead_s = self._here.each(lambda each: each.compute.overhead_s)
        self._frame_s = self._here.each(lambda each: each.compute.seconds_per_frame)
        self._hold_s = self._here.each(lambda each: each.link.hold_s)
        self._chunk_bytes = self._here.each(lambda each: each.link.chunk_bytes)
        self._chunk_overhead_bytes = self._here.each(lambda each: each.link.chunk_overhead_bytes)
        self._server_overhead_s = self._there.each(lambda each: each.compute.overhead_s)
        self._server_frame_s = self._there.each(lambda each: each.compute.seconds_per_frame)

    def cpu_keys(self, seed: int) -> Uint64Array:
        """Streams of what hosts show of their processors, ``[devices + servers]``; one for all that share them."""
        profiles: list[Host] = [*self.device_profiles, *self.server_profiles]
        pairs = zip((*self.devices, *self.servers), profiles, strict=True)
        return named_keys(seed, [("testbed", "cpu", each.processor or host.name) for host, each in pairs])

    def device_cpu(self, busy: FloatArray, chance: FloatArray | None = None) -> FloatArray:
        """Busy share of the devices' processors as observations show it, ``[lanes, devices]``.

        Args:
            busy: ``[lanes, devices]``, tasks that are computed there now.
            chance: ``[lanes, devices]``, of `cpu_keys`; None: medians.
        """
        return self._here.cpu(busy, busy > 0, chance)

    def server_cpu(self, busy: FloatArray, held: FloatArray, chance: FloatArray | None = None) -> FloatArray:
        """The same of the servers, ``[lanes, servers]``; ``held``: tasks that are there, computed or not."""
        return self._there.cpu(busy, held > 0, chance)

    def drift_of(self, seed: int, cell: str, replica: int = 0) -> float:
        """How long everything computes in one cell, relative to a usual one.

        Args:
            seed: of the cell.
            cell: what else tells it apart, its policy say.
            replica: of the same cell; few of them already cover the drift evenly (an additive recurrence).
        """
        chance = uniforms(stream_keys([seed], "testbed", "drift", cell), 0, 1)
        return float(draw(self.profile.drift, (chance + replica * _GOLDEN) % 1.0)[0, 0])

    def in_cell(self, seed: int, cell: str, replica: int = 0) -> Testbed:
        """The testbed as it is in one cell, all its hosts a little faster or slower; see `drift_of`."""
        drift = self.drift_of(seed, cell, replica)
        if drift == 1.0:
            return self
        other = copy.copy(self)
        for name in ("_overhead_s", "_frame_s", "_server_overhead_s", "_server_frame_s"):
            setattr(other, name, getattr(self, name) * drift)
        return other

    def layout(
        self,
        channels: int = 1,
        channel_rate_bps: float = 0.0,
        *,
        interference: Interference | None = None,
        refused_run_locally: bool = False,
    ) -> Layout:
        """How its queues lie."""
        groups = {name: number for number, name in enumerate(self.profile.processors)}
        rules = self.profile.processors.values()
        pairs = zip(self.servers, self.server_profiles, strict=True)
        return Layout(
            devices=len(self.devices),
            workers=self.workers,
            queue_tasks=tuple(each.queue_tasks or host.queue_tasks for host, each in pairs),
            device_frame_s=tuple(each.compute.first_estimate_s for each in self.device_profiles),
            server_frame_s=tuple(each.compute.first_estimate_s for each in self.server_profiles),
            channels=channels,
            channel_rate_bps=channel_rate_bps,
            interference=interference,
            refused_run_locally=refused_run_locally,
            device_processors=tuple(groups.get(each.processor, NOWHERE) for each in self.device_profiles),
            server_processors=tuple(groups.get(each.processor, NOWHERE) for each in self.server_profiles),
            processors=tuple(ProcessorGroup(each.cores, each.per_other, each.per_excess) for each in rules),
        )

    def layout_of(self, cell: CellSpec) -> Layout:
        """How its queues lie in a cell of an experiment.

        Raises:
            BadInput: the cell's channels interfere, and it does not say what that needs.
        """
        model = cell.channels.model
        return self.layout(
            cell.channels.count,
            cell.channels.rate_bps if model == "share" else 0.0,
            interference=interference_of(cell) if model == "sinr" else None,
            refused_run_locally=cell.on_refusal == "local",
        )

    def frame_bytes(self, chances: FloatArray) -> FloatArray:
        """Mean frame size of each task, ``[n]``."""
        return draw(self.profile.frame_bytes, chances[:, column("bytes")])

    def ingredients(self, work: Work, chosen: Chosen) -> Ingredients:
        """What the queues need of decided tasks.

        Raises:
            BadInput: the two are not of the same tasks.
        """
        if len(work) != len(chosen):
            raise BadInput(f"{len(work)} tasks and {len(chosen)} decisions; there must be one for each")
        device, server = work.device % len(self.devices), chosen.server
        edge_frames = chosen.edge_frames(work.frames)
        here_frames = work.frames - edge_frames
        lane = work.device // len(self.devices)
        is_known = (server >= 0) & (server < len(self.servers))
        own_ratio, server_ratio = self._ratios(work, device, np.where(is_known, server, 0))
        upload_bytes = work.bytes_of(edge_frames)
        hold_s, delay_s = self._uplink(work, device, upload_bytes)
        near = np.where(is_known, server, 0)
        served_s = (self._server_overhead_s[near] + self._server_frame_s[near] * edge_frames) * server_ratio
        return Ingredients(
            task=work.task,
            device=work.device,
            server=np.where(is_known & (edge_frames > 0), lane * len(self.servers) + server, NOWHERE),
            channel=np.where(edge_frames > 0, chosen.channel, 0),
            arrived_s=work.arrived_s,
            ready_s=chosen.ready_s,
            limit_s=work.limit_s,
            frames=work.frames,
            edge_frames=edge_frames,
            upload_bytes=upload_bytes,
            device_compute_s=(self._overhead_s[device] + self._frame_s[device] * here_frames) * own_ratio,
            uplink_s=hold_s + delay_s,
            uplink_hold_s=hold_s,
            server_compute_s=served_s,
            downlink_s=self._way(work, device, "downlink"),
            refusal_s=self._way(work, device, "refusal"),
            fallback_compute_s=(self._overhead_s[device] + self._frame_s[device] * edge_frames) * own_ratio,
        )

    def _ratios(self, work: Work, device: IndexArray, server: IndexArray) -> tuple[FloatArray, FloatArray]:
        """Of a task on its device, and at its server.

        With the stated probability both have the same chance, which makes that their rank correlation.
        """
        chances = work.chances
        own = chances[:, column("device")]
        same = chances[:, column("same_content")] < self.profile.within_task_correlation
        theirs = np.where(same, own, chances[:, column("server")])
        return (
            self._here.drawn(device, own, _ratio),
            self._there.drawn(server, theirs, _ratio),
        )

    def _uplink(self, work: Work, device: IndexArray, upload_bytes: FloatArray) -> tuple[FloatArray, FloatArray]:
        """How long an upload keeps the uplink, and how much later its last byte is there."""
        ratio = self._here.drawn(device, work.chances[:, column("uplink")], _time_ratio)
        delay_s = self._here.drawn(device, work.chances[:, column("uplink_delay")], _uplink_delay)
        rate_bps = self.link_rate_bps[device]
        chunks = np.ceil(upload_bytes / self._chunk_bytes[device])
        bits = 8.0 * (upload_bytes + chunks * self._chunk_overhead_bytes[device])
        sending_s = np.divide(bits, rate_bps, out=np.zeros_like(bits), where=rate_bps > 0) * ratio
        return self._hold_s[device] + sending_s, delay_s

    def _way(self, work: Work, device: IndexArray, name: str) -> FloatArray:
        quantiles = _downlink if name == "downlink" else _refusal
        return self._here.drawn(device, work.chances[:, column(name)], quantiles)


def _cpu_share(host: Host) -> float:
    return host.compute.cpu_share / (host.power.cores if host.power else 1)


def _resting(host: Host) -> list[float]:
    return host.cpu_resting or []


def _working(host: Host) -> list[float]:
    return host.cpu_working or []


def _ratio(host: Host) -> list[float]:
    return host.compute.ratio


def _time_ratio(host: DeviceProfile) -> list[float]:
    return host.link.time_ratio


def _uplink_delay(host: DeviceProfile) -> list[float]:
    return host.link.uplink_delay_s


def _downlink(host: DeviceProfile) -> list[float]:
    return host.link.downlink_s


def _refusal(host: DeviceProfile) -> list[float]:
    return host.link.refusal_s


def compute_energy_j(power: Power, busy_s: FloatArray) -> FloatArray:
    """Joules of computing above idle, by the rule of `edgebed.metering.energy`."""
    return (power.max_w - power.idle_w) * busy_s / power.cores * power.compute_ratio
