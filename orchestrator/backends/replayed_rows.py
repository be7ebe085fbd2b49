"""What a stepped replay says of a task: its recorded row as it is, or that row with what was computed anew."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edgebed.backend import TaskOutcome
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.ingredients import DONE, NOWHERE, OUTCOMES, REASONS
from edgebed.trace.cost import task_cost
from edgebed.trace.schema import TaskRecord
from edgebed.types import DecidedBy, Outcome, Site
from orchestrator.backends.hosts import outcome_of
from orchestrator.backends.simulated_record import Record
from orchestrator.backends.simulated_rows import used_of
from orchestrator.replay.judged import MODELLED, RECORDED, Judged
from orchestrator.replay.observing import REPLAY
from orchestrator.replay.reading import NO_ROW

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_NAMES = (
    *("run_id", "cell_id", "policy", "seed", "device_id", "task_id", "epoch", "backend", "attempt", "arrived_s"),
    *("content_id", "deadline_s", "site", "outcome", "reason", "latency_s", "deadline_met", "cost"),
    *("device_energy_j", "server_energy_j"),
)
_NOT_TOLD = "not recorded"
"""Reason of a recorded task that is not done and has none; a foreign trace may have such."""


class RecordedRows:
    """The rows of a day, in memory.

    Args:
        connection: to the day's database; see `orchestrator.replay.day.RecordedDay`.
        cell: of the replay; its reward and its time-outs say what a task costs.
    """

    def __init__(self, connection: DuckDBPyConnection, cell: CellSpec) -> None:
        self._cell = cell
        statement = f"SELECT row, {', '.join(_NAMES)} FROM src"  # noqa: S608  (constants)
        found = connection.execute(statement).fetchall()
        self._rows = {row: TaskRecord(**dict(zip(_NAMES, values, strict=True))) for row, *values in found}

    def outcome(
        self, judged: Judged, at: int, status: int, by: DecidedBy | None, testbed: Testbed | None
    ) -> TaskOutcome:
        """How a task ended.

        Args:
            judged: its batch, in both lanes.
            at: its position there.
            status: what it may claim, see `orchestrator.replay.judged`.
            by: who decided it now; None: nobody, it never got that far.
            testbed: the profile's, where something is modelled.
        """
        row = self._rows[int(judged.batch.row[at])]
        if status != RECORDED:
            row = self._computed(row, judged, at, self._joules(judged, at, status, testbed))
        if by is None:
            return outcome_of(self._whole(row))
        asked = Site(int(judged.choices.site[at])).label
        return outcome_of(
            msgspec.structs.replace(
                self._whole(row),
                decision_epoch=int(judged.batch.epoch[at]),
                decided_by=by.value,
                site=row.site or asked,  # one that was given up before it began was still decided
            )
        )

    def _computed(self, row: TaskRecord, judged: Judged, at: int, joules: tuple[Any, Any]) -> TaskRecord:
        lane = judged.lanes[REPLAY]
        is_done, site = lane.outcome[at] == DONE, int(lane.site[at])
        return msgspec.structs.replace(
            row,
            site=None if site == NOWHERE else Site(site).label,
            outcome=OUTCOMES[lane.outcome[at]].value,
            reason=REASONS[lane.reason[at]] or None,
            latency_s=float(lane.latency_s[at]) if is_done else None,
            deadline_met=None,
            cost=None,
            device_energy_j=joules[0] if is_done else None,
            server_energy_j=joules[1] if is_done else None,
        )

    def _joules(self, judged: Judged, at: int, status: int, testbed: Testbed | None) -> tuple[Any, Any]:
        """Of the row that has the ingredients, or the profile's."""
        if status != MODELLED:
            other = int(judged.ingredient_row(np.full(len(judged.batch), status))[at])
            source = self._rows.get(other) if other != NO_ROW else None
            return (None, None) if source is None else (source.device_energy_j, source.server_energy_j)
        lane, one = judged.lanes[REPLAY], np.array([at])
        if testbed is None:
            return None, None
        record = replace(
            Record.of(1),
            server=lane.server[one],
            air_s=lane.air_s[one],
            device_busy_s=lane.device_busy_s[one],
            server_busy_s=lane.server_busy_s[one],
            has_resources=lane.outcome[one] == DONE,
        )
        used = used_of(testbed, record, judged.batch.slot[one])
        return _known(used.device_energy_j[0]), _known(used.server_energy_j[0])

    def _whole(self, row: TaskRecord) -> TaskRecord:
        """The row with what follows from it: a foreign one may lack that."""
        is_done = row.outcome == Outcome.DONE
        met = row.deadline_met
        if met is None and row.outcome != Outcome.UNKNOWN:
            met = is_done and row.latency_s is not None and row.latency_s <= row.deadline_s
        row = msgspec.structs.replace(row, deadline_met=met, reason=None if is_done else row.reason or _NOT_TOLD)
        if row.cost is None:
            row.cost = task_cost(row, self._cell.reward, self._cell.timeouts.task_s)
        return row


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
