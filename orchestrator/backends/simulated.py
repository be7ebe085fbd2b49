"""The simulated backend: `SimulatedBackend`, hosts in virtual time behind the contract of `edgebed.backend`.

Its caller decides, as an external program on hosts does, and virtual time waits for it: a decision comes as late as the
profile says and never later, however long the caller thinks. It also `edgebed.backend.CanRunCells`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from edge_server.controller.deciding import CentralPolicy
from edgebed.backend import Receipt, TaskOutcome, Turn
from edgebed.errors import BadInput
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.ingredients import DONE, NOWHERE, OUTCOMES, REASONS, Ended
from edgebed.types import DecidedBy, Decision, Observation, Outcome, Site
from orchestrator.backends.simulated_cell import SimulatedCell
from orchestrator.backends.simulated_record import DECIDERS
from orchestrator.backends.simulated_rows import cost_of, used_of
from orchestrator.backends.virtual import VirtualBackend

POLICY_VERSION = "caller"


class SimulatedBackend(VirtualBackend["_Episode"]):
    """Turns decisions into outcomes by a model of the hosts.

    Args:
        testbed: the hosts of a cell, in its order.
        content: the folder of the files that policies need.
    """

    def __init__(self, testbed: Callable[[CellSpec], Testbed], content: Path = Path()) -> None:
        super().__init__()
        self._testbed, self._content = testbed, content
        self._plan: CellSpec | None = None

    def open(self, plan: CellSpec) -> None:
        """Take a cell; nothing is connected to.

        Raises:
            BadInput: the profile is not of these hosts.
        """
        self._order.check("open")
        self._testbed(plan)
        self._plan = plan
        self._order.turn = Turn.OPEN

    def close(self) -> None:
        """Forget the cell."""
        self._plan = self._episode = None
        self._order.turn = Turn.CLOSED

    def run_cell(self, plan: CellSpec, report: Callable[[TaskOutcome], None]) -> None:
        """Run a cell to its end; who decides is what the cell says.

        Args:
            plan: the cell.
            report: called with each outcome.

        Raises:
            BadInput: a program outside is to decide, and nobody can come in here.
        """
        if plan.placement == "external":
            text = f"cell {plan.cell_id} is decided by a program outside, which `edgebed run` lets in"
            raise BadInput(f"{text}; here the caller decides: reset, observe, submit")
        episode = _Episode(SimulatedCell(plan, self._testbed(plan), content=self._content))
        simulated = episode.simulated
        policy = CentralPolicy(plan, simulated.spec, self._content) if plan.placement == "controller" else None
        while simulated.step(policy):
            episode.report_to(report)
        simulated.conclude()
        simulated.advance(math.inf)
        episode.report_to(report)

    def reset(self, seed: int) -> None:
        """Begin the cell, with this seed and with the caller as its decider."""
        self._order.check("reset")
        assert self._plan is not None
        spec = msgspec.structs.replace(self._plan, seed=seed, placement="external", decide_at="tick")
        self._episode = _Episode(SimulatedCell(spec, self._testbed(spec), content=self._content))
        self._order.turn = Turn.RUNNING


class _Episode:
    """A cell that someone decides, epoch by epoch."""

    def __init__(self, simulated: SimulatedCell) -> None:
        self.simulated = simulated
        self._seen: Observation | None = None
        simulated.on_ended = self._hear
        self._ended: list[Ended] = []

    def _hear(self, ended: Ended) -> None:
        if len(ended):
            self._ended.append(ended)

    @property
    def cell(self) -> CellSpec:
        """What is decided."""
        return self.simulated.cell

    @property
    def now_s(self) -> float:
        """Virtual time."""
        return self.simulated.pipeline.now_s

    @property
    def next_tick_s(self) -> float:
        """When the next observation is due."""
        epoch = -1 if self._seen is None else self._seen.epoch
        return self.simulated.tick_s(epoch + 1)

    def observe(self) -> Observation:
        """Go on to the next tick."""
        simulated = self.simulated
        epoch = 0 if self._seen is None else self._seen.epoch + 1
        if epoch == simulated.cell.epochs:
            self._seen = simulated.conclude()
        else:
            simulated.advance(simulated.tick_s(epoch))
            self._seen = simulated.observe(epoch, simulated.tasks.of_epoch(epoch))
        return self._seen

    def answer(self, decision: Decision | None) -> Receipt:
        """Carry a decision out, or the fallback policy's when there is none."""
        seen = self._seen
        assert seen is not None
        by = DecidedBy.FALLBACK if decision is None else DecidedBy.EXTERNAL
        executed, tasks = self.simulated.decisions.jointly(
            seen, decision, by, "" if decision is None else POLICY_VERSION
        )
        asked = decision or executed
        same = np.array([executed.slot(slot) == asked.slot(slot) for slot in range(len(tasks))])
        return Receipt(seen.epoch, executed, same, tasks)

    def wait(self, until_s: float) -> list[TaskOutcome]:
        """Let time pass until something has ended, or until then."""
        pipeline = self.simulated.pipeline
        while not self._ended and (next_s := pipeline.next_s) <= until_s and next_s < math.inf:
            self.simulated.advance(next_s)
        if not self._ended and pipeline.now_s < until_s < math.inf:
            self.simulated.advance(until_s)
        return self.take_outcomes()

    def take_outcomes(self) -> list[TaskOutcome]:
        """Outcomes that were not taken yet."""
        taken, self._ended = self._ended, []
        return [outcome for ended in taken for outcome in self._outcomes(ended)]

    def report_to(self, report: Callable[[TaskOutcome], None]) -> None:
        """Report what was not reported yet."""
        for outcome in self.take_outcomes():
            report(outcome)

    def _outcomes(self, ended: Ended) -> list[TaskOutcome]:
        simulated, rows = self.simulated, ended.task
        record, tasks = simulated.record.at(rows), simulated.tasks
        used = used_of(simulated.testbed, record, tasks.slot[rows])
        cost = cost_of(simulated.cell, record, used, tasks.deadline_s[rows])
        found = []
        for number, row in enumerate(rows.tolist()):
            outcome = OUTCOMES[ended.outcome[number]]
            deadline_s = float(tasks.deadline_s[row])
            is_done, is_placed = ended.outcome[number] == DONE, ended.site[number] != NOWHERE
            latency_s = float(ended.latency_s[number]) if is_done else None
            met = latency_s is not None and latency_s <= deadline_s
            found.append(
                TaskOutcome(
                    tasks.name(simulated.cell.cell_id, row),
                    tasks.devices[tasks.slot[row]],
                    outcome,
                    deadline_s,
                    decision_epoch=int(record.decision_epoch[number]) if is_placed else None,
                    decided_by=DECIDERS[record.decided_by[number]] if is_placed else None,
                    site=Site(int(ended.site[number])) if is_placed else None,
                    reason=REASONS[ended.reason[number]],
                    latency_s=latency_s,
                    deadline_met=None if outcome is Outcome.UNKNOWN else met,
                    device_energy_j=_known(used.device_energy_j[number]),
                    server_energy_j=_known(used.server_energy_j[number]),
                    cost=_known(cost[number]),
                )
            )
        return found


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
