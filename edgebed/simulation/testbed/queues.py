"""The queues of one lane: who waits, runs, uploads and is served; and how they are copied to go on apart."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from heapq import heapify
from typing import Any, Self

from edgebed.simulation.testbed.fluid import Channel, InterferingChannel
from edgebed.simulation.testbed.ingredients import NOWHERE, Layout
from edgebed.simulation.testbed.parts import CARRIED, TIMED_OUT, Part
from edgebed.simulation.testbed.timeline import Timeline

_PLAIN_LISTS = (
    "waiting_frames", "waiting_bytes", "queued_frames", "queued_tasks", "held", "uploading_bytes", "device_frame_s",
    "server_frame_s", "measured_bps", "_load",
)  # fmt: skip
"""Lists of numbers in a lane."""


class Queues(Timeline):
    """The queues of one cell, and its events. Devices and servers are numbered within the lane.

    Attributes:
        ended: rows of tasks that have ended since they were last taken, see `Ended.of_rows`.
        open: tasks without an outcome.
    """

    def __init__(self, layout: Layout, first_device: int, first_server: int) -> None:
        super().__init__()
        self.layout = layout
        self.ended: list[tuple[Any, ...]] = []
        self.open = 0
        self._first_device, self._first_server = first_device, first_server
        devices, servers = layout.devices, layout.servers
        self._jobs: list[deque[Part]] = [deque() for _ in range(devices)]
        self.running: list[Part | None] = [None] * devices
        self.waiting_frames = [0] * devices
        # By uplink, ``device * servers + server``; of a million of them only few are in use.
        self._uplinks: defaultdict[int, deque[Part]] = defaultdict(deque)
        self.uploading: dict[int, Part] = {}
        self.waiting_bytes = [0.0] * devices
        self._queues: list[deque[Part]] = [deque() for _ in range(servers)]
        self.serving: list[list[Part]] = [[] for _ in range(servers)]
        self.queued_frames = [0] * servers
        self.queued_tasks = [0] * servers
        self.held = [0] * servers
        self.uploading_bytes = [0.0] * servers
        self.device_frame_s = list(layout.device_frame_s)
        self.server_frame_s = list(layout.server_frame_s)
        self.measured_bps = [0.0] * devices
        self.channels = channels_of(layout)
        self._load = [0] * len(layout.processors)
        self._device_group = layout.device_processors or (NOWHERE,) * devices
        self._server_group = layout.server_processors or (NOWHERE,) * servers
        self._disturbances = layout.disturbances

    def fork(self) -> Self:
        """The same lane, to go on apart from this one."""
        other = type(self)(self.layout, self._first_device, self._first_server)
        copies: dict[int, Part] = {}

        def of(part: Any) -> Any:
            if part is None:
                return None
            found = copies.get(id(part))
            if found is None:
                found = copies[id(part)] = Part.__new__(Part)
                for name in Part.__slots__:
                    setattr(found, name, getattr(part, name))
                found.twin = of(part.twin)
            return found

        other.now_s, other.open, other._count = self.now_s, self.open, self._count
        other._events = [
            (at_s, kind, count, (what[0], of(what[1])) if kind == CARRIED else of(what))
            for at_s, kind, count, what in self._events
            if kind != TIMED_OUT or not what.is_told
        ]
        heapify(other._events)
        other._coming = [(*when, of(part)) for *when, part in self._coming]
        other._is_sorted = self._is_sorted
        other._limits = [(*when, of(part)) for *when, part in self._limits if not part.is_told]
        other._limits_from_s = self._limits_from_s
        other._last_limit_s = max((each[0] for each in (*other._limits, *other._events)), default=0.0)
        for name in ("_jobs", "_queues", "serving"):
            setattr(other, name, [type(parts)(map(of, parts)) for parts in getattr(self, name)])
        other._uplinks = defaultdict(deque, {key: deque(map(of, parts)) for key, parts in self._uplinks.items()})
        other.running = list(map(of, self.running))
        other.uploading = {uplink: of(part) for uplink, part in self.uploading.items()}
        for name in _PLAIN_LISTS:
            setattr(other, name, list(getattr(self, name)))
        other.channels = [channel.fork(of) for channel in self.channels]
        other.ended = list(self.ended)
        self._fork_more(other, of)
        return other

    def _fork_more(self, other: Self, of: Callable[[Any], Any]) -> None:
        """Copy what else there is, with each part as ``of`` it; here there is no more."""


def channels_of(layout: Layout) -> list[Channel]:
    """Of all servers, server by server; none when they are not shaped."""
    count, rate_bps, interference = layout.channels, layout.channel_rate_bps, layout.interference
    if interference is None:
        return [Channel(rate_bps) for _ in range(layout.servers * count)] if rate_bps else []

    def power_w(part: Part) -> float:
        return interference.received_w[part.server][part.device]

    return [InterferingChannel(interference.rates_bps, power_w) for _ in range(layout.servers * count)]
