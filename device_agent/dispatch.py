"""Parts of tasks on their way: to the executor, up to the edge servers, and back.

Pure but for what it is given: time goes in, jobs and messages come out. What a part's fate means for its task is told
to ``changed``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from device_agent.content import Clip
from device_agent.executor import ClipJob, Job, SlowedWorkload
from device_agent.stages import edge_round_trip, local_stages, refused_stages
from device_agent.task import Part, PartState, Task, Used, parts_of
from device_agent.uplink import Uplink, Upload
from edgebed.protocol.cells import CellSpec
from edgebed.protocol.liveness import ClockOffset
from edgebed.protocol.messages import MAX_PAYLOAD_BYTES, AnyMessage, Cancel, TaskResult
from edgebed.types import Outcome, Site

NOT_STARTED = "timeout_not_started"
TIMEOUT = "timeout"
SERVER_LOST = "server_lost"
UNREACHABLE = "server_unreachable"

_SMOOTHING = 0.2
"""Weight of the newest measurement in the running means of speed and rate."""


class Server(Protocol):
    """An edge server as a device sees it."""

    @property
    def is_up(self) -> bool:
        """Can messages be sent now?"""
        ...

    @property
    def is_reachable(self) -> bool:
        """Has it been heard of, and not been lost since? While it only reconnects, uploads wait."""
        ...

    @property
    def load(self) -> list[float]:
        """Its features as it last told them."""
        ...

    @property
    def offset(self) -> ClockOffset:
        """Its clock - own clock."""
        ...

    def send(self, message: AnyMessage, payload: bytes | memoryview | None = None) -> bool:
        """Send; False when it was not taken."""
        ...

    def limits(self) -> tuple[int, int]:
        """Bytes of a chunk, and chunks of the initial window."""
        ...


class Jobs(Protocol):
    """What executes on the device; see `device_agent.executor.Executor`."""

    def submit(self, job: Job) -> None:
        """Queue a job."""
        ...

    def cancel(self, job: Job) -> bool:
        """Take back a job that has not begun."""
        ...


class Dispatcher:
    """Sends the parts of one cell's tasks on their way and hears what became of them.

    Args:
        servers: in the order that decisions index.
        read: the payload of some frames of a clip.
        slowed: what executes frames here.
        seconds_per_frame: measured when the cell was prepared.
        link_rate_bps: what uplinks are paced to; 0 = not paced.
        changed: told of a task whenever one of its parts has changed its state.

    Attributes:
        seconds_per_frame: running mean of what a frame takes on this device.
        measured_bps: running mean of what uploads really got; 0 before the first.
    """

    def __init__(
        self,
        cell: CellSpec,
        servers: Sequence[Server],
        jobs: Jobs,
        read: Callable[[Clip, int, int], bytes],
        slowed: SlowedWorkload,
        seconds_per_frame: float,
        link_rate_bps: float,
        changed: Callable[[Task, float], None],
    ) -> None:
        self._cell = cell
        self._servers = servers
        self._jobs = jobs
        self._read = read
        self._slowed = slowed
        self._changed = changed
        self._is_shaped = cell.channels.model != "none"
        self._uplinks = [
            Uplink(
                cell.serial, server.send, link_rate_bps=link_rate_bps, is_shaped=self._is_shaped, limits=server.limits
            )
            for server in servers
        ]
        self._offered: list[dict[str, tuple[Task, Part]]] = [{} for _ in servers]
        self._running: dict[ClipJob, tuple[Task, Part]] = {}
        self.seconds_per_frame = seconds_per_frame
        self.measured_bps = 0.0

    # -- what is known ------------------------------------------------------------------------------------------------

    @property
    def uplink_queue_bytes(self) -> int:
        """Bytes that wait for the uplinks."""
        return sum(uplink.queued_bytes for uplink in self._uplinks)

    def queue_delay_s(self, now_s: float) -> float:
        """Estimated seconds until the device's executor is free."""
        total_s = 0.0
        for job in self._running:
            each_s = job.frames * self.seconds_per_frame
            if job.started_s is not None:
                each_s = max(0.0, each_s - (now_s - job.started_s))
            total_s += each_s
        return total_s

    # -- sending on the way -------------------------------------------------------------------------------------------

    def dispatch(self, task: Task, now_s: float) -> None:
        """Send a decided task on its way."""
        assert task.verdict is not None
        task.parts = parts_of(task.verdict.decision, task.planned.frames, task.verdict.decided_s)
        for part in list(task.parts):
            if part.site is Site.DEVICE:
                self._execute(task, part)
            else:
                self._offload(task, part, now_s)

    def _execute(self, task: Task, part: Part) -> None:
        job = ClipJob(self._slowed, partial(self._read, task.clip, part.first, part.frames), part.frames)
        self._running[job] = task, part
        self._jobs.submit(job)

    def _offload(self, task: Task, part: Part, now_s: float) -> None:
        size = task.clip.part_bytes(part.first, part.frames)
        if part.server >= len(self._servers) or not self._servers[part.server].is_reachable:
            self._refuse(task, part, UNREACHABLE, now_s)
            return
        if size > MAX_PAYLOAD_BYTES:
            self._refuse(task, part, "too_large", now_s)
            return
        read = partial(self._read, task.clip, part.first, part.frames)
        part.upload = Upload(task.task_id, size, part.frames, part.channel, read)
        self._offered[part.server][task.task_id] = task, part
        self._uplinks[part.server].add(part.upload)

    def advance(self, now_s: float) -> float:
        """Send what may be sent now; when there will be more, if that is known (else infinite)."""
        due_s = math.inf
        for server, uplink in zip(self._servers, self._uplinks, strict=True):
            if server.is_up:
                due_s = min(due_s, uplink.advance(now_s))
        return due_s

    # -- hearing back -------------------------------------------------------------------------------------------------

    def executed(self, job: ClipJob) -> None:
        """The executor is done with a job; one of an earlier cell is nobody's."""
        entry, result = self._running.pop(job, None), job.result
        if entry is None or result is None:
            return
        task, part = entry
        part.used = Used(result.started_s, result.finished_s, result.cpu_s, result.padding_s)
        if result.error:
            part.fail("execution_failed")
        else:
            part.state = PartState.DONE
            part.predicted = result.predicted
            part.finished_s = result.finished_s
            part.stages = local_stages(part.since_s, result.started_s, result.finished_s, part.spent)
            per_frame_s = (result.finished_s - result.started_s) / part.frames
            self.seconds_per_frame += _SMOOTHING * (per_frame_s - self.seconds_per_frame)
        self._settle(task, result.finished_s)

    def credited(self, server: int, task_id: str, chunks: int) -> None:
        """A server grants chunks."""
        self._uplinks[server].credit(task_id, chunks)

    def answered(self, server: int, result: TaskResult, now_s: float) -> None:
        """A server has done a part; answers that nobody waits for are dropped, late ones count."""
        entry = self._offered[server].get(result.task_id)
        if entry is None or entry[1].upload is None or entry[1].upload.sent_s is None:
            return
        task, part = entry
        del self._offered[server][result.task_id]
        if len(result.predicted) != part.frames or not _in_order(result):
            part.lose("bad_result")
        else:
            self._complete(part, result, self._servers[server].offset, now_s)
            part.measured_bps = self._measure_rate(part)
        self._settle(task, now_s)

    def _complete(self, part: Part, result: TaskResult, offset: ClockOffset, now_s: float) -> None:
        upload = part.upload
        assert upload is not None
        assert upload.started_s is not None
        trip = edge_round_trip(part.since_s, upload.started_s, now_s, result, offset.offset_s, offset.error_s)
        part.state = PartState.DONE
        part.predicted = result.predicted
        part.finished_s = now_s
        part.stages = trip.stages
        part.clock_error_s, part.is_clock_suspect = trip.clock_error_s, trip.is_suspect
        part.granted_bps = result.granted_bps if self._is_shaped and result.granted_bps > 0 else None
        part.used = Used(
            air_s=trip.stages.uplink_s,
            server_cpu_s=result.cpu_s,
            server_energy_j=result.energy_j,
            server_energy_error_j=result.energy_error_j,
            server_energy_source=result.energy_source,
        )

    def _measure_rate(self, part: Part) -> float | None:
        assert part.upload is not None
        if part.stages is None or part.stages.uplink_s <= 0:
            return None
        rate_bps = 8 * part.upload.payload_bytes / part.stages.uplink_s
        weight = _SMOOTHING if self.measured_bps else 1.0
        self.measured_bps += weight * (rate_bps - self.measured_bps)
        return rate_bps

    def refused(self, server: int, task_id: str, reason: str, now_s: float) -> None:
        """A server says that a part is certainly not done there."""
        entry = self._offered[server].pop(task_id, None)
        if entry is None:
            return
        task, part = entry
        if part.upload is not None:
            self._uplinks[server].remove(part.upload)
        self._refuse(task, part, reason, now_s)

    def _refuse(self, task: Task, part: Part, reason: str, now_s: float) -> None:
        in_time = part.state is PartState.OPEN and now_s < task.arrived_at_s + self._cell.timeouts.task_s
        if self._cell.on_refusal == "local" and in_time:
            started_s = None if part.upload is None else part.upload.started_s
            spent = refused_stages(part.since_s, started_s, now_s)
            here = Part(part.first, part.frames, Site.DEVICE, now_s, spent=spent)
            task.parts[task.parts.index(part)] = here
            self._execute(task, here)
            return
        part.fail(reason)
        self._settle(task, now_s)

    # -- losing servers -----------------------------------------------------------------------------------------------

    def server_lost(self, server: int, now_s: float) -> None:
        """A server is gone: nobody knows of what it had, and it certainly did nothing that was not sent completely."""
        for upload in self._uplinks[server].take_all():
            reason = UNREACHABLE if upload.started_s is None else SERVER_LOST
            self.refused(server, upload.task_id, reason, now_s)
        for task, part in list(self._offered[server].values()):
            if part.state is PartState.OPEN:
                part.lose(SERVER_LOST)
                self._settle(task, now_s)

    def server_back(self, server: int, restarted: bool, now_s: float) -> None:
        """A server has welcomed us again. An upload that was cut off is over; what waits goes on."""
        current = self._uplinks[server].current
        if current is not None:
            self._uplinks[server].remove(current)
            self._servers[server].send(Cancel(current.task_id))
            self.refused(server, current.task_id, SERVER_LOST, now_s)
        if restarted:
            self._forget_offers(server, now_s)

    def _forget_offers(self, server: int, now_s: float) -> None:
        """Whatever the predecessor of a restarted server had will never be answered."""
        for task_id, (task, part) in list(self._offered[server].items()):
            if part.upload is None or part.upload.started_s is None:
                continue
            del self._offered[server][task_id]
            if part.state is PartState.OPEN:
                part.lose(SERVER_LOST)
                self._settle(task, now_s)

    # -- giving up ----------------------------------------------------------------------------------------------------

    def time_out(self, task: Task, now_s: float) -> None:
        """The task has taken too long. What runs here is let finish: its result will come."""
        self._give_up(task, NOT_STARTED, TIMEOUT, now_s, wait_for_running=True)

    def stop(self, task: Task, reason: str, now_s: float) -> None:
        """The cell is over, or the program ends."""
        self._give_up(task, reason, reason, now_s, wait_for_running=False)

    def _give_up(self, task: Task, not_done: str, unknown: str, now_s: float, *, wait_for_running: bool) -> None:
        self._withdraw_open(task, not_done, unknown, wait_for_running=wait_for_running)
        self._settle(task, now_s)

    def _withdraw_open(self, task: Task, not_done: str, unknown: str, *, wait_for_running: bool) -> None:
        for part in task.parts:
            if part.state is not PartState.OPEN:
                continue
            if part.site is Site.EDGE:
                self._withdraw(task, part, not_done, unknown)
            elif self._withdraw_job(part):
                part.fail(not_done)
            elif not wait_for_running:
                part.lose(unknown)

    def _withdraw(self, task: Task, part: Part, not_done: str, unknown: str) -> None:
        upload = part.upload
        assert upload is not None
        is_unsent = self._uplinks[part.server].remove(upload)
        if upload.started_s is not None:
            self._servers[part.server].send(Cancel(task.task_id))
        if is_unsent:
            self._offered[part.server].pop(task.task_id, None)
            part.fail(not_done)
        else:
            part.lose(unknown)

    def _withdraw_job(self, part: Part) -> bool:
        job = next((job for job, (_, each) in self._running.items() if each is part), None)
        if job is None or not self._jobs.cancel(job):
            return False
        del self._running[job]
        return True

    def _settle(self, task: Task, now_s: float) -> None:
        """Tell of the change; when the task has failed, the rest of it would be in vain."""
        judged = task.judge()
        if judged is not None and judged[0] is Outcome.FAILED:
            self._withdraw_open(task, judged[1], judged[1], wait_for_running=True)
        self._changed(task, now_s)


def _in_order(result: TaskResult) -> bool:
    """Can these stamps be? They come from outside."""
    stamps = (result.received_s, result.started_s, result.finished_s)
    return all(map(math.isfinite, stamps)) and stamps[0] <= stamps[1] <= stamps[2]
