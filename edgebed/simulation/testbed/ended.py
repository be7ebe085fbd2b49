"""What is told of tasks that have ended: the part of a row of `Ended` that follows ``known_s``."""

from __future__ import annotations

import math
from typing import Any

from edgebed.simulation.testbed.ingredients import DONE, NOWHERE
from edgebed.simulation.testbed.parts import Part
from edgebed.types import Site

_NO_STAGES = (0.0,) * 7


def whole_row(part: Part, outcome: int, is_placed: bool, first_server: int) -> tuple[Any, ...]:
    """Of a task that has one part.

    Args:
        part: as it has ended.
        outcome: of the task.
        is_placed: it is known where it was.
        first_server: number of the first server of the part's lane.
    """
    decision_s, is_done = part.ready_s - part.arrived_s, outcome == DONE
    stages = _stages(part) if is_done else _NO_STAGES
    if not is_placed:
        return (NOWHERE, NOWHERE, 0, decision_s, *stages, 0.0, 0.0, 0.0, math.nan, False)
    if not part.is_edge:
        busy_s = part.compute_s - part.idle_s if is_done else 0.0
        return (0, NOWHERE, 0, decision_s, *stages, busy_s, 0.0, 0.0, math.nan, is_done)
    used = (0.0, part.compute_s - part.idle_s, part.air_s) if is_done else (0.0, 0.0, 0.0)
    return (1, _server_of(part, first_server), part.frames, decision_s, *stages, *used, part.granted_bps, is_done)


def split_row(part: Part, twin: Part, outcome: int, is_placed: bool, first_server: int) -> tuple[Any, ...]:
    """Of a split task; one whose edge part was refused has two parts on the device. See `whole_row`."""
    parts = (part, twin)
    decision_s = part.ready_s - part.arrived_s
    edge = next((each for each in parts if each.is_edge), None) if is_placed else None
    site = NOWHERE if not is_placed else Site.DEVICE if edge is None else Site.SPLIT
    stages = _stages(max(parts, key=_finished_s)) if outcome == DONE else _NO_STAGES
    done = [each for each in parts if each.outcome == DONE]
    return (
        site, NOWHERE if edge is None else _server_of(edge, first_server), 0 if edge is None else edge.frames,
        decision_s,
        *stages,
        sum(each.compute_s - each.idle_s for each in done if not each.is_edge),
        sum(each.compute_s - each.idle_s for each in done if each.is_edge),
        sum(each.air_s for each in done if each.is_edge),
        math.nan if edge is None else edge.granted_bps, bool(done),
    )  # fmt: skip


def _server_of(part: Part, first_server: int) -> int:
    return NOWHERE if part.server == NOWHERE else part.server + first_server


def _finished_s(part: Part) -> float:
    return part.ended_s + part.downlink_s if part.is_edge else part.ended_s


def _stages(part: Part) -> tuple[float, ...]:
    """The seven stages of a part that is done."""
    if not part.is_edge:
        queue_s = part.started_s - part.since_s
        return (queue_s, part.compute_s, *part.spent, 0.0, 0.0, 0.0)
    # Durations that were put in come out as they were, without the rounding of instants.
    return (
        0.0,
        0.0,
        part.upload_s - part.since_s,
        part.air_s,
        part.started_s - part.received_s,
        part.compute_s,
        part.downlink_s,
    )
