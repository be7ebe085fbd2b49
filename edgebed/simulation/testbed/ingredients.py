"""What the queues need of each task, what they are told of the testbed, and what they tell in the end.

All arrays of one struct have the same length, a task each. Devices and servers are numbered through all lanes: device
``i`` of lane ``l`` is ``l * devices + i``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput
from edgebed.simulation.radio.between_hosts import Interference
from edgebed.simulation.testbed.disturbances import Disturbances
from edgebed.trace.schema import STAGES
from edgebed.types import BoolArray, Outcome

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

NOWHERE = -1

REASONS = (
    *("", "timeout_not_started", "timeout", "queue_full", "server_unreachable", "too_large"),
    *("agent_restarted", "device_down", "server_lost", "not_ready"),
)
"""Why a task is not done, in the words of the trace; the index is the code in `Ended.reason`."""

OUTCOMES = (Outcome.DONE, Outcome.FAILED, Outcome.UNKNOWN)
"""The index is the code in `Ended.outcome`."""

DONE, FAILED, UNKNOWN = range(3)

ColumnsType = TypeVar("ColumnsType", bound="Columns")


class Columns:
    """A struct of arrays of one length."""

    def __len__(self) -> int:
        first: NDArray[Any] = getattr(self, fields(self)[0].name)  # type: ignore[arg-type]  # subclasses are dataclasses
        return len(first)

    def take(self: ColumnsType, index: NDArray[Any] | slice) -> ColumnsType:
        """Some of the rows."""
        return type(self)(**{each.name: getattr(self, each.name)[index] for each in fields(self)})  # type: ignore[arg-type]

    @classmethod
    def joined(cls: type[ColumnsType], parts: list[ColumnsType]) -> ColumnsType:
        """One after another; at least one is needed."""
        names = [each.name for each in fields(cls)]  # type: ignore[arg-type]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@dataclass(slots=True)
class Ingredients(Columns):
    """Decided tasks, ``[n]`` arrays. Durations are what each stage takes when nothing else is in its way.

    Attributes:
        task: the caller's number for it.
        device, server: through all lanes; ``NOWHERE``: no such server.
        channel: of that server.
        arrived_s, ready_s: when it arrived, and when its decision was known.
        limit_s: when it times out.
        frames, edge_frames: all of them, and those that go to the edge: the first ones stay.
        upload_bytes: of the frames that go to the edge.
        device_compute_s: of the frames that stay.
        uplink_s: from the begin of its upload until the last byte is at the server, on a channel that is not shaped.
        uplink_hold_s: of that, how long it keeps the uplink from the next; at most ``uplink_s``.
        server_compute_s, downlink_s: of the frames at the edge, and of their result.
        refusal_s: from the begin of its upload until a refusal is known.
        fallback_compute_s: what the device takes for the frames that a server refused.
    """

    task: IndexArray
    device: IndexArray
    server: IndexArray
    channel: IndexArray
    arrived_s: FloatArray
    ready_s: FloatArray
    limit_s: FloatArray
    frames: IndexArray
    edge_frames: IndexArray
    upload_bytes: FloatArray
    device_compute_s: FloatArray
    uplink_s: FloatArray
    uplink_hold_s: FloatArray
    server_compute_s: FloatArray
    downlink_s: FloatArray
    refusal_s: FloatArray
    fallback_compute_s: FloatArray


@dataclass(slots=True)
class Ended(Columns):
    """Tasks that have ended, in the order in which that became known. One that is unknown may come again, done.

    Attributes:
        task, device: as they were put in.
        outcome, reason: codes, see `OUTCOMES` and `REASONS`.
        known_s: when the device knew.
        site: of `edgebed.types.Site` where it ran, or was to run; ``NOWHERE``: it was given up before.
        server: through all lanes; ``NOWHERE``: none.
        edge_frames: that ran, or were to run, at the edge.
        decision_s: from arrival until its decision was known.
        stages: ``[m, 7]``, in the order of `edgebed.trace.schema.STAGES`; of the slower part; 0 unless done.
        latency_s: ``decision_s`` and the stages, added from left to right; NaN unless done.
        device_busy_s, server_busy_s: what its finished parts computed, seconds.
        air_s: seconds in which its bytes were sent; 0 for a part that is not done.
        granted_bps: mean rate that its channel granted; NaN where channels are not shaped.
        has_resources: a part of it is done, so that what it used is known.
    """

    task: IndexArray
    device: IndexArray
    outcome: IndexArray
    reason: IndexArray
    known_s: FloatArray
    site: IndexArray
    server: IndexArray
    edge_frames: IndexArray
    decision_s: FloatArray
    stages: FloatArray
    latency_s: FloatArray
    device_busy_s: FloatArray
    server_busy_s: FloatArray
    air_s: FloatArray
    granted_bps: FloatArray
    has_resources: BoolArray

    @classmethod
    def nobody(cls) -> Ended:
        """No task at all."""
        return cls.of_rows([])

    @classmethod
    def of_rows(cls, rows: list[tuple[Any, ...]]) -> Ended:
        """From `lane` rows: the fields up to ``decision_s``, seven stages, then those after ``latency_s``."""
        width = 9 + len(STAGES) + 5
        table = np.array(rows, np.float64).reshape(len(rows), width).T
        stages = np.ascontiguousarray(table[9 : 9 + len(STAGES)].T)
        outcome = table[2].astype(np.int64)
        latency_s = table[8].copy()
        for stage in range(len(STAGES)):
            latency_s += stages[:, stage]
        latency_s[outcome != DONE] = np.nan
        device_busy_s, server_busy_s, air_s, granted_bps, has_resources = table[9 + len(STAGES) :].copy()
        return cls(
            task=table[0].astype(np.int64),
            device=table[1].astype(np.int64),
            outcome=outcome,
            reason=table[3].astype(np.int64),
            known_s=table[4].copy(),
            site=table[5].astype(np.int64),
            server=table[6].astype(np.int64),
            edge_frames=table[7].astype(np.int64),
            decision_s=table[8].copy(),
            stages=stages,
            latency_s=latency_s,
            device_busy_s=device_busy_s,
            server_busy_s=server_busy_s,
            air_s=air_s,
            granted_bps=granted_bps,
            has_resources=has_resources > 0,
        )


@dataclass(frozen=True, slots=True)
class ProcessorGroup:
    """Cores that several hosts of a lane share; see `edgebed.simulation.testbed.profile.Processor`."""

    cores: float
    per_other: float = 0.0
    per_excess: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """One lane: its devices and servers. All lanes are alike.

    Attributes:
        devices: how many there are.
        workers, queue_tasks: of each server.
        channels: of a server. channel_rate_bps: of one whose uploads share it; 0: they do not.
        interference: between uploads on one channel; None: they do not disturb each other.
        refused_run_locally: what a server refuses is executed on the device.
        disturbances: of its hosts and links; None: nothing disturbs them.
        device_processors, server_processors: index into ``processors`` of each; ``NOWHERE``: its own cores.
        device_frame_s, server_frame_s: seconds that a frame takes there, as each believes at the start.
    """

    devices: int
    workers: tuple[int, ...]
    queue_tasks: tuple[int, ...]
    device_frame_s: tuple[float, ...]
    server_frame_s: tuple[float, ...]
    channels: int = 1
    channel_rate_bps: float = 0.0
    interference: Interference | None = None
    refused_run_locally: bool = False
    disturbances: Disturbances | None = None
    device_processors: tuple[int, ...] = ()
    server_processors: tuple[int, ...] = ()
    processors: tuple[ProcessorGroup, ...] = ()

    def __post_init__(self) -> None:
        """Check that everything speaks of the same hosts."""
        servers = len(self.workers)
        lengths = {
            "queue_tasks": (self.queue_tasks, servers),
            "server_frame_s": (self.server_frame_s, servers),
            "device_frame_s": (self.device_frame_s, self.devices),
        }
        for name, (values, expected) in lengths.items():
            if len(values) != expected:
                raise BadInput(f"layout.{name} has {len(values)} values; {expected} are due")

    @property
    def servers(self) -> int:
        """How many servers there are."""
        return len(self.workers)

    @property
    def is_shaped(self) -> bool:
        """Do channels grant rates?"""
        return self.channel_rate_bps > 0.0 or self.interference is not None

    @property
    def channel_alone_bps(self) -> FloatArray:
        """``[servers]``, rate of a channel that one upload has for itself, as servers tell it; 0: not shaped."""
        if self.interference is None:
            return np.full(self.servers, self.channel_rate_bps)
        return np.array([self.interference.alone_bps(server) for server in range(self.servers)], np.float64)
