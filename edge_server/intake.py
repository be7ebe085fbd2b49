"""From an offer to its answer: what devices send meets admission, channels and workers here."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

import zmq

from edge_server.admission import Admission, HeldTask, ServedCell
from edge_server.channels import ChannelArbiter, Grant
from edge_server.workers import ServiceTime, WorkerPool
from edgebed.clock import Clock
from edgebed.errors import ProtocolError
from edgebed.metering.board import Board
from edgebed.metering.energy import task_energy_estimate
from edgebed.protocol.front import Front, Session
from edgebed.protocol.messages import (
    Cancel,
    Chunk,
    Credit,
    ErrorCode,
    Offer,
    Refusal,
    RefusalReason,
    TaskMessage,
    TaskResult,
)

_log = logging.getLogger("edge_server")

HAND_OVER_S = 100e-6
"""Tasks that take less are not worth a worker: handing one over and waking it costs about as much."""


@dataclass(slots=True)
class IntakeCounters:
    """What has become of the tasks, for telemetry and tests."""

    refused: int = 0
    answered: int = 0
    failed: int = 0
    undeliverable: int = 0


class Intake:
    """Deals with the messages of devices; belongs to the I/O thread.

    Args:
        board: whose power model gives the tasks' energy; None = energy is unknown.
        slowdown: padding counts as busy time.
    """

    def __init__(
        self, front: Front[TaskMessage], admission: Admission, clock: Clock, board: Board | None, slowdown: float
    ) -> None:
        self._front = front
        self._admission = admission
        self._clock = clock
        # The energy rule is linear in busy time, so a second's joules are all that is needed.
        self._energy_per_s = None if board is None else task_energy_estimate(board, busy_s=1.0, air_s=0.0)
        self._slowdown = slowdown
        self._pool: WorkerPool | None = None
        self.arbiter: ChannelArbiter[HeldTask] | None = None
        self.service = ServiceTime()
        self.counters = IntakeCounters()

    # -- the cell -----------------------------------------------------------------------------------------------------

    def serve(self, cell: ServedCell, pool: WorkerPool | None, arbiter: ChannelArbiter[HeldTask] | None) -> None:
        """Turn to another cell (serial 0: to none); what is held for the one before is refused."""
        self._admission.cell = cell
        for task in self._admission:
            if self._drop(task):
                self._front.send(task.session, task.refusal(RefusalReason.WRONG_CELL, "the cell is over"))
        self._pool = pool
        self.arbiter = arbiter

    # -- messages -----------------------------------------------------------------------------------------------------

    def handle(self, session: Session, message: TaskMessage, payload: zmq.Frame | None) -> None:
        """Deal with one message of a device."""
        kind = type(message)
        if kind is Offer:
            self._on_offer(session, message, payload)  # type: ignore[arg-type]
        elif kind is Chunk:
            self._on_chunk(session, message, payload)  # type: ignore[arg-type]
        elif kind is Cancel:
            self._on_cancel(session, message)  # type: ignore[arg-type]
        else:
            error = ProtocolError(ErrorCode.UNEXPECTED, f"an edge server is not sent {kind.__name__}")
            self._front.reply_error(session.identity, error)

    def _on_offer(self, session: Session, offer: Offer, payload: zmq.Frame | None) -> None:
        now_s = session.liveness.heard_s
        clip = None if payload is None else payload.buffer
        task = self._admission.offer(session, offer, clip, now_s)
        if isinstance(task, Refusal):
            self.counters.refused += 1
            self._front.send(session, task)
            return
        if clip is not None:
            self._start(task)
        elif self.arbiter is not None:
            self._send_grants(self.arbiter.join(task, task.channel, task.payload_bytes, now_s))

    def _on_chunk(self, session: Session, chunk: Chunk, payload: zmq.Frame | None) -> None:
        task = self._admission.get(session.name, chunk.task_id)
        if task is None:
            return  # it was cancelled or refused while this chunk was on its way
        if payload is None or not task.is_uploading:
            text = f"chunk {chunk.index} " + ("without its bytes" if payload is None else "after the last one")
            self._front.reply_error(session.identity, ProtocolError(ErrorCode.UNEXPECTED, text), chunk.task_id)
            return
        problem = self._admission.chunk(task, chunk.index, payload.buffer, session.liveness.heard_s)
        if problem is not None:
            self._drop(task)
            self.counters.refused += 1
            self._front.send(session, task.refusal(*problem))
        elif task.payload is not None:
            self._start(task)
        elif self.arbiter is None and (chunks := self._admission.credit_due(task)):
            self._front.send(session, Credit(task.task_id, chunks))

    def _on_cancel(self, session: Session, cancel: Cancel) -> None:
        task = self._admission.get(session.name, cancel.task_id)
        if task is not None:
            self._drop(task)

    @property
    def has_backlog(self) -> bool:
        """Do complete tasks wait for a worker?"""
        return self._pool is not None and len(self._pool.queue) > 0

    def _start(self, task: HeldTask) -> None:
        assert self._pool is not None, "admission lets tasks in only when a pool is ready"
        if self.service.per_frame_s * task.frames < HAND_OVER_S and len(self._admission) == 1:
            # No other task is held, so no worker is busy and nobody is overtaken.
            self._pool.execute(task)
            self._answer(task)
        else:
            self._pool.queue.put(task)

    def _drop(self, task: HeldTask) -> bool:
        """Let go of a task whose answer nobody wants; False when a worker has it, which then ends for nothing."""
        if task.is_uploading:
            if self.arbiter is not None:
                self._send_grants(self.arbiter.leave(task, self._clock.now_s()))
        elif self._pool is None or not self._pool.queue.withdraw(task):
            task.is_abandoned = True
            return False
        self._admission.release(task)
        return True

    # -- sessions -----------------------------------------------------------------------------------------------------

    def joined(self, session: Session, old: Session | None) -> None:
        """A device is there. The tasks of a dead predecessor are for nobody."""
        for task in self._tasks_of(session.name):
            if task.session.instance != session.instance:
                self._drop(task)

    def left(self, session: Session, reason: str) -> None:
        """A device is gone. What is complete is still executed: it may only have lost the connection."""
        for task in self._tasks_of(session.name):
            if task.is_uploading or reason != "silent":
                self._drop(task)

    def _tasks_of(self, device: str) -> list[HeldTask]:
        return [task for task in self._admission if task.session.name == device]

    # -- credits ------------------------------------------------------------------------------------------------------

    def grant(self, now_s: float) -> None:
        """Send the credits that the channels have for the uploads by now."""
        if self.arbiter is not None:
            self._send_grants(self.arbiter.advance(now_s))

    def _send_grants(self, grants: list[Grant[HeldTask]]) -> None:
        for grant in grants:
            task = grant.key
            task.credited += grant.chunks
            task.granted_bps = grant.mean_bps
            self._front.send(task.session, Credit(task.task_id, grant.chunks))

    # -- answers ------------------------------------------------------------------------------------------------------

    def answer(self, finished: deque[HeldTask]) -> None:
        """Answer what the workers have finished."""
        while finished:
            self._answer(finished.popleft())

    def _answer(self, task: HeldTask) -> None:
        if task.is_abandoned:
            self._admission.release(task)
        elif task.predicted is None:
            assert task.problem is not None
            self.counters.failed += 1
            self._deliver(task, task.refusal(*task.problem))
        else:
            self._deliver(task, self._result(task, task.predicted))
            self.counters.answered += 1
            self.service.learn(task.finished_s - task.started_s, task.frames)

    def _result(self, task: HeldTask, predicted: list[int]) -> TaskResult:
        energy, busy_s = self._energy_per_s, task.cpu_s * self._slowdown
        return TaskResult(
            task.task_id,
            predicted,
            task.offered_s,
            task.received_s,
            task.started_s,
            task.finished_s,
            self._clock.now_s(),
            task.cpu_s,
            None if energy is None else energy.device_energy_j * busy_s,
            None if energy is None else energy.error_j * busy_s,
            "" if energy is None else energy.source,
            task.granted_bps,
        )

    def _deliver(self, task: HeldTask, answer: TaskResult | Refusal) -> None:
        # A device that came back over a new connection gets its answer there; else the old one may still stand.
        session = self._front.by_name.get(task.session.name)
        if session is None or session.instance != task.session.instance:
            session = task.session
        if not self._front.send(session, answer):
            self.counters.undeliverable += 1
        self._admission.release(task)
