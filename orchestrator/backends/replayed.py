"""The backend of a recorded day: `ReplayedBackend`, behind the contract of `edgebed.backend`.

It is `edgebed replay --mode reevaluate` with the caller as the policy: recorded arrivals, bytes, service times and
links, queues computed anew. Who decides as on the recorded day gets the recorded outcomes.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgebed.backend import Receipt, TaskOutcome, Turn
from edgebed.errors import BadInput, SchemaMismatch, WorkFailed
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.profile import Profile, read_profile
from edgebed.trace.runs import QUIET, import_duckdb
from edgebed.types import DecidedBy, Decision, Float32Array, Observation, ObservationSpec, Outcome
from orchestrator.backends.replayed_cell import Heard, SteppedCell
from orchestrator.backends.replayed_rows import RecordedRows
from orchestrator.backends.simulated_deciding import OwnPolicies, put
from orchestrator.backends.virtual import VirtualBackend
from orchestrator.plan_file import PlannedCell
from orchestrator.replay.day import RecordedDay
from orchestrator.replay.judged import STATUS, Judged
from orchestrator.replay.missing import Missing
from orchestrator.replay.observing import RecordedViews
from orchestrator.replay.source import Day, Source, open_source
from orchestrator.simulated_profile import testbeds_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class ReplayedBackend(VirtualBackend["_Episode"]):
    """Turns decisions into outcomes by a recorded day; its caller decides at every tick.

    Args:
        run_folder: of the recorded run.
        profile: for what nobody recorded, a file of `edgebed calibrate`; None: fitted to the run when it is needed.
        any_seed: a seed that was not recorded stands for a recorded day: that of number ``seed % days``. Environments
            need it, as they draw seeds of their own; without, only recorded seeds are taken.
    """

    def __init__(
        self, run_folder: str | Path, profile: Profile | Path | None = None, *, any_seed: bool = False
    ) -> None:
        super().__init__()
        self._folder, self._any_seed = Path(run_folder), any_seed
        self._given = read_profile(profile) if isinstance(profile, Path) else profile
        self._run: _Run | None = None

    def plan_of(self, policy: str = "", seed: int | None = None) -> CellSpec:
        """A recorded cell as a plan: devices, servers, epochs and costs are its.

        Args:
            policy: its label; by default of the run's first cell.
            seed: by default of the first cell of that policy.

        Raises:
            BadInput: no run is there, or no such cell in it; those that are there are named.
        """
        cells = open_source(str(self._folder), self._folder.parent).cells
        for cell in cells:
            if (not policy or cell.policy.label == policy) and seed in (None, cell.seed):
                return cell.spec(1, 1)
        names = ", ".join(f"{cell.policy.label} with seed {cell.seed}" for cell in cells)
        raise BadInput(f"{self._folder} has no cell of policy {policy!r} and seed {seed}; it has: {names}")

    def open(self, plan: CellSpec) -> None:
        """Open the recorded run; nothing is connected to.

        Raises:
            BadInput: the run cannot be replayed, the plan is of none of its cells, or it decided at every arrival.
            SchemaMismatch: the run's hosts are others than the plan's; or the profile is of another workload or board.
        """
        self._order.check("open")
        self._run = _Run(open_source(str(self._folder), self._folder.parent), plan, self._given, self._any_seed)
        self._order.turn = Turn.OPEN

    def close(self) -> None:
        """Forget the run."""
        if self._run is not None:
            self._run.close()
        self._run = self._episode = None
        self._order.turn = Turn.CLOSED

    def reset(self, seed: int) -> None:
        """Begin the recorded day of a seed.

        Raises:
            BadInput: no day of that seed was recorded; those that were are named.
        """
        self._order.check("reset")
        assert self._run is not None
        self._episode = self._run.begin(seed)
        self._order.turn = Turn.RUNNING

    @property
    def claims(self) -> dict[str, int]:
        """Tasks reported in this episode by what that is: ``recorded``, ``recomputed`` or ``modelled``."""
        counts = Counter(() if self._episode is None else self._episode.claims.values())
        return {name: counts[code] for code, name in enumerate(STATUS)}

    @property
    def model(self) -> dict[str, Any] | None:
        """The profile that modelled outcomes come from and its errors, as in a replay's manifest; None: none needed."""
        return None if self._run is None else self._run.missing.to_plain()


@dataclass(frozen=True, slots=True)
class _OpenDay:
    """A recorded day, laid out in memory.

    Attributes:
        cell: the recorded one that outcomes are compared with.
    """

    connection: DuckDBPyConnection
    day: RecordedDay
    cell: CellSpec
    rows: RecordedRows
    views: RecordedViews


class _Run:
    """An open run: its days, as far as they were asked for."""

    def __init__(self, source: Source, plan: CellSpec, profile: Profile | None, any_seed: bool) -> None:
        self._source, self._plan, self._any_seed = source, plan, any_seed
        self._record = _checked(source, plan)
        source.check_decided()
        self.missing = Missing(source, profile)
        self._stated = testbeds_of(source.trace.plan, None)[self._record.setting.name]
        self._days = [day for day in source.days if day.setting == self._record.setting.name]
        self._open: dict[int, _OpenDay] = {}

    def close(self) -> None:
        for each in self._open.values():
            each.connection.close()
        self._open.clear()

    def begin(self, seed: int) -> _Episode:
        seeds = [day.seed for day in self._days]
        if seed not in seeds and not self._any_seed:
            raise BadInput(
                f"seed {seed}: no day of it was recorded; {self._source.trace.run.path} has: "
                f"{', '.join(map(str, seeds))} (with any_seed=True others stand for one of these)"
            )
        day = self._days[seeds.index(seed) if seed in seeds else seed % len(seeds)]
        found = self._open.get(day.seed)
        if found is None:
            found = self._open[day.seed] = self._opened(day)
        return _Episode(found, self._stated, self.missing)

    def _opened(self, day: Day) -> _OpenDay:
        same = (cell for cell in day.cells if cell.policy.label == self._plan.policy)
        record = next(same, day.cells[0])
        cell = record.spec(1, 1)
        connection = import_duckdb("replaying a run").connect()
        connection.execute(QUIET)
        recorded = RecordedDay(connection, self._source, day, record)
        if recorded.epochs > cell.epochs:
            connection.close()
            raise BadInput(
                f"cell {cell.cell_id}: its tasks arrive in {recorded.epochs} epochs and its plan has {cell.epochs}; "
                "`edgebed replay --mode reevaluate` can judge policies on it"
            )
        spec = ObservationSpec(tuple(cell.devices), tuple(cell.servers), cell.channels.count)
        views = RecordedViews(connection, self._source.epochs_file, record, spec)
        return _OpenDay(connection, recorded, cell, RecordedRows(connection, cell), views)


def _checked(source: Source, plan: CellSpec) -> PlannedCell:
    """The recorded cell that a plan is of.

    Raises:
        BadInput: it is of none, or that cell has no ticks.
        SchemaMismatch: it is of other hosts.
    """
    path = source.trace.run.path
    record = next((cell for cell in source.cells if cell.cell_id == plan.cell_id), None)
    if record is None:
        names = ", ".join(cell.cell_id for cell in source.cells)
        raise BadInput(f"{path} has no cell {plan.cell_id!r}; it has: {names}; `plan_of` makes the plan of one")
    own = record.spec(1, 1)
    for what in ("devices", "servers", "epochs", "epoch_s", "channels"):
        if getattr(own, what) != getattr(plan, what):
            raise SchemaMismatch(
                f"the plan has {what} {getattr(plan, what)}, cell {plan.cell_id} of {path} has {getattr(own, what)}; "
                "`plan_of` makes the plan of a cell"
            )
    if own.decide_at != "tick":
        raise BadInput(
            f"{path}: its devices decided at every arrival, so there are no ticks to decide at; "
            "`edgebed replay --mode reevaluate` judges policies on it"
        )
    return record


class _Episode:
    """A recorded day that someone decides, epoch by epoch.

    Attributes:
        claims: status of the tasks reported, by name.
    """

    def __init__(self, opened: _OpenDay, stated: Testbed, missing: Missing) -> None:
        self.cell, self._rows, self._missing = opened.cell, opened.rows, missing
        self._record = opened.day.record
        self.stepped = SteppedCell(opened.day, opened.cell, stated, missing, opened.views)
        self._fallback = OwnPolicies(self.cell, Path(), self.cell.fallback_policy, {}, "fallback", self._failed)
        self._seen: Observation | None = None
        self._views: Float32Array = np.zeros((0, 0), np.float32)
        self._by: dict[int, DecidedBy] = {}
        self._told: dict[str, Outcome] = {}
        self.claims: dict[str, int] = {}

    @property
    def now_s(self) -> float:
        """Virtual time."""
        return self.stepped.now_s

    @property
    def next_tick_s(self) -> float:
        """When the next observation is due."""
        return self.stepped.tick_s(0 if self._seen is None else self._seen.epoch + 1)

    def observe(self) -> Observation:
        """Go on to the next tick."""
        epoch = 0 if self._seen is None else self._seen.epoch + 1
        self._seen, self._views = self.stepped.observe(epoch)
        return self._seen

    def answer(self, decision: Decision | None) -> Receipt:
        """Carry a decision out, or the fallback policy's when there is none."""
        seen = self._seen
        assert seen is not None
        ones = np.ones(len(self.cell.devices), np.float32)
        asked = self._fall_back(seen) if decision is None else decision
        executed = replace(copy.deepcopy(asked), cpu_fraction=ones, power_fraction=ones.copy())
        self._by[seen.epoch] = DecidedBy.FALLBACK if decision is None else DecidedBy.EXTERNAL
        # On hosts it is only when nothing has come for so long that a device falls back.
        late_s = self.cell.timeouts.decision_s if decision is None else 0.0
        tasks = self.stepped.decide(seen.epoch, executed, late_s)
        same = np.array([executed.slot(slot) == asked.slot(slot) for slot in range(len(tasks))])
        return Receipt(seen.epoch, executed, same & seen.present, tasks)

    def _fall_back(self, seen: Observation) -> Decision:
        decision = Decision.local(len(self.cell.devices))
        for slot in range(len(self.cell.devices)):
            chosen = self._fallback.choose(replace(seen, server=self._views[slot]), slot)
            put(decision, slot, chosen[0] if chosen else None)
        return decision

    def _failed(self, slot: int, error: Exception) -> None:
        name = self.cell.fallback_policy
        raise WorkFailed(f"the fallback policy {name} failed on {self.cell.devices[slot]}: {error!r}") from error

    def wait(self, until_s: float) -> list[TaskOutcome]:
        """Let time pass until something is told, or until then."""
        stepped = self.stepped
        while True:
            if found := self.take_outcomes():
                return found
            if not (stepped.next_s <= until_s and stepped.next_s < math.inf):
                break
            stepped.advance(stepped.next_s)
        if stepped.now_s < until_s < math.inf:
            stepped.advance(until_s)
        return self.take_outcomes()

    def take_outcomes(self) -> list[TaskOutcome]:
        """Outcomes that were not taken yet."""
        news, self.stepped.heard = self.stepped.heard, []
        statuses: dict[int, Any] = {}
        found = []
        for one in news:
            if id(one.judged) not in statuses:
                statuses[id(one.judged)] = self.stepped.status(one.judged)
            status = int(statuses[id(one.judged)][one.at])
            outcome = self._outcome(one, status)
            if self._is_news(outcome):
                self._told[outcome.task_id] = outcome.outcome
                self.claims[outcome.task_id] = status
                found.append(outcome)
        return found

    def _is_news(self, outcome: TaskOutcome) -> bool:
        """The first word on a task, or that it is done after all."""
        before = self._told.get(outcome.task_id)
        if before is None:
            return True
        return before is Outcome.UNKNOWN and outcome.outcome is Outcome.DONE

    def _outcome(self, one: Heard, status: int) -> TaskOutcome:
        judged: Judged = one.judged
        testbed = self._missing.testbed(self._record) if self._missing.is_used else None
        by = self._by[int(judged.batch.epoch[one.at])] if one.is_decided else None
        return self._rows.outcome(judged, one.at, status, by, testbed)
