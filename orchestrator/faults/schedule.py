"""When which fault happens to which host: pure, drawn from the seed, the same for every policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgebed.errors import BadInput
from edgebed.randomness import stream

MAX_FAULTS = 10_000
"""In one cell."""

BEGIN = "fault_begin"
END = "fault_end"
FAILED = "fault_failed"
"""Kinds of events: a fault was done; it was lifted, or is over; it could not be done."""


class FaultRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry of ``faults:``, as the experiment has it.

    Attributes:
        hosts: names, or ``devices``, ``edge_servers``: each of them has the fault.
        program: which one, for faults of programs; empty for the host's own.
        at_s: seconds since the cell's start; empty when ``every_s`` says it.
        every_s: with ``probability`` each time, drawn for each host by itself.
        for_s: how long it lasts; 0 for a moment.
        parameters: see `orchestrator.faults.kinds`.
    """

    kind: str
    hosts: list[str]
    program: str = ""
    at_s: list[float] = []
    every_s: float | None = None
    probability: float = 1.0
    for_s: float = 0.0
    parameters: dict[str, float] = {}


class PlannedFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault that is going to happen in a cell.

    Attributes:
        number: in its cell, from 0, in the order of time.
        at_s: seconds since the cell's start. for_s: how long it lasts; 0 for a moment.
        program: empty for faults of the host itself.
    """

    number: int
    at_s: float
    for_s: float
    kind: str
    host: str
    program: str = ""
    parameters: dict[str, float] = {}

    @property
    def end_s(self) -> float:
        """When it is lifted, seconds since the cell's start."""
        return self.at_s + self.for_s


class FaultList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The faults of every cell with this seed and these settings; the same for every policy."""

    seed: int
    settings: list[str]
    faults: list[PlannedFault]


@dataclass(frozen=True, slots=True)
class Act:
    """A planned fault of a certain attempt of a cell.

    Attributes:
        id: unique in the run; letters, digits and ``-``.
    """

    id: str
    fault: PlannedFault

    def detail(self) -> dict[str, Any]:
        """What its events say."""
        fault = self.fault
        program = {"program": fault.program} if fault.program else {}
        lasting = {"for_s": fault.for_s} if fault.for_s else {}
        return {"fault": self.id, "kind": fault.kind, "host": fault.host, **program, "at_s": fault.at_s} | (
            lasting | fault.parameters
        )


@dataclass(frozen=True, slots=True)
class Targets:
    """The hosts that rules speak of.

    Attributes:
        programs: of each host, its own first: ``device_agent``, or ``edge_server`` and perhaps ``controller``.
        groups: names of hosts by name of the group.
    """

    programs: dict[str, tuple[str, ...]]
    groups: dict[str, tuple[str, ...]]

    def hosts(self, rule: FaultRule) -> list[str]:
        """The hosts that a rule names, each once, in the order of the inventory.

        Raises:
            BadInput: it names one that there is not.
        """
        named: set[str] = set()
        for name in rule.hosts:
            if name not in self.groups and name not in self.programs:
                known = ", ".join((*self.groups, *self.programs))
                raise BadInput(f"there is no host {name!r}; those that exist: {known}")
            named |= set(self.groups.get(name, (name,)))
        return [name for name in self.programs if name in named]


def schedule(rules: Sequence[FaultRule], seed: int, horizon_s: float, targets: Targets) -> list[PlannedFault]:
    """All faults of a cell, in the order of time.

    Args:
        rules: of the experiment.
        seed: the cell's.
        horizon_s: faults begin before it.
        targets: the hosts.

    Raises:
        BadInput: a rule names a host or program that there is not, or there are too many faults.
    """
    found: list[tuple[float, int, str, str]] = []
    for number, rule in enumerate(rules):
        for host in targets.hosts(rule):
            program = _program(rule, host, targets)
            times = _times(rule, number, host, seed, horizon_s)
            found += [(at_s, number, host, program) for at_s in times]
            if len(found) > MAX_FAULTS:
                raise BadInput(f"there are more than {MAX_FAULTS} faults in a cell; make every_s longer")
    return [
        PlannedFault(
            number=place,
            at_s=at_s,
            for_s=rules[number].for_s,
            kind=rules[number].kind,
            host=host,
            program=program,
            parameters=rules[number].parameters,
        )
        for place, (at_s, number, host, program) in enumerate(sorted(found))
    ]


def _program(rule: FaultRule, host: str, targets: Targets) -> str:
    if rule.kind not in ("kill", "stop"):
        return ""
    programs = targets.programs[host]
    program = rule.program or programs[0]
    if program not in programs:
        raise BadInput(f"{host} runs no {program}; allowed for it: {', '.join(programs)}")
    return program


def _times(rule: FaultRule, number: int, host: str, seed: int, horizon_s: float) -> Iterator[float]:
    if rule.every_s is None:
        yield from (at_s for at_s in sorted(set(rule.at_s)) if at_s < horizon_s)
        return
    draws = stream(seed, "faults", number, host)
    for turn in range(1, MAX_FAULTS + 2):
        at_s = turn * rule.every_s
        if at_s >= horizon_s:
            return
        # Drawn even when it is certain, so that another probability keeps the other hosts' faults where they are.
        if draws.random() < rule.probability:
            yield at_s
