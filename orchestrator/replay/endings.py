"""What tasks came to whose last word is known: the stages of their way, as `orchestrator.replay.queues` computed it."""

from __future__ import annotations

import numpy as np

from edgebed.simulation.testbed.ingredients import DONE, NOWHERE, Ended, FloatArray, IndexArray
from edgebed.trace.schema import STAGES
from edgebed.types import Site
from orchestrator.replay.open_tasks import OpenTasks


def ended_here(tasks: OpenTasks, rows: IndexArray) -> Ended:
    """Of tasks of the devices."""
    is_done = tasks.code("outcome")[rows] == DONE
    since_s, base_s = tasks["ready_s"][rows], tasks["base_s"][rows]
    stages = np.zeros((len(rows), len(STAGES)))
    stages[:, 0] = np.where(is_done, tasks["begin_s"][rows], since_s) - since_s
    stages[:, 1] = np.where(is_done, base_s, 0.0)
    return _ended(tasks, rows, Site.DEVICE, stages, {"device_busy_s": stages[:, 1]})


def ended_away(tasks: OpenTasks, rows: IndexArray) -> Ended:
    """Of tasks of the edge."""
    is_done = tasks.code("outcome")[rows] == DONE
    since_s, base_s = tasks["ready_s"][rows], tasks["base_s"][rows]
    stages = np.zeros((len(rows), len(STAGES)))
    stages[:, 2] = np.where(is_done, tasks["begin_s"][rows], since_s) - since_s
    stages[:, 3] = np.where(is_done, tasks["uplink_s"][rows], 0.0)
    stages[:, 4] = np.where(is_done, tasks["serve_s"][rows], 0.0) - np.where(is_done, tasks["received_s"][rows], 0.0)
    stages[:, 5] = np.where(is_done, base_s, 0.0)
    stages[:, 6] = np.where(is_done, tasks["downlink_s"][rows], 0.0)
    return _ended(tasks, rows, Site.EDGE, stages, {"server_busy_s": stages[:, 5], "air_s": stages[:, 3]})


def _ended(tasks: OpenTasks, rows: IndexArray, site: Site, stages: FloatArray, used: dict[str, FloatArray]) -> Ended:
    """What both sites have in common; ``used``: what else is not 0 of a task's use of things."""
    outcome, nothing = tasks.code("outcome")[rows], np.zeros(len(rows))
    is_done = outcome == DONE
    since_s = tasks["ready_s"][rows]
    decision_s = since_s - tasks["arrived_s"][rows]
    latency_s = decision_s.copy()
    for stage in range(len(STAGES)):
        latency_s += stages[:, stage]
    was_ready = is_done | (since_s < tasks["limit_s"][rows])
    server = tasks.code("server")[rows] if site is Site.EDGE else NOWHERE
    frames = tasks.code("frames")[rows] if site is Site.EDGE else 0
    return Ended(
        task=tasks.code("task")[rows],
        device=tasks.code("device")[rows],
        outcome=outcome,
        reason=tasks.code("reason")[rows],
        known_s=tasks["known_s"][rows],
        site=np.where(was_ready, int(site), NOWHERE),
        server=np.where(was_ready, server, NOWHERE),
        edge_frames=np.where(was_ready, frames, 0),
        decision_s=decision_s,
        stages=stages,
        latency_s=np.where(is_done, latency_s, np.nan),
        device_busy_s=used.get("device_busy_s", nothing),
        server_busy_s=used.get("server_busy_s", nothing),
        air_s=used.get("air_s", nothing),
        granted_bps=np.full(len(rows), np.nan),
        has_resources=is_done,
    )
