"""Deciding on the device: what it knows of itself as an observation, and a policy that is asked for one slot."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_agent.task import Task
from edgebed.errors import BadInput
from edgebed.policies.files import make_placed
from edgebed.protocol.cells import CellSpec
from edgebed.protocol.messages import Decide
from edgebed.randomness import stream
from edgebed.trace.schema import EpochRecord
from edgebed.types import (
    DEVICE_FEATURES,
    DEVICE_ONLY,
    DecidedBy,
    Observation,
    ObservationSpec,
    Site,
    SlotDecision,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a device knows of itself at one moment, besides its waiting tasks. Units as in `DEVICE_FEATURES`."""

    queue_delay_s: float
    speed_hz: float
    uplink_queue_bytes: float
    link_rate_bps: float
    round_trip_s: float
    cpu: float
    battery: float
    position_m: tuple[float, float]


def device_values(waiting: Sequence[Task], state: DeviceState, cycles_per_frame: float, now_s: float) -> list[float]:
    """The device's features, in the order of `edgebed.types.DEVICE_FEATURES`."""
    frames = sum(task.planned.frames for task in waiting)
    values: dict[str, float] = {
        "waiting_tasks": len(waiting),
        "waiting_frames": frames,
        "waiting_bytes": sum(task.clip.payload_bytes for task in waiting),
        "waiting_cycles": frames * cycles_per_frame,
        "deadline_s": min((task.planned.deadline_s for task in waiting), default=0.0),
        "waited_s": max((now_s - task.arrived_at_s for task in waiting), default=0.0),
        "device_queue_delay_s": state.queue_delay_s,
        "device_speed_hz": state.speed_hz,
        "uplink_queue_bytes": state.uplink_queue_bytes,
        "link_rate_bps": state.link_rate_bps,
        "round_trip_s": state.round_trip_s,
        "device_cpu": state.cpu,
        "battery": state.battery,
        "position_x_m": state.position_m[0],
        "position_y_m": state.position_m[1],
    }
    return [float(values[feature.name]) for feature in DEVICE_FEATURES]


def own_spec(cell: CellSpec) -> ObservationSpec:
    """What a device's own observations look like: as the joint ones, so that a slot keeps its index everywhere."""
    return ObservationSpec(tuple(cell.devices), tuple(cell.servers), cell.channels.count)


def own_observation(
    spec: ObservationSpec,
    slot: int,
    values: Sequence[float],
    loads: Sequence[Sequence[float]],
    servers_up: Sequence[bool],
    epoch: int,
) -> Observation:
    """The observation of one device: its own slot is present, all others are absent.

    Args:
        slot: the device's index in the cell.
        spec: from `own_spec`.
        values: from `device_values`.
        epoch: number of the decision epoch.
        loads: of each server its features and its channels' (see `edgebed.types`); zeros where they are not known, or
            not of the width that the spec says.
        servers_up: False masks every action that offloads to the server.
    """
    observation = Observation.empty(spec, epoch)
    observation.present[slot] = True
    observation.values[slot] = values
    for server, load in enumerate(loads):
        if len(load) == spec.server_width and all(map(math.isfinite, load)):
            start = server * spec.server_width
            observation.server[start : start + spec.server_width] = load
    for server, is_up in enumerate(servers_up):
        first = 1 + server * spec.channels
        observation.allowed_actions[slot, first : first + spec.channels] = is_up
    return observation


def flat_observation(observation: Observation, slot: int) -> list[float]:
    """How ``epochs.parquet`` holds the observation of one device: its values, then the servers'."""
    return [float(number) for number in np.concatenate([observation.values[slot], observation.server])]


def flat_action(decision: SlotDecision) -> list[float]:
    """How ``epochs.parquet`` holds the decision for one slot."""
    return [
        float(decision.site),
        float(decision.server),
        float(decision.channel),
        decision.edge_fraction,
        decision.cpu_fraction,
        decision.power_fraction,
    ]


class LocalPolicy:
    """A policy that is asked by one device for itself.

    Its seed is the device's own: policies that draw would otherwise draw the same on every device.

    Args:
        role: what it is used for, so that two policies of a cell do not share their draws.
        content: the folder of the files that policies need.

    Raises:
        BadInput: no such policy, or a wrong option.
        SchemaMismatch: it needs features that a device does not have.
    """

    def __init__(
        self,
        policy: str,
        options: Mapping[str, Any],
        device: str,
        cell: CellSpec,
        role: str,
        content: Path = Path(),
    ) -> None:
        self.spec = own_spec(cell)
        self._slot = cell.devices.index(device)
        self._policy = make_placed(policy, self.spec, options, content)
        self._policy.reset(int(stream(cell.seed, "policy", role, device).integers(2**53)))

    @property
    def version(self) -> str:
        """The policy's version, for the trace."""
        return self._policy.version

    def decide(self, observation: Observation) -> tuple[SlotDecision, float]:
        """The decision, and how long it took in seconds.

        Raises:
            BadInput: the decision is out of range or of the wrong shape.
        """
        started_s = time.perf_counter()
        decision = self._policy.decide(observation)
        compute_s = time.perf_counter() - started_s
        decision.check(self.spec)
        return decision.slot(self._slot), compute_s


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was decided here, how long it took, and by which policy."""

    decision: SlotDecision
    compute_s: float
    version: str
    by: DecidedBy


NOBODY = Chosen(DEVICE_ONLY, 0.0, "", DecidedBy.FALLBACK)


class OwnDecider:
    """Decides for one device in one cell: with the cell's policy where that is placed here, else with the fallback.

    Args:
        policy: the cell's, None where others ask it.
        fallback: asked when nobody else has decided, or can.
        failed: told of a policy that raised an error, with the epoch.
    """

    def __init__(
        self,
        cell: CellSpec,
        device: str,
        policy: LocalPolicy | None,
        fallback: LocalPolicy,
        failed: Callable[[int, Exception], None],
    ) -> None:
        self._cell = cell
        self._device = device
        self._policy = policy
        self._fallback = fallback
        self._failed = failed
        self._spec = own_spec(cell)
        self._slot = cell.devices.index(device)

    def observe(
        self, values: Sequence[float], loads: Sequence[Sequence[float]], servers_up: Sequence[bool], epoch: int
    ) -> Observation:
        """What this device sees; see `own_observation`."""
        return own_observation(self._spec, self._slot, values, loads, servers_up, epoch)

    def choose(self, observation: Observation, *, may_ask_policy: bool) -> Chosen:
        """Ask the policy; if it fails the fallback; if that fails too, stay on the device."""
        candidates: list[tuple[LocalPolicy, DecidedBy]] = []
        if may_ask_policy and self._policy is not None:
            candidates.append((self._policy, DecidedBy.DEVICE))
        candidates.append((self._fallback, DecidedBy.FALLBACK))
        for policy, by in candidates:
            try:
                decision, compute_s = policy.decide(observation)
            except Exception as error:  # a policy is someone's research code: it may raise anything
                _log.exception("a policy failed")
                self._failed(observation.epoch, error)
            else:
                return Chosen(decision, compute_s, policy.version, by)
        return NOBODY

    def row(self, observation: Observation, chosen: Chosen | None) -> EpochRecord:
        """The row of ``epochs.parquet`` for a decision; None: the cell's last observation, on which nobody decided."""
        row = EpochRecord(
            run_id=self._cell.run_id,
            cell_id=self._cell.cell_id,
            epoch=observation.epoch,
            device_id=self._device,
            observation=flat_observation(observation, self._slot),
            action=[],
        )
        if chosen is not None:
            row.action = flat_action(chosen.decision)
            row.policy_version, row.decided_by = chosen.version, chosen.by.value
            row.decision_compute_s = chosen.compute_s
        return row


def decision_of(message: Decide, cell: CellSpec) -> tuple[SlotDecision, DecidedBy]:
    """The decision that a controller sent.

    Raises:
        BadInput: it names a server or channel that the cell does not have, a value is out of range, or nobody that a
            decision can be from.
    """
    decision = SlotDecision(
        Site(message.site),
        message.server,
        message.channel,
        message.edge_fraction,
        message.cpu_fraction,
        message.power_fraction,
    )
    problem = decision.problem(len(cell.servers), cell.channels.count)
    if problem is not None:
        raise BadInput(f"decision for epoch {message.epoch}: {problem}")
    if message.decided_by not in set(DecidedBy):
        raise BadInput(f"decision for epoch {message.epoch}: decided by {message.decided_by!r}; {', '.join(DecidedBy)}")
    return decision, DecidedBy(message.decided_by)
