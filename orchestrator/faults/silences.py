"""Who does not hear of whom, and when, in a simulated cell with faults. Pure: from the plan alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edgebed.configuration import Liveness
from edgebed.protocol.cells import CellSpec
from orchestrator.faults.happening import Happening
from orchestrator.provision.layout import CONTROLLER, DEVICE_AGENT, EDGE_SERVER

DEAD_AFTER_S = Liveness().dead_after_s
"""Whoever is silent for so long is given up, as the programs are told."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which somebody is not heard of.

    Attributes:
        from_s, until_s: instants of the cell.
        is_another: whoever answers then is another program, and knows nothing of before.
    """

    from_s: float
    until_s: float
    is_another: bool = False

    @property
    def lost_s(self) -> float | None:
        """When it is given up; None: it is back before."""
        lost_s = self.from_s + DEAD_AFTER_S
        return lost_s if lost_s < self.until_s else None

    def covers(self, now_s: float) -> bool:
        """Is it one of its instants?"""
        return self.from_s <= now_s < self.until_s


def span_at(spans: Iterable[Span], now_s: float) -> Span | None:
    """The one that an instant lies in."""
    return next((span for span in spans if span.covers(now_s)), None)


def joined(spans: Iterable[Span]) -> list[Span]:
    """The same in the order of time and apart from each other."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda each: each.from_s):
        if found and span.from_s <= found[-1].until_s:
            last = found.pop()
            until_s, is_another = max(last.until_s, span.until_s), last.is_another or span.is_another
            found.append(Span(last.from_s, until_s, is_another))
        else:
            found.append(span)
    return found


@dataclass(slots=True)
class Silences:
    """All of a cell; devices by slot, servers by index.

    Attributes:
        stops: of devices whose programs stand still. cuts: of devices whose links are cut.
        server_stops, server_deaths: of edge servers.
        controller: when the controller's program stands still, or there is none.
    """

    stops: dict[int, list[Span]] = field(default_factory=lambda: defaultdict(list))
    cuts: dict[int, list[Span]] = field(default_factory=lambda: defaultdict(list))
    server_stops: dict[int, list[Span]] = field(default_factory=lambda: defaultdict(list))
    server_deaths: dict[int, list[Span]] = field(default_factory=lambda: defaultdict(list))
    controller: list[Span] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.stops or self.cuts or self.server_stops or self.server_deaths or self.controller)

    def of_server(self, slot: int, server: int) -> list[Span]:
        """When a device does not hear of a server."""
        found = (self.cuts, slot), (self.server_stops, server), (self.server_deaths, server)
        return joined(span for spans, key in found for span in spans.get(key, ()))

    def of_controller(self, slot: int) -> list[Span]:
        """When a device does not hear of the controller."""
        return joined([*self.controller, *self.cuts.get(slot, ())])


def silences_of(cell: CellSpec, happenings: Sequence[Happening]) -> Silences:
    """The silences that the faults of a cell come to. Devices that die are `orchestrator.faults.virtual.Outage`."""
    found = Silences()
    for each in happenings:
        if not each.is_done:
            continue
        span = Span(each.from_s, each.until_s, each.is_death)
        if each.fault.kind == "cut_link":
            found.cuts[cell.devices.index(each.host)].append(span)
        elif each.program == DEVICE_AGENT and not each.is_death:
            found.stops[cell.devices.index(each.host)].append(span)
        elif each.program == EDGE_SERVER:
            spans = found.server_deaths if each.is_death else found.server_stops
            spans[cell.servers.index(each.host)].append(span)
        elif each.program == CONTROLLER:
            found.controller.append(span)
    return found
