"""Faults in virtual time: those that have a plain meaning there, and what they do to a cell."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.cell import ALIVE_INTERVAL_S, ALIVE_REACH_S
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.disturbances import Disturbances, SlowLink, Throttled, combined
from orchestrator.faults.happening import Happening
from orchestrator.faults.schedule import FaultRule, Targets
from orchestrator.provision.layout import CONTROLLER, DEVICE_AGENT

SIMULATED_KINDS = ("kill", "stop", "reboot", "cut_link", "throttle", "slow_link")

_OF_DEVICES = {
    "reboot": "that of a device",
    "cut_link": "that of a device",
    "slow_link": "that of a device",
}
"""Kinds that only devices have here, in words."""


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
    if rule.parameters.get("loss", 0.0) > 0.0:
        return "slow_link: what lost packets cost is not simulated; leave out loss, or run on hosts"
    if rule.kind not in _OF_DEVICES:
        return ""
    devices = targets.groups["devices"]
    others = ", ".join(name for name in targets.hosts(rule) if name not in devices)
    if others:
        what = _OF_DEVICES[rule.kind]
        return f"{rule.kind}: only {what} is simulated; {others} is no device; name devices, or run on hosts"
    return ""


def disturbances_of(cell: CellSpec, happenings: Sequence[Happening]) -> Disturbances | None:
    """How the faults of a cell disturb its queues; None: not at all but for devices whose programs die."""
    if all(each.is_death and each.program == DEVICE_AGENT for each in happenings):
        return None
    devices: dict[int, list[Throttled]] = defaultdict(list)
    servers: dict[int, list[Throttled]] = defaultdict(list)
    links: dict[int, list[SlowLink]] = defaultdict(list)
    for each in happenings:
        told, when = each.fault.parameters, (each.from_s, each.until_s)
        if not each.is_done or each.is_death or each.program == CONTROLLER or each.fault.kind == "cut_link":
            continue
        if each.fault.kind == "slow_link":
            slow = SlowLink(*when, told.get("rate_bps", math.inf), told.get("delay_s", 0.0))
            links[cell.devices.index(each.host)].append(slow)
            continue
        throttled = Throttled(*when, told.get("fraction", 0.0))
        if each.host in cell.devices:
            devices[cell.devices.index(each.host)].append(throttled)
        else:
            servers[cell.servers.index(each.host)].append(throttled)
    return Disturbances(_apart(devices), _apart(servers), dict(links))


def _apart(throttled: dict[int, list[Throttled]]) -> dict[int, list[Throttled]]:
    return {host: combined(found) for host, found in throttled.items()}


def outages_of(cell: CellSpec, happenings: Sequence[Happening]) -> list[Outage]:
    """When devices of a cell are without their programs, in the order of time."""
    return [
        Outage(cell.devices.index(each.host), each.from_s, each.until_s)
        for each in happenings
        if each.is_done and each.is_death and each.program == DEVICE_AGENT
    ]
