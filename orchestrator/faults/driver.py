"""Keeps the time of a run's faults: does each when it is due, lifts each when it is over, and writes down both.

It belongs to the session's thread and is asked in every turn; what takes time on a host is left to other threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from edgebed.clock import Clock
from edgebed.errors import EdgebedError, WorkFailed
from edgebed.protocol.cells import CellSpec
from orchestrator.faults.hands import NOBODY, Hands, do
from orchestrator.faults.kinds import KINDS
from orchestrator.faults.lab import hands_of
from orchestrator.faults.schedule import BEGIN, END, FAILED, Act
from orchestrator.journal import Journal
from orchestrator.plan_file import Plan
from orchestrator.provision.deployment import Deployment

LIFT_AGAIN_S = 0.5
"""After a host could not be asked, or was not back yet."""

TIMER_S = 0.2
"""So long the host's own timer may take before the fault is lifted from here."""


@dataclass(slots=True)
class _Running:
    """A fault that was ordered and is not known to be over.

    Attributes:
        work: what a thread does about it now; the begin, or a lifting.
        begun_s: when it was done, on the run clock; None while that is not known, or when it failed.
        due_s: when to ask for its end, on the session's clock.
        by: what will have ended it.
    """

    act: Act
    work: Future[tuple[float, str | None]] | None
    is_beginning: bool = True
    begun_s: float | None = None
    due_s: float = 0.0
    by: str = "time"
    problem: str = ""

    @property
    def is_lasting(self) -> bool:
        """Can it be ended from here? A reboot ends when it ends."""
        return KINDS[self.act.fault.kind].lasts


class _Swept(NamedTuple):
    """What has ended each fault that is over, by its id; and a sentence for each host that could not be asked."""

    over: dict[str, str]
    problems: list[str]


class FaultDriver:
    """The faults of one run.

    Args:
        plan: with its faults.
        deployment: the hosts.
        journal: where events go.
        clock: the session's.
        run_clock_s: the run clock now; may be asked by any thread.
    """

    def __init__(
        self, plan: Plan, deployment: Deployment, journal: Journal, clock: Clock, run_clock_s: Callable[[], float]
    ) -> None:
        self._plan = plan
        self._deployment = deployment
        self._journal = journal
        self._clock = clock
        self._run_clock_s = run_clock_s
        self._hosts = {host.name: host for host in plan.hosts}
        self._waiting: list[Act] = []
        self._running: list[_Running] = []
        self._untold: dict[str, str] = {}
        self._start_s = 0.0

    # -- before and after ---------------------------------------------------------------------------------------------

    @property
    def _kinds(self) -> dict[str, set[str]]:
        """The kinds of faults of each host that has any, in the whole run."""
        kinds: dict[str, set[str]] = {}
        for found in self._plan.fault_lists:
            for fault in found.faults:
                kinds.setdefault(fault.host, set()).add(fault.kind)
        return kinds

    def check(self) -> None:
        """See that every host can do what will be asked of it; its programs run already. For any thread.

        Raises:
            WorkFailed: with every host that cannot, and why.
        """
        problems = []
        for host, kinds in self._kinds.items():
            try:
                hands = self._hands(host)
                hands.prepare()
                reasons = {kind: hands.why_not(kind) for kind in sorted(kinds)}
                problems += [f"{host} cannot do the fault {kind}: {why}" for kind, why in reasons.items() if why]
            except EdgebedError as error:
                problems.append(str(error))
        if problems:
            raise WorkFailed("\n".join(problems))

    def sweep(self, by: str, wait_for: Callable[[Future[_Swept]], _Swept]) -> list[str]:
        """Lift whatever an earlier session, or this one, has left on the hosts.

        Args:
            by: what ends it, in a word.
            wait_for: of the session.

        Returns:
            A sentence for each host that could not be asked.
        """
        if not self._kinds:
            return []
        begun = {str(detail["fault"]): detail for detail in self._journal.details(BEGIN)}
        ended = {str(detail["fault"]) for detail in self._journal.details(END)}
        swept = wait_for(self._deployment.in_background(partial(self._sweep, by)))
        for act_id, found in swept.over.items():
            if act_id not in begun:
                self._untold[act_id] = found  # whoever did it died before writing it down
            elif act_id not in ended and begun[act_id]["kind"] != "kill":
                self._journal.note_of(str(begun[act_id]["host"]), END, begun[act_id] | {"by": found})
        self._running = [each for each in self._running if each.act.id not in swept.over]
        return swept.problems

    def _sweep(self, by: str) -> _Swept:
        swept = _Swept({}, [])
        for host in self._kinds:
            if self._deployment.folder(host) is None:
                continue
            try:
                swept.over.update(self._hands(host).lift_all(by))
            except EdgebedError as error:
                swept.problems.append(f"{host}: faults may not be over: {error}; the host itself lifts them in time")
        return swept

    def _hands(self, host: str) -> Hands:
        folder = self._deployment.folder(host)
        assert folder is not None, "the host was not reached"
        about = self._hosts[host]
        pid_of = partial(self._deployment.pid_of, host)
        return hands_of(about)(about, self._deployment.remote(host), folder.path, pid_of)

    # -- a cell -------------------------------------------------------------------------------------------------------

    def begin(self, spec: CellSpec, start_s: float, *, is_taken_over: bool = False) -> None:
        """From now on do the faults of a cell.

        Args:
            spec: the cell's.
            start_s: its start, on the session's clock.
            is_taken_over: the cell runs for a while; what was due before now was done, or is too late.
        """
        cell = self._plan.cell(spec.cell_id)
        faults = self._plan.faults_of(cell.seed, cell.setting.name)
        acts = [Act(f"{spec.serial}-{fault.number}", fault) for fault in faults]
        passed_s = self._clock.now_s() - start_s if is_taken_over else -1.0
        if is_taken_over:
            self._tell_what_was(acts, start_s, passed_s)
        self._waiting = [act for act in acts if act.fault.at_s >= passed_s]
        self._start_s = start_s

    def _tell_what_was(self, acts: list[Act], start_s: float, passed_s: float) -> None:
        """Events of acts that were due before now and of which nothing was written down."""
        begun = {detail["fault"] for detail in self._journal.details(BEGIN)}
        start_run_s = self._run_clock_s() - (self._clock.now_s() - start_s)
        for act in acts:
            if act.fault.at_s >= passed_s or act.id in begun:
                continue
            if act.id not in self._untold:
                self._note(act, FAILED, problem="the orchestrator was not there when it was due")
                continue
            # The host has not written down when; it was soon after it was due.
            self._note(act, BEGIN, t_s=start_run_s + act.fault.at_s)
            if act.fault.kind != "kill":
                self._note(act, END, by=self._untold[act.id])

    def end(self) -> None:
        """Do no more faults of the cell, and lift those that last; `is_lifting` until they are."""
        self._waiting = []
        for running in self._running:
            if running.is_lasting:
                running.by, running.due_s = "end", 0.0

    @property
    def is_lifting(self) -> bool:
        """Does a fault that lasts still last, as far as is known?"""
        return any(running.is_lasting or running.is_beginning for running in self._running)

    @property
    def is_rebooting(self) -> bool:
        """Is a host not back yet?"""
        return any(not running.is_lasting and not running.is_beginning for running in self._running)

    def turn(self) -> None:
        """Do what is due, and hear what has become of what was ordered."""
        now_s = self._clock.now_s()
        while self._waiting and now_s >= self._start_s + self._waiting[0].fault.at_s:
            self._order(self._waiting.pop(0))
        for running in list(self._running):
            if running.work is not None:
                if running.work.done():
                    self._hear(running, now_s)
            elif now_s >= running.due_s:
                hands = self._hands(running.act.fault.host)
                work = partial(hands.lift, running.act.id, running.by)
                running.work = self._deployment.in_background(partial(self._timed, work))

    def _order(self, act: Act) -> None:
        work = partial(do, self._hands(act.fault.host), act)
        self._running.append(_Running(act, self._deployment.in_background(partial(self._timed, work))))

    def _timed(self, work: Callable[[], str | None]) -> tuple[float, str | None]:
        """What some work gives, and when it was done, on the run clock."""
        result = work()
        return self._run_clock_s(), result

    def _hear(self, running: _Running, now_s: float) -> None:
        assert running.work is not None
        work, running.work = running.work, None
        try:
            t_s, result = work.result()
        except EdgebedError as error:
            self._failed(running, error, now_s)
            return
        if running.is_beginning:
            self._begun(running, t_s, now_s)
        elif result is None:
            running.due_s = now_s + LIFT_AGAIN_S
        else:
            self._over(running, t_s, result)

    def _begun(self, running: _Running, t_s: float, now_s: float) -> None:
        running.is_beginning, running.begun_s = False, t_s
        self._note(running.act, BEGIN, t_s=t_s)
        if running.act.fault.kind == "kill":
            self._running.remove(running)
        elif running.by == "time":
            running.due_s = now_s + (running.act.fault.for_s + TIMER_S if running.is_lasting else LIFT_AGAIN_S)

    def _over(self, running: _Running, t_s: float, by: str) -> None:
        self._running.remove(running)
        if by == NOBODY:  # it had failed, and so did nothing
            return
        if by == "timer" and running.begun_s is not None:
            t_s = running.begun_s + running.act.fault.for_s  # when the host itself lifted it, before it was asked
        self._note(running.act, END, t_s=t_s, by=by)

    def _failed(self, running: _Running, error: EdgebedError, now_s: float) -> None:
        running.problem = str(error)
        running.due_s = now_s + LIFT_AGAIN_S
        if not running.is_beginning:
            return
        running.is_beginning = False
        self._note(running.act, FAILED, problem=running.problem)
        if running.act.fault.kind == "kill":
            self._running.remove(running)
        # Anything else may have been done, whatever came back: it is lifted like all others.

    def _note(self, act: Act, kind: str, *, t_s: float | None = None, **more: object) -> None:
        self._journal.note_of(act.fault.host, kind, act.detail() | more, t_s=t_s)
