"""What the trace of a simulated cell says of its faults, in the words of hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from device_agent.agent import STALL_S
from edgebed.protocol.cells import CellSpec
from edgebed.trace.schema import EventRecord
from orchestrator.faults.happening import Happening, back_at_s, end_of, lasts
from orchestrator.faults.schedule import BEGIN, END, FAILED, Act
from orchestrator.faults.silences import DEAD_AFTER_S, Silences, Span
from orchestrator.faults.virtual import Outage, outages_of

RESTARTED = "restarted"
"""Kind of event: a program takes up where another one was cut off."""

_Told = tuple[float, str, str, dict[str, object]]


def fault_events(
    cell: CellSpec, start_s: float, happenings: Sequence[Happening], silences: Silences
) -> list[tuple[float, EventRecord]]:
    """What a cell's trace says of its faults; with the instant of the cell, in the order of time.

    Args:
        cell: with these faults.
        start_s: the run clock at its start.
        happenings: the faults.
        silences: that they come to.
    """
    outages = outages_of(cell, happenings)
    heard = (each for each in _of_peers(cell, silences) if not _is_down(cell, outages, each))
    told = [*_of_faults(cell, happenings), *_of_programs(cell, outages, silences), *heard]
    return [
        (at_s, EventRecord(t_s=start_s + at_s, host=host, kind=kind, detail=json.dumps(detail)))
        for at_s, host, kind, detail in sorted(told, key=lambda each: each[0])
        if at_s <= end_of(cell)
    ]


def _is_down(cell: CellSpec, outages: Sequence[Outage], told: _Told) -> bool:
    """Is there no program that could say so?"""
    at_s, host, _, _ = told
    return any(cell.devices[each.slot] == host and each.from_s <= at_s < each.until_s for each in outages)


def _of_faults(cell: CellSpec, happenings: Sequence[Happening]) -> Iterator[_Told]:
    for each in happenings:
        fault = each.fault
        detail = Act(f"{cell.serial}-{fault.number}", fault).detail()
        if not each.is_done:
            yield (
                each.from_s,
                each.host,
                FAILED,
                detail | {"problem": f"{each.host}: {each.program} does not run just now"},
            )
            continue
        yield each.from_s, each.host, BEGIN, detail
        if lasts(fault):
            by = "end" if each.is_cut_short else "time"
            over_s = min(back_at_s(fault), end_of(cell)) if each.is_death else each.until_s
            yield over_s, each.host, END, detail | {"by": by}


def _of_programs(cell: CellSpec, outages: Sequence[Outage], silences: Silences) -> Iterator[_Told]:
    for outage in outages:
        detail: dict[str, object] = {"alive_cell_s": outage.alive_s, "cell_s": outage.until_s}
        yield outage.until_s, cell.devices[outage.slot], RESTARTED, detail
    for server, spans in silences.server_deaths.items():
        for span in spans:
            yield span.until_s, cell.servers[server], RESTARTED, {"cell_s": span.until_s}
    for span in silences.controller:
        if span.is_another:
            yield span.until_s, "orchestrator", "controller_told_again", {"cell": cell.cell_id}
    for slot, spans in silences.stops.items():
        for span in spans:
            yield from _of_stop(cell, cell.devices[slot], span)


def _of_stop(cell: CellSpec, device: str, span: Span) -> Iterator[_Told]:
    """A device that stood still did not lose the others: they lost it."""
    if span.until_s - span.from_s >= STALL_S:
        yield span.until_s, device, "stalled", {"seconds": round(span.until_s - span.from_s, 3)}
    if span.lost_s is not None:
        yield span.until_s, device, "controller_up", {"restarted": False}
        for server in cell.servers:
            yield span.until_s, device, "server_up", {"server": server, "restarted": False}


def _of_peers(cell: CellSpec, silences: Silences) -> Iterator[_Told]:
    for slot, device in enumerate(cell.devices):
        for span in silences.of_controller(slot):
            yield from _lost_and_back(device, "controller", "controller", {}, span)
        for index, server in enumerate(cell.servers):
            for span in silences.of_server(slot, index):
                yield from _lost_and_back(device, "server", server, {"server": server}, span)


def _lost_and_back(device: str, what: str, name: str, about: dict[str, object], span: Span) -> Iterator[_Told]:
    if span.lost_s is not None:
        yield span.lost_s, device, f"{what}_lost", about | {"reason": f"{name} was silent for {DEAD_AFTER_S:g} s"}
    if span.lost_s is not None or span.is_another:
        yield span.until_s, device, f"{what}_up", about | {"restarted": span.is_another}
