"""Another policy on the recorded day, without hosts: recorded arrivals, bytes, service times and links, queues anew."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebed.clock import Clock, MonotonicClock, utc_now
from edgebed.errors import EdgebedError, WorkFailed
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.pipeline import Pipeline
from edgebed.simulation.testbed.profile import Profile
from edgebed.trace.manifest import Manifest, write_manifest
from edgebed.trace.runs import QUIET, import_duckdb
from edgebed.trace.segments import attempt_folder
from edgebed.types import ObservationSpec
from orchestrator import provenance
from orchestrator.attempts import Attempt, Attempts
from orchestrator.columnar import ColumnWriter, Table
from orchestrator.plan import create_run_folder
from orchestrator.plan_file import Plan, PlannedCell
from orchestrator.progress import Display, Standing
from orchestrator.provision.content import content_of
from orchestrator.replay.ahead import Behind
from orchestrator.replay.cell import LANES, CellReplay, Policy, layout_of
from orchestrator.replay.comparison import compare
from orchestrator.replay.day import RecordedDay
from orchestrator.replay.deciders import PolicyDecider
from orchestrator.replay.judged import STATUS, Judged, QueueError
from orchestrator.replay.known import KnownColumns
from orchestrator.replay.missing import Missing
from orchestrator.replay.observing import Observer, RecordedViews
from orchestrator.replay.planning import Target, check_policies, planned
from orchestrator.replay.queues import SteadyQueues, TooCrowded, is_simple
from orchestrator.replay.row_columns import BACKEND
from orchestrator.replay.source import Day, Source
from orchestrator.replay.tables import CellTables
from orchestrator.run_folder import exclusive
from orchestrator.runner import RunOutcome
from orchestrator.seal_columnar import SealedCell, seal_columns
from orchestrator.sealing import conclude_run
from orchestrator.simulated_profile import testbeds_of
from workloads.files import file_name

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MODE = "reevaluate"
MEMORY_LIMIT = "256MB"


@dataclass(slots=True)
class Reevaluation:
    """Judges policies on the recorded days of a run.

    Args:
        source: the run, and which of its cells.
        targets: the policies; as recorded, alone, gives back the record.
        profile: for what nobody recorded; None: fitted to the run when something is missing.
        runs: the folder that the replay's folder is made in.
        display: shows how it goes.
        command: the command line that makes such a replay.
        plan: of an experiment, whose policies the targets are, on some of the source's days; None: all of the targets
            on all of its days.
    """

    source: Source
    targets: Sequence[Target]
    profile: Profile | None
    runs: Path
    display: Display
    command: str = ""
    plan: Plan | None = None
    clock: Clock = field(default_factory=MonotonicClock)

    def run(self) -> RunOutcome:
        """Do it.

        Raises:
            BadInput: a policy or the profile does not fit the run; nothing was written.
            WorkFailed: a policy raised an error.
        """
        if self.targets[0].policy is not None:
            self.source.check_decided()
        missing = Missing(self.source, self.profile)
        plan = self._planned() if self.plan is None else self.plan
        folder = create_run_folder(plan, self.runs)
        plan = Plan.from_yaml(folder / "plan.yaml")
        with exclusive(folder):
            return _Work(self, folder, plan, missing).run()

    def _planned(self) -> Plan:
        plan = planned(self.source, self.targets, BACKEND)
        if self.targets[0].policy is not None:
            check_policies(plan)
        return plan


class _Work:
    """The work on one replay's folder."""

    def __init__(self, asked: Reevaluation, folder: Path, plan: Plan, missing: Missing) -> None:
        self._asked, self._folder, self._plan, self._missing = asked, folder, plan, missing
        self._source = asked.source
        self._is_recorded = asked.targets[0].policy is None
        self._attempts = Attempts(folder, [cell.cell_id for cell in plan.cells])
        self._stated = testbeds_of(plan, None)
        self._counts = [0] * len(STATUS)
        self._queue_error = QueueError()
        self._exactly: dict[str, str] = {}
        self._progress = _Progress(asked, plan)
        self.manifest = Manifest(
            run_id=plan.run_id,
            experiment=plan.experiment,
            plan_hash=plan.plan_hash,
            backend=BACKEND,
            state="running",
            started=utc_now().isoformat(timespec="seconds"),
            command=asked.command,
            hosts=self._source.trace.run.manifest.hosts,
            clocks=self._source.trace.run.manifest.clocks,
        )

    def run(self) -> RunOutcome:
        """All cells; then the tables, the comparison with the source, and the report."""
        self.manifest.software = provenance.software()
        write_manifest(self._folder, self.manifest)
        scratch = Path(tempfile.mkdtemp(prefix=".replaying-", dir=self._folder))
        try:
            self._cells(scratch)
            self._asked.display.show(self._progress.standing("sealing"))
            sealed = [SealedCell(cell.spec(number + 1, 1), 1) for number, cell in enumerate(self._plan.cells)]
            counts = seal_columns(self._folder, sealed, _nothing)
        except (EdgebedError, KeyboardInterrupt) as error:
            self.manifest.state = "failed" if isinstance(error, EdgebedError) else "incomplete"
            self.manifest.problems = [str(error) or "interrupted"]
            write_manifest(self._folder, self.manifest)
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            self._asked.display.close()
        self.manifest.state = "complete"
        self.manifest.ended = utc_now().isoformat(timespec="seconds")
        self.manifest.replay = self._facts()
        write_manifest(self._folder, self.manifest)  # what the source is counts in the verdict
        summary = conclude_run(self._folder, self._plan, self.manifest, counts)
        cells = len(self._plan.cells)
        return RunOutcome(self._folder, self.manifest, cells, cells, summary)

    def _cells(self, scratch: Path) -> None:
        duckdb = import_duckdb("replaying a run")
        for name, data in content_of(self._plan).items():
            (scratch / file_name(name)).write_bytes(data)
        settings = {"memory_limit": MEMORY_LIMIT, "temp_directory": str(scratch / "spill"), "threads": 1}
        database = duckdb.connect(str(scratch / "day.duckdb"), config=settings)
        with database as connection, ColumnWriter(scratch) as writer:
            connection.execute(QUIET)
            for number, cell in enumerate(self._plan.cells):
                self._cell(connection, writer, scratch, cell, number + 1)

    def _cell(
        self, connection: DuckDBPyConnection, writer: ColumnWriter, scratch: Path, cell: PlannedCell, serial: int
    ) -> None:
        attempt = Attempt(cell_id=cell.cell_id, attempt=1, serial=serial, state="running")
        self._attempts.save(attempt)
        day = self._day_of(cell)
        recorded = RecordedDay(connection, self._source, day, self._record_of(day, cell), scratch / "day")
        self._progress.begin(cell.cell_id)
        spec = cell.spec(serial, 1)
        made = _Cell(self, connection, writer, scratch, recorded, spec)
        tables = made.run()
        if made.why:
            self._exactly[cell.cell_id] = made.why
        self._counts = [one + other for one, other in zip(self._counts, tables.counts, strict=True)]
        _add(self._queue_error, tables.queue_error)
        attempt.state, attempt.run_clock_s = "complete", recorded.start_s
        self._attempts.save(attempt)

    def _day_of(self, cell: PlannedCell) -> Day:
        return next(day for day in self._source.days if (day.seed, day.setting) == (cell.seed, cell.setting.name))

    def _record_of(self, day: Day, cell: PlannedCell) -> PlannedCell:
        """The recorded cell that a row is compared with: the same policy's where there is one, else the day's first."""
        if self._is_recorded:
            return next(each for each in day.cells if each.cell_id == cell.cell_id)
        same = (each for each in day.cells if each.policy.label == cell.policy.label)
        return next(same, day.cells[0])

    def _facts(self) -> dict[str, Any]:
        total = sum(self._counts) or 1
        return {
            "mode": MODE,
            "source": self._source.facts,
            "policies": [target.label for target in self._asked.targets],
            "shares": {name: count / total for name, count in zip(STATUS, self._counts, strict=True)},
            "tasks": dict(zip(STATUS, self._counts, strict=True)),
            "queue_error": self._queue_error.to_plain(),
            "model": self._missing.to_plain(),
            "event_by_event": self._exactly,
            "comparison": compare(self._source.trace.run.path, self._folder, only_same=self._is_recorded),
        }

    # -- what a cell needs --------------------------------------------------------------------------------------------

    @property
    def is_recorded(self) -> bool:
        """The recorded decisions are taken."""
        return self._is_recorded

    @property
    def folder(self) -> Path:
        """Of the replay."""
        return self._folder

    @property
    def missing(self) -> Missing:
        """Where ingredients come from that nobody recorded."""
        return self._missing

    def stated(self, cell_id: str) -> Testbed:
        """The hosts of a cell, as the hosts file states them."""
        return self._stated[self._plan.cell(cell_id).setting.name]

    def told(self, tasks: int) -> None:
        """So many tasks of the current cell are decided."""
        self._asked.display.show(self._progress.standing("", tasks))


class _Cell:
    """One cell, tried with the fast queues first.

    Attributes:
        why: it had to be done event by event; empty when not.
    """

    def __init__(
        self,
        work: _Work,
        connection: DuckDBPyConnection,
        writer: ColumnWriter,
        content: Path,
        day: RecordedDay,
        spec: CellSpec,
    ) -> None:
        self._work, self._connection, self._writer = work, connection, writer
        self._content, self._day, self._spec = content, day, spec
        self._testbed = work.stated(spec.cell_id)
        self._layout = layout_of(self._testbed, spec)
        self.why = ""

    def run(self) -> CellTables:
        """Replay it and write its tables."""
        with KnownColumns(self._connection, self._day, self._spec, self._content) as known:
            if not is_simple(self._layout) or not self._day.is_plain:
                self.why = "channels are shaped, or tasks were split"
                return self._run(lambda: Pipeline(self._layout, LANES), known)
            try:
                return self._run(lambda: SteadyQueues(self._layout, LANES), known)
            except TooCrowded as reason:
                self.why = str(reason)
                return self._run(lambda: Pipeline(self._layout, LANES), known)

    def _run(self, queues: Callable[[], SteadyQueues | Pipeline], known: KnownColumns) -> CellTables:
        policy = None if self._work.is_recorded else self._policy()
        folder = attempt_folder(self._work.folder, self._spec.cell_id, 1)
        by = policy.decider.by.value if policy else ""
        tables = CellTables(self._connection, self._day, self._spec, folder, by, self._content)

        with Behind() as behind:

            def finished(judged: Judged) -> None:
                missing = self._work.missing
                testbed = missing.testbed(self._day.record) if missing.is_used else None
                behind.do(partial(tables.add, judged, testbed, self._writer, _taken(policy)))

            made = CellReplay(
                self._day, self._spec, self._layout, queues(), self._work.missing, policy, finished, self._work.told
            )
            made.run()
        tables.add_epochs(self._writer, _taken(policy))
        tables.write(made.versions, known)
        return tables

    def _policy(self) -> Policy:
        spec = ObservationSpec(tuple(self._spec.devices), tuple(self._spec.servers), self._spec.channels.count)
        return Policy(
            PolicyDecider(self._spec, self._content),
            Observer(self._testbed, spec, self._layout.channel_alone_bps),
            RecordedViews(self._connection, self._day.source.epochs_file, self._day.record, spec),
        )


def _taken(policy: Policy | None) -> list[Any]:
    if policy is None:
        return []
    rows, policy.decider.rows = policy.decider.rows, []
    return rows


def _add(total: QueueError, more: QueueError) -> None:
    total.tasks += more.tasks
    total.recorded_s += more.recorded_s
    total.computed_s += more.computed_s
    total.absolute_s += more.absolute_s


def _nothing(spec: CellSpec) -> Table:
    raise WorkFailed(f"cell {spec.cell_id} was not replayed")


class _Progress:
    """How fast it goes, in tasks, and so how long it will take."""

    def __init__(self, asked: Reevaluation, plan: Plan) -> None:
        self._clock = asked.clock
        self._sizes = {
            cell.cell_id: sum(
                each.count for each in plan.task_lists if each.seed == cell.seed and cell.setting.name in each.settings
            )
            for cell in plan.cells
        }
        self._began_s = asked.clock.now_s()
        self._done: list[str] = []
        self._current = ""

    def begin(self, cell_id: str) -> None:
        """The next cell."""
        if self._current:
            self._done.append(self._current)
        self._current = cell_id

    def standing(self, doing: str, here: int = 0) -> Standing:
        """How it stands."""
        done = sum(self._sizes[each] for each in self._done) + here
        total, elapsed_s = sum(self._sizes.values()), self._clock.now_s() - self._began_s
        rate = done / elapsed_s if elapsed_s > 0 else 0.0
        left_s = (total - done) / rate if rate > 0 else math.nan
        return Standing(
            doing=doing or f"{self._current}: replaying",
            cells_done=len(self._done),
            cells=len(self._sizes),
            tasks_done=done,
            tasks=total,
            rate=rate,
            remaining_s=left_s if math.isfinite(left_s) else None,
            up=0,
            members=0,
        )
