"""A run's connection to its hosts: programs brought up, one cell after the other run on them, every row collected.

One thread owns a session. It looks at the clock, the link and the hosts in `Session.turn`; all waiting is a loop of
turns, so that heartbeats, rows and Ctrl-C are dealt with whatever is being waited for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import zmq

from edgebed.clock import Clock
from edgebed.configuration import Liveness
from edgebed.errors import EdgebedError, RemoteError, WorkFailed
from edgebed.protocol.cells import CellSpec, cell_to_plain
from edgebed.protocol.messages import Error, Members, Prepare, Ready, Records, Role, Start, Stop
from orchestrator.attempts import Attempt, Attempts
from orchestrator.backends.control import ControlLink
from orchestrator.backends.run_clock import RunClock
from orchestrator.backends.watch import CellWatch, Watched
from orchestrator.collect import Collector
from orchestrator.interrupts import Interrupts
from orchestrator.journal import Journal
from orchestrator.provision.deployment import Deployment
from orchestrator.provision.layout import Member
from orchestrator.provision.supervision import ProgramState
from orchestrator.retrieve import Recovered, fetch_outbox

T = TypeVar("T")

ALIVE_REACH_S = 0.5
"""How long after its last sign of life a device may still have worked; as the device agent itself reckons."""

CRASHES_TO_GIVE_UP = 4
"""A program that was never heard of and has been started so often is not going to come."""

LOST_ORCHESTRATOR = "the orchestrator was lost"

NEXT_TO_NOTHING_S = 0.02

MOST_DRAINS = 6
"""How many times its patience a member may take to send its rows, even if it goes on sending."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the orchestrator waits, in seconds.

    Attributes:
        start_delay_s: from telling everyone to the start itself.
        connect_s: for the controller's first welcome.
        silence_s: after it a member's program is looked at on its host, every ``look_s``.
        grace_s: for a cell's end, beyond its horizon and its tasks' time-out.
        drain_s: for a member to send what it has, after a stop.
    """

    start_delay_s: float = 0.1
    connect_s: float = 15.0
    silence_s: float = 3.0
    look_s: float = 1.0
    grace_s: float = 5.0
    drain_s: float = 10.0
    take_over_s: float = 3.0


class Interrupted(Exception):
    """Someone has asked to stop; nothing is wrong."""


class Session:
    """See the module.

    Args:
        deployment: the hosts, brought up by `open` or `adopt`.
        on_turn: called about every 0.1 s, for whoever shows how things go.

    Attributes:
        watch: the members of the current or last cell.
        facts: what members said of themselves when they got ready, by name.
        start_s: the current cell's start on the own clock.
        doing: what is being done, in a word or two.
    """

    def __init__(
        self,
        deployment: Deployment,
        attempts: Attempts,
        collector: Collector,
        journal: Journal,
        run_clock: RunClock,
        clock: Clock,
        interrupts: Interrupts,
        *,
        limits: Liveness | None = None,
        patience: Patience | None = None,
        on_turn: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self.deployment = deployment
        self.patience = patience or Patience()
        self.watch: CellWatch | None = None
        self.facts: dict[str, dict[str, object]] = {}
        self.clock = clock
        self.interrupts = interrupts
        self.limits = limits or Liveness()
        self.on_turn = on_turn
        self._attempts = attempts
        self._collector = collector
        self._journal = journal
        self._run_clock = run_clock
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._control: ControlLink | None = None
        self.poller = zmq.Poller()
        self.poller.register(interrupts.read_fd, zmq.POLLIN)
        self._joins_seen = 0
        self._members: Members | None = None
        self._heard_ever: set[str] = set()
        self._looking: Future[dict[str, ProgramState | None]] | None = None
        self._look_due_s = 0.0
        self.start_s = 0.0
        self.doing = ""

    # -- opening and closing ------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Is there a link to a controller?"""
        return self._control is not None

    @property
    def control(self) -> ControlLink:
        """The link to the controller."""
        assert self._control is not None, "the session is not open"
        return self._control

    def open(self) -> None:
        """Bring the programs up and connect to them.

        Raises:
            WorkFailed: a program could not be started, or the controller does not answer.
            Interrupted: someone has asked to stop.
        """
        self.doing = "starting programs"
        self._set_up(self.deployment.bring_up)
        self._collector.forget()
        self._connect()

    def adopt(self) -> bool:
        """Connect to the programs of an earlier session; False when they are not there to be adopted.

        Raises:
            WorkFailed: a host could not be reached, or the controller does not answer.
            Interrupted: someone has asked to stop.
        """
        self.doing = "looking for programs"
        if not self._set_up(self.deployment.adopt):
            return False
        self._collector.remember()
        self._connect()
        return True

    def _set_up(self, work: Callable[[], T]) -> T:
        try:
            found = self.wait_for(self.deployment.in_background(work))
        except WorkFailed:
            self._check_interrupts()  # an interrupt makes it fail
            raise
        self._check_interrupts()
        return found

    def wait_for(self, work: Future[T]) -> T:
        """The result of what a thread does on hosts; meanwhile everything goes on.

        Raises:
            Whatever the work raised.
        """
        while not work.done():
            if self.interrupts.count:
                self.deployment.cancelled.set()
            self.turn(NEXT_TO_NOTHING_S)
        return work.result()

    def _connect(self) -> None:
        credentials = self.deployment.credentials
        self._control = ControlLink(
            self.context,
            self.deployment.controller,
            credentials.orchestrator,
            credentials.public.orchestrator,
            Role.ORCHESTRATOR,
            self.deployment.plan.plan_hash,
            self.clock,
            self.limits,
        )
        self._control.register(self.poller)
        give_up_s = self.clock.now_s() + self.patience.connect_s
        while not self._control.is_up:
            if self.clock.now_s() > give_up_s:
                controller = self.deployment.members[0]
                raise WorkFailed(
                    f"the controller at {self.deployment.controller.endpoint} does not answer "
                    f"within {self.patience.connect_s:g} s; its log ends with:\n{self._log_tail(controller)}"
                )
            self.turn()
            self._check_interrupts()

    def close(self) -> None:
        """Let go of the link. The programs go on; whoever wants them ended ends them first."""
        if self._control is not None:
            self._control.close()
            self._control = None
        self.context.destroy(linger=0)

    # -- one turn -----------------------------------------------------------------------------------------------------

    def turn(self, timeout_s: float = 0.1) -> None:
        """Wait a little for messages, deal with them, acknowledge rows, and look after silent members."""
        if self.poller.poll(int(timeout_s * 1000)):
            self.interrupts.drain()
        if self._control is not None:
            for message, payload in self._control.receive():
                self._handle(message, payload)
            for acknowledgement in self._collector.acknowledgements(self.clock.now_s()):
                self._control.send(acknowledgement)
            if self._control.is_up and self.watch is not None:
                self.watch.hear_controller(self.clock.now_s())
        self._look_at_programs()
        self.on_turn(self)

    def _handle(self, message: msgspec.Struct, payload: bytes | None) -> None:
        now_s = self.clock.now_s()
        member = getattr(message, "member", None)
        if isinstance(member, str):
            self._heard_ever.add(member)
        if isinstance(message, Records):
            self._collector.receive(message, payload or b"")
        elif isinstance(message, Ready) and message.ok and message.facts:
            self.facts[message.member] = message.facts
        elif isinstance(message, Members):
            self._members = message
        elif isinstance(message, Error):
            self._journal.note("controller_refused", code=message.code, detail=message.detail)
        if self.watch is not None:
            self.watch.hear(message, now_s)

    def _look_at_programs(self) -> None:
        """Ask hosts how the programs of silent members stand; the answer comes in a later turn."""
        if self._looking is not None and self._looking.done():
            if self.watch is not None:
                self.watch.note_programs(self._looking.result())
            self._looking = None
        now_s = self.clock.now_s()
        if self.watch is None or self._looking is not None or now_s < self._look_due_s:
            return
        if self.watch.silent(now_s, self.patience.silence_s):
            self._look_due_s = now_s + self.patience.look_s
            self._looking = self.deployment.in_background(self.deployment.states)

    def _check_interrupts(self) -> None:
        if self.interrupts.count:
            raise Interrupted

    # -- a cell -------------------------------------------------------------------------------------------------------

    def run_cell(self, spec: CellSpec) -> None:
        """Run an attempt of a cell to its end, and collect all its rows.

        Args:
            spec: its serial is that of an attempt that was begun.

        Raises:
            WorkFailed: the cell could not be started; it was collected all the same.
            Interrupted: someone has asked to stop; the cell was stopped and collected first.
        """
        attempt = self.enter(spec)

        def whole() -> None:
            self.prepare()
            self.start(attempt)
            self._follow()

        self._collected(attempt, whole)

    def take_over(self, spec: CellSpec) -> bool:
        """Go on with an attempt that an earlier session has begun, or collect what there is of it.

        Returns:
            True when it goes on on the hosts, and so came to its end here.

        Raises:
            Interrupted: someone has asked to stop; the cell was stopped and collected first.
        """
        attempt = self.enter(spec)
        if attempt.state == "running" and self._goes_on(attempt):
            self._journal.note("cell_taken_over", cell=attempt.cell_id, attempt=attempt.attempt)
            self._collected(attempt, self._follow)
            return True
        was_stopped = attempt.state == "stopping"
        self.leave(attempt, attempt.reason if was_stopped else LOST_ORCHESTRATOR, is_over=True)
        return False

    def _collected(self, attempt: Attempt, work: Callable[[], None]) -> None:
        """Do some work on the current cell, then stop and collect it, however the work ended."""
        try:
            work()
        except Interrupted:
            self.leave(attempt, "interrupted")
            raise
        except WorkFailed as error:
            self.leave(attempt, str(error))
            raise
        self.leave(attempt)
        self._check_interrupts()

    def enter(self, spec: CellSpec) -> Attempt:
        """Make a cell the current one, and give its attempt."""
        attempt = self._attempts.with_serial(spec.serial)
        assert attempt is not None, "Attempts.begin gives an attempt its serial"
        self.watch = CellWatch(spec, self.deployment.members[0].name)
        if self._members is not None:
            self.watch.hear(self._members, self.clock.now_s())
        self.control.serial = spec.serial
        self._joins_seen = 0
        if attempt.run_clock_s is not None:
            self.start_s = self.clock.now_s() + attempt.run_clock_s - self._run_clock.now_s()
        return attempt

    def _goes_on(self, attempt: Attempt) -> bool:
        """Does the cell run on the hosts already? Devices say where they stand twice a second."""
        assert self.watch is not None
        devices = self.watch.devices
        give_up_s = self.clock.now_s() + self.patience.take_over_s
        while self.clock.now_s() < give_up_s:
            self.turn()
            self._check_interrupts()
            if any(device.is_started for device in devices) or all(device.has_spoken for device in devices):
                break
        return any(device.is_started for device in devices)

    def prepare(self) -> None:
        """Have every member load and render what the cell needs.

        Raises:
            WorkFailed: one refuses, or was never heard of, or no device is left.
            Interrupted: someone has asked to stop.
        """
        assert self.watch is not None
        self.doing = "preparing"
        spec = self.watch.spec
        give_up_s = self.clock.now_s() + spec.timeouts.prepare_s
        told = -1
        while self.watch.unready:
            if self.control.is_up and told != self.control.joins:
                self.control.send(Prepare(spec.serial, cell_to_plain(spec)))
                told = self.control.joins
            self.turn()
            self._check_interrupts()
            for refusal in self.watch.refusals:
                raise WorkFailed(f"cell {spec.cell_id}: {refusal.member} cannot take part: {refusal.detail}")
            for member in self.watch.unready:
                self._judge_unready(member, is_late=self.clock.now_s() > give_up_s)
        if all(device.given_up for device in self.watch.devices):
            raise WorkFailed(f"cell {spec.cell_id}: no device is left: {_listed(self.watch.given_up)}")

    def _judge_unready(self, member: Watched, *, is_late: bool) -> None:
        """Give a member up when waiting is in vain; the run too, when there never was one."""
        assert self.watch is not None
        is_new = member.name not in self._heard_ever
        program = member.program
        if member.is_dead:
            reason = "its program has ended"
        elif is_new and program is not None and program.starts >= CRASHES_TO_GIVE_UP:
            reason = f"its program has crashed {program.starts - 1} times"
        elif is_late:
            reason = f"it did not get ready within {self.watch.spec.timeouts.prepare_s:g} s"
        else:
            return
        if is_new or member.role is Role.CONTROLLER:
            tail = self._log_tail(self.deployment.member(member.name))
            raise WorkFailed(f"{member.name}: {reason}; its log ends with:\n{tail}")
        self._give_up(member, reason)

    def _give_up(self, member: Watched, reason: str) -> None:
        assert self.watch is not None
        self._journal.note("member_given_up", member=member.name, reason=reason)
        self.watch.give_up(member.name, reason)

    def start(self, attempt: Attempt) -> None:
        """Start the prepared cell.

        Raises:
            Interrupted: someone has asked to stop.
        """
        delay_s = self.patience.start_delay_s
        while True:
            self.start_s = self.clock.now_s() + delay_s
            attempt.run_clock_s = self._run_clock.now_s() + delay_s
            attempt.started_utc_s = self._run_clock.utc_now_s() + delay_s
            attempt.state = "running"
            self._attempts.save(attempt)
            if self.control.send(Start(attempt.serial, delay_s, attempt.run_clock_s)):
                break
            self.turn()
            self._check_interrupts()
        self._joins_seen = self.control.joins
        self._journal.note("cell_started", cell=attempt.cell_id, attempt=attempt.attempt, serial=attempt.serial)

    def _follow(self) -> None:
        """Wait until every task has an outcome, or nobody can tell any more."""
        assert self.watch is not None
        self.doing = "running"
        while self.watch.unfinished:
            self.turn()
            self._check_interrupts()
            self.keep_in_touch()

    def keep_in_touch(self) -> None:
        """What a running cell needs now and then: a controller that knows it, and no waiting in vain."""
        assert self.watch is not None
        spec, now_s = self.watch.spec, self.clock.now_s()
        if self.control.is_up and self.control.joins != self._joins_seen:
            self._joins_seen = self.control.joins
            self._tell_again()
        give_up_s = self.start_s + spec.horizon_s + spec.timeouts.task_s + self.patience.grace_s
        for member in self.watch.unfinished:
            if member.is_dead:
                self._give_up(member, "its program has ended")
            elif now_s > give_up_s:
                self._give_up(member, "it was not heard to the end of the cell")

    def _tell_again(self) -> None:
        """A controller that was restarted is told its cell: what it was, and when it began."""
        assert self.watch is not None
        spec = self.watch.spec
        attempt = self._attempts.with_serial(spec.serial)
        if self.control.controllers_cell == spec.serial or attempt is None or attempt.run_clock_s is None:
            return
        self._journal.note("controller_told_again", cell=spec.cell_id)
        self.control.send(Prepare(spec.serial, cell_to_plain(spec)))
        self.control.send(Start(spec.serial, self.start_s - self.clock.now_s(), attempt.run_clock_s))

    # -- the end of a cell --------------------------------------------------------------------------------------------

    def leave(self, attempt: Attempt, reason: str = "", *, is_over: bool = False) -> None:
        """Stop the current cell, and collect what members have of it.

        Args:
            attempt: the current cell's.
            reason: why it ends before its time; empty when it came to its end.
            is_over: nobody runs it any more; so nobody tells when it has sent everything, and the files are asked.
        """
        assert self.watch is not None
        self.doing = "collecting"
        lost_before = dict(self.watch.given_up)
        attempt.reason = reason
        if attempt.run_clock_s is not None:
            attempt.state = "stopping"
            if reason and attempt.stopped_s is None:
                attempt.stopped_s = max(0.0, self.clock.now_s() - self.start_s)
            self._attempts.save(attempt)
        self.watch.is_stopping = True
        self.control.send(Stop(attempt.serial, (reason or "complete")[:200]))
        if is_over:
            for member in self.watch.undrained:
                self.watch.give_up(member.name, "it was not heard to the end of the cell")
        else:
            self._drain()
        recovered = self.recover(self.deployment.member(name) for name in self.watch.given_up)
        attempt.down = self._down(recovered)
        # Who only did not send all its rows has lost nothing when they could be fetched.
        attempt.lost = {
            name: why for name, why in self.watch.given_up.items() if name in lost_before or name not in recovered
        }
        attempt.state = "abandoned" if reason else "complete"
        self._attempts.save(attempt)
        self._collector.close()
        self._journal.note("cell_ended", cell=attempt.cell_id, attempt=attempt.attempt, state=attempt.state)

    def _drain(self) -> None:
        """Wait until every member has sent its rows and has had them acknowledged."""
        assert self.watch is not None
        stopped_s = self.clock.now_s()
        give_up_s = stopped_s + MOST_DRAINS * self.patience.drain_s
        while self.watch.undrained and self.interrupts.count < 2:
            self.turn(NEXT_TO_NOTHING_S)
            now_s = self.clock.now_s()
            for member in self.watch.undrained:
                if member.name not in self._heard_ever:
                    self._give_up(member, "it was never heard of")
                    continue
                # Whoever has rows to send and is heard may take its time.
                since_s = max(stopped_s, member.heard_s) if _has_rows(member) else stopped_s
                if member.is_dead:
                    self._give_up(member, "its program has ended")
                elif now_s > min(since_s + self.patience.drain_s, give_up_s):
                    self._give_up(member, "it did not send all its rows")
        for member in self.watch.undrained:
            self._give_up(member, "interrupted before it had sent all its rows")

    def _down(self, recovered: dict[str, Recovered]) -> dict[str, float]:
        """Devices that are certainly dead, and since when: an instant after which they certainly did nothing."""
        assert self.watch is not None
        down: dict[str, float] = {}
        for device in self.watch.devices:
            found = recovered.get(device.name)
            if not (device.is_dead and found):
                continue
            alive = found.alive
            is_of_cell = alive is not None and alive.serial == self.watch.spec.serial
            down[device.name] = alive.cell_time_s + ALIVE_REACH_S if alive is not None and is_of_cell else 0.0
        return down

    def recover(self, members: Iterable[Member]) -> dict[str, Recovered]:
        """Fetch what lies in the outboxes of members, on their hosts.

        Returns:
            For each member what was found; one whose host does not answer is missing.
        """
        found: dict[str, Recovered] = {}
        with tempfile.TemporaryDirectory(prefix="edgebed-collect-") as folder:
            copies = {
                member.name: self.deployment.in_background(partial(fetch_outbox, self.deployment, member, Path(folder)))
                for member in members
                if self.deployment.folder(member.host.name) is not None
            }
            for name, copy in copies.items():
                try:
                    path = self.wait_for(copy)
                except RemoteError as error:
                    self._collector.complain(f"rows of {name} could not be fetched: {error}")
                    continue
                found[name] = self._collector.take_outbox(name, path) if path else Recovered(0, None)
        return found

    def _log_tail(self, member: Member) -> str:
        try:
            return self.deployment.log_tail(member)
        except EdgebedError as error:
            return f"(it could not be read: {error})"


def _has_rows(member: Watched) -> bool:
    """Does it still speak, with rows left to send?"""
    return member.status is not None and member.status.unsent > 0


def _listed(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
