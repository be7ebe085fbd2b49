"""Tasks that ran while something was broken on purpose: hosts were not themselves, so nothing is fitted to them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgebed.trace.runs import Run
from orchestrator.calibration.distributions import FloatArray
from orchestrator.calibration.traces import Columns
from orchestrator.faults.schedule import BEGIN, END
from orchestrator.provision.layout import CONTROLLER, DEVICE_AGENT, EDGE_SERVER

Window = tuple[float, float]
"""From when until when, run clock; without an end, until that of the cell."""

_TELLING = frozenset({BEGIN, END, "restarted", "server_up", "controller_up"})

_Event = tuple[float, str, str, dict[str, Any]]


def windows_of(run: Run) -> list[Window]:
    """When faults were done to the hosts of a run, by its events.

    What is killed is back when it says so, or when all devices have seen it come back.
    """
    rows = run.query("SELECT t_s, host, kind, detail FROM events ORDER BY t_s").rows
    events = [(t_s, host, kind, json.loads(detail)) for t_s, host, kind, detail in rows if kind in _TELLING]
    return [(event[0], _end_s(event, events[place:])) for place, event in enumerate(events) if event[2] == BEGIN]


def _end_s(begin: _Event, later: Sequence[_Event]) -> float:
    about = begin[3]
    if about["kind"] in ("kill", "reboot"):
        return min(_back_s(begin[1], about.get("program", DEVICE_AGENT), later), default=math.inf)
    ends = (t_s for t_s, _, kind, detail in later if kind == END and detail["fault"] == about["fault"])
    return next(ends, math.inf)


def _back_s(host: str, program: str, later: Sequence[_Event]) -> Iterator[float]:
    """When a program was there again, for each who tells of it."""
    last_s: dict[str, float] = {}
    for t_s, teller, kind, detail in later:
        if program == DEVICE_AGENT and kind == "restarted" and teller == host:
            yield t_s
        is_seen = (program == EDGE_SERVER and kind == "server_up" and detail.get("server") == host) or (
            program == CONTROLLER and kind == "controller_up"
        )
        if is_seen and detail.get("restarted"):
            last_s.setdefault(teller, t_s)
    if last_s:
        yield max(last_s.values())


def is_disturbed(columns: Columns, windows: Sequence[Window]) -> FloatArray:
    """Which tasks were under way in one of some windows, ``[n]``: 1 or 0.

    Args:
        columns: of one run: ``cell_id``, ``arrived_s``, ``latency_s``.
        windows: of the same run.
    """
    arrived_s, cells = columns["arrived_s"], columns["cell_id"]
    ended_s = arrived_s + np.nan_to_num(columns["latency_s"])
    found = np.zeros(len(arrived_s))
    for from_s, until_s in windows:
        before = np.flatnonzero(arrived_s <= from_s)
        if len(before):  # cells follow each other on the run clock
            cell = cells[before[np.argmax(arrived_s[before])]]
            found[(cells == cell) & (arrived_s <= until_s) & (ended_s >= from_s)] = 1.0
    return found
