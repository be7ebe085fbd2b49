"""The recorded day in order of time: every task with the ingredients that some cell of that day recorded for it.

It is read some devices at a time and given out epochs at a time, so that memory does not grow with the trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgebed.protocol.messages import CHUNK_BYTES, WINDOW_CHUNKS
from edgebed.simulation.testbed.ingredients import FloatArray, IndexArray
from edgebed.trace.runs import sql_file, sql_text
from edgebed.types import BoolArray
from orchestrator.plan_file import PlannedCell
from orchestrator.replay.reading import PLAIN, Reader, fields_of
from orchestrator.replay.source import Day, Source
from orchestrator.replay.spill import Spill

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BATCH_TASKS = 65_536
"""Tasks that are in memory at a time, about; whole epochs."""


@dataclass(slots=True)
class Batch:
    """Tasks of some epochs, in order of epoch and arrival; ``[n]`` arrays unless said otherwise, NaN where unknown.

    Attributes:
        first: number of its first task in the day.
        epochs: from, and up to but without.
        row: of the task in the recorded table.
        site, server, channel, fraction: as requested; -1 where nobody decided.
        decision_s: from arrival until the decision was known. outcome, latency_s: as recorded, a code; -1 for none.
        device_s: what its device takes for all its frames. device_row: row in which that was recorded.
        uplink_s, hold_s, server_s, downlink_s, edge_row: ``[n, servers]``, likewise for all frames at a server.
        refusal_s: until a refusal would be known.
        is_timed: its stages were recorded, or it is not done and has none.
        is_decided: somebody decided about it; else it never got that far on the recorded day, under any policy.
    """

    first: int
    epochs: tuple[int, int]
    row: IndexArray
    slot: IndexArray
    number: IndexArray
    epoch: IndexArray
    arrived_s: FloatArray
    frames: IndexArray
    payload_bytes: FloatArray
    deadline_s: FloatArray
    site: IndexArray
    server: IndexArray
    channel: IndexArray
    fraction: FloatArray
    decision_s: FloatArray
    compute_s: FloatArray
    outcome: IndexArray
    latency_s: FloatArray
    device_s: FloatArray
    device_row: IndexArray
    uplink_s: FloatArray
    hold_s: FloatArray
    server_s: FloatArray
    downlink_s: FloatArray
    edge_row: IndexArray
    refusal_s: FloatArray
    is_timed: BoolArray
    is_decided: BoolArray = field(init=False)
    bounds: IndexArray = field(init=False)

    def __post_init__(self) -> None:
        """Find what was decided, and where each epoch begins."""
        self.is_decided = (self.site >= 0) & np.isfinite(self.decision_s)
        self.bounds = np.searchsorted(self.epoch, np.arange(self.epochs[0], self.epochs[1] + 1))

    def __len__(self) -> int:
        return len(self.row)

    def of_epoch(self, epoch: int) -> slice:
        """Positions of the tasks that arrived in an epoch."""
        at = epoch - self.epochs[0]
        return slice(int(self.bounds[at]), int(self.bounds[at + 1]))


class RecordedDay:
    """A day, in order of time; one policy's cell of it is the record that rows are compared with.

    The table of tasks has them device by device. They are read some devices at a time, each with what other cells of
    the day recorded of it, and put aside by epochs, which are then taken one after another.

    Args:
        connection: to a database.
        source: the run.
        day: which.
        record: its cell that is compared with.
        folder: where tasks are put aside; None: in memory.

    Attributes:
        start_s: of the cell, run clock. tasks: how many there are.
        first_row, last_row: of the recorded table, that it has.
        has_others: some ingredients come from other cells of the day.
        is_plain: no task was split.

    Raises:
        BadInput: a cell of the day has a task twice.
    """

    def __init__(
        self,
        connection: DuckDBPyConnection,
        source: Source,
        day: Day,
        record: PlannedCell,
        folder: Path | None = None,
    ) -> None:
        self._connection, self.source, self.day, self.record = connection, source, day, record
        plan = source.trace.plan
        self.devices = [host.name for host in plan.devices]
        self.servers = [host.name for host in plan.edge_servers]
        self.has_others = len(day.cells) > 1
        self._look_at()
        counted = connection.execute(
            "SELECT count(*), count(*) FILTER (requested_site = 'split'), min(arrived_s - epoch * ?), max(epoch), "  # noqa: S608
            "coalesce(min(row), 0), coalesce(max(row), 0) "
            f"FROM src JOIN device ON device.name = src.device_id WHERE {self._is_own}",
            (record.setting.epoch_s,),
        ).fetchone()
        assert counted is not None
        self.tasks, splits, begin_s, last, self.first_row, self.last_row = counted
        self._strangers = [
            name
            for (name,) in connection.execute(
                f"SELECT DISTINCT device_id FROM src WHERE {self._is_own} "  # noqa: S608
                "AND device_id NOT IN (SELECT name FROM device) ORDER BY device_id"
            ).fetchall()
        ]
        self.is_plain = splits == 0
        self.epochs = max(record.setting.epochs, 0 if last is None else last + 1)
        self._batch_epochs = max(1, math.floor(BATCH_TASKS * self.epochs / max(1, self.tasks)))
        self._aside = Spill(fields_of(len(self.servers)), folder)
        self._put_aside()
        self.start_s = self._start_s(begin_s)

    def _look_at(self) -> None:
        """Make the views that queries are about."""
        connection = self._connection
        rows = ", ".join(f"({slot}, {sql_text(name)})" for slot, name in enumerate(self.devices))
        connection.execute(f"CREATE OR REPLACE TABLE device AS FROM (VALUES {rows}) AS t(slot, name)")
        file = sql_file(self.source.tasks_file)
        names = ", ".join(sql_text(cell.cell_id) for cell in self.day.cells)
        connection.execute(
            "CREATE OR REPLACE VIEW recorded AS SELECT *, file_row_number AS row, "  # noqa: S608
            f"substr(task_id, len(cell_id) + 2) AS key FROM read_parquet({file}, file_row_number = true)"
        )
        connection.execute(f"CREATE OR REPLACE VIEW src AS FROM recorded WHERE cell_id IN ({names})")

    @property
    def _is_own(self) -> str:
        """Condition on a row of the record that it is replayed."""
        own = sql_text(self.record.cell_id)
        return f"cell_id = {own} AND arrived_s IS NOT NULL AND NOT list_contains(flags, 'unplanned')"

    @property
    def is_replayed(self) -> str:
        """Condition on a row of the recorded table that it is a task of this day: of the record, and of a device."""
        names = ", ".join(sql_text(name) for name in self._strangers)
        return f"{self._is_own} AND epoch >= 0" + (f" AND device_id NOT IN ({names})" if names else "")

    def _put_aside(self) -> None:
        """Read the day, and put its tasks aside by epochs."""
        others = [cell.cell_id for cell in self.day.cells if cell.cell_id != self.record.cell_id]
        reader = Reader(self._connection, self.source.tasks_file, self.day.seed, self.is_replayed, others, self.servers)
        for columns in reader.columns():
            self._aside.add(columns, columns["epoch"] // self._batch_epochs)

    def _start_s(self, begin_s: float) -> float:
        """When the cell began: a task's arrival on the run clock, less its planned offset.

        A foreign trace may not be the one that its plan makes; then the begin of the epochs that its tasks have.
        """
        batch = next((batch for batch in self.batches() if len(batch)), None)
        if batch is None:
            return 0.0
        number, arrived_s, frames = int(batch.number[0]), float(batch.arrived_s[0]), int(batch.frames[0])
        planned = self.record.planned_tasks(self.devices[batch.slot[0]])
        if number < len(planned) and planned[number].frames == frames:
            return arrived_s - planned[number].offset_s
        return float(begin_s)

    def batches(self) -> Iterator[Batch]:
        """All of it, in order of time."""
        first = 0
        for number, epoch in enumerate(range(0, self.epochs, self._batch_epochs)):
            batch = self._batch(first, (epoch, min(self.epochs, epoch + self._batch_epochs)), self._aside.part(number))
            first += len(batch)
            yield batch

    def _batch(self, first: int, epochs: tuple[int, int], rows: dict[str, NDArray[Any]]) -> Batch:
        order = _in_time(rows)

        def column(name: str) -> NDArray[Any]:
            return rows[name][order]

        def edge(short: str, kind: str = "f8") -> NDArray[Any]:
            columns = [column(f"{short}{index}") for index in range(len(self.servers))]
            return np.stack(columns, axis=1) if columns else np.zeros((len(order), 0), kind)

        payload = column("payload_bytes")
        uplink_s, rate_bps = edge("up"), np.nan_to_num(edge("rate"))
        hold_s = np.minimum(uplink_s, holding_s(payload[:, None], rate_bps, uplink_s))
        if self.record.setting.channels.model != "none":
            # The channel is shared anew: what remains is what an upload took beyond the rate that it was granted.
            uplink_s = np.maximum(0.0, uplink_s - hold_s)
            hold_s = np.where(np.isnan(uplink_s), np.nan, 0.0)
        return Batch(
            first=first,
            epochs=epochs,
            **{name: column(name) for name in PLAIN},
            payload_bytes=payload,
            device_row=column("dr"),
            uplink_s=uplink_s,
            hold_s=hold_s,
            server_s=edge("srv"),
            downlink_s=edge("down"),
            edge_row=edge("er", "i8"),
            refusal_s=np.full(len(order), np.nan),
        )


def _in_time(rows: dict[str, NDArray[Any]]) -> IndexArray:
    """Order of epoch, arrival, device, row."""
    epoch, arrived_s = rows["epoch"], rows["arrived_s"]
    order = np.argsort(arrived_s, kind="stable")
    # Nearly always no two tasks arrive at the same instant, and epochs follow each other as arrivals do.
    if (np.diff(arrived_s[order]) > 0).all() and (np.diff(epoch[order]) >= 0).all():
        return order
    return np.lexsort((rows["row"], rows["slot"], arrived_s, epoch))


def holding_s(size_bytes: FloatArray, rate_bps: FloatArray, uplink_s: FloatArray) -> FloatArray:
    """How long an upload kept the uplink from the next, as `device_agent.uplink` sends.

    Paced, until its last byte was due; else not at all when it went as one message, and all the time when it waited
    for credits on the way.
    """
    paced_s = np.divide(8.0 * size_bytes, rate_bps, out=np.zeros_like(uplink_s), where=rate_bps > 0)
    whole = size_bytes <= CHUNK_BYTES * WINDOW_CHUNKS
    return np.where(rate_bps > 0, paced_s, np.where(whole, np.where(np.isnan(uplink_s), np.nan, 0.0), uplink_s))
