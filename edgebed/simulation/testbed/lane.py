"""One lane of the pipeline: the queues of one cell, event by event, in virtual time.

The rules are those of the programs (``device_agent.dispatch``, ``edge_server.admission``): executors and uplinks are
first in, first out; a server counts a task from the begin of its upload until its answer; a time-out withdraws what was
not started and makes what was sent unknown.
"""

from __future__ import annotations

import math
from typing import Any

from edgebed.simulation.testbed.computing import ComputingQueues
from edgebed.simulation.testbed.disturbances import SlowLink
from edgebed.simulation.testbed.fluid import Channel
from edgebed.simulation.testbed.ingredients import FAILED, NOWHERE, UNKNOWN, Layout
from edgebed.simulation.testbed.parts import (
    AT_SERVER,
    CARRIED,
    ENDED,
    READY,
    RECEIVED,
    REFUSED,
    RETURNING,
    RUNNING,
    SENT,
    SENT_OFF,
    UPLOADING,
    WAITING,
    Part,
)

NOT_STARTED, TIMEOUT, QUEUE_FULL, UNREACHABLE = 1, 2, 3, 4


class Lane(ComputingQueues):
    """The queues of one cell: what comes into them, what is sent, and what is taken back."""

    def __init__(self, layout: Layout, first_device: int, first_server: int) -> None:
        super().__init__(layout, first_device, first_server)
        self._handlers = (
            self._on_computed, self._on_served, self._on_back, self._on_refused, self._on_received, self._on_sent,
            self._on_carried, self._on_ready, self._on_timed_out,
        )  # fmt: skip

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

    # -- endings ------------------------------------------------------------------------------------------------------

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
