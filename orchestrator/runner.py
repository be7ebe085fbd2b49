"""Runs a plan on its hosts: cell after cell, until all are complete or someone asks to stop; then seals what there is.

::

    planned ──▶ running ──▶ complete      every cell came to its end, but for those that ``stop`` made superfluous
                        ├─▶ incomplete    someone asked to stop, and `edgebed resume` goes on; or ``stop.run_s`` did
                        └─▶ failed        it could not go on; `edgebed resume` tries again

However it ends, rows and logs are collected, the tables are written, and no program and no key is left behind. Only
when this program itself is killed do the others go on; `edgebed resume` finds them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebed.backend import opened
from edgebed.clock import Clock, MonotonicClock, utc_now
from edgebed.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EdgebedError
from edgebed.trace.manifest import Manifest, Software, State, read_manifest, write_manifest
from orchestrator import provenance
from orchestrator.attempts import Attempts
from orchestrator.backends.assembly import assemble
from orchestrator.backends.hosts import HostsBackend
from orchestrator.backends.session import Patience, Session
from orchestrator.interrupts import Interrupted, Interrupts
from orchestrator.inventory import Host
from orchestrator.plan_file import Plan
from orchestrator.progress import Display, Tracker
from orchestrator.provision.deployment import local_remote
from orchestrator.provision.settings import Pace
from orchestrator.remote.base import Remote
from orchestrator.run_folder import covers_all_tasks, exclusive
from orchestrator.sealing import is_finished, seal_run
from orchestrator.stopping import Stopping

if TYPE_CHECKING:
    from orchestrator.report.summary import Summary


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended, or how it stood already.

    Attributes:
        cells_complete: of ``cells``.
        summary: what the report says; None when none was written.
    """

    folder: Path
    manifest: Manifest
    cells_complete: int
    cells: int
    summary: Summary | None = None
    is_interrupted: bool = False

    @property
    def exit_status(self) -> int:
        """What `edgebed run` and `edgebed resume` end with."""
        if self.is_interrupted:
            return EXIT_INTERRUPTED
        return EXIT_DONE if self.manifest.state == "complete" else EXIT_FAILED

    def answer(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        counts = self.manifest.counts
        return {
            "run": str(self.folder),
            "state": self.manifest.state,
            "verdict": self.manifest.verdict,
            "reasons": self.manifest.reasons,
            **{name: counts.get(name, 0) for name in ("planned", "done", "failed", "unknown")},
            "cells": self.cells_complete,
        }


@dataclass(slots=True)
class Runner:
    """Works on one run.

    Args:
        folder: the run's, with the plan in it.
        plan: that plan.
        display: shows how it goes.
        command: the command line that makes such a run.
        connect: makes the `Remote` of a host.
    """

    folder: Path
    plan: Plan
    display: Display
    command: str = ""
    clock: Clock = field(default_factory=MonotonicClock)
    pace: Pace = field(default_factory=Pace)
    patience: Patience = field(default_factory=Patience)
    interrupts: Interrupts = field(default_factory=Interrupts)
    connect: Callable[[Host], Remote] = local_remote

    def run(self) -> RunOutcome:
        """Run a plan that has not been run.

        Raises:
            RunConflict: somebody works on this run already.
        """
        with exclusive(self.folder):
            manifest = Manifest(
                run_id=self.plan.run_id,
                experiment=self.plan.experiment,
                plan_hash=self.plan.plan_hash,
                backend=self.plan.backend,
                started=utc_now().isoformat(timespec="seconds"),
                command=self.command,
            )
            write_manifest(self.folder, manifest)
            return self._work(manifest, is_new=True)

    def resume(self) -> RunOutcome:
        """Run what is missing of a run; nothing when it is complete.

        Raises:
            RunConflict: somebody works on this run already.
            BadInput: the manifest is missing or damaged.
        """
        with exclusive(self.folder):
            manifest = read_manifest(self.folder)
            attempts = Attempts(self.folder, self._cell_ids)
            if is_finished(self.folder, manifest, attempts):
                return self._outcome(manifest, attempts)
            return self._work(manifest, is_new=False)

    @property
    def _cell_ids(self) -> list[str]:
        return [cell.cell_id for cell in self.plan.cells]

    def _work(self, manifest: Manifest, *, is_new: bool) -> RunOutcome:
        with self.interrupts.listening():
            work = _Work(self, manifest)
            try:
                work.go(is_new=is_new)
            finally:
                work.end()
        return self._outcome(manifest, work.attempts, work.summary, is_interrupted=work.is_interrupted)

    def _outcome(
        self, manifest: Manifest, attempts: Attempts, summary: Summary | None = None, *, is_interrupted: bool = False
    ) -> RunOutcome:
        complete = sum(attempts.is_complete(cell_id) for cell_id in self._cell_ids)
        return RunOutcome(self.folder, manifest, complete, len(self._cell_ids), summary, is_interrupted)


class _Work:
    """One session's work on a run, from its first program to its last file."""

    def __init__(self, runner: Runner, manifest: Manifest) -> None:
        self._runner = runner
        self._plan, self._folder = runner.plan, runner.folder
        self.manifest = manifest
        self.is_interrupted = False
        self.summary: Summary | None = None
        self._problem = ""
        self._tracker = _tracker(runner)
        self._hosts = assemble(
            self._folder,
            self._plan,
            clock=runner.clock,
            interrupts=runner.interrupts,
            pace=runner.pace,
            patience=runner.patience,
            on_turn=self._show,
            connect=runner.connect,
        )
        self.attempts = self._hosts.attempts
        self._stopping = Stopping(self._folder, self._plan, self.attempts)
        self._began_s = runner.clock.now_s()
        self._session = self._hosts.session
        self._backend = HostsBackend(lambda: self._hosts)
        self._software: Future[Software] | None = None

    def _show(self, session: Session) -> None:
        terminal, up = (session.watch.tasks[0], session.watch.up) if session.watch is not None else (0, 0)
        self._runner.display.show(self._tracker.standing(session.doing, terminal, up))

    # -- going on -----------------------------------------------------------------------------------------------------

    def go(self, *, is_new: bool) -> None:
        """Run what is missing; how far that came is in the attempts."""
        is_run = not self.attempts.missing or self._stopping.has_ended_it
        if not is_new and is_run and not self._hosts.own_folder.exists():
            return  # only the tables were still to be written
        self._save("running")
        self._hosts.journal.note("run_started" if is_new else "run_resumed")
        try:
            is_adopted = not is_new and self._adopt()
            if not is_adopted:
                self._session.open()
            if self._session.faults is not None:
                self._session.wait_for(self._hosts.deployment.in_background(self._session.faults.check))
            self._software = self._hosts.deployment.in_background(provenance.software)
            self._take_up(is_adopted=is_adopted)
            for cell_id in self.attempts.cell_ids:
                if self.attempts.is_complete(cell_id):
                    self._tracker.skip(cell_id)
            self._run_missing()
        except Interrupted:
            self.is_interrupted = True
            self._hosts.journal.note("interrupted")
        except EdgebedError as error:
            self._problem = str(error)
            self._hosts.journal.note("failed", problem=self._problem)
            self._runner.display.note(self._problem)

    def _adopt(self) -> bool:
        """Find the programs of an earlier session; what cannot be used any more is collected and removed."""
        if not self._hosts.own_folder.exists():
            return False
        is_adopted = self._session.adopt()
        for problem in self._hosts.sweep_faults("resume"):
            self._hosts.collector.complain(problem)
        if is_adopted:
            self._hosts.journal.note("programs_adopted")
            return True
        self._hosts.collector.remember()
        self._hosts.stop_programs()
        self._session.recover(self._hosts.deployment.members)
        for problem in self._hosts.deployment.remove():
            self._hosts.collector.complain(problem)
        return False

    def _take_up(self, *, is_adopted: bool) -> None:
        """Deal with the attempt that was going on when an earlier session was cut off."""
        newest = self.attempts.newest()
        if newest is None or newest.is_over:
            return
        spec = self._plan.cell(newest.cell_id).spec(newest.serial, newest.attempt)
        self._tracker.begin(newest.cell_id)
        if is_adopted and self._hosts.conductor.take_over(spec):
            self._tracker.end()
            return
        newest.state = "complete" if covers_all_tasks(self._folder, self._plan, newest) else "abandoned"
        if newest.state == "complete":
            newest.reason, newest.stopped_s = "", None
        self.attempts.save(newest)

    def _run_missing(self) -> None:
        for cell_id in self.attempts.missing:
            if self._stopping.ends_before(cell_id, self._worked_s()):
                return
            attempt = self.attempts.begin(cell_id)
            spec = self._plan.cell(cell_id).spec(attempt.serial, attempt.attempt)
            self._tracker.begin(cell_id)
            with opened(self._backend, spec):
                self._backend.run_cell(spec, lambda outcome: None)
            self._tracker.end()
            self._note_facts()
            self._save("running")

    def _worked_s(self) -> float:
        """How long the run has worked, in all its sessions."""
        return self._stopping.worked_before_s + self._runner.clock.now_s() - self._began_s

    # -- the end ------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Stop the programs, collect, seal and judge; every step is tried, whatever became of the one before."""
        problems = self._hosts.dismantle()
        self._note_facts()
        self._session.doing = "sealing"
        self._show(self._session)
        collected = self._hosts.collector.problems
        self.manifest.problems = [*([self._problem] if self._problem else []), *problems, *collected]
        self.manifest.ended = utc_now().isoformat(timespec="seconds")
        self._stopping.note(self._worked_s())
        self._save(self._stopping.final_state(self._problem, is_interrupted=self.is_interrupted))
        self.summary = seal_run(self._folder, self._plan, self.attempts, self.manifest)
        self._runner.display.close()

    # -- the manifest -------------------------------------------------------------------------------------------------

    def _note_facts(self) -> None:
        facts, deployment = self._session.facts, self._hosts.deployment
        self.manifest.hosts = provenance.hosts_of(self._plan, deployment.facts, facts)
        self.manifest.clocks |= provenance.clocks_of(facts, deployment.members[0].name)
        if self._software is not None and self._software.done():
            self.manifest.software = self._software.result()

    def _save(self, state: State) -> None:
        self.manifest.state = state
        write_manifest(self._folder, self.manifest)


def _tracker(runner: Runner) -> Tracker:
    cells = runner.plan.cells
    return Tracker(
        runner.clock,
        horizons_s={cell.cell_id: cell.setting.horizon_s for cell in cells},
        planned={
            cell.cell_id: sum(
                runner.plan.tasks_of(cell.seed, cell.setting.name, device.name).count for device in runner.plan.devices
            )
            for cell in cells
        },
        members=len(runner.plan.hosts) + 1,
    )
