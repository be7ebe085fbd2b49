"""The life of one task: planned, decided, in parts at one or two sites, and one outcome at the end.

A task has one part, or two when it is split: the first frames run on the device, the last ones at an edge server. A
part that a server refuses may be given to the device instead. What all that means for the task is `Task.verdict`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from device_agent.content import Clip
from device_agent.stages import NO_STAGES, Stages
from device_agent.uplink import Upload
from edgebed.types import DecidedBy, Outcome, Site, SlotDecision
from workloads.arrivals import PlannedTask


class PartState(Enum):
    """Where a part stands. FAILED is certain; UNKNOWN may still become DONE or FAILED."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(slots=True, eq=False)
class Used:
    """What a part has used, on both sides.

    Attributes:
        started_s, finished_s: when this device computed, own clock; both 0 when it did not.
        padding_s: seconds waited to emulate a slower board.
        air_s: seconds in which its bytes were sent.
        server_energy_j: None where the server has no model and no meter.
    """

    started_s: float = 0.0
    finished_s: float = 0.0
    device_cpu_s: float = 0.0
    padding_s: float = 0.0
    air_s: float = 0.0
    server_cpu_s: float = 0.0
    server_energy_j: float | None = 0.0
    server_energy_error_j: float | None = 0.0
    server_energy_source: str = ""

    @property
    def busy_s(self) -> float:
        """Core-seconds that count as busy: waiting that emulates a slower board does."""
        return self.device_cpu_s + self.padding_s


@dataclass(slots=True, eq=False)
class Part:
    """Some frames of a task at one site.

    Attributes:
        first, frames: which frames of the clip.
        since_s: when it was handed to the executor or the uplink.
        spent: stages that it went through before ``since_s``, at a server that refused it.
        upload: its way to the edge server; None on the device.
        stages, finished_s, predicted, used: what came of it, once it is done.
        granted_bps: mean rate that the channel granted; None where it was not shaped.
        measured_bps: rate that its upload really got; None where that cannot be told.
    """

    first: int
    frames: int
    site: Site
    since_s: float
    server: int = 0
    channel: int = 0
    spent: Stages = NO_STAGES
    state: PartState = PartState.OPEN
    reason: str = ""
    upload: Upload | None = None
    stages: Stages | None = None
    finished_s: float = 0.0
    predicted: list[int] = field(default_factory=list)
    used: Used = field(default_factory=Used)
    clock_error_s: float | None = None
    is_clock_suspect: bool = False
    granted_bps: float | None = None
    measured_bps: float | None = None

    def fail(self, reason: str) -> None:
        """It is certainly not done, and will not be."""
        self.state, self.reason = PartState.FAILED, reason

    def lose(self, reason: str) -> None:
        """Nobody knows."""
        self.state, self.reason = PartState.UNKNOWN, reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision as it was asked for, and how it came about.

    Attributes:
        decided_s: when it was known, own clock.
        is_late: nobody decided in time, so the fallback policy did.
    """

    decision: SlotDecision
    epoch: int
    decided_s: float
    policy_version: str
    decided_by: DecidedBy
    compute_s: float
    is_late: bool = False


@dataclass(slots=True, eq=False)
class Task:
    """One planned task.

    Attributes:
        arrived_at_s: its scheduled arrival on the own clock.
        outcome, reason: what was reported of it last; None while nothing was.
    """

    planned: PlannedTask
    task_id: str
    clip: Clip
    arrived_at_s: float
    verdict: Verdict | None = None
    parts: list[Part] = field(default_factory=list)
    outcome: Outcome | None = None
    reason: str = ""

    @property
    def is_waiting(self) -> bool:
        """Has nobody decided, nor given up, yet?"""
        return self.verdict is None and self.outcome is None

    @property
    def site(self) -> Site | None:
        """Where it ran, was to run, or None while nobody has decided."""
        sites = {part.site for part in self.parts}
        if len(sites) > 1:
            return Site.SPLIT
        return next(iter(sites), None)

    @property
    def edge_frames(self) -> int:
        """Frames that ran, or were to run, at an edge server."""
        return sum(part.frames for part in self.parts if part.site is Site.EDGE)

    @property
    def edge_part(self) -> Part | None:
        """The part at an edge server, if it has one."""
        return next((part for part in self.parts if part.site is Site.EDGE), None)

    def judge(self) -> tuple[Outcome, str] | None:
        """What its parts mean for it, with a reason; None while that is open.

        One part that certainly failed fails the task; one that nobody knows of makes it unknown, whatever the other
        still does.
        """
        for state, outcome in ((PartState.FAILED, Outcome.FAILED), (PartState.UNKNOWN, Outcome.UNKNOWN)):
            for part in self.parts:
                if part.state is state:
                    return outcome, part.reason
        if self.parts and all(part.state is PartState.DONE for part in self.parts):
            return Outcome.DONE, ""
        return None


def divide(decision: SlotDecision, frames: int) -> int:
    """How many of a task's frames a decision sends to the edge: whole frames, the nearest number to the share.

    A split may so come out with all frames at one site; the trace says where they ran.
    """
    if decision.site is Site.DEVICE:
        return 0
    if decision.site is Site.EDGE:
        return frames
    return min(frames, int(decision.edge_fraction * frames + 0.5))


def parts_of(decision: SlotDecision, frames: int, since_s: float) -> list[Part]:
    """The parts that a decision makes of a task: the first frames here, the last ones at the edge."""
    edge_frames = divide(decision, frames)
    here = frames - edge_frames
    parts = []
    if here:
        parts.append(Part(0, here, Site.DEVICE, since_s))
    if edge_frames:
        parts.append(Part(here, edge_frames, Site.EDGE, since_s, decision.server, decision.channel))
    return parts


def slower_part(parts: list[Part]) -> Part:
    """The part that the others had to wait for."""
    return max(parts, key=lambda part: part.finished_s)


def joined_predictions(parts: list[Part]) -> list[int]:
    """What was recognised, in the order of the frames."""
    return [label for part in sorted(parts, key=lambda part: part.first) for label in part.predicted]


def decision_columns(task: Task, servers: list[str]) -> dict[str, Any]:
    """The decision's columns: what was asked for, and what was executed, or tried where a server refused it."""
    verdict = task.verdict
    if verdict is None:
        return {}
    asked, edge = verdict.decision, task.edge_part
    is_local = asked.site is Site.DEVICE
    names = dict(enumerate(servers))  # a decision for the edge may come in a cell that has no server
    return {
        "requested_site": asked.site.label,
        "requested_server": None if is_local else names.get(asked.server),
        "requested_channel": None if is_local else asked.channel,
        "site": None if task.site is None else task.site.label,
        "server": None if edge is None else names.get(edge.server),
        "channel": None if edge is None else edge.channel,
        "edge_fraction": task.edge_frames / task.planned.frames,
        "edge_frames": task.edge_frames,
        # Nothing on a host scales the clock or the radio's power, whatever the policy asked for.
        "cpu_fraction": 1.0,
        "power_fraction": 1.0,
        "decision_epoch": verdict.epoch,
        "policy_version": verdict.policy_version,
        "decided_by": verdict.decided_by.value,
        "decision_s": verdict.decided_s - task.arrived_at_s,
        "decision_compute_s": verdict.compute_s,
    }
