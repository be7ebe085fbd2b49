"""Devices whose programs die in a simulated cell: what becomes of their tasks, by the rule of `device_agent.cell`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from device_agent.cell import AGENT_RESTARTED, DEVICE_DOWN
from edgebed.simulation.testbed.ingredients import FAILED, NOWHERE, REASONS, UNKNOWN, Ended, IndexArray
from edgebed.simulation.testbed.pipeline import Pipeline
from edgebed.types import BoolArray, Float32Array, Observation
from orchestrator.backends.simulated_record import OPEN, Record
from orchestrator.backends.simulated_silences import Act
from orchestrator.backends.simulated_tasks import CellTasks
from orchestrator.faults.silences import DEAD_AFTER_S
from orchestrator.faults.virtual import Outage

_RESTARTED, _DOWN = REASONS.index(AGENT_RESTARTED), REASONS.index(DEVICE_DOWN)
_NO_STAGES = (0.0,) * 7


class Outages:
    """The outages of one cell.

    Args:
        outages: in the order of time.
        tasks, record: of the cell. pipeline: its queues.
    """

    def __init__(self, outages: Sequence[Outage], tasks: CellTasks, record: Record, pipeline: Pipeline) -> None:
        self._outages = list(outages)
        self._tasks, self._record, self._pipeline = tasks, record, pipeline

    def __bool__(self) -> bool:
        return bool(self._outages)

    def acts(self) -> Iterator[Act]:
        """When each begins, and what then happens."""
        for outage in self._outages:
            yield outage.from_s, 0, partial(self._begin, outage)

    def _begin(self, outage: Outage) -> Ended:
        """Whatever its device has not told of ends as its successor will tell."""
        self._pipeline.forget(outage.slot, _RESTARTED)
        lost = self._pipeline.advance(self._pipeline.now_s)
        self._record.note(lost)
        self._record.forget_decisions(lost.task)
        return Ended.joined([lost, self._never_decided(outage)])

    def _never_decided(self, outage: Outage) -> Ended:
        tasks = self._tasks
        is_due = (tasks.slot == outage.slot) & (tasks.offset_s <= outage.until_s)
        is_due &= (self._record.outcome == OPEN) & (self._record.decided_by == NOWHERE)
        rows = []
        for task in np.flatnonzero(is_due).tolist():
            is_unknown = tasks.offset_s[task] <= outage.certain_s
            fate = (UNKNOWN, _RESTARTED) if is_unknown else (FAILED, _DOWN)
            place = (NOWHERE, NOWHERE, 0, math.nan)
            rows.append((task, outage.slot, *fate, outage.until_s, *place, *_NO_STAGES, 0.0, 0.0, 0.0, math.nan, False))
        return Ended.of_rows(rows)

    def waiting(self, rows: IndexArray) -> IndexArray:
        """Those tasks that still wait for a decision."""
        return rows[self._record.outcome[rows] == OPEN] if self._outages else rows

    def down(self, slots: int) -> BoolArray:
        """Which devices are without a program now."""
        found = np.zeros(slots, np.bool_)
        for outage in self._outages:
            found[outage.slot] |= outage.from_s <= self._pipeline.now_s < outage.until_s
        return found

    def awaited(self, slots: int) -> BoolArray:
        """Which of these the controller still takes for connected."""
        now_s, found = self._pipeline.now_s, np.zeros(slots, np.bool_)
        for outage in self._outages:
            found[outage.slot] |= outage.from_s <= now_s < min(outage.until_s, outage.from_s + DEAD_AFTER_S)
        return found

    def hide(self, seen: Observation) -> None:
        """Take what nobody could have reported out of an observation."""
        age_s: Float32Array = np.zeros_like(seen.age_s)
        for outage in self._outages:
            if outage.from_s <= self._pipeline.now_s < outage.until_s:
                age_s[outage.slot] = self._pipeline.now_s - outage.from_s
        is_down = self.down(len(age_s))
        seen.values[is_down] = 0.0
        seen.present[is_down] = False
        seen.age_s[is_down] = age_s[is_down]
