"""The faults of a plan: enumerated for every seed and setting, and checked against what the hosts can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgebed.errors import BadInput, Problem
from orchestrator.experiment import Experiment
from orchestrator.faults.kinds import EVERYTHING, KINDS, PROGRAM
from orchestrator.faults.lab import LabHands, hands_of
from orchestrator.faults.schedule import FaultList, FaultRule, PlannedFault, Targets, schedule
from orchestrator.faults.virtual import why_not_simulated
from orchestrator.inventory import Host, Inventory
from orchestrator.provision.layout import CONTROLLER, DEVICE_AGENT, EDGE_SERVER

if TYPE_CHECKING:
    from orchestrator.plan_file import Plan

KEY = "faults"
HOSTS = "hosts"
_MOST_PROBLEMS = 20


def plan_faults(experiment: Experiment, inventory: Inventory) -> list[FaultList]:
    """All faults of all cells; settings with the same faults share a list.

    Raises:
        BadInput: with everything that is wrong: hosts that there are not or that cannot do it, faults that overlap.
    """
    targets = targets_of(inventory)
    problems: list[Problem] = []
    lists: list[FaultList] = []
    for seed in experiment.seeds:
        for setting in experiment.settings:
            if not setting.faults:
                continue
            try:
                faults = schedule(setting.faults, seed, setting.horizon_s, targets)
            except BadInput as error:
                problems += [Problem(str(error), key=KEY, file=experiment.file)]
                continue
            # Without hosts nothing of them has to be able to do anything.
            unable = _unable(faults, inventory) if experiment.backend == HOSTS else ()
            texts = [*unable, *_overlapping(faults)]
            problems += [Problem(text, key=KEY, file=experiment.file) for text in texts]
            _add(lists, seed, setting.name, faults)
    if problems:
        raise BadInput(list(dict.fromkeys(problems))[:_MOST_PROBLEMS])
    return lists


def _add(lists: list[FaultList], seed: int, setting: str, faults: list[PlannedFault]) -> None:
    for found in lists:
        if found.seed == seed and found.faults == faults:
            found.settings.append(setting)
            return
    lists.append(FaultList(seed=seed, settings=[setting], faults=faults))


def targets_of(inventory: Inventory) -> Targets:
    """The hosts of an inventory, as rules name them."""
    programs = {
        host.name: (DEVICE_AGENT,)
        if host.role == "device"
        else (EDGE_SERVER, *((CONTROLLER,) if host.name == inventory.controller else ()))
        for host in inventory.hosts
    }
    groups = {
        "edge_servers": tuple(host.name for host in inventory.edge_servers),
        "devices": tuple(host.name for host in inventory.devices),
    }
    return Targets(programs, groups)


def unsimulated(plan: Plan) -> Iterator[str]:
    """A sentence for each fault of a plan that has no meaning in virtual time."""
    names = {
        "edge_servers": tuple(host.name for host in plan.edge_servers),
        "devices": tuple(host.name for host in plan.devices),
    }
    targets = Targets({host.name: () for host in plan.hosts}, names)
    faults = (fault for found in plan.fault_lists for fault in found.faults)
    for fault in {(each.kind, each.host, *each.parameters.items()): each for each in faults}.values():
        rule = FaultRule(kind=fault.kind, hosts=[fault.host], parameters=fault.parameters)
        if text := why_not_simulated(rule, targets):
            yield text


def _unable(faults: Sequence[PlannedFault], inventory: Inventory) -> Iterator[str]:
    """A sentence for each fault that is asked of a host that cannot do it."""
    for kind, name in dict.fromkeys((fault.kind, fault.host) for fault in faults):
        host = inventory.host(name)
        if not issubclass(hands_of(host), KINDS[kind].ability):
            able = ", ".join(each for each, about in KINDS.items() if issubclass(hands_of(host), about.ability))
            yield f"{kind}: {name} is {_what(host)}, which cannot do that; it can: {able}"


def _what(host: Host) -> str:
    if issubclass(hands_of(host), LabHands):
        return "a virtual host, whose clock is this machine's"
    return "a program on this machine" if host.connection == "local" else "a host behind SSH"


def _overlapping(faults: Sequence[PlannedFault]) -> Iterator[str]:
    """A sentence for each two faults that touch the same thing of a host at the same time."""
    latest: dict[tuple[str, str], PlannedFault] = {}
    for fault in faults:
        host, thing = fault.host, _touched(fault)
        for (other_host, other_thing), other in latest.items():
            is_same = other_host == host and (EVERYTHING in (thing, other_thing) or thing == other_thing)
            if is_same and fault.at_s <= other.end_s:
                first, second = (f"{each.kind} at {each.at_s:g} s" for each in (other, fault))
                yield f"{first} and {second} touch the same of {host}; let the one end before the other begins"
        before = latest.get((host, thing))
        if before is None or fault.end_s > before.end_s:
            latest[host, thing] = fault


def _touched(fault: PlannedFault) -> str:
    thing = KINDS[fault.kind].touches
    return f"{PROGRAM} {fault.program}" if thing == PROGRAM else thing
