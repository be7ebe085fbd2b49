"""Faults in virtual time: those that have a plain meaning there, what they do to a cell, and what the trace says."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.disturbances import Disturbances, SlowLink, Throttled
from edgebed.trace.schema import EventRecord
from orchestrator.faults.schedule import BEGIN, END, Act, FaultRule, PlannedFault, Targets

SIMULATED_KINDS = ("throttle", "slow_link")


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
    if rule.kind != "slow_link":
        return ""
    if rule.parameters.get("loss", 0.0) > 0.0:
        return "slow_link: what lost packets cost is not simulated; leave out loss, or run on hosts"
    devices = targets.groups["devices"]
    servers = [name for name in targets.hosts(rule) if name not in devices]
    if servers:
        return f"slow_link: only that of a device is simulated; {', '.join(servers)} is none; name devices"
    return ""


def disturbances_of(cell: CellSpec, faults: Sequence[PlannedFault]) -> Disturbances | None:
    """What the faults of a cell do to its queues; None: there are none."""
    if not faults:
        return None
    devices: dict[int, list[Throttled]] = defaultdict(list)
    servers: dict[int, list[Throttled]] = defaultdict(list)
    links: dict[int, list[SlowLink]] = defaultdict(list)
    for fault in faults:
        told, when = fault.parameters, (fault.at_s, fault.end_s)
        if fault.kind == "slow_link":
            slow = SlowLink(*when, told.get("rate_bps", math.inf), told.get("delay_s", 0.0))
            links[cell.devices.index(fault.host)].append(slow)
        elif fault.host in cell.devices:
            devices[cell.devices.index(fault.host)].append(Throttled(*when, told["fraction"]))
        else:
            servers[cell.servers.index(fault.host)].append(Throttled(*when, told["fraction"]))
    return Disturbances(dict(devices), dict(servers), dict(links))


def fault_events(cell: CellSpec, start_s: float, faults: Sequence[PlannedFault]) -> list[tuple[float, EventRecord]]:
    """What a cell's trace says of them, as on hosts; with the instant of the cell, in the order of time."""
    return sorted(_events(cell, start_s, faults), key=lambda each: each[0])


def _events(cell: CellSpec, start_s: float, faults: Sequence[PlannedFault]) -> Iterator[tuple[float, EventRecord]]:
    for fault in faults:
        detail = Act(f"{cell.serial}-{fault.number}", fault).detail()
        for at_s, kind, more in ((fault.at_s, BEGIN, {}), (fault.end_s, END, {"by": "time"})):
            text = json.dumps(detail | more)
            yield at_s, EventRecord(t_s=start_s + at_s, host=fault.host, kind=kind, detail=text)
