"""One cell on the hosts, from its preparation to its last row."""

from __future__ import annotations

from collections.abc import Callable

from edgebed.errors import WorkFailed
from edgebed.protocol.cells import CellSpec, cell_to_plain
from edgebed.protocol.messages import Prepare, Role, Start, Stop
from orchestrator.attempts import Attempt, Attempts
from orchestrator.backends.run_clock import RunClock
from orchestrator.backends.session import NEXT_TO_NOTHING_S, Session
from orchestrator.backends.watch import CellWatch, Watched
from orchestrator.interrupts import Interrupted
from orchestrator.retrieve import Recovered

ALIVE_REACH_S = 0.5
"""How long after its last sign of life a device may still have worked; as the device agent itself reckons."""

CRASHES_TO_GIVE_UP = 4
"""A program that was never heard of and has been started so often is not going to come."""

LOST_ORCHESTRATOR = "the orchestrator was lost"

MOST_DRAINS = 6
"""How many times its patience a member may take to send its rows, even if it goes on sending."""


class Conductor:
    """Leads one attempt of a cell after the other: prepare, start, follow, stop, collect.

    Args:
        session: open.
        attempts: where it is written down how far each has come.
        run_clock: the run's.

    Attributes:
        start_s: the current cell's start, on the session's clock.
    """

    def __init__(self, session: Session, attempts: Attempts, run_clock: RunClock) -> None:
        self.start_s = 0.0
        self._session = session
        self._attempts = attempts
        self._run_clock = run_clock
        self._watch: CellWatch | None = None
        self._joins_seen = 0

    @property
    def watch(self) -> CellWatch:
        """The members of the current cell."""
        assert self._watch is not None, "no cell was entered"
        return self._watch

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
            if self._session.faults is not None:
                self._session.faults.begin(spec, self.start_s, is_taken_over=True)
            self._session.journal.note("cell_taken_over", cell=attempt.cell_id, attempt=attempt.attempt)
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
        self._session.check_interrupts()

    def enter(self, spec: CellSpec) -> Attempt:
        """Make a cell the current one, and give its attempt."""
        attempt = self._attempts.with_serial(spec.serial)
        assert attempt is not None, "Attempts.begin gives an attempt its serial"
        self._watch = self._session.enter(spec)
        self._joins_seen = 0
        if attempt.run_clock_s is not None:
            self.start_s = self._session.clock.now_s() + attempt.run_clock_s - self._run_clock.now_s()
        return attempt

    def _goes_on(self, attempt: Attempt) -> bool:
        """Does the cell run on the hosts already? Devices say where they stand twice a second."""
        devices = self.watch.devices
        give_up_s = self._session.clock.now_s() + self._session.patience.take_over_s
        while self._session.clock.now_s() < give_up_s:
            self._session.turn()
            self._session.check_interrupts()
            if any(device.is_started for device in devices) or all(device.has_spoken for device in devices):
                break
        return any(device.is_started for device in devices)

    def prepare(self) -> None:
        """Have every member load and render what the cell needs.

        Raises:
            WorkFailed: one refuses, or was never heard of, or no device is left.
            Interrupted: someone has asked to stop.
        """
        self._session.doing = "preparing"
        spec = self.watch.spec
        give_up_s = self._session.clock.now_s() + spec.timeouts.prepare_s
        told = -1
        while self.watch.unready:
            if self._session.control.is_up and told != self._session.control.joins:
                self._session.control.send(Prepare(spec.serial, cell_to_plain(spec)))
                told = self._session.control.joins
            self._session.turn()
            self._session.check_interrupts()
            for refusal in self.watch.refusals:
                raise WorkFailed(f"cell {spec.cell_id}: {refusal.member} cannot take part: {refusal.detail}")
            for member in self.watch.unready:
                self._judge_unready(member, is_late=self._session.clock.now_s() > give_up_s)
        if all(device.given_up for device in self.watch.devices):
            raise WorkFailed(f"cell {spec.cell_id}: no device is left: {_listed(self.watch.given_up)}")

    def _judge_unready(self, member: Watched, *, is_late: bool) -> None:
        """Give a member up when waiting is in vain; the run too, when there never was one."""
        is_new = member.name not in self._session.heard_ever
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
            tail = self._session.log_tail(self._session.deployment.member(member.name))
            raise WorkFailed(f"{member.name}: {reason}; its log ends with:\n{tail}")
        self._give_up(member, reason)

    def _give_up(self, member: Watched, reason: str) -> None:
        self._session.journal.note("member_given_up", member=member.name, reason=reason)
        self.watch.give_up(member.name, reason)

    def start(self, attempt: Attempt) -> None:
        """Start the prepared cell.

        Raises:
            Interrupted: someone has asked to stop.
        """
        self._await_learner()
        delay_s = self._session.patience.start_delay_s
        while True:
            self.start_s = self._session.clock.now_s() + delay_s
            attempt.run_clock_s = self._run_clock.now_s() + delay_s
            attempt.started_utc_s = self._run_clock.utc_now_s() + delay_s
            attempt.state = "running"
            self._attempts.save(attempt)
            if self._session.control.send(Start(attempt.serial, delay_s, attempt.run_clock_s)):
                break
            self._session.turn()
            self._session.check_interrupts()
        self._joins_seen = self._session.control.joins
        if self._session.faults is not None:
            self._session.faults.begin(self.watch.spec, self.start_s)
        self._session.journal.note("cell_started", cell=attempt.cell_id, attempt=attempt.attempt, serial=attempt.serial)

    def _await_learner(self) -> None:
        """Tell the learner of the cell, and let it load; one that takes too long misses the cell's beginning."""
        learning, clock = self._session.learning, self._session.clock
        if learning is None:
            return
        learning.begin(self.watch.spec)
        give_up_s = clock.now_s() + self._session.patience.learner_s
        while not learning.is_ready and clock.now_s() < give_up_s:
            self._session.turn()
            self._session.check_interrupts()

    def _follow(self) -> None:
        """Wait until every task has an outcome, or nobody can tell any more."""
        self._session.doing = "running"
        while self.watch.unfinished:
            self._session.turn()
            self._session.check_interrupts()
            self.keep_in_touch()

    def keep_in_touch(self) -> None:
        """What a running cell needs now and then: a controller that knows it, and no waiting in vain."""
        spec, now_s = self.watch.spec, self._session.clock.now_s()
        if self._session.control.is_up and self._session.control.joins != self._joins_seen:
            self._joins_seen = self._session.control.joins
            self._tell_again()
        give_up_s = self.start_s + spec.horizon_s + spec.timeouts.task_s + self._session.patience.grace_s
        for member in self.watch.unfinished:
            if member.is_dead:
                self._give_up(member, "its program has ended")
            elif now_s > give_up_s:
                self._give_up(member, "it was not heard to the end of the cell")

    def _tell_again(self) -> None:
        """A controller that was restarted is told its cell: what it was, and when it began."""
        spec = self.watch.spec
        attempt = self._attempts.with_serial(spec.serial)
        if self._session.control.controllers_cell == spec.serial or attempt is None or attempt.run_clock_s is None:
            return
        self._session.journal.note("controller_told_again", cell=spec.cell_id)
        self._session.control.send(Prepare(spec.serial, cell_to_plain(spec)))
        self._session.control.send(Start(spec.serial, self.start_s - self._session.clock.now_s(), attempt.run_clock_s))

    # -- the end of a cell --------------------------------------------------------------------------------------------

    def leave(self, attempt: Attempt, reason: str = "", *, is_over: bool = False) -> None:
        """Stop the current cell, and collect what members have of it.

        Args:
            attempt: the current cell's.
            reason: why it ends before its time; empty when it came to its end.
            is_over: nobody runs it any more; so nobody tells when it has sent everything, and the files are asked.
        """
        self._session.doing = "collecting"
        if self._session.learning is not None:
            self._session.learning.end()
        self._session.lift_faults(self._session.patience.lift_s)
        lost_before = dict(self.watch.given_up)
        attempt.reason = reason
        if attempt.run_clock_s is not None:
            attempt.state = "stopping"
            if reason and attempt.stopped_s is None:
                attempt.stopped_s = max(0.0, self._session.clock.now_s() - self.start_s)
            self._attempts.save(attempt)
        self.watch.is_stopping = True
        self._session.control.send(Stop(attempt.serial, (reason or "complete")[:200]))
        if is_over:
            for member in self.watch.undrained:
                self.watch.give_up(member.name, "it was not heard to the end of the cell")
        else:
            self._drain()
        recovered = self._session.recover(self._session.deployment.member(name) for name in self.watch.given_up)
        attempt.down = self._down(recovered)
        # Who only did not send all its rows has lost nothing when they could be fetched.
        attempt.lost = {
            name: why for name, why in self.watch.given_up.items() if name in lost_before or name not in recovered
        }
        attempt.state = "abandoned" if reason else "complete"
        self._attempts.save(attempt)
        self._session.collector.close()
        self._session.journal.note("cell_ended", cell=attempt.cell_id, attempt=attempt.attempt, state=attempt.state)

    def _drain(self) -> None:
        """Wait until every member has sent its rows and has had them acknowledged."""
        stopped_s = self._session.clock.now_s()
        give_up_s = stopped_s + MOST_DRAINS * self._session.patience.drain_s
        while self.watch.undrained and self._session.interrupts.count < 2:
            self._session.turn(NEXT_TO_NOTHING_S)
            now_s = self._session.clock.now_s()
            for member in self.watch.undrained:
                if member.name not in self._session.heard_ever:
                    self._give_up(member, "it was never heard of")
                    continue
                # Whoever has rows to send and is heard may take its time.
                since_s = max(stopped_s, member.heard_s) if _has_rows(member) else stopped_s
                if member.is_dead:
                    self._give_up(member, "its program has ended")
                elif now_s > min(since_s + self._session.patience.drain_s, give_up_s):
                    self._give_up(member, "it did not send all its rows")
        for member in self.watch.undrained:
            self._give_up(member, "interrupted before it had sent all its rows")

    def _down(self, recovered: dict[str, Recovered]) -> dict[str, float]:
        """Devices that are certainly dead, and since when: an instant after which they certainly did nothing."""
        down: dict[str, float] = {}
        for device in self.watch.devices:
            found = recovered.get(device.name)
            if not (device.is_dead and found):
                continue
            alive = found.alive
            is_of_cell = alive is not None and alive.serial == self.watch.spec.serial
            down[device.name] = alive.cell_time_s + ALIVE_REACH_S if alive is not None and is_of_cell else 0.0
        return down


def _has_rows(member: Watched) -> bool:
    """Does it still speak, with rows left to send?"""
    return member.status is not None and member.status.unsent > 0


def _listed(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
