"""What the fits look at: the runs, their rows, what hosts told of themselves, and who shares processors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgebed.errors import BadInput
from edgebed.metering.board import Board
from orchestrator.calibration.observed import Observed, observe
from orchestrator.calibration.rows import Rows, read_rows
from orchestrator.calibration.traces import Trace
from orchestrator.inventory import Host
from orchestrator.provenance import VIRTUAL

MACHINE = "machine"
"""The group of processors of hosts that are processes, or virtual hosts, of one machine."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known.

    Attributes:
        group_of: processors that a host shares, by host.
        cores: of each group.
    """

    traces: Sequence[Trace]
    rows: Rows
    observed: Observed
    group_of: dict[str, str]
    cores: dict[str, float]
    cycles_per_frame: float

    @property
    def devices(self) -> list[Host]:
        """Of all runs, each once."""
        return list({host.name: host for trace in self.traces for host in trace.plan.devices}.values())

    @property
    def servers(self) -> list[Host]:
        """Likewise."""
        return list({host.name: host for trace in self.traces for host in trace.plan.edge_servers}.values())

    @property
    def boards(self) -> dict[str, Board]:
        """Content of the board files, by name."""
        return {name: board for trace in self.traces for name, board in trace.plan.boards.items()}

    def sharing(self, host: Host) -> tuple[list[str], float]:
        """The hosts on this one's processors, itself included, and how many cores these have."""
        group = self.group_of.get(host.name)
        if group is None:
            board = self.boards.get(host.board)
            return [host.name], float(board.cores if board else 1)
        return [name for name, other in self.group_of.items() if other == group], self.cores[group]


def gather(traces: Sequence[Trace]) -> Evidence:
    """Read runs.

    Raises:
        BadInput: no task in them is of use.
    """
    rows = read_rows(traces)
    usable = rows.is_usable & rows.is_done
    if not usable.any():
        names = ", ".join(str(trace.run.path) for trace in traces)
        raise BadInput(
            f"{names}: no task that counts is done (warm-up and flagged ones do not); give runs that worked, "
            "`edgebed runs show RUN` says what they have"
        )
    group_of, cores = _processors(traces)
    per_frame = (rows["cycles"] / rows["frames"])[usable]
    if np.isnan(per_frame).all():
        names = ", ".join(str(trace.run.path) for trace in traces)
        raise BadInput(f"{names}: of no task that counts are `cycles` known; `edgebed import` can map them")
    return Evidence(traces, rows, observe(traces), group_of, cores, float(np.nanmedian(per_frame)))


def _processors(traces: Sequence[Trace]) -> tuple[dict[str, str], dict[str, float]]:
    """Hosts that share the processors of one machine: local ones, and virtual ones."""
    group_of: dict[str, str] = {}
    cores = 0.0
    for trace in traces:
        facts = trace.run.manifest.hosts
        for host in trace.plan.hosts:
            mine: Mapping[str, Any] = facts.get(host.name, {})
            if host.connection == "local" or VIRTUAL in mine:
                group_of[host.name] = MACHINE
                cores = max(cores, float(mine.get("processors") or 0.0))
    # Where nobody tells how many cores there are, none are taken to be short.
    return (group_of, {MACHINE: cores or float(len(group_of))}) if len(group_of) > 1 else ({}, {})
