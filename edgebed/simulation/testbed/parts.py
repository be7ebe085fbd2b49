"""The parts of tasks as a lane has them: where each stands, and what can happen to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgebed.simulation.testbed.ingredients import NOWHERE

# What can happen, in the order in which it is handled at one instant: what ends makes room for what begins.
COMPUTED, SERVED, BACK, REFUSED, RECEIVED, SENT, CARRIED, READY, TIMED_OUT, REJOINED = range(10)

# Where a part stands.
WAITING, RUNNING, UPLOADING, SENT_OFF, AT_SERVER, SERVING, RETURNING, ENDED = range(8)


@dataclass(slots=True, eq=False)
class Part:
    """Some frames of a task at one site. Instants are 0 until they come.

    Attributes:
        twin: the other part of a split task.
        is_refused: its refusal is on the way, or has come. refusal: code of its reason; 0: the server was full.
        life: which program of the server, of those that followed each other, has counted it.
        base_s: what it computes when nothing else runs; compute_s: what it did.
        idle_s: of ``compute_s``, its program stood still.
        spent: in the uplink's queue and on the uplink, before a server refused it.
        is_told: its task's outcome has been told, maybe not for the last time.
    """

    task: int
    device: int
    arrived_s: float
    ready_s: float
    limit_s: float
    frames: int
    base_s: float
    since_s: float
    is_edge: bool = False
    server: int = NOWHERE
    channel: int = 0
    bytes: float = 0.0
    uplink_s: float = 0.0
    hold_s: float = 0.0
    downlink_s: float = 0.0
    refusal_s: float = 0.0
    fallback_s: float = 0.0
    twin: Part | None = None
    state: int = WAITING
    outcome: int | None = None
    is_told: bool = False
    is_refused: bool = False
    refusal: int = 0
    life: int = 0
    spent: tuple[float, float] = (0.0, 0.0)
    upload_s: float = 0.0
    air_s: float = 0.0
    received_s: float = 0.0
    started_s: float = 0.0
    compute_s: float = 0.0
    idle_s: float = 0.0
    ended_s: float = 0.0
    granted_bps: float = math.nan
