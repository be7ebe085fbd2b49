"""Runs a plan in virtual time: cell after cell, no host and no daemon; then seals what there is, as on hosts."""

from __future__ import annotations

import gc
import math
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_server.controller.deciding import CentralPolicy
from edgebed.clock import Clock, MonotonicClock
from edgebed.errors import EdgebedError, WorkFailed
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.profile import Profile, write_profile
from edgebed.trace.manifest import Manifest, State, read_manifest, write_manifest
from edgebed.trace.schema import NOT_NEEDED, NOT_RUN
from edgebed.trace.segments import attempt_folder
from orchestrator import provenance
from orchestrator.attempts import Attempt, Attempts
from orchestrator.backends.simulated_cell import SimulatedCell
from orchestrator.backends.simulated_deciding import JointDecider
from orchestrator.backends.simulated_rows import task_table, write_cell
from orchestrator.columnar import ColumnWriter, Table
from orchestrator.interrupts import Interrupted, Interrupts
from orchestrator.plan_file import Plan, PlannedCell
from orchestrator.progress import Display, Standing
from orchestrator.provision.content import content_of
from orchestrator.run_folder import exclusive
from orchestrator.runner import RunOutcome
from orchestrator.seal_columnar import SealedCell, seal_columns
from orchestrator.sealing import conclude_run, is_finished
from orchestrator.simulated_profile import PROFILE_FILE, checksum_of, profile_of_run, testbeds_of
from orchestrator.stopping import Stopping
from workloads.files import file_name

if TYPE_CHECKING:
    from orchestrator.backends.simulated_door import SimulatedDoor
    from orchestrator.backends.simulated_external import ExternalDecider
    from orchestrator.online.inline import InlineLearning
    from orchestrator.report.summary import Summary

INTERRUPTED = "interrupted"


@dataclass(slots=True)
class SimulatedRunner:
    """Works on one simulated run.

    Args:
        folder: the run's, with the plan in it.
        plan: that plan.
        display: shows how it goes.
        command: the command line that makes such a run.
        interrupts: who may ask to stop.
    """

    folder: Path
    plan: Plan
    display: Display
    command: str = ""
    clock: Clock = field(default_factory=MonotonicClock)
    interrupts: Interrupts = field(default_factory=Interrupts)

    def run(self, profile: Profile | None) -> RunOutcome:
        """Run a plan that has not been run.

        Args:
            profile: what the experiment names; None: what boards and workload state.

        Raises:
            RunConflict: somebody works on this run already.
        """
        with exclusive(self.folder):
            testbeds = testbeds_of(self.plan, profile)
            used = testbeds[self.plan.settings[0].name].profile
            write_profile(used, self.folder / PROFILE_FILE)
            # No wall-clock value: the same plan gives the same manifest.
            manifest = Manifest(
                run_id=self.plan.run_id,
                experiment=self.plan.experiment,
                plan_hash=self.plan.plan_hash,
                backend=self.plan.backend,
                command=self.command,
                profile={
                    "file": PROFILE_FILE,
                    "sha256": checksum_of(used),
                    "kind": used.source.kind,
                    "text": used.source.text,
                },
            )
            return self._work(manifest, testbeds)

    def resume(self) -> RunOutcome:
        """Run what is missing of a run; nothing when it is complete.

        Raises:
            RunConflict: somebody works on this run already, or its profile was changed.
            BadInput: the manifest or the profile is missing or damaged.
        """
        with exclusive(self.folder):
            manifest = read_manifest(self.folder)
            attempts = Attempts(self.folder, [cell.cell_id for cell in self.plan.cells])
            if is_finished(self.folder, manifest, attempts):
                complete = len(attempts.cell_ids) - len(attempts.missing)
                return RunOutcome(self.folder, manifest, complete, len(attempts.cell_ids))
            return self._work(manifest, testbeds_of(self.plan, profile_of_run(self.folder, self.plan)))

    def _work(self, manifest: Manifest, testbeds: dict[str, Testbed]) -> RunOutcome:
        content = Path(tempfile.mkdtemp(prefix="edgebed-content-"))
        try:
            for name, data in content_of(self.plan).items():
                (content / file_name(name)).write_bytes(data)
            with self.interrupts.listening():
                work = _Work(self, manifest, testbeds, content)
                try:
                    work.go()
                finally:
                    work.end()
        finally:
            shutil.rmtree(content, ignore_errors=True)
        return work.outcome()


class _Work:
    """One session's work on a run."""

    def __init__(
        self, runner: SimulatedRunner, manifest: Manifest, testbeds: dict[str, Testbed], content: Path
    ) -> None:
        self._runner, self._plan, self._folder = runner, runner.plan, runner.folder
        self._manifest, self._testbeds, self._content = manifest, testbeds, content
        cells = self._plan.cells
        self._attempts = Attempts(self._folder, [cell.cell_id for cell in cells])
        self._cells = {cell.cell_id: cell for cell in cells}
        self._starts_s = _starts_s(cells)
        self._stopping = Stopping(self._folder, self._plan, self._attempts)
        self._progress = _Progress(runner, cells, self._attempts)
        self._writer = ColumnWriter(content)
        self._is_interrupted = False
        self._problem = ""
        self._summary: Summary | None = None
        self._door: SimulatedDoor | None = None
        self._external: ExternalDecider | None = None

    def go(self) -> None:
        """Run what is missing; how far that came is in the attempts."""
        self._manifest.hosts = provenance.hosts_of(self._plan, {}, {})
        self._manifest.software = provenance.software()
        self._save("running")
        try:
            self._door = self._opened_door()
            for cell_id in self._attempts.missing:
                if self._runner.interrupts.count:
                    self._is_interrupted = True
                    return
                # The time that counts is the run clock's, as everywhere here: the same plan ends at the same cell.
                if self._stopping.ends_before(cell_id, self._starts_s[cell_id]):
                    return
                self._run_cell(self._cells[cell_id])
                if self._is_interrupted:
                    return
        except Interrupted:
            self._is_interrupted = True
        except EdgebedError as error:
            self._problem = str(error)
            self._runner.display.note(self._problem)

    def _run_cell(self, cell: PlannedCell) -> None:
        attempt = self._attempts.begin(cell.cell_id)
        start_s = self._starts_s[cell.cell_id]
        spec = cell.spec(attempt.serial, attempt.attempt)
        faults = self._plan.faults_of(cell.seed, cell.setting.name)
        testbed = self._testbeds[cell.setting.name]
        simulated = SimulatedCell(spec, testbed, start_s, self._content, faults=faults)
        policy = CentralPolicy(spec, simulated.spec, self._content) if spec.placement == "controller" else None
        learning = self._learning_of(spec, simulated, policy)
        self._external = self._external_of(simulated, attempt)
        attempt.run_clock_s, attempt.state = start_s, "running"
        gc.disable()  # millions of small objects and no cycles: looking for some takes a third of the time
        try:
            self._run(simulated, policy or self._external, learning, attempt)
        except Interrupted:
            self._stop(simulated, attempt)
        finally:
            gc.enable()

    def _opened_door(self) -> SimulatedDoor | None:
        """Where a program outside comes in; None when it has nothing to decide."""
        missing = [self._cells[cell_id] for cell_id in self._attempts.missing]
        if not any((cell.policy.placement or cell.setting.placement) == "external" for cell in missing):
            return None
        from orchestrator.backends.simulated_door import SimulatedDoor

        return SimulatedDoor(self._folder, self._plan, self._runner.clock, self._runner.interrupts.read_fd)

    def _external_of(self, simulated: SimulatedCell, attempt: Attempt) -> ExternalDecider | None:
        """The program outside that decides a cell, once it is there; None when it is not its to decide.

        Raises:
            WorkFailed: it did not come.
            Interrupted: someone has asked to stop.
        """
        if self._door is None or simulated.cell.placement != "external":
            return None
        from orchestrator.backends.simulated_external import ExternalDecider

        self._progress.show(attempt.cell_id, 0, doing="preparing")
        external = ExternalDecider(self._door, simulated, self._runner.interrupts, self._runner.clock)
        try:
            external.begin(self._runner.display.note)
        except (Interrupted, WorkFailed) as error:
            attempt.reason, attempt.state = str(error) or INTERRUPTED, "abandoned"
            simulated.start_s = math.nan  # it has no place on the run clock
            write_cell(self._writer, self._attempt_folder(attempt), simulated, -math.inf)
            self._attempts.save(attempt)
            raise
        return external

    def _learning_of(
        self, spec: CellSpec, simulated: SimulatedCell, policy: CentralPolicy | None
    ) -> InlineLearning | None:
        """The learner of a cell whose policy learns; of others nothing is loaded."""
        if self._plan.policy(spec.policy).learn is None:
            return None
        from orchestrator.online.inline import learning_of

        return learning_of(self._plan, spec, simulated, policy, self._content)

    def _run(
        self, simulated: SimulatedCell, decider: JointDecider | None, learning: InlineLearning | None, attempt: Attempt
    ) -> None:
        while simulated.step(decider):
            if self._door is not None:
                self._door.turn()
            if learning is not None:
                learning.turn()
            self._progress.show(attempt.cell_id, len(simulated.tasks) - simulated.undecided)
            if self._runner.interrupts.count:
                raise Interrupted
        last = simulated.conclude()
        if self._external is not None:
            self._external.end(last)
        simulated.advance(math.inf)
        write_cell(self._writer, self._attempt_folder(attempt), simulated, math.inf)
        attempt.state = "complete"
        self._attempts.save(attempt)
        self._progress.end(attempt.cell_id)

    def _stop(self, simulated: SimulatedCell, attempt: Attempt) -> None:
        """Write down what is known of a cell that nobody waits for any more."""
        self._is_interrupted = True
        if self._external is not None:
            self._external.end(simulated.observe_end(), INTERRUPTED)
        attempt.stopped_s, attempt.reason, attempt.state = simulated.pipeline.now_s, INTERRUPTED, "abandoned"
        write_cell(self._writer, self._attempt_folder(attempt), simulated, attempt.stopped_s)
        self._attempts.save(attempt)

    def _attempt_folder(self, attempt: Attempt) -> Path:
        return attempt_folder(self._folder, attempt.cell_id, attempt.attempt)

    def end(self) -> None:
        """Seal and judge, whatever became of the cells."""
        self._progress.show("", 0, doing="sealing")
        self._writer.close()
        self._manifest.problems = [self._problem] if self._problem else []
        self._save(self._stopping.final_state(self._problem, is_interrupted=self._is_interrupted))
        if self._door is not None:
            self._door.close()
        counts = seal_columns(self._folder, [self._sealed(cell) for cell in self._cells.values()], self._not_run)
        self._summary = conclude_run(self._folder, self._plan, self._manifest, counts)
        self._runner.display.close()

    def _sealed(self, cell: PlannedCell) -> SealedCell:
        latest = self._attempts.latest(cell.cell_id)
        if latest is None or not (self._attempt_folder(latest) / "tasks.parquet").exists():
            return SealedCell(cell.spec(1, 1), 0)
        return SealedCell(cell.spec(latest.serial, latest.attempt), latest.attempt)

    def _not_run(self, spec: CellSpec) -> Table:
        testbed = self._testbeds[self._cells[spec.cell_id].setting.name]
        never = msgspec.structs.replace(spec, attempt=0)
        # It has no place on the run clock, so that its instants are unknown.
        reason = NOT_NEEDED if spec.cell_id in self._stopping.not_needed else NOT_RUN
        return task_table(SimulatedCell(never, testbed, math.nan, self._content), -math.inf, reason)

    def _save(self, state: State) -> None:
        self._manifest.state = state
        write_manifest(self._folder, self._manifest)

    def outcome(self) -> RunOutcome:
        """How it ended."""
        complete = sum(self._attempts.is_complete(cell_id) for cell_id in self._cells)
        return RunOutcome(self._folder, self._manifest, complete, len(self._cells), self._summary, self._is_interrupted)


def _starts_s(cells: list[PlannedCell]) -> dict[str, float]:
    """Where each cell lies on the run clock: one after another, with room for its last task's time-out."""
    starts_s, now_s = {}, 0.0
    for cell in cells:
        starts_s[cell.cell_id] = now_s
        now_s += cell.setting.horizon_s + cell.setting.epoch_s + cell.setting.timeouts.task_s
    return starts_s


class _Progress:
    """How fast it goes, in tasks, and so how long it will take."""

    def __init__(self, runner: SimulatedRunner, cells: list[PlannedCell], attempts: Attempts) -> None:
        self._display, self._clock = runner.display, runner.clock
        counts: dict[tuple[int, str], int] = {}
        for each in runner.plan.task_lists:
            for setting in each.settings:
                counts[each.seed, setting] = counts.get((each.seed, setting), 0) + each.count
        self._planned = {cell.cell_id: counts.get((cell.seed, cell.setting.name), 0) for cell in cells}
        self._done = {cell_id for cell_id in self._planned if attempts.is_complete(cell_id)}
        self._before = sum(self._planned[cell_id] for cell_id in self._done)
        self._began_s = runner.clock.now_s()

    def end(self, cell_id: str) -> None:
        """A cell is complete."""
        self._done.add(cell_id)

    def show(self, cell_id: str, here: int, doing: str = "simulating") -> None:
        """Show how it stands; ``here``: tasks of the current cell that are decided."""
        done = sum(self._planned[each] for each in self._done) + here
        tasks, elapsed_s = sum(self._planned.values()), self._clock.now_s() - self._began_s
        rate = (done - self._before) / elapsed_s if elapsed_s > 0 else 0.0
        self._display.show(
            Standing(
                doing=f"{cell_id}: {doing}" if cell_id else doing,
                cells_done=len(self._done),
                cells=len(self._planned),
                tasks_done=done,
                tasks=tasks,
                rate=rate,
                remaining_s=(tasks - done) / rate if rate > 0 else None,
                up=0,
                members=0,
            )
        )
