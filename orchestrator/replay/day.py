"""The recorded day in order of time: every task with the ingredients that some cell of that day recorded for it.

It is read some devices at a time and given out epochs at a time, so that memory does not grow with the trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput
from edgebed.protocol.messages import CHUNK_BYTES, WINDOW_CHUNKS
from edgebed.simulation.testbed.ingredients import OUTCOMES, FloatArray, IndexArray
from edgebed.trace.runs import sql_file, sql_text
from edgebed.types import BoolArray, Site
from orchestrator.plan_file import PlannedCell
from orchestrator.replay.source import Day, Source, is_timed_sql, timed_sql
from orchestrator.replay.spill import Spill

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BATCH_TASKS = 65_536
"""Tasks that are in memory at a time, about; whole epochs."""

_READ_TASKS = 65_536
"""Tasks that are read at a time, about; whole devices."""

NO_ROW = -1


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
        self.is_plain = splits == 0
        self.epochs = max(record.setting.epochs, 0 if last is None else last + 1)
        self._batch_epochs = max(1, math.floor(BATCH_TASKS * self.epochs / max(1, self.tasks)))
        self._aside = Spill(_fields(len(self.servers)), folder)
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
            "CREATE OR REPLACE VIEW src AS SELECT *, file_row_number AS row, substr(task_id, len(cell_id) + 2) AS key "  # noqa: S608
            f"FROM read_parquet({file}, file_row_number = true) WHERE cell_id IN ({names})"
        )

    @property
    def _is_own(self) -> str:
        """Condition on a row of the record that it is replayed."""
        own = sql_text(self.record.cell_id)
        return f"cell_id = {own} AND arrived_s IS NOT NULL AND NOT list_contains(flags, 'unplanned')"

    def _put_aside(self) -> None:
        """Read the day, and put its tasks aside by epochs."""
        ingredients, joins = self._ingredients()
        selected = (
            "src.row, device.slot, coalesce(TRY_CAST(split_part(src.key, '/', -1) AS BIGINT), 0) AS number, src.epoch, "
            "src.arrived_s, src.frames, src.payload_bytes, src.deadline_s, "
            f"{_code('src.requested_site', [site.label for site in Site])} AS site, "
            f"{_code('src.requested_server', self.servers)} AS server, src.requested_channel AS channel, "
            "src.edge_fraction AS fraction, src.decision_s, src.decision_compute_s AS compute_s, "
            f"{_code('src.outcome', [each.value for each in OUTCOMES])} AS outcome, src.latency_s, "
            f"(src.outcome <> 'done' OR {is_timed_sql('src.')}) AS is_timed, {ingredients}"
        )
        for some in self._some_devices():
            found = self._connection.execute(
                f"SELECT {selected} FROM (FROM src WHERE {self._is_own} AND epoch >= 0 AND {some}) AS src "  # noqa: S608
                f"JOIN device ON device.name = src.device_id {joins.replace('<some>', some)}"
            ).fetchnumpy()
            columns: dict[str, NDArray[Any]] = {
                name: _whole(found[name], 0 if name == "channel" else NO_ROW) if kind == "i8" else _numbers(found[name])
                for name, kind in _fields(len(self.servers)).items()
                if kind != "?"
            }
            columns["is_timed"] = np.asarray(found["is_timed"], np.bool_)
            if len(np.unique(columns["row"])) < len(columns["row"]):
                raise BadInput(
                    f"{self.source.tasks_file}: has a task twice in a cell with seed {self.day.seed}, so nobody knows "
                    "which row is meant; task_id must be unique: import the trace again"
                )
            self._aside.add(columns, columns["epoch"] // self._batch_epochs)

    def _some_devices(self) -> list[str]:
        """Conditions on devices, each for as many as are read at a time."""
        counted = self._connection.execute(
            f"SELECT device_id, count(*) FROM src WHERE {self._is_own} GROUP BY device_id ORDER BY device_id"  # noqa: S608
        ).fetchall()
        bounds: list[tuple[str, str]] = []
        tasks = _READ_TASKS
        for name, count in counted:
            tasks += count
            if tasks > _READ_TASKS:
                bounds.append((name, name))
                tasks = count
            bounds[-1] = (bounds[-1][0], name)
        return [f"device_id BETWEEN {sql_text(first)} AND {sql_text(last)}" for first, last in bounds]

    def _ingredients(self) -> tuple[str, str]:
        """Columns with the ingredients, and the joins that they need.

        They are those of the first cell that recorded the task at that site: the record's own, then the others in the
        plan's order.
        """
        others = [cell.cell_id for cell in self.day.cells if cell.cell_id != self.record.cell_id]
        tables = ["src", *(f"c{number}" for number in range(len(others)))]
        here = [_was_at("device", table) for table in tables]
        parts = [_first(here, [f"{table}.device_compute_s" for table in tables]) + " AS device_s"]
        parts.append(_first(here, [f"{table}.row" for table in tables]) + " AS dr")
        for index, name in enumerate(self.servers):
            there = [f"{_was_at('edge', table)} AND {table}.server = {sql_text(name)}" for table in tables]
            parts += [
                _first(there, [f"{table}.{column}" for table in tables]) + f" AS {short}{index}"
                for column, short in (*_EDGE, ("row", "er"), ("link_rate_bps", "rate"))
            ]
        joins = [
            f"LEFT JOIN (FROM src WHERE cell_id = {sql_text(other)} AND outcome = 'done' AND <some>) AS c{number} "
            f"ON c{number}.key = src.key"
            for number, other in enumerate(others)
        ]
        return ", ".join(parts), " ".join(joins)

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
            rows = self._aside.part(number)
            rows = rows[np.lexsort((rows["row"], rows["slot"], rows["arrived_s"], rows["epoch"]))]
            batch = self._batch(first, (epoch, min(self.epochs, epoch + self._batch_epochs)), rows)
            first += len(batch)
            yield batch

    def _batch(self, first: int, epochs: tuple[int, int], rows: NDArray[Any]) -> Batch:
        def column(name: str) -> NDArray[Any]:
            return np.ascontiguousarray(rows[name])

        def edge(short: str, kind: str = "f8") -> NDArray[Any]:
            columns = [rows[f"{short}{index}"] for index in range(len(self.servers))]
            return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0), kind)

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
            **{name: column(name) for name in _PLAIN},
            payload_bytes=payload,
            device_row=column("dr"),
            uplink_s=uplink_s,
            hold_s=hold_s,
            server_s=edge("srv"),
            downlink_s=edge("down"),
            edge_row=edge("er", "i8"),
            refusal_s=np.full(len(rows), np.nan),
        )


_EDGE = (("uplink_s", "up"), ("server_compute_s", "srv"), ("downlink_s", "down"))

_PLAIN = {
    **dict.fromkeys(("row", "slot", "number", "epoch", "frames", "site", "server", "channel", "outcome"), "i8"),
    **dict.fromkeys(("arrived_s", "deadline_s", "fraction", "decision_s", "compute_s", "latency_s", "device_s"), "f8"),
    "is_timed": "?",
}
"""Columns that a batch has as they are."""


def _fields(servers: int) -> dict[str, str]:
    """Columns of a task that is put aside."""
    fields = _PLAIN | {"payload_bytes": "f8", "dr": "i8"}
    for index in range(servers):
        fields |= {f"{short}{index}": "f8" for short in ("up", "srv", "down", "rate")} | {f"er{index}": "i8"}
    return fields


def _was_at(site: str, table: str) -> str:
    """Condition on a row that a site recorded all that its task took there."""
    return f"{table}.outcome = 'done' AND {table}.site = '{site}' AND {timed_sql(site, f'{table}.')}"


def _first(conditions: Sequence[str], values: Sequence[str]) -> str:
    cases = (f"WHEN {condition} THEN {value}" for condition, value in zip(conditions, values, strict=True))
    return f"CASE {' '.join(cases)} END"


def holding_s(size_bytes: FloatArray, rate_bps: FloatArray, uplink_s: FloatArray) -> FloatArray:
    """How long an upload kept the uplink from the next, as `device_agent.uplink` sends.

    Paced, until its last byte was due; else not at all when it went as one message, and all the time when it waited
    for credits on the way.
    """
    paced_s = np.divide(8.0 * size_bytes, rate_bps, out=np.zeros_like(uplink_s), where=rate_bps > 0)
    whole = size_bytes <= CHUNK_BYTES * WINDOW_CHUNKS
    return np.where(rate_bps > 0, paced_s, np.where(whole, np.where(np.isnan(uplink_s), np.nan, 0.0), uplink_s))


def _code(column: str, names: Sequence[str]) -> str:
    cases = " ".join(f"WHEN {sql_text(name)} THEN {index}" for index, name in enumerate(names))
    return f"CASE {column} {cases} ELSE {NO_ROW} END" if names else str(NO_ROW)


def _numbers(column: NDArray[Any]) -> FloatArray:
    return np.ma.filled(np.ma.asarray(column, np.float64), np.nan)


def _whole(column: NDArray[Any], unknown: int = NO_ROW) -> IndexArray:
    if column.dtype.kind == "f":
        column = np.ma.masked_invalid(column)
    return np.ma.filled(np.ma.asarray(column), unknown).astype(np.int64)
