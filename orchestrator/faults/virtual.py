"""Faults in virtual time: those that have a plain meaning there, what they do to a cell, and what the trace says."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from device_agent.cell import ALIVE_INTERVAL_S, ALIVE_REACH_S
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.disturbances import Disturbances, SlowLink, Throttled
from edgebed.trace.schema import EventRecord
from orchestrator.faults.schedule import BEGIN, END, FAILED, Act, FaultRule, PlannedFault, Targets
from orchestrator.provision.layout import DEVICE_AGENT

SIMULATED_KINDS = ("kill", "throttle", "slow_link")

RESTART_S = 1.7
"""From the death of a device's program until another one runs its cell: median of five kills on local hosts."""

RESTARTED = "restarted"
"""Kind of event: a program takes up where another one was cut off."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A device without its program.

    Attributes:
        slot: of the device.
        from_s, until_s: instants of the cell.
    """

    slot: int
    from_s: float
    until_s: float

    @property
    def alive_s(self) -> float:
        """The last sign of life that it wrote down."""
        return math.floor(self.from_s / ALIVE_INTERVAL_S) * ALIVE_INTERVAL_S

    @property
    def certain_s(self) -> float:
        """What was due after this was certainly not begun, as its successor reckons."""
        return min(self.alive_s + ALIVE_REACH_S, self.until_s)


def why_not_simulated(rule: FaultRule, targets: Targets) -> str:
    """What of a rule has no meaning in virtual time; empty when all of it has.

    Args:
        rule: of the experiment.
        targets: the hosts.

    Raises:
        BadInput: it names a host that there is not.
    """
    if rule.kind not in SIMULATED_KINDS:
        return f"{rule.kind} is not simulated; leave it out, or run on hosts; simulated: {', '.join(SIMULATED_KINDS)}"
    if rule.kind == "throttle":
        return ""
    if rule.parameters.get("loss", 0.0) > 0.0:
        return "slow_link: what lost packets cost is not simulated; leave out loss, or run on hosts"
    devices = targets.groups["devices"]
    others = ", ".join(name for name in targets.hosts(rule) if name not in devices)
    if others:
        what = "that of a device" if rule.kind == "slow_link" else "that of a device's program"
        return f"{rule.kind}: only {what} is simulated; {others} is no device; name devices, or run on hosts"
    return ""


def disturbances_of(cell: CellSpec, faults: Sequence[PlannedFault]) -> Disturbances | None:
    """How the faults of a cell disturb its queues; None: not at all."""
    if all(fault.kind == "kill" for fault in faults):
        return None
    devices: dict[int, list[Throttled]] = defaultdict(list)
    servers: dict[int, list[Throttled]] = defaultdict(list)
    links: dict[int, list[SlowLink]] = defaultdict(list)
    for fault in faults:
        told, when = fault.parameters, (fault.at_s, fault.end_s)
        if fault.kind == "kill":
            continue
        if fault.kind == "slow_link":
            slow = SlowLink(*when, told.get("rate_bps", math.inf), told.get("delay_s", 0.0))
            links[cell.devices.index(fault.host)].append(slow)
        elif fault.host in cell.devices:
            devices[cell.devices.index(fault.host)].append(Throttled(*when, told["fraction"]))
        else:
            servers[cell.servers.index(fault.host)].append(Throttled(*when, told["fraction"]))
    return Disturbances(dict(devices), dict(servers), dict(links))


def outages_of(cell: CellSpec, faults: Sequence[PlannedFault]) -> list[Outage]:
    """When devices of a cell are without their programs, in the order of time."""
    return [outage for _, outage in _kills(cell, faults) if outage is not None]


def _kills(cell: CellSpec, faults: Sequence[PlannedFault]) -> Iterator[tuple[PlannedFault, Outage | None]]:
    """Every kill, in the order of time; with None where there was no program to be killed."""
    back_s: dict[str, float] = {}
    for fault in faults:
        if fault.kind == "kill":
            is_there = fault.at_s >= back_s.get(fault.host, 0.0)
            back_s[fault.host] = fault.at_s + RESTART_S if is_there else back_s[fault.host]
            slot = cell.devices.index(fault.host)
            yield fault, Outage(slot, fault.at_s, fault.at_s + RESTART_S) if is_there else None


def fault_events(cell: CellSpec, start_s: float, faults: Sequence[PlannedFault]) -> list[tuple[float, EventRecord]]:
    """What a cell's trace says of them, as on hosts; with the instant of the cell, in the order of time."""
    told = [*_of_kills(cell, faults), *_of_others(cell, faults)]
    return [
        (at_s, EventRecord(t_s=start_s + at_s, host=host, kind=kind, detail=json.dumps(detail)))
        for at_s, host, kind, detail in sorted(told, key=lambda each: each[0])
    ]


_Told = tuple[float, str, str, dict[str, object]]


def _of_others(cell: CellSpec, faults: Sequence[PlannedFault]) -> Iterator[_Told]:
    for fault in faults:
        if fault.kind != "kill":
            detail = _detail(cell, fault)
            yield fault.at_s, fault.host, BEGIN, detail
            yield fault.end_s, fault.host, END, detail | {"by": "time"}


def _of_kills(cell: CellSpec, faults: Sequence[PlannedFault]) -> Iterator[_Told]:
    for fault, outage in _kills(cell, faults):
        detail = _detail(cell, fault)
        if outage is None:
            problem = f"{fault.host}: {DEVICE_AGENT} does not run just now"
            yield fault.at_s, fault.host, FAILED, detail | {"problem": problem}
            continue
        yield fault.at_s, fault.host, BEGIN, detail
        yield outage.until_s, fault.host, RESTARTED, {"alive_cell_s": outage.alive_s, "cell_s": outage.until_s}


def _detail(cell: CellSpec, fault: PlannedFault) -> dict[str, object]:
    return Act(f"{cell.serial}-{fault.number}", fault).detail()
