"""The edge server's event loop: one I/O thread for all sockets; workers hand over through a queue and wake it.

Tasks that take less than waking a worker are executed by the I/O thread itself (see `edge_server.intake`).
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque

from edge_server.admission import Admission, HeldTask
from edge_server.channels import ChannelArbiter
from edge_server.intake import Intake
from edge_server.membership import Membership
from edge_server.telemetry import Telemetry
from edge_server.workers import Prepared
from edgebed.clock import Clock
from edgebed.configuration import ServerConfig
from edgebed.metering.board import board_from_dict
from edgebed.protocol.front import Front, Session
from edgebed.protocol.link import Link
from edgebed.protocol.messages import ControlMessage, TaskMessage
from edgebed.protocol.waker import Descriptors, Waker
from edgebed.trace.outbox import Outbox

_log = logging.getLogger("edge_server")

HOUSEKEEPING_S = 0.05
"""How often timers, heartbeats, reports and what the controller says are looked at."""

BATCH = 256
"""Messages that are taken from the front before anything else is looked at."""

DRAIN_S = 5.0
"""How long a server that is asked to end goes on with what it has."""


class EdgeServer:
    """Owns the sockets, and brings devices, workers and the controller together.

    Args:
        front: the listening socket; its callbacks are set here.
        link: to the controller; None for a server that nobody controls.
    """

    def __init__(
        self,
        config: ServerConfig,
        clock: Clock,
        front: Front[TaskMessage],
        link: Link[ControlMessage] | None,
        outbox: Outbox,
        waker: Waker,
    ) -> None:
        self._clock = clock
        self._front = front
        self._link = link
        self._outbox = outbox
        self._waker = waker
        self.stopping = False
        self._finished: deque[HeldTask] = deque()
        self._prepared: deque[Prepared] = deque()
        self._admission = Admission(config.queue_tasks, config.queue_bytes)
        board = board_from_dict(config.board) if config.board else None
        self._intake = Intake(front, self._admission, clock, board, config.slowdown)
        self._telemetry = Telemetry(config, clock, board, outbox)
        self._membership = Membership(
            config,
            clock,
            link,
            outbox,
            self._intake,
            self._admission,
            self._telemetry,
            finished=self._finished,
            prepared=self._prepared,
            wake=self._handed_over,
        )
        front.on_joined, front.on_left = self._joined, self._left
        front.introduction = self._membership.introduction
        front.load = self._membership.load_values
        self._descriptors = Descriptors()
        self._descriptors.watch(waker.read_fd)
        self._descriptors.register(front.socket)
        self._front_alone = [self._descriptors.descriptor_of(front.socket)]
        if link is not None:
            link.register(self._descriptors)
        # Whoever uses the front or what is behind it holds this; the I/O thread lets go of it only to sleep.
        self._lock = threading.Lock()
        self._lock.acquire()
        self._due_s = clock.now_s()
        self._patience_ms = 0
        self._is_orphaned = False

    def stop(self) -> None:
        """Drain and end; safe to call from a signal handler."""
        self.stopping = True

    def run(self) -> None:
        """Serve until asked to stop, then finish what is there."""
        while not self.stopping and not self._is_orphaned:
            self.turn()
        self._drain()
        self._membership.close()
        self._front.close("the edge server stops")

    def _drain(self) -> None:
        self._admission.draining = True
        give_up_s = self._clock.now_s() + DRAIN_S
        while len(self._admission) and self._clock.now_s() < give_up_s:
            self.turn()
        if len(self._admission):
            _log.warning("%d tasks are left unfinished after %g s", len(self._admission), DRAIN_S)

    def turn(self) -> None:
        """Wait for whatever comes next, and deal with it."""
        is_signalled = self._sleep()
        mail = self._front.receive(BATCH, is_signalled=is_signalled)
        # With nothing in hand the first message is dealt with at once: a worker takes a while to wake. Otherwise all
        # that has come is taken before any of it is dealt with, and tasks are handed to the workers last: then a worker
        # that wakes finds this thread asleep, and both the interpreter and the front free.
        if len(self._admission) == 0 and (first := next(mail, None)) is not None:
            self._intake.handle(*first)
        came = list(mail)
        if self._finished:
            self._intake.answer(self._finished)
        now_s = self._clock.now_s()
        if now_s >= self._due_s or self._prepared:
            self._due_s = now_s + HOUSEKEEPING_S
            self._keep_house(now_s)
        self._patience_ms = max(0, math.ceil((self._due_s - now_s) * 1000))
        for session, message, payload in came:
            self._intake.handle(session, message, payload)
        if self._intake.arbiter is not None:
            self._grant(self._intake.arbiter)

    def _grant(self, arbiter: ChannelArbiter[HeldTask]) -> None:
        """Grant what is due by now, and wait no longer than until there will be more."""
        now_s = self._clock.now_s()
        self._intake.grant(now_s)
        self._patience_ms = max(0, math.ceil((min(self._due_s, arbiter.due_s()) - now_s) * 1000))

    def _sleep(self) -> bool:
        """Wait for a socket, a worker or the next timer. Meanwhile the front is the workers' to use.

        Returns:
            Has the front got mail?
        """
        self._waker.will_wait()
        is_quiet = self._front.is_drained or not self._front.has_mail()
        if self._finished or self._prepared or self.stopping or not is_quiet:
            self._waker.has_waited(False)
            return not is_quiet
        self._lock.release()
        signalled = self._descriptors.sleep(self._patience_ms)
        self._lock.acquire()
        if signalled == self._front_alone:
            self._waker.has_waited(False)
            return True
        self._waker.has_waited(self._waker.read_fd in signalled)
        if self._control_descriptor() in signalled:
            self._due_s = 0.0
        return False

    def _handed_over(self) -> None:
        """A worker has finished something.

        When nothing waits for the worker it answers by itself, which saves waking the I/O thread. Under load the I/O
        thread answers in batches, and the worker goes on with what waits.
        """
        if not self._intake.has_backlog and self._lock.acquire(blocking=False):
            try:
                self._intake.answer(self._finished)
                # Sending may have swallowed the signal that would wake the I/O thread.
                must_wake = self._waker.is_waiting and self._front.has_mail()
            finally:
                self._lock.release()
            if not (must_wake or self._finished or self._prepared):
                return
        self._waker.wake()

    def _control_descriptor(self) -> int:
        if self._link is None or self._link.socket.closed:
            return -1
        return self._descriptors.descriptor_of(self._link.socket)

    def _keep_house(self, now_s: float) -> None:
        while self._prepared:
            self._membership.prepared(self._prepared.popleft())
        self._membership.turn(now_s)
        self._front.expire(now_s)
        self._is_orphaned = self._membership.orphaned

    def _joined(self, session: Session, old: Session | None) -> None:
        self._intake.joined(session, old)
        again = old is not None and old.instance != session.instance
        self._telemetry.event("peer_joined", {"peer": session.name, "restarted": again})

    def _left(self, session: Session, reason: str) -> None:
        self._intake.left(session, reason)
        self._telemetry.event("peer_left", {"peer": session.name, "reason": reason})
