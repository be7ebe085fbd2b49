"""What the planned faults of a simulated cell come to: whether each can be done, and when it is over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgebed.protocol.cells import CellSpec
from orchestrator.faults.kinds import KINDS
from orchestrator.faults.schedule import PlannedFault
from orchestrator.provision.layout import DEVICE_AGENT

RESTART_S = 1.7
"""From the death of a program until another one answers: the median of five kills on local hosts of a device's program,
of an edge server and of a controller alike."""

LOADING_S = 0.6
"""So much later an edge server takes tasks again: it is told the cell, and loads what it needs. Of five kills, too."""

BOOT_S = 30.0
"""From a reboot until the host answers again, where the experiment does not say it (``boot_s``). Assumed."""


@dataclass(frozen=True, slots=True)
class Happening:
    """A planned fault, as it happens.

    Attributes:
        program: that stands still or dies; empty: the fault is of another kind.
        is_done: False: its program does not run just then.
        until_s: when it is lifted, or over; of what dies: when its successor answers.
        is_cut_short: the end of the cell lifts it.
    """

    fault: PlannedFault
    program: str
    is_done: bool
    until_s: float
    is_cut_short: bool = False

    @property
    def from_s(self) -> float:
        """When it begins."""
        return self.fault.at_s

    @property
    def host(self) -> str:
        """Whom it happens to."""
        return self.fault.host

    @property
    def is_death(self) -> bool:
        """Does a program die of it?"""
        return self.fault.kind in ("kill", "reboot")


def happening(cell: CellSpec, faults: Sequence[PlannedFault]) -> Iterator[Happening]:
    """The faults of a cell, in the order of time."""
    back_s: dict[tuple[str, str], float] = {}
    end_s = end_of(cell)
    for fault in faults:
        program = DEVICE_AGENT if fault.kind == "reboot" else fault.program
        is_there = not program or fault.at_s >= back_s.get((fault.host, program), 0.0)
        if fault.kind in ("kill", "reboot"):
            until_s = back_at_s(fault) + RESTART_S
            if is_there:
                back_s[fault.host, program] = until_s
            yield Happening(fault, program, is_there, until_s)
        else:
            yield Happening(fault, program, is_there, min(fault.end_s, end_s), fault.end_s > end_s)


def end_of(cell: CellSpec) -> float:
    """When the last task of a cell has timed out, and whatever lasts is lifted."""
    return cell.horizon_s + cell.epoch_s + cell.timeouts.task_s


def back_at_s(fault: PlannedFault) -> float:
    """When the host answers again; after a kill it has never ceased to."""
    return fault.at_s + (fault.parameters.get("boot_s", BOOT_S) if fault.kind == "reboot" else 0.0)


def lasts(fault: PlannedFault) -> bool:
    """Is something lifted, or over, in the end?"""
    return KINDS[fault.kind].lasts or fault.kind == "reboot"
