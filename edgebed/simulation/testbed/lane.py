"""One lane of the pipeline: the queues of one cell, event by event, in virtual time.

The rules are those of the programs (``device_agent.dispatch``, ``edge_server.admission``): executors and uplinks are
first in, first out; a server counts a task from the begin of its upload until its answer; a time-out withdraws what was
not started and makes what was sent unknown.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from edgebed.simulation.testbed.disturbances import SlowLink, stood_still_s, stretched_s
from edgebed.simulation.testbed.fluid import Channel, InterferingChannel
from edgebed.simulation.testbed.ingredients import DONE, FAILED, NOWHERE, UNKNOWN, Layout
from edgebed.simulation.testbed.parts import (
    AT_SERVER,
    BACK,
    CARRIED,
    COMPUTED,
    ENDED,
    READY,
    RECEIVED,
    REFUSED,
    RETURNING,
    RUNNING,
    SENT,
    SENT_OFF,
    SERVED,
    SERVING,
    TIMED_OUT,
    UPLOADING,
    WAITING,
    Part,
)
from edgebed.types import Site

NOT_STARTED, TIMEOUT, QUEUE_FULL, UNREACHABLE = 1, 2, 3, 4

_RECALLS = 8
"""So often time-outs are looked through while one of them is waited for."""

_LEAST_AHEAD_S = 0.001

DEVICE_SMOOTHING = 0.2
SERVER_SMOOTHING = 0.1
"""Weights of the newest measurement in the running means, as `device_agent.dispatch` and `edge_server.workers` have."""

_PLAIN_LISTS = (
    "waiting_frames", "waiting_bytes", "queued_frames", "queued_tasks", "held", "uploading_bytes", "device_frame_s",
    "server_frame_s", "measured_bps", "_load",
)  # fmt: skip
"""Lists of numbers in a lane."""


class Lane:
    """The queues of one cell.

    Attributes:
        now_s: how far it has come.
        ended: rows of tasks that have ended since they were last taken, see `Ended.of_rows`.
        open: tasks without an outcome.
    """

    def __init__(self, layout: Layout, first_device: int, first_server: int) -> None:
        self.layout = layout
        self.now_s = 0.0
        self.ended: list[tuple[Any, ...]] = []
        self.open = 0
        self._first_device, self._first_server = first_device, first_server
        # What becomes ready comes in batches and what times out hardly ever matters: neither is kept in the heap.
        self._events: list[tuple[float, int, int, Any]] = []
        self._coming: list[tuple[float, int, int, Part]] = []
        self._is_sorted = True
        self._limits: list[tuple[float, int, int, Part]] = []
        self._limits_from_s = 0.0
        self._last_limit_s = 0.0
        self._count = 0
        devices, servers = layout.devices, layout.servers
        self._jobs: list[deque[Part]] = [deque() for _ in range(devices)]
        self.running: list[Part | None] = [None] * devices
        self.waiting_frames = [0] * devices
        # By uplink, ``device * servers + server``; of a million of them only few are in use.
        self._uplinks: defaultdict[int, deque[Part]] = defaultdict(deque)
        self.uploading: dict[int, Part] = {}
        self.waiting_bytes = [0.0] * devices
        self._queues: list[deque[Part]] = [deque() for _ in range(servers)]
        self.serving: list[list[Part]] = [[] for _ in range(servers)]
        self.queued_frames = [0] * servers
        self.queued_tasks = [0] * servers
        self.held = [0] * servers
        self.uploading_bytes = [0.0] * servers
        self.device_frame_s = list(layout.device_frame_s)
        self.server_frame_s = list(layout.server_frame_s)
        self.measured_bps = [0.0] * devices
        self.channels = channels_of(layout)
        self._load = [0] * len(layout.processors)
        self._device_group = layout.device_processors or (NOWHERE,) * devices
        self._server_group = layout.server_processors or (NOWHERE,) * servers
        self._disturbances = layout.disturbances
        self._handlers: tuple[Callable[[Any], None], ...] = (
            self._on_computed, self._on_served, self._on_back, self._on_refused, self._on_received, self._on_sent,
            self._on_carried, self._on_ready, self._on_timed_out,
        )  # fmt: skip

    def fork(self) -> Lane:
        """The same lane, to go on apart from this one."""
        other = type(self)(self.layout, self._first_device, self._first_server)
        copies: dict[int, Part] = {}

        def of(part: Any) -> Any:
            if part is None:
                return None
            found = copies.get(id(part))
            if found is None:
                found = copies[id(part)] = Part.__new__(Part)
                for name in Part.__slots__:
                    setattr(found, name, getattr(part, name))
                found.twin = of(part.twin)
            return found

        other.now_s, other.open, other._count = self.now_s, self.open, self._count
        other._events = [
            (at_s, kind, count, (what[0], of(what[1])) if kind == CARRIED else of(what))
            for at_s, kind, count, what in self._events
            if kind != TIMED_OUT or not what.is_told
        ]
        heapify(other._events)
        other._coming = [(*when, of(part)) for *when, part in self._coming]
        other._is_sorted = self._is_sorted
        other._limits = [(*when, of(part)) for *when, part in self._limits if not part.is_told]
        other._limits_from_s = self._limits_from_s
        other._last_limit_s = max((each[0] for each in (*other._limits, *other._events)), default=0.0)
        for name in ("_jobs", "_queues", "serving"):
            setattr(other, name, [type(parts)(map(of, parts)) for parts in getattr(self, name)])
        other._uplinks = defaultdict(deque, {key: deque(map(of, parts)) for key, parts in self._uplinks.items()})
        other.running = list(map(of, self.running))
        other.uploading = {uplink: of(part) for uplink, part in self.uploading.items()}
        for name in _PLAIN_LISTS:
            setattr(other, name, list(getattr(self, name)))
        other.channels = [channel.fork(of) for channel in self.channels]
        other.ended = list(self.ended)
        self._fork_more(other, of)
        return other

    def _fork_more(self, other: Lane, of: Callable[[Any], Any]) -> None:
        """Copy what else there is, with each part as ``of`` it; here there is no more."""

    # -- putting in, and time -----------------------------------------------------------------------------------------

    def submit(self, row: tuple[Any, ...]) -> None:
        """Take a task, a row of `Ingredients` in the order of its fields."""
        (
            task, device, server, channel, arrived_s, ready_s, limit_s, frames, edge_frames, upload_bytes,
            device_compute_s, uplink_s, hold_s, server_compute_s, downlink_s, refusal_s, fallback_s,
        ) = row  # fmt: skip
        device -= self._first_device
        here = edge = None
        if edge_frames < frames:
            kept = frames - edge_frames
            here = Part(task, device, arrived_s, ready_s, limit_s, kept, device_compute_s, ready_s)
        if edge_frames:
            server = server - self._first_server if server >= 0 else NOWHERE
            edge = Part(
                task, device, arrived_s, ready_s, limit_s, edge_frames, server_compute_s, ready_s, True, server,
                channel, upload_bytes, uplink_s, hold_s, downlink_s, refusal_s, fallback_s,
            )  # fmt: skip
        first = here or edge
        assert first is not None
        if here is not None and edge is not None:
            here.twin, edge.twin = edge, here
        self.open += 1
        self._count += 1
        self._coming.append((ready_s, READY, self._count, first))
        self._is_sorted = False

    def advance(self, until_s: float) -> None:
        """Let everything happen up to and at ``until_s``."""
        self._sort_coming()
        if until_s >= self._limits_from_s:
            self._recall_limits(until_s)
        events, coming, handlers = self._events, self._coming, self._handlers
        while True:
            if coming and (not events or coming[-1] < events[0]):
                if coming[-1][0] > until_s:
                    break
                self.now_s, _, _, part = coming.pop()
                self._on_ready(part)
            elif events and events[0][0] <= until_s:
                self.now_s, kind, _, what = heappop(events)
                handlers[kind](what)
            else:
                break
        self.now_s = until_s if until_s < math.inf else max(self.now_s, self._last_limit_s)

    @property
    def next_s(self) -> float:
        """Nothing happens before; infinite when nothing will happen any more."""
        self._sort_coming()
        event_s = self._events[0][0] if self._events else math.inf
        ready_s = self._coming[-1][0] if self._coming else math.inf
        return min(event_s, ready_s, self._limits_from_s if self._limits else math.inf)

    def _sort_coming(self) -> None:
        if not self._is_sorted:
            self._coming.sort(reverse=True)
            self._is_sorted = True

    def _recall_limits(self, until_s: float) -> None:
        """Put the time-outs that come next among the events; most tasks have been told of by then."""
        # A while ahead, so that whoever goes in small steps does not look through all of them at every one.
        # And never less than so far that the sum is another number, or it would go in steps of nothing.
        ahead_s = until_s + max(_LEAST_AHEAD_S, (self._last_limit_s - until_s) / _RECALLS)
        later = []
        for limit in self._limits:
            if limit[3].is_told:
                continue
            if limit[0] <= ahead_s:
                heappush(self._events, limit)
            else:
                later.append(limit)
        self._limits, self._limits_from_s = later, ahead_s

    def _limit(self, part: Part) -> None:
        """Have the part time out."""
        self._count += 1
        limit = (part.limit_s, TIMED_OUT, self._count, part)
        if part.limit_s <= self._limits_from_s:
            heappush(self._events, limit)
        else:
            self._limits.append(limit)
        self._last_limit_s = max(self._last_limit_s, part.limit_s)

    def _at(self, instant_s: float, kind: int, what: Any) -> None:
        self._count += 1
        heappush(self._events, (instant_s, kind, self._count, what))

    def _on_ready(self, part: Part) -> None:
        if part.state == ENDED:
            return
        if not part.is_edge and part.twin is None and self.now_s < part.limit_s and self.running[part.device] is None:
            self._compute(part)  # by far the most frequent; let finish as below
            return
        parts = (part,) if part.twin is None else (part, part.twin)
        if self.now_s >= part.limit_s:
            for each in parts:
                each.state, each.outcome = ENDED, FAILED
            self._tell(part, FAILED, NOT_STARTED, is_placed=False)
            return
        for each in parts:
            if each.is_edge:
                self._offload(each)
            else:
                self._execute(each)
        # What runs here is let finish, so that its time-out would change nothing.
        is_certain = part.twin is None and part.state == RUNNING
        if not part.is_told and not is_certain:
            self._limit(part)

    # -- on the device ------------------------------------------------------------------------------------------------

    def _execute(self, part: Part) -> None:
        device = part.device
        if self.running[device] is None:
            self._compute(part)
        else:
            self._jobs[device].append(part)
            self.waiting_frames[device] += part.frames

    def _compute(self, part: Part) -> None:
        self.running[part.device] = part
        part.state = RUNNING
        part.started_s = now_s = self.now_s
        group = self._device_group[part.device]
        part.compute_s = part.base_s if group < 0 else self._slowed_s(part.base_s, group)
        if self._disturbances is not None:
            throttled = self._disturbances.devices.get(part.device, ())
            part.compute_s = stretched_s(throttled, now_s, part.compute_s)
            part.idle_s = stood_still_s(throttled, now_s, part.compute_s)
        self._count += 1
        heappush(self._events, (now_s + part.compute_s, COMPUTED, self._count, part))

    def _slowed_s(self, base_s: float, group: int) -> float:
        """What a computation that begins now takes, among those that go on; below 0 there are none."""
        if group < 0:
            return base_s
        others, rule = self._load[group], self.layout.processors[group]
        self._load[group] += 1
        return base_s * (1.0 + rule.per_other * others + rule.per_excess * max(0.0, others + 1 - rule.cores))

    def _on_computed(self, part: Part) -> None:
        if part.state == ENDED:
            return
        device = part.device
        group = self._device_group[device]
        if group >= 0:
            self._load[group] -= 1
        self.running[device] = None
        part.ended_s = now_s = self.now_s
        known_s = self.device_frame_s[device]
        self.device_frame_s[device] = known_s + DEVICE_SMOOTHING * ((now_s - part.started_s) / part.frames - known_s)
        jobs = self._jobs[device]
        while jobs:
            following = jobs.popleft()
            if following.state == WAITING:
                self.waiting_frames[device] -= following.frames
                self._compute(following)
                break
        if part.twin is None:
            part.state, part.outcome = ENDED, DONE
            self._tell_alone(part)
        else:
            self._finish(part)

    def _tell_alone(self, part: Part) -> None:
        """`_tell` of a whole task that the device has done, all that it comes to in one place."""
        if not part.is_told:
            self.open -= 1
            part.is_told = True
        began_s, compute_s = part.started_s, part.compute_s
        self.ended.append((
            part.task, part.device + self._first_device, DONE, 0, self.now_s, 0, NOWHERE, 0,
            part.ready_s - part.arrived_s, began_s - part.since_s, compute_s, *part.spent, 0.0, 0.0, 0.0,
            compute_s - part.idle_s, 0.0, 0.0, math.nan, True,
        ))  # fmt: skip

    # -- up -----------------------------------------------------------------------------------------------------------

    def _offload(self, part: Part) -> None:
        if part.server == NOWHERE:
            self._refuse(part, UNREACHABLE)
            return
        uplink = part.device * self.layout.servers + part.server
        self._uplinks[uplink].append(part)
        self.waiting_bytes[part.device] += part.bytes
        if uplink not in self.uploading:
            self._upload_next(uplink)

    def _upload_next(self, uplink: int) -> None:
        self.uploading.pop(uplink, None)
        waiting = self._uplinks[uplink]
        while waiting:
            part = waiting.popleft()
            if part.state == WAITING:
                self.waiting_bytes[part.device] -= part.bytes
                self._upload(part, uplink)
                return
        del self._uplinks[uplink]

    def _upload(self, part: Part, uplink: int) -> None:
        server, now_s = part.server, self.now_s
        self._begin_upload(part, uplink)
        if self.held[server] >= self.layout.queue_tasks[server]:
            self._refuse_upload(part)
            return
        self.held[server] += 1
        self.uploading_bytes[server] += part.bytes
        if self.channels:
            self._channel(part).join(part, part.bytes * 8.0, now_s)
            self._foretell(part)
        else:
            self._at(now_s + part.hold_s, SENT, part)

    def _begin_upload(self, part: Part, uplink: int) -> None:
        part.state, part.upload_s = UPLOADING, self.now_s
        self.uploading[uplink] = part
        if self._disturbances is not None:
            self._slow(part, self._disturbances.link_at(part.device, self.now_s))

    def _refuse_upload(self, part: Part) -> None:
        """A server says no as soon as it hears of it."""
        self._at(self.now_s + part.refusal_s, REFUSED, part)
        if part.hold_s < part.refusal_s:
            self._at(self.now_s + part.hold_s, SENT, part)
        part.is_refused = True  # and so not counted there

    @staticmethod
    def _slow(part: Part, link: SlowLink | None) -> None:
        """An upload begins on a link that is slower or later; its answer is too small for the rate to matter."""
        if link is None:
            return
        hold_s = max(part.hold_s, 8.0 * part.bytes / link.rate_bps)
        part.uplink_s += hold_s - part.hold_s + link.delay_s
        part.hold_s = hold_s
        part.downlink_s += link.delay_s
        part.refusal_s += 2.0 * link.delay_s

    def _channel(self, part: Part) -> Channel:
        return self.channels[part.server * self.layout.channels + part.channel]

    def _foretell(self, part: Part) -> None:
        channel = self._channel(part)
        coming = channel.next_carried()
        if coming is not None:
            self._at(coming[0], CARRIED, (channel.version, coming[1]))

    def _on_carried(self, told: tuple[int, Part]) -> None:
        version, part = told
        channel = self._channel(part)
        if version != channel.version:
            return
        channel.leave(part, self.now_s)
        lasted_s = self.now_s - part.upload_s
        part.granted_bps = part.bytes * 8.0 / lasted_s if lasted_s > 0 else math.nan
        self._foretell(part)
        self._at(max(self.now_s, part.upload_s + part.hold_s), SENT, part)

    def _on_sent(self, part: Part) -> None:
        uplink = part.device * self.layout.servers + part.server
        if part.state == UPLOADING and not part.is_refused:
            part.state = SENT_OFF
            self._at(self.now_s + (part.uplink_s - part.hold_s), RECEIVED, part)
        if self.uploading.get(uplink) is part:
            self._upload_next(uplink)

    def _on_refused(self, part: Part) -> None:
        uplink = part.device * self.layout.servers + part.server
        is_open = part.state == UPLOADING
        if self.uploading.get(uplink) is part:
            self._upload_next(uplink)
        if is_open:
            self._refuse(part, part.refusal or QUEUE_FULL)

    def _refuse(self, part: Part, reason: int) -> None:
        if not self.layout.refused_run_locally or self.now_s >= part.limit_s:
            self._fail(part, reason)
            return
        if reason == UNREACHABLE:
            part.spent = (self.now_s - part.since_s, 0.0)
        else:
            part.spent = (part.upload_s - part.since_s, self.now_s - part.upload_s)
        part.is_edge, part.state, part.since_s, part.base_s = False, WAITING, self.now_s, part.fallback_s
        self._execute(part)

    # -- at the server ------------------------------------------------------------------------------------------------

    def _on_received(self, part: Part) -> None:
        if part.state != SENT_OFF:
            return
        server = part.server
        self.uploading_bytes[server] -= part.bytes
        part.state, part.received_s = AT_SERVER, self.now_s
        part.air_s = self.now_s - part.upload_s if self.channels else part.uplink_s
        if len(self.serving[server]) < self.layout.workers[server]:
            self._serve(part)
        else:
            self._queues[server].append(part)
            self.queued_frames[server] += part.frames
            self.queued_tasks[server] += 1

    def _serve(self, part: Part) -> None:
        self.serving[part.server].append(part)
        part.state, part.started_s = SERVING, self.now_s
        part.compute_s = self._slowed_s(part.base_s, self._server_group[part.server])
        if self._disturbances is not None:
            throttled = self._disturbances.servers.get(part.server, ())
            part.compute_s = stretched_s(throttled, self.now_s, part.compute_s)
            part.idle_s = stood_still_s(throttled, self.now_s, part.compute_s)
        self._at(self.now_s + part.compute_s, SERVED, part)

    def _on_served(self, part: Part) -> None:
        server = part.server
        group = self._server_group[server]
        if group >= 0:
            self._load[group] -= 1
        self.serving[server].remove(part)
        self.held[server] -= 1
        part.ended_s = self.now_s
        if part.state == SERVING:  # else nobody waits for the answer any more
            part.state = RETURNING
            each_s = (part.ended_s - part.started_s) / part.frames
            self.server_frame_s[server] += SERVER_SMOOTHING * (each_s - self.server_frame_s[server])
            self._at(self.now_s + part.downlink_s, BACK, part)
        queue = self._queues[server]
        while queue:
            following = queue.popleft()
            if following.state == AT_SERVER:
                self.queued_frames[server] -= following.frames
                self.queued_tasks[server] -= 1
                self._serve(following)
                break

    def _on_back(self, part: Part) -> None:
        if part.state == ENDED:
            return
        if part.air_s > 0:
            rate_bps = 8.0 * part.bytes / part.air_s
            known_bps = self.measured_bps[part.device]
            weight = DEVICE_SMOOTHING if known_bps else 1.0
            self.measured_bps[part.device] = known_bps + weight * (rate_bps - known_bps)
        self._finish(part)

    # -- endings ------------------------------------------------------------------------------------------------------

    def _finish(self, part: Part) -> None:
        part.state, part.outcome = ENDED, DONE
        twin = part.twin
        if twin is None or twin.outcome == DONE:
            self._tell(part, DONE, 0)

    def _fail(self, part: Part, reason: int) -> None:
        """A part is certainly not done; so the rest of its task would be in vain."""
        part.state, part.outcome = ENDED, FAILED
        if part.twin is not None and part.twin.outcome is None:
            self._withdraw(part.twin)
        self._tell(part, FAILED, reason)

    def _on_timed_out(self, part: Part) -> None:
        if part.is_told:
            return
        parts = [part] if part.twin is None else [part, part.twin]
        for each in parts:
            if each.outcome is None:
                self._withdraw(each)
        outcomes = [each.outcome for each in parts]
        if FAILED in outcomes:
            self._tell(part, FAILED, NOT_STARTED)
        elif UNKNOWN in outcomes:
            self._tell(part, UNKNOWN, TIMEOUT)

    def _withdraw(self, part: Part) -> None:
        """Take a part back as far as that is possible; what runs on the device goes on."""
        state = part.state
        if state == WAITING:
            if part.is_edge:
                self.waiting_bytes[part.device] -= part.bytes
            else:
                self.waiting_frames[part.device] -= part.frames
        elif state == UPLOADING:
            self._stop_upload(part)
        elif state == RUNNING:
            return
        else:
            self._cancel(part, state)
            part.outcome = UNKNOWN
            return
        part.state, part.outcome = ENDED, FAILED

    def _stop_upload(self, part: Part) -> None:
        if part.is_refused:
            return  # its refusal is under way, and frees the uplink
        self._leave_server(part)
        part.state = ENDED
        self._upload_next(part.device * self.layout.servers + part.server)

    def _leave_server(self, part: Part) -> None:
        """An upload is given up: the server keeps no place for it, and its channel is free for the others."""
        self.held[part.server] -= 1
        self.uploading_bytes[part.server] -= part.bytes
        if self.channels:
            self._channel(part).leave(part, self.now_s)
            self._foretell(part)

    def _cancel(self, part: Part, state: int) -> None:
        """The server drops what no worker has; an answer under way still comes."""
        server = part.server
        if state == SENT_OFF:
            self.uploading_bytes[server] -= part.bytes
            self.held[server] -= 1
        elif state == AT_SERVER:
            self.queued_frames[server] -= part.frames
            self.queued_tasks[server] -= 1
            self.held[server] -= 1
        if state != RETURNING:
            part.state = ENDED

    def forget(self, device: int, reason: int) -> None:
        """A device's program dies: nobody knows what became of its tasks, and a worker that has one works in vain."""
        for part in self._parts_of(device):
            state = part.state
            if state == RUNNING and self._device_group[device] >= 0:
                self._load[self._device_group[device]] -= 1
            elif state == UPLOADING and not part.is_refused:
                self._leave_server(part)
            elif state in (SENT_OFF, AT_SERVER):
                self._cancel(part, state)
            part.state, part.outcome = ENDED, UNKNOWN
            if not part.is_told:
                self._tell(part, UNKNOWN, reason, is_placed=False)
        self.running[device] = None
        self._jobs[device].clear()
        self.waiting_frames[device], self.waiting_bytes[device] = 0, 0.0
        for server in range(self.layout.servers):
            self._uplinks.pop(device * self.layout.servers + server, None)
            self.uploading.pop(device * self.layout.servers + server, None)
        self.device_frame_s[device], self.measured_bps[device] = self.layout.device_frame_s[device], 0.0

    def _parts_of(self, device: int) -> list[Part]:
        """What a device has decided and has not seen the end of, in the order of the tasks."""
        scheduled = (what[1] if kind == CARRIED else what for _, kind, _, what in self._events)
        ready = (each[3] for each in self._coming)
        queued = (part for parts in (*self._jobs, *self._uplinks.values(), *self._queues) for part in parts)
        found = {id(part): part for part in (*scheduled, *ready, *queued, *self.uploading.values())}
        found |= {id(part.twin): part.twin for part in found.values() if part.twin is not None}
        mine = (part for part in found.values() if part.device == device and part.state != ENDED)
        return sorted(mine, key=lambda part: (part.task, part.is_edge))

    def _tell(self, part: Part, outcome: int, reason: int, *, is_placed: bool = True) -> None:
        if not part.is_told:
            self.open -= 1
            part.is_told = True
        if part.twin is not None:
            part.twin.is_told = True
            row = self._split_row(part, part.twin, outcome, is_placed)
        else:
            row = self._row(part, outcome, is_placed)
        head = (part.task, part.device + self._first_device, outcome, reason, self.now_s)
        self.ended.append(head + row)

    def _row(self, part: Part, outcome: int, is_placed: bool) -> tuple[Any, ...]:
        """What follows ``known_s`` in a row, of a task that has one part."""
        decision_s, is_done = part.ready_s - part.arrived_s, outcome == DONE
        stages = _stages(part) if is_done else _NO_STAGES
        if not is_placed:
            return (NOWHERE, NOWHERE, 0, decision_s, *stages, 0.0, 0.0, 0.0, math.nan, False)
        if not part.is_edge:
            busy_s = part.compute_s - part.idle_s if is_done else 0.0
            return (0, NOWHERE, 0, decision_s, *stages, busy_s, 0.0, 0.0, math.nan, is_done)
        used = (0.0, part.compute_s - part.idle_s, part.air_s) if is_done else (0.0, 0.0, 0.0)
        return (1, self._server_of(part), part.frames, decision_s, *stages, *used, part.granted_bps, is_done)

    def _server_of(self, part: Part) -> int:
        return NOWHERE if part.server == NOWHERE else part.server + self._first_server

    def _split_row(self, part: Part, twin: Part, outcome: int, is_placed: bool) -> tuple[Any, ...]:
        """The same of a split task; one whose edge part was refused has two parts on the device."""
        parts = (part, twin)
        decision_s = part.ready_s - part.arrived_s
        edge = next((each for each in parts if each.is_edge), None) if is_placed else None
        site = NOWHERE if not is_placed else Site.DEVICE if edge is None else Site.SPLIT
        stages = _stages(max(parts, key=_finished_s)) if outcome == DONE else _NO_STAGES
        done = [each for each in parts if each.outcome == DONE]
        return (
            site, NOWHERE if edge is None else self._server_of(edge), 0 if edge is None else edge.frames, decision_s,
            *stages,
            sum(each.compute_s - each.idle_s for each in done if not each.is_edge),
            sum(each.compute_s - each.idle_s for each in done if each.is_edge),
            sum(each.air_s for each in done if each.is_edge),
            math.nan if edge is None else edge.granted_bps, bool(done),
        )  # fmt: skip


def channels_of(layout: Layout) -> list[Channel]:
    """Of all servers, server by server; none when they are not shaped."""
    count, rate_bps, interference = layout.channels, layout.channel_rate_bps, layout.interference
    if interference is None:
        return [Channel(rate_bps) for _ in range(layout.servers * count)] if rate_bps else []

    def power_w(part: Part) -> float:
        return interference.received_w[part.server][part.device]

    return [InterferingChannel(interference.rates_bps, power_w) for _ in range(layout.servers * count)]


_NO_STAGES = (0.0,) * 7


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
