"""The queues of a testbed without refusals, many tasks at a time: the rules of `edgebed.simulation.testbed.lane`.

There every event is handled by itself. Here a task's whole way is computed when it becomes ready, because first come,
first served lets nobody in between who comes later: a recursion per queue, all queues at once. That is exact as long as
no server refuses, no task is split and no channel is shaped; where one of these would happen `TooCrowded` is raised,
and whoever drives starts again with `edgebed.simulation.testbed.pipeline.Pipeline`, which can do everything.
"""

from __future__ import annotations

import math
import sys

import numpy as np

from edgebed.simulation.testbed.ingredients import (
    DONE,
    FAILED,
    UNKNOWN,
    Ended,
    FloatArray,
    IndexArray,
    Ingredients,
    Layout,
)
from edgebed.simulation.testbed.lane import NOT_STARTED, TIMEOUT
from edgebed.simulation.testbed.pipeline import Load
from orchestrator.replay.endings import ended_away, ended_here
from orchestrator.replay.knowledge import Knowledge
from orchestrator.replay.open_tasks import OpenTasks, turns_of
from orchestrator.replay.workers import Workers

_NEVER = math.inf
_LAST_S = sys.float_info.max


class TooCrowded(Exception):
    """Something comes that only the queues event by event can tell; the text says what."""


def is_simple(layout: Layout) -> bool:
    """Can queues of this layout be computed here at all?"""
    return not layout.is_shaped and not any(
        rule.per_other or rule.per_excess
        for group, rule in enumerate(layout.processors)
        if group in layout.device_processors or group in layout.server_processors
    )


def _here() -> OpenTasks:
    """Tasks of the devices. ``leave_s``: when the executor is free again; see `_away`."""
    return OpenTasks(
        codes=("task", "device", "frames", "outcome", "reason"),
        numbers=("arrived_s", "ready_s", "limit_s", "base_s", "begin_s", "leave_s", "known_s", "drop_s"),
        marks=("is_placed",),
    )


def _away() -> OpenTasks:
    """Tasks of the edge.

    ``begin_s``: of the upload. ``leave_s``: of that, when it frees the uplink. ``drop_s``: when its time-out withdraws
    a task; infinite when it does not. An instant that is not known yet is infinite too.
    """
    return OpenTasks(
        codes=("task", "device", "server", "frames", "outcome", "reason"),
        numbers=(
            *("bytes", "arrived_s", "ready_s", "limit_s", "base_s", "uplink_s", "hold_s", "downlink_s"),
            *("begin_s", "leave_s", "received_s", "serve_s", "served_s", "known_s", "drop_s"),
        ),
        marks=("is_placed", "is_served", "is_learned"),
    )


class SteadyQueues:
    """Lanes of queues on one clock, with the face of `edgebed.simulation.testbed.pipeline.Pipeline`.

    A task is told of once, when its last word is known.

    Args:
        layout: of every lane; `is_simple`.
    """

    def __init__(self, layout: Layout, lanes: int = 1) -> None:
        self.layout, self.lanes, self.now_s = layout, lanes, 0.0
        devices, servers = lanes * layout.devices, lanes * layout.servers
        self._devices, self._servers = devices, servers
        self._here, self._away = _here(), _away()
        self._knowledge = Knowledge(layout, lanes, self._here, self._away)
        self._executor_free_s = np.zeros(devices)
        self._uplink_free_s = np.zeros(devices * layout.servers)
        self._workers = Workers(layout.workers * lanes)
        self._held = np.zeros(servers, np.int64)

    @property
    def open(self) -> int:
        """Tasks without an outcome."""
        return len(self._here) + len(self._away)

    def submit(self, tasks: Ingredients) -> None:
        """Take decided tasks, of any lanes, ready now or later.

        Raises:
            TooCrowded: one is split, or of no server.
        """
        if not len(tasks):
            return
        is_edge = tasks.edge_frames > 0
        if (is_edge & ((tasks.edge_frames < tasks.frames) | (tasks.server < 0))).any():
            raise TooCrowded("a task is split between device and edge")
        for open_tasks, rows, base_s in (
            (self._here, np.flatnonzero(~is_edge), tasks.device_compute_s),
            (self._away, np.flatnonzero(is_edge), tasks.server_compute_s),
        ):
            known = {
                "task": tasks.task,
                "device": tasks.device,
                "server": tasks.server,
                "frames": tasks.frames,
                "bytes": tasks.upload_bytes,
                "arrived_s": tasks.arrived_s,
                "ready_s": tasks.ready_s,
                "limit_s": tasks.limit_s,
                "base_s": base_s,
                "uplink_s": tasks.uplink_s,
                "hold_s": tasks.uplink_hold_s,
                "downlink_s": tasks.downlink_s,
            }
            open_tasks.add(rows, known, otherwise_s=_NEVER)

    def advance(self, until_s: float) -> Ended:
        """Let time pass, up to and at ``until_s``; returns the tasks whose last word is known by then.

        Raises:
            TooCrowded: a server would refuse a task.
        """
        last_s = min(until_s, _LAST_S)  # what never comes is infinite, and does not come then either
        self._compute(self._now_ready(self._here, last_s))
        self._upload(self._now_ready(self._away, last_s))
        self._serve(last_s)
        self._check_room(last_s)
        self._knowledge.learn(last_s)
        ended = self._take_ended(last_s)
        self.now_s = until_s if math.isfinite(until_s) else max(self.now_s, float(ended.known_s.max(initial=0.0)))
        return ended

    # -- on the device and up -----------------------------------------------------------------------------------------

    def _now_ready(self, tasks: OpenTasks, until_s: float) -> IndexArray:
        """What has become ready, and in time."""
        new = np.flatnonzero(~tasks.mark("is_placed") & (tasks["ready_s"] <= until_s))
        if not len(new):
            return new
        tasks.mark("is_placed")[new] = True
        ready_s = tasks["ready_s"][new]
        is_late = ready_s >= tasks["limit_s"][new]
        if is_late.any():
            late = new[is_late]
            _end(tasks, late, FAILED, NOT_STARTED, ready_s[is_late])
            tasks["drop_s"][late] = ready_s[is_late]
            new = new[~is_late]
        return new

    def _compute(self, new: IndexArray) -> None:
        """Put tasks into the queues of their devices, in the order in which they became ready."""
        if not len(new):
            return
        tasks, free_s = self._here, self._executor_free_s
        order, turns = turns_of(tasks.code("device")[new], tasks["ready_s"][new])
        rows = new[order]
        device, ready_s, base_s = tasks.code("device")[rows], tasks["ready_s"][rows], tasks["base_s"][rows]
        limit_s, begin_s = tasks["limit_s"][rows], np.empty(len(rows))
        for turn in turns:
            at = device[turn]
            before_s = free_s[at]
            starts_s = np.maximum(ready_s[turn], before_s, out=begin_s[turn])
            # What ends at an instant makes room before time-outs come.
            free_s[at] = np.where(starts_s > limit_s[turn], before_s, starts_s + base_s[turn])
        is_dropped = begin_s > limit_s
        end_s = begin_s + base_s
        tasks["begin_s"][rows] = np.where(is_dropped, _NEVER, begin_s)
        tasks["leave_s"][rows] = np.where(is_dropped, _NEVER, end_s)
        tasks["drop_s"][rows] = np.where(is_dropped, limit_s, _NEVER)
        _end(tasks, rows[is_dropped], FAILED, NOT_STARTED, limit_s[is_dropped])
        _end(tasks, rows[~is_dropped], DONE, 0, end_s[~is_dropped])

    def _upload(self, new: IndexArray) -> None:
        """Put tasks into the queues of their uplinks, likewise."""
        if not len(new):
            return
        tasks, free_s, servers = self._away, self._uplink_free_s, self.layout.servers
        uplinks = tasks.code("device")[new] * servers + tasks.code("server")[new] % servers
        order, turns = turns_of(uplinks, tasks["ready_s"][new])
        rows, uplink = new[order], uplinks[order]
        ready_s, hold_s, limit_s = tasks["ready_s"][rows], tasks["hold_s"][rows], tasks["limit_s"][rows]
        begin_s = np.empty(len(rows))
        for turn in turns:
            at, until_s = uplink[turn], limit_s[turn]
            before_s = free_s[at]
            starts_s = np.maximum(ready_s[turn], before_s, out=begin_s[turn])
            stops_s = np.minimum(starts_s + hold_s[turn], until_s)
            free_s[at] = np.where(starts_s >= until_s, before_s, stops_s)
        self._note_sent(rows, begin_s, begin_s + hold_s, limit_s)

    def _note_sent(self, rows: IndexArray, begin_s: FloatArray, sent_s: FloatArray, limit_s: FloatArray) -> None:
        tasks = self._away
        is_waiting = begin_s >= limit_s
        is_sent = ~(sent_s > limit_s) & ~is_waiting
        received_s = sent_s + (tasks["uplink_s"][rows] - tasks["hold_s"][rows])
        is_lost = is_sent & (received_s > limit_s)  # on the way when its time-out comes
        tasks["begin_s"][rows] = np.where(is_waiting, _NEVER, begin_s)
        tasks["leave_s"][rows] = np.where(is_waiting, _NEVER, np.minimum(sent_s, limit_s))
        tasks["drop_s"][rows] = np.where(is_sent & ~is_lost, _NEVER, limit_s)
        tasks["received_s"][rows] = np.where(is_sent & ~is_lost, received_s, _NEVER)
        _end(tasks, rows[is_lost], UNKNOWN, TIMEOUT, limit_s[is_lost])
        _end(tasks, rows[~is_sent], FAILED, NOT_STARTED, limit_s[~is_sent])

    # -- at the servers -----------------------------------------------------------------------------------------------

    def _serve(self, until_s: float) -> None:
        """Let servers take what has been received, in that order."""
        tasks = self._away
        new = np.flatnonzero((tasks["received_s"] <= until_s) & ~tasks.mark("is_served"))
        if not len(new):
            return
        tasks.mark("is_served")[new] = True
        rows = new[np.argsort(tasks["received_s"][new], kind="stable")]
        received_s, limit_s, base_s = tasks["received_s"][rows], tasks["limit_s"][rows], tasks["base_s"][rows]
        begin_s = self._workers.take(tasks.code("server")[rows], received_s, limit_s, base_s)
        is_served = begin_s <= limit_s
        served_s = begin_s + base_s
        is_answered = is_served & (served_s <= limit_s)
        tasks["serve_s"][rows] = np.where(is_served, begin_s, _NEVER)
        tasks["served_s"][rows] = np.where(is_served, served_s, _NEVER)
        tasks["drop_s"][rows] = np.where(is_answered, _NEVER, limit_s)
        _end(tasks, rows[is_answered], DONE, 0, (served_s + tasks["downlink_s"][rows])[is_answered])
        # Whoever is served when the time-out comes keeps its worker, and nobody waits for the answer.
        known_s = np.maximum(limit_s, np.where(is_served, served_s, received_s))
        _end(tasks, rows[~is_answered], UNKNOWN, TIMEOUT, known_s[~is_answered])

    def _check_room(self, until_s: float) -> None:
        """Would a server have refused one of the uploads that began since the last time?"""
        tasks = self._away
        is_new = (tasks["begin_s"] >= self.now_s) & (tasks["begin_s"] <= until_s)
        if not is_new.any():
            return
        room = np.tile(np.array(self.layout.queue_tasks, np.int64), self.lanes)
        most = self._held + np.bincount(tasks.code("server")[is_new], minlength=self._servers)
        for server in np.flatnonzero(most > room).tolist():
            at = (tasks.code("server") == server) & np.isfinite(tasks["begin_s"])
            begins, leaves = np.sort(tasks["begin_s"][at]), np.sort(self._released_s()[at])
            held = np.arange(1, len(begins) + 1) - np.searchsorted(leaves, begins, side="right")
            if held.max() > room[server]:
                raise TooCrowded(f"a server would hold {held.max()} tasks, and takes {room[server]}")

    def _released_s(self) -> FloatArray:
        """When each task leaves its server; infinite for what has not been told yet."""
        tasks = self._away
        return np.where(np.isfinite(tasks["served_s"]), tasks["served_s"], tasks["drop_s"])

    def _take_ended(self, until_s: float) -> Ended:
        parts = []
        for tasks, ended_of in ((self._here, ended_here), (self._away, ended_away)):
            is_over = tasks["known_s"] <= until_s
            rows = np.flatnonzero(is_over)
            if len(rows):
                parts.append(ended_of(tasks, rows))
                tasks.keep(~is_over)
        away = self._away
        at = (away["begin_s"] <= until_s) & (self._released_s() > until_s)
        self._held = np.bincount(away.code("server")[at], minlength=self._servers)
        return Ended.joined(parts) if parts else Ended.nobody()

    def load(self) -> Load:
        """The state of the queues now, as `edgebed.simulation.testbed.pipeline.Pipeline.load` has it."""
        return self._knowledge.load(self.now_s, self._held)


def _end(tasks: OpenTasks, rows: IndexArray, outcome: int, reason: int, known_s: FloatArray) -> None:
    if len(rows):
        tasks.code("outcome")[rows], tasks.code("reason")[rows], tasks["known_s"][rows] = outcome, reason, known_s
