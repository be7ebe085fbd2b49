"""From a task to its row of the trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from device_agent.energy import EnergyRule, joined_sources
from device_agent.task import Part, PartState, Task, decision_columns, joined_predictions, slower_part
from edgebed.metering.base import Energy
from edgebed.protocol.cells import CellSpec
from edgebed.trace.cost import task_cost
from edgebed.trace.schema import STAGES, TaskRecord
from edgebed.types import Outcome

BACKEND = "hosts"


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Makes the rows of one cell on one device.

    Attributes:
        link_rate_bps: what the uplink is paced to; 0 = not paced.
        is_emulated: the device appears slower than it is.
    """

    cell: CellSpec
    device: str
    cycles_per_frame: float
    link_rate_bps: float
    is_emulated: bool
    energy: EnergyRule

    def task_row(self, task: Task, outcome: Outcome, reason: str, run_clock_s: float) -> TaskRecord:
        """The row of a task that has come to an end, or that an end is put to.

        Args:
            task: its parts have come to rest, as far as they ever will.
            outcome: its end.
            reason: why, when it is not done.
            run_clock_s: the run clock at the cell's start.
        """
        planned = task.planned
        row = TaskRecord(
            run_id=self.cell.run_id,
            cell_id=self.cell.cell_id,
            policy=self.cell.policy,
            seed=self.cell.seed,
            device_id=self.device,
            task_id=task.task_id,
            epoch=planned.epoch,
            backend=BACKEND,
            attempt=self.cell.attempt,
            arrived_s=run_clock_s + planned.offset_s,
            content_id=planned.content_id,
            payload_bytes=task.clip.payload_bytes,
            frames=planned.frames,
            cycles=planned.frames * self.cycles_per_frame,
            deadline_s=planned.deadline_s,
            label=list(task.clip.labels) or None,
            outcome=outcome.value,
            reason=reason or None,
            flags=self._flags(task),
            **self._link_columns(task),
            **decision_columns(task, self.cell.servers),
        )
        if outcome is Outcome.DONE:
            self._add_result(row, task)
        elif outcome is Outcome.FAILED:
            row.deadline_met = False
        self._add_resources(row, task)
        row.cost = task_cost(row, self.cell.reward, self.cell.timeouts.task_s)
        return row

    def _flags(self, task: Task) -> list[str]:
        flags = ["emulated"] if self.is_emulated else []
        if task.verdict is not None and task.verdict.is_late:
            flags.append("decision_late")
        if any(part.is_clock_suspect for part in task.parts):
            flags.append("clock_suspect")
        return flags

    def _link_columns(self, task: Task) -> dict[str, Any]:
        edge = task.edge_part
        granted_bps = None if edge is None else edge.granted_bps
        return {
            "link_rate_bps": granted_bps or self.link_rate_bps or None,
            "link_rate_measured_bps": None if edge is None else edge.measured_bps,
        }

    @staticmethod
    def _add_result(row: TaskRecord, task: Task) -> None:
        slower = slower_part(task.parts)
        stages = slower.stages
        assert stages is not None
        assert row.decision_s is not None
        for name in STAGES:
            setattr(row, name, getattr(stages, name))
        row.latency_s = stages.latency_s(row.decision_s)
        row.deadline_met = row.latency_s <= row.deadline_s
        errors_s = [part.clock_error_s for part in task.parts if part.clock_error_s is not None]
        row.clock_error_s = max(errors_s, default=None)
        row.predicted = joined_predictions(task.parts)
        if row.label is not None:
            row.correct = sum(found == truth for found, truth in zip(row.predicted, row.label, strict=True))

    def _add_resources(self, row: TaskRecord, task: Task) -> None:
        """What it used. Of a task that is not done, only what its finished parts are known to have used."""
        ended = [part for part in task.parts if part.state is PartState.DONE]
        if not ended:
            return
        row.device_cpu_s = sum(part.used.device_cpu_s for part in ended)
        row.server_cpu_s = sum(part.used.server_cpu_s for part in ended)
        here, there = self.energy.of_parts(ended), _server_energy(ended)
        row.device_energy_j = None if here is None else here.energy_j
        row.server_energy_j = None if there is None else there.energy_j
        known = [energy for energy in (here, there) if energy is not None]
        row.energy_error_j = sum(energy.error_j for energy in known) if known else None
        row.energy_source = joined_sources(energy.source for energy in known) or None


def _server_energy(parts: list[Part]) -> Energy | None:
    """What the servers say that they added; None when one of them does not know."""
    energy_j = error_j = 0.0
    sources = set()
    for used in (part.used for part in parts):
        if used.server_energy_j is None:
            return None
        energy_j += used.server_energy_j
        error_j += used.server_energy_error_j or 0.0
        sources.add(used.server_energy_source)
    return Energy(energy_j, error_j, joined_sources(sources))
