"""The device agent's event loop: one thread, its links, a wake-up pipe, and the timers of whatever is going on.

It sleeps until something comes or is due. Executing, rendering and writing to the disk happen on other threads, which
wake it through the pipe.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import zmq

from device_agent.cell import ALIVE
from device_agent.content import Content
from device_agent.executor import ClipJob, Executor, Job, SlowedWorkload
from device_agent.member import Device, Member
from device_agent.preparing import Preparation, Workshop
from device_agent.servers import ServerLink
from device_agent.telemetry import Telemetry
from edgebed.clock import Clock
from edgebed.configuration import DeviceConfig, PeerAddress
from edgebed.protocol.codec import HeaderDecoder, control_headers, task_headers
from edgebed.protocol.front import Context
from edgebed.protocol.link import Link
from edgebed.protocol.messages import (
    Acknowledge,
    ControlMessage,
    Credit,
    Error,
    Ping,
    Records,
    Refusal,
    Role,
    TaskMessage,
    TaskResult,
)
from edgebed.protocol.security import KeyPair
from edgebed.protocol.waker import Waker
from edgebed.trace.outbox import Outbox
from edgebed.trace.reporting import Reporter

_log = logging.getLogger(__name__)

PROGRAM = "device_agent"

STALL_S = 1.0
"""Waking up so much later than planned means that this program was stopped, or starved."""

REPORT_INTERVAL_S = 1.0


M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Introduction:
    """How this device introduces itself, on every link."""

    context: Context
    keys: KeyPair
    config: DeviceConfig
    instance: str
    clock: Clock
    cell: Callable[[], tuple[str, int]]

    def link(
        self,
        address: PeerAddress,
        decoder: HeaderDecoder[M],
        up: Callable[[bool], None],
        lost: Callable[[str], None],
    ) -> Link[M]:
        """A link to one peer."""
        return Link(
            context=self.context,
            address=address,
            keys=self.keys,
            name=self.config.name,
            role=Role.DEVICE,
            instance=self.instance,
            decoder=decoder,
            clock=self.clock,
            limits=self.config.liveness,
            cell=self.cell,
            up=up,
            lost=lost,
            spread=zlib.crc32(self.config.name.encode()) / 2**32,
        )


class Agent:
    """The program.

    Args:
        instance: random, new for every start.

    Raises:
        BadInput: board or meter are described wrongly, or the sensor is not there.
        RunConflict: another agent works with this state folder.
        WorkFailed: the state folder cannot be written.
    """

    def __init__(self, config: DeviceConfig, keys: KeyPair, context: Context, clock: Clock, instance: str) -> None:
        self.is_ending = False
        self._config, self._clock = config, clock
        self._telemetry = Telemetry(config, clock)  # first: settings can be wrong, and nothing is open yet
        self.waker = Waker()
        self._has_committed = False
        folder = Path(config.state_dir)
        self._outbox = Outbox(folder / f"{PROGRAM}.outbox.sqlite", clock)
        self._outbox.on_commit = self._committed
        self._outbox.on_error = lambda error: _log.error("rows wait for a disk that refuses: %s", error)
        self._content = Content(folder)
        self._executor = Executor(clock, self.waker.wake)
        self._open_links(config, keys, context, instance)
        self._reporter = Reporter(self._outbox, config.name, self._send_records)
        self._member = Member(self._device())
        self._poller = zmq.Poller()
        self._poller.register(self.waker.read_fd, zmq.POLLIN)
        for link in self._links:
            link.register(self._poller)
        self._told_s = self._seen_s = clock.now_s()
        self._patient_until_s = -math.inf
        self._report_s = 0.0

    # -- making -------------------------------------------------------------------------------------------------------

    def _open_links(self, config: DeviceConfig, keys: KeyPair, context: Context, instance: str) -> None:
        as_who = Introduction(context, keys, config, instance, self._clock, self._cell)
        self._control = as_who.link(config.controller, control_headers, self._control_up, self._control_lost)
        self._servers = {
            address.name: ServerLink(
                partial(as_who.link, address, task_headers),
                partial(self._server_back, address.name),
                partial(self._server_lost, address.name),
                config.liveness.dead_after_s,
            )
            for address in config.servers
        }
        self._links: list[Link[ControlMessage] | Link[TaskMessage]] = [
            self._control,
            *(server.link for server in self._servers.values()),
        ]

    def _device(self) -> Device:
        config = self._config
        workshop = Workshop(
            config.name,
            frozenset(self._servers),
            self._content,
            config.slowdown,
            lambda workload, slowdown: SlowedWorkload(workload, slowdown, self._clock, self._executor.wait),
        )
        return Device(
            config=config,
            clock=self._clock,
            rows=self._outbox,
            servers=self._servers,
            jobs=self._executor,
            telemetry=self._telemetry,
            workshop=workshop,
            controller_offset=lambda: self._control.offset,
            send=self._send,
            read=self._content.read,
            alive=self._outbox.get_state(ALIVE),
            damaged_outbox=str(self._outbox.damaged or ""),
        )

    def _cell(self) -> tuple[str, int]:
        return self._member.plan_hash, self._member.serial

    # -- the loop -----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End soon; safe to call from a signal handler."""
        self.is_ending = True

    def run(self) -> None:
        """Work until asked to end, or until nobody has wanted anything for long."""
        due_s = self._clock.now_s()
        while not self.is_ending:
            due_s = self.turn(due_s)
        self._leave()

    def turn(self, due_s: float) -> float:
        """Sleep until something comes or ``due_s`` has come, and deal with it.

        Returns:
            When there is something to do next.
        """
        self._notice_stall(self._seen_s)
        now_s = self._clock.now_s()
        self.waker.will_wait()
        if self._has_committed or self._executor.has_finished:
            due_s = now_s
        ready = dict(self._poller.poll(math.ceil(max(0.0, due_s - now_s) * 1000)))
        self.waker.has_waited(self.waker.read_fd in ready)
        self._notice_stall(max(due_s, now_s))
        # First all that has come, then what is due: a result that waited in a buffer came in time.
        self._receive(ready)
        for job in self._executor.finished():
            self._finished(job)
        if self._notice_stall(self._seen_s):
            return self._seen_s  # stopped in here: once more, before the clock is believed
        now_s = self._clock.now_s()
        due_s = min(self._tend_links(now_s), self._member.advance(now_s), self._report(now_s))
        self._end_when_orphaned(now_s)
        return due_s

    def _notice_stall(self, planned_s: float) -> bool:
        """After a stop of this program its peers were not silent, they were not heard: ask before judging them."""
        self._seen_s = now_s = self._clock.now_s()
        late_s = now_s - planned_s
        if late_s < STALL_S:
            return False
        _log.warning("this program stood still for %.1f s", late_s)
        if self._member.run is not None:
            self._member.run.event("stalled", now_s, seconds=round(late_s, 3))
        self._patient_until_s = now_s + STALL_S
        for link in self._links:
            if link.is_up:
                link.send(Ping(0, now_s))
        return True

    def _tend_links(self, now_s: float) -> float:
        if now_s < self._patient_until_s:
            return self._patient_until_s
        for link in self._links:
            link.tick(now_s)
        for server in self._servers.values():
            server.check(now_s)
        return min(link.due_s for link in self._links)

    def _end_when_orphaned(self, now_s: float) -> None:
        if self._member.state in ("preparing", "running"):
            self._told_s = now_s
        elif now_s - self._told_s > self._config.orphan_after_s:
            _log.warning("nobody has asked for anything for %g s: ending", self._config.orphan_after_s)
            self.is_ending = True

    def _leave(self) -> None:
        """End in order: what is open gets its outcome, rows are on the disk, peers are told."""
        self._member.leave(self._clock.now_s())
        self._executor.close()
        self._outbox.flush(5.0)
        self._reporter.report(self._clock.now_s())
        for link in self._links:
            link.close("agent stops")
        self._outbox.close()
        self._content.close()
        self.waker.close()

    # -- what comes ---------------------------------------------------------------------------------------------------

    def _receive(self, ready: Container[object]) -> None:
        for message, _ in self._control.receive(is_signalled=self._control.socket in ready):
            now_s = self._told_s = self._clock.now_s()
            if isinstance(message, Acknowledge):
                self._reporter.acknowledge(message.last, now_s)
                self._report_s = now_s  # there is room for more
            elif isinstance(message, Error):
                _log.warning("the controller says: %s: %s", message.code, message.detail)
            else:
                self._member.handle(message, now_s)
        for name, server in self._servers.items():
            for answer, _ in server.link.receive(is_signalled=server.link.socket in ready):
                self._answered(name, answer, self._clock.now_s())

    def _answered(self, name: str, message: TaskMessage, now_s: float) -> None:
        index, run = self._member.server_index(name), self._member.run
        if index is None or run is None:
            return
        if isinstance(message, TaskResult):
            run.dispatcher.answered(index, message, now_s)
        elif isinstance(message, Credit):
            run.dispatcher.credited(index, message.task_id, message.chunks)
        elif isinstance(message, Refusal):
            run.dispatcher.refused(index, message.task_id, message.reason.value, now_s)
        elif isinstance(message, Error):
            _log.warning("%s says: %s: %s", name, message.code, message.detail)
            if message.task_id:
                run.dispatcher.refused(index, message.task_id, f"error_{message.code.value}", now_s)

    def _finished(self, job: Job) -> None:
        if isinstance(job, Preparation):
            self._member.prepared(job, self._clock.now_s())
        elif isinstance(job, ClipJob) and self._member.run is not None:
            self._member.run.dispatcher.executed(job)

    # -- links --------------------------------------------------------------------------------------------------------

    def _send(self, message: ControlMessage) -> bool:
        return self._control.is_up and self._control.send(message)

    def _send_records(self, message: Records, payload: bytes) -> bool:
        return self._control.is_up and self._control.send(message, payload)

    def _committed(self) -> None:
        """Called from the outbox's thread."""
        self._has_committed = True
        self.waker.wake()

    def _report(self, now_s: float) -> float:
        """Send what has been committed; again when it takes too long until somebody has it."""
        if self._has_committed or now_s >= self._report_s:
            self._has_committed = False
            self._reporter.report(now_s)
            self._report_s = now_s + REPORT_INTERVAL_S
        return self._report_s if self._outbox.unacknowledged() else math.inf

    def _control_up(self, restarted: bool) -> None:
        now_s = self._told_s = self._clock.now_s()
        self._reporter.restart()
        self._report_s = now_s
        self._member.say_status(now_s)
        if self._member.run is not None:
            self._member.run.event("controller_up", now_s, restarted=restarted)

    def _control_lost(self, reason: str) -> None:
        _log.warning("%s", reason)
        if self._member.run is not None:
            self._member.run.event("controller_lost", self._clock.now_s(), reason=reason)

    def _server_back(self, name: str, restarted: bool) -> None:
        _log.info("%s is up%s", name, " again, restarted" if restarted else "")
        self._member.server_back(name, restarted)

    def _server_lost(self, name: str, reason: str) -> None:
        _log.warning("%s", reason)
        self._member.server_lost(name, reason)
