"""What computes in a lane, and what is told of it: the executors of devices, and the workers of servers."""

from __future__ import annotations

import math
from heapq import heappush

from edgebed.simulation.testbed.disturbances import stood_still_s, stretched_s
from edgebed.simulation.testbed.ended import split_row, whole_row
from edgebed.simulation.testbed.ingredients import DONE, NOWHERE
from edgebed.simulation.testbed.parts import (
    AT_SERVER,
    BACK,
    COMPUTED,
    ENDED,
    RETURNING,
    RUNNING,
    SENT_OFF,
    SERVED,
    SERVING,
    WAITING,
    Part,
)
from edgebed.simulation.testbed.queues import Queues

DEVICE_SMOOTHING = 0.2
SERVER_SMOOTHING = 0.1
"""Weights of the newest measurement in the running means, as `device_agent.dispatch` and `edge_server.workers` have."""


class ComputingQueues(Queues):
    """The queues of one cell, with those who work them off."""

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

    def _tell(self, part: Part, outcome: int, reason: int, *, is_placed: bool = True) -> None:
        if not part.is_told:
            self.open -= 1
            part.is_told = True
        if part.twin is not None:
            part.twin.is_told = True
            row = split_row(part, part.twin, outcome, is_placed, self._first_server)
        else:
            row = whole_row(part, outcome, is_placed, self._first_server)
        head = (part.task, part.device + self._first_device, outcome, reason, self.now_s)
        self.ended.append(head + row)
