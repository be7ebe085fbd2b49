"""The queues of a testbed without refusals, many tasks at a time: the rules of `edgebed.simulation.testbed.lane`.

There every event is handled by itself. Here a task's whole way is computed when it becomes ready, because first come,
first served lets nobody in between who comes later: a recursion per queue, all queues at once. That is exact as long as
no server refuses, no task is split and no channel is shaped; where one of these would happen `TooCrowded` is raised,
and whoever drives starts again with `edgebed.simulation.testbed.pipeline.Pipeline`, which can do everything.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from heapq import heapreplace

import numpy as np

from edgebed.simulation.testbed.ingredients import (
    DONE,
    FAILED,
    NOWHERE,
    UNKNOWN,
    Ended,
    FloatArray,
    IndexArray,
    Ingredients,
    Layout,
)
from edgebed.simulation.testbed.lane import DEVICE_SMOOTHING, NOT_STARTED, SERVER_SMOOTHING, TIMEOUT
from edgebed.simulation.testbed.pipeline import Load
from edgebed.trace.schema import STAGES
from edgebed.types import BoolArray, Site

_NEVER = math.inf
_LAST_S = sys.float_info.max


class TooCrowded(Exception):
    """Something comes that only the queues event by event can tell; the text says what."""


def is_simple(layout: Layout) -> bool:
    """Can queues of this layout be computed here at all?"""
    return not layout.channel_rate_bps and not any(
        rule.per_other or rule.per_excess
        for group, rule in enumerate(layout.processors)
        if group in layout.device_processors or group in layout.server_processors
    )


class _Open:
    """Tasks without an end, one column an array, all of one length.

    ``begin_s``: of computing on the device, or of the upload. ``leave_s``: of that, when it frees the executor or the
    uplink. ``drop_s``: when its time-out withdraws it; infinite when it does not. An instant that is not known yet is
    infinite too.
    """

    NUMBERS = (
        *("task", "device", "server", "frames", "outcome", "reason"),
        *("bytes", "arrived_s", "ready_s", "limit_s", "base_s", "uplink_s", "hold_s", "downlink_s"),
        *("begin_s", "leave_s", "received_s", "serve_s", "served_s", "known_s", "drop_s"),
        *("is_edge", "is_placed", "is_served", "is_learned"),
    )

    def __init__(self) -> None:
        self.columns: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {
            name: np.zeros(0) for name in self.NUMBERS
        }

    def __len__(self) -> int:
        return len(self.columns["task"])

    def __getitem__(self, name: str) -> FloatArray:
        return self.columns[name]

    def add(self, new: dict[str, FloatArray]) -> None:
        self.columns = {name: np.concatenate([self.columns[name], new[name]]) for name in self.NUMBERS}

    def keep(self, kept: BoolArray) -> None:
        self.columns = {name: values[kept] for name, values in self.columns.items()}

    def index(self, name: str, where: BoolArray | IndexArray | slice = slice(None)) -> IndexArray:
        found: IndexArray = self.columns[name][where].astype(np.int64)
        return found


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
        self._open = _Open()
        self._executor_free_s = np.zeros(devices)
        self._uplink_free_s = np.zeros(devices * layout.servers)
        self._workers: list[list[float]] = [[0.0] * layout.workers[each % layout.servers] for each in range(servers)]
        self._device_frame_s = np.tile(np.array(layout.device_frame_s, np.float64), lanes)
        self._server_frame_s = np.tile(np.array(layout.server_frame_s, np.float64), lanes)
        self._measured_bps = np.zeros(devices)
        self._held = np.zeros(servers, np.int64)

    @property
    def open(self) -> int:
        """Tasks without an outcome."""
        return len(self._open)

    def submit(self, tasks: Ingredients) -> None:
        """Take decided tasks, of any lanes, ready now or later.

        Raises:
            TooCrowded: one is split, or of no server.
        """
        if not len(tasks):
            return
        is_edge = tasks.edge_frames > 0
        if (is_edge & (tasks.edge_frames < tasks.frames)).any() or (is_edge & (tasks.server < 0)).any():
            raise TooCrowded("a task is split between device and edge")
        count = len(tasks)
        never, zero = np.full(count, _NEVER), np.zeros(count)
        known = {
            "task": tasks.task,
            "device": tasks.device,
            "server": np.where(is_edge, tasks.server, NOWHERE),
            "frames": tasks.frames,
            "bytes": tasks.upload_bytes,
            "arrived_s": tasks.arrived_s,
            "ready_s": tasks.ready_s,
            "limit_s": tasks.limit_s,
            "base_s": np.where(is_edge, tasks.server_compute_s, tasks.device_compute_s),
            "uplink_s": tasks.uplink_s,
            "hold_s": tasks.uplink_hold_s,
            "downlink_s": tasks.downlink_s,
            "is_edge": is_edge,
        }
        later = dict.fromkeys(("begin_s", "leave_s", "received_s", "serve_s", "served_s", "known_s", "drop_s"), never)
        rest = dict.fromkeys(("outcome", "reason", "is_placed", "is_served", "is_learned"), zero)
        self._open.add({name: np.asarray(values, np.float64) for name, values in (known | later | rest).items()})

    def advance(self, until_s: float) -> Ended:
        """Let time pass, up to and at ``until_s``; returns the tasks whose last word is known by then.

        Raises:
            TooCrowded: a server would refuse a task.
        """
        last_s = min(until_s, _LAST_S)  # what never comes is infinite, and does not come then either
        self._place(last_s)
        self._serve(last_s)
        self._check_room(last_s)
        self._learn(last_s)
        ended = self._take_ended(last_s)
        self.now_s = until_s if math.isfinite(until_s) else max(self.now_s, float(ended.known_s.max(initial=0.0)))
        return ended

    # -- on the device and up -----------------------------------------------------------------------------------------

    def _place(self, until_s: float) -> None:
        """Put what has become ready into its queue, in the order of becoming so."""
        tasks = self._open
        new = np.flatnonzero((tasks["is_placed"] == 0) & (tasks["ready_s"] <= until_s))
        if not len(new):
            return
        tasks["is_placed"][new] = 1
        is_late = tasks["ready_s"][new] >= tasks["limit_s"][new]
        self._end(new[is_late], FAILED, NOT_STARTED, tasks["ready_s"][new[is_late]])
        tasks["drop_s"][new[is_late]] = tasks["ready_s"][new[is_late]]
        new = new[~is_late]
        is_edge = tasks["is_edge"][new] > 0
        here, away = new[~is_edge], new[is_edge]
        uplink = tasks.index("device", away) * self.layout.servers + tasks.index("server", away) % self.layout.servers
        in_turn(tasks.index("device", here), tasks["ready_s"][here], lambda rows, key: self._compute(here[rows], key))
        in_turn(uplink, tasks["ready_s"][away], lambda rows, key: self._upload(away[rows], key))

    def _compute(self, rows: IndexArray, device: IndexArray) -> None:
        """The next task of each of some devices."""
        tasks = self._open
        begin_s = np.maximum(tasks["ready_s"][rows], self._executor_free_s[device])
        limit_s = tasks["limit_s"][rows]
        is_dropped = begin_s > limit_s  # what ends at an instant makes room before time-outs come
        end_s = begin_s + tasks["base_s"][rows]
        tasks["begin_s"][rows] = np.where(is_dropped, _NEVER, begin_s)
        tasks["leave_s"][rows] = np.where(is_dropped, _NEVER, end_s)
        tasks["drop_s"][rows] = np.where(is_dropped, limit_s, _NEVER)
        self._executor_free_s[device] = np.where(is_dropped, self._executor_free_s[device], end_s)
        self._end(rows[is_dropped], FAILED, NOT_STARTED, limit_s[is_dropped])
        self._end(rows[~is_dropped], DONE, 0, end_s[~is_dropped])

    def _upload(self, rows: IndexArray, uplink: IndexArray) -> None:
        """The next task of each of some uplinks."""
        tasks = self._open
        begin_s = np.maximum(tasks["ready_s"][rows], self._uplink_free_s[uplink])
        limit_s, sent_s = tasks["limit_s"][rows], begin_s + tasks["hold_s"][rows]
        is_waiting, is_stopped = begin_s >= limit_s, sent_s > limit_s
        is_sent = ~is_stopped & ~is_waiting
        tasks["begin_s"][rows] = np.where(is_waiting, _NEVER, begin_s)
        tasks["leave_s"][rows] = np.where(is_waiting, _NEVER, np.minimum(sent_s, limit_s))
        tasks["drop_s"][rows] = np.where(is_sent, _NEVER, limit_s)
        received_s = sent_s + (tasks["uplink_s"][rows] - tasks["hold_s"][rows])
        is_lost = is_sent & (received_s > limit_s)  # on the way when its time-out comes
        tasks["received_s"][rows] = np.where(is_sent & ~is_lost, received_s, _NEVER)
        tasks["drop_s"][rows[is_lost]] = limit_s[is_lost]
        self._end(rows[is_lost], UNKNOWN, TIMEOUT, limit_s[is_lost])
        free_s = np.where(is_waiting, self._uplink_free_s[uplink], np.minimum(sent_s, limit_s))
        self._uplink_free_s[uplink] = free_s
        self._end(rows[~is_sent], FAILED, NOT_STARTED, limit_s[~is_sent])

    def _end(self, rows: IndexArray, outcome: int, reason: int, known_s: FloatArray) -> None:
        tasks = self._open
        tasks["outcome"][rows], tasks["reason"][rows], tasks["known_s"][rows] = outcome, reason, known_s

    # -- at the servers -----------------------------------------------------------------------------------------------

    def _serve(self, until_s: float) -> None:
        """Let servers take what has been received, in that order."""
        tasks = self._open
        new = np.flatnonzero((tasks["received_s"] <= until_s) & (tasks["is_served"] == 0))
        if not len(new):
            return
        tasks["is_served"][new] = 1
        new = new[np.argsort(tasks["received_s"][new], kind="stable")]
        columns = (tasks[name][new].tolist() for name in ("received_s", "limit_s", "base_s"))
        starts, workers = [], self._workers
        for server, received_s, limit_s, base_s in zip(tasks.index("server", new).tolist(), *columns, strict=True):
            free = workers[server]
            begin_s = received_s if received_s > free[0] else free[0]
            starts.append(begin_s)
            if begin_s <= limit_s:
                heapreplace(free, begin_s + base_s)
        self._note_served(new, np.array(starts))

    def _note_served(self, rows: IndexArray, begin_s: FloatArray) -> None:
        tasks = self._open
        limit_s = tasks["limit_s"][rows]
        is_served = begin_s <= limit_s
        served_s = begin_s + tasks["base_s"][rows]
        is_answered = is_served & (served_s <= limit_s)
        tasks["serve_s"][rows] = np.where(is_served, begin_s, _NEVER)
        tasks["served_s"][rows] = np.where(is_served, served_s, _NEVER)
        tasks["drop_s"][rows] = np.where(is_answered, _NEVER, limit_s)
        self._end(rows[is_answered], DONE, 0, (served_s + tasks["downlink_s"][rows])[is_answered])
        # Whoever is served when the time-out comes keeps its worker, and nobody waits for the answer.
        known_s = np.maximum(limit_s, np.where(is_served, served_s, tasks["received_s"][rows]))
        self._end(rows[~is_answered], UNKNOWN, TIMEOUT, known_s[~is_answered])

    def _check_room(self, until_s: float) -> None:
        """Would a server have refused one of the uploads that began since the last time?"""
        tasks = self._open
        is_new = (tasks["begin_s"] >= self.now_s) & (tasks["begin_s"] <= until_s) & (tasks["is_edge"] > 0)
        if not is_new.any():
            return
        room = np.tile(np.array(self.layout.queue_tasks, np.int64), self.lanes)
        most = self._held + np.bincount(tasks.index("server", is_new), minlength=self._servers)
        for server in np.flatnonzero(most > room).tolist():
            at = (tasks["server"] == server) & np.isfinite(tasks["begin_s"])
            begins, leaves = np.sort(tasks["begin_s"][at]), np.sort(self._released_s()[at])
            held = np.arange(1, len(begins) + 1) - np.searchsorted(leaves, begins, side="right")
            if held.max() > room[server]:
                raise TooCrowded(f"a server would hold {held.max()} tasks, and takes {room[server]}")

    def _released_s(self) -> FloatArray:
        """When each task leaves its server; infinite for what has not been told yet."""
        tasks = self._open
        return np.where(np.isfinite(tasks["served_s"]), tasks["served_s"], tasks["drop_s"])

    # -- running means and ends ---------------------------------------------------------------------------------------

    def _learn(self, until_s: float) -> None:
        """Bring the running means of speeds and rates up to now."""
        tasks = self._open
        frames, is_edge = tasks["frames"], tasks["is_edge"] > 0
        here = np.flatnonzero(~is_edge & (tasks["leave_s"] <= until_s))
        each_s = (tasks["leave_s"][here] - tasks["begin_s"][here]) / frames[here]
        _smooth(self._device_frame_s, tasks.index("device", here), tasks["leave_s"][here], each_s, DEVICE_SMOOTHING)
        is_answered = is_edge & (tasks["outcome"] == DONE)
        there = np.flatnonzero(is_answered & (tasks["served_s"] <= until_s) & (tasks["is_learned"] == 0))
        tasks["is_learned"][there] = 1
        each_s = (tasks["served_s"][there] - tasks["serve_s"][there]) / frames[there]
        _smooth(self._server_frame_s, tasks.index("server", there), tasks["served_s"][there], each_s, SERVER_SMOOTHING)
        back = np.flatnonzero(is_answered & (tasks["known_s"] <= until_s) & (tasks["uplink_s"] > 0))
        rate_bps = 8.0 * tasks["bytes"][back] / tasks["uplink_s"][back]
        key, at_s = tasks.index("device", back), tasks["known_s"][back]
        first = self._measured_bps[key] == 0
        if first.any():  # the first measurement is taken as it is, and moving towards itself changes nothing
            order = back[first][np.argsort(at_s[first], kind="stable")][::-1]
            self._measured_bps[tasks.index("device", order)] = 8.0 * tasks["bytes"][order] / tasks["uplink_s"][order]
        _smooth(self._measured_bps, key, at_s, rate_bps, DEVICE_SMOOTHING)

    def _take_ended(self, until_s: float) -> Ended:
        tasks = self._open
        is_over = tasks["known_s"] <= until_s
        rows = np.flatnonzero(is_over)
        ended = self._ended_of(rows)
        if len(rows):
            tasks.keep(~is_over)
        at = (tasks["begin_s"] <= until_s) & (self._released_s() > until_s) & (tasks["is_edge"] > 0)
        self._held = np.bincount(tasks.index("server", at), minlength=self._servers)
        return ended

    def _ended_of(self, rows: IndexArray) -> Ended:
        tasks = self._open
        is_edge, outcome = tasks["is_edge"][rows] > 0, tasks.index("outcome", rows)
        is_done = outcome == DONE
        here, there = is_done & ~is_edge, is_done & is_edge
        since_s, base_s = tasks["ready_s"][rows], tasks["base_s"][rows]
        stages = np.zeros((len(rows), len(STAGES)))
        begin_s = np.where(is_done, tasks["begin_s"][rows], since_s)
        stages[:, 0] = np.where(here, begin_s - since_s, 0.0)
        stages[:, 1] = np.where(here, base_s, 0.0)
        stages[:, 2] = np.where(there, begin_s - since_s, 0.0)
        stages[:, 3] = np.where(there, tasks["uplink_s"][rows], 0.0)
        waited_s = np.where(there, tasks["serve_s"][rows], 0.0) - np.where(there, tasks["received_s"][rows], 0.0)
        stages[:, 4] = waited_s
        stages[:, 5] = np.where(there, base_s, 0.0)
        stages[:, 6] = np.where(there, tasks["downlink_s"][rows], 0.0)
        decision_s = since_s - tasks["arrived_s"][rows]
        latency_s = decision_s.copy()
        for stage in range(len(STAGES)):
            latency_s += stages[:, stage]
        was_never_ready = ~is_done & (tasks["ready_s"][rows] >= tasks["limit_s"][rows])
        return Ended(
            task=tasks.index("task", rows),
            device=tasks.index("device", rows),
            outcome=outcome,
            reason=tasks.index("reason", rows),
            known_s=tasks["known_s"][rows],
            site=np.where(was_never_ready, NOWHERE, np.where(is_edge, int(Site.EDGE), int(Site.DEVICE))),
            server=np.where(was_never_ready, NOWHERE, tasks.index("server", rows)),
            edge_frames=np.where(is_edge & ~was_never_ready, tasks.index("frames", rows), 0),
            decision_s=decision_s,
            stages=stages,
            latency_s=np.where(is_done, latency_s, np.nan),
            device_busy_s=np.where(here, base_s, 0.0),
            server_busy_s=np.where(there, base_s, 0.0),
            air_s=stages[:, 3].copy(),
            granted_bps=np.full(len(rows), np.nan),
            has_resources=is_done,
        )

    # -- what hosts know of themselves --------------------------------------------------------------------------------

    def load(self) -> Load:
        """The state of the queues now, as `edgebed.simulation.testbed.pipeline.Pipeline.load` has it."""
        tasks, now_s = self._open, self.now_s
        is_edge, placed = tasks["is_edge"] > 0, (tasks["is_placed"] > 0) & (tasks["drop_s"] > now_s)
        device, server = tasks.index("device"), np.maximum(tasks.index("server"), 0)
        frames, size = tasks["frames"], tasks["bytes"]
        before = placed & (tasks["begin_s"] > now_s)
        during = placed & ~before & (tasks["leave_s"] > now_s)
        waiting = _sum(device, frames, before & ~is_edge, self._devices)
        busy = _sum(device, frames, during & ~is_edge, self._devices)
        elapsed_s = _sum(device, now_s - tasks["begin_s"], during & ~is_edge, self._devices)
        frame_s = self._device_frame_s
        with np.errstate(invalid="ignore", divide="ignore"):
            left = np.where(during, 1.0 - (now_s - tasks["begin_s"]) / tasks["hold_s"], 0.0)
        unsent = _sum(device, np.maximum(0.0, left) * size, during & is_edge & (tasks["hold_s"] > 0), self._devices)
        begun = placed & is_edge & ~before
        uploading = begun & (tasks["received_s"] > now_s)
        # Whoever is served when its time-out comes is still held, though nobody waits for it any more.
        serving = is_edge & (tasks["serve_s"] <= now_s) & (tasks["served_s"] > now_s)
        queued = begun & ~uploading & (tasks["serve_s"] > now_s)
        return Load(
            device_queue_delay_s=self._devices_of(waiting * frame_s + np.maximum(0.0, busy * frame_s - elapsed_s)),
            device_frame_s=self._devices_of(frame_s.copy()),
            uplink_queue_bytes=self._devices_of(_sum(device, size, before & is_edge, self._devices) + unsent),
            measured_bps=self._devices_of(self._measured_bps.copy()),
            device_is_busy=self._devices_of((busy > 0).astype(np.float64)),
            server_tasks=self._servers_of(self._held.astype(np.float64)),
            server_queue_delay_s=self._servers_of(self._server_delay_s(server, queued, serving)),
            server_frame_s=self._servers_of(self._server_frame_s.copy()),
            server_busy_workers=self._servers_of(_sum(server, frames * 0 + 1, serving, self._servers)),
            uploading_bytes=self._servers_of(_sum(server, size, uploading, self._servers)),
            channel_uploads=np.zeros((self.lanes, self.layout.servers, self.layout.channels)),
        )

    def _server_delay_s(self, server: IndexArray, queued: BoolArray, serving: BoolArray) -> FloatArray:
        tasks, frame_s = self._open, self._server_frame_s
        left_s = frame_s[server] * tasks["frames"] - (self.now_s - np.where(serving, tasks["serve_s"], 0.0))
        total_s = _sum(server, tasks["frames"], queued, self._servers) * frame_s
        total_s += _sum(server, np.maximum(0.0, left_s), serving, self._servers)
        workers = np.tile(np.array(self.layout.workers, np.float64), self.lanes)
        tasks_there = _sum(server, np.ones(len(tasks)), queued | serving, self._servers)
        return np.where(tasks_there >= workers, total_s / workers, 0.0)

    def _devices_of(self, values: FloatArray) -> FloatArray:
        return values.reshape(self.lanes, self.layout.devices)

    def _servers_of(self, values: FloatArray) -> FloatArray:
        return values.reshape(self.lanes, self.layout.servers)


def in_turn(key: IndexArray, order_s: FloatArray, work: Callable[[IndexArray, IndexArray], None]) -> None:
    """Do something for the first of each key, then for the second of each, and so on.

    Args:
        key: ``[n]``, of the queue.
        order_s: ``[n]``, who comes first in it; of two equal ones the first in the array.
        work: gets positions, no two of one key, and their keys.
    """
    if not len(key):
        return
    order = np.lexsort((order_s, key))
    keys = key[order]
    is_first = np.r_[True, keys[1:] != keys[:-1]]
    rank = np.arange(len(keys)) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    for turn in range(int(rank.max()) + 1):
        rows = order[rank == turn]
        work(rows, key[rows])


def _smooth(means: FloatArray, key: IndexArray, order_s: FloatArray, values: FloatArray, weight: float) -> None:
    """Move each key's running mean towards its values, in their order, all at once: each counts by what is left."""
    if not len(key):
        return
    order = np.lexsort((order_s, key))
    keys = key[order]
    counts = np.bincount(keys, minlength=len(means))
    last = np.cumsum(counts)[keys] - 1
    left = weight * (1.0 - weight) ** (last - np.arange(len(keys)))
    means *= (1.0 - weight) ** counts
    means += np.bincount(keys, left * values[order], len(means))


def _sum(key: IndexArray, values: FloatArray, where: BoolArray, size: int) -> FloatArray:
    # Where not, a value may be infinite, and infinity times nothing is no number.
    return np.bincount(key[where], values[where], size).astype(np.float64)
