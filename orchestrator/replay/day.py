"""The recorded day in order of time: every task with the ingredients that some cell of that day recorded for it.

DuckDB sorts on disk and gives it out epochs at a time, so that memory does not grow with the trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgebed.protocol.messages import CHUNK_BYTES, WINDOW_CHUNKS
from edgebed.simulation.testbed.ingredients import OUTCOMES, FloatArray, IndexArray
from edgebed.trace.runs import sql_file, sql_text
from edgebed.types import BoolArray, Site
from orchestrator.plan_file import PlannedCell
from orchestrator.replay.source import Day, Source, is_timed_sql, timed_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BATCH_TASKS = 65_536
"""Tasks that are in memory at a time, about; whole epochs."""

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
    bounds: IndexArray = field(init=False)

    def __post_init__(self) -> None:
        """Find where each epoch begins."""
        self.bounds = np.searchsorted(self.epoch, np.arange(self.epochs[0], self.epochs[1] + 1))

    def __len__(self) -> int:
        return len(self.row)

    @property
    def is_decided(self) -> BoolArray:
        """Somebody decided about it; else it never got that far on the recorded day, under any policy."""
        return (self.site >= 0) & np.isfinite(self.decision_s)

    def of_epoch(self, epoch: int) -> slice:
        """Positions of the tasks that arrived in an epoch."""
        at = epoch - self.epochs[0]
        return slice(int(self.bounds[at]), int(self.bounds[at + 1]))


class RecordedDay:
    """A day, laid out on disk; one policy's cell of it is the record that rows are compared with.

    Args:
        connection: to a database on disk.
        source: the run.
        day: which.
        record: its cell that is compared with.

    Attributes:
        start_s: of the cell, run clock. tasks: how many there are.
        has_others: some ingredients come from other cells of the day.
        is_plain: no task was split.
    """

    def __init__(self, connection: DuckDBPyConnection, source: Source, day: Day, record: PlannedCell) -> None:
        self._connection, self.source, self.day, self.record = connection, source, day, record
        plan = source.trace.plan
        self.devices = [host.name for host in plan.devices]
        self.servers = [host.name for host in plan.edge_servers]
        self.epochs = record.setting.epochs
        self.has_others = len(day.cells) > 1
        self._lay_out()
        counted = connection.execute(
            "SELECT count(*), count(*) FILTER (site = 2), min(arrived_s - epoch * ?), max(epoch) FROM day",
            (record.setting.epoch_s,),
        ).fetchone()
        assert counted is not None
        self.tasks, splits, begin_s, last = counted
        self.is_plain = splits == 0
        self.epochs = max(self.epochs, 0 if last is None else last + 1)
        self.start_s = self._start_s(begin_s)
        self._batch_epochs = max(1, math.floor(BATCH_TASKS * self.epochs / max(1, self.tasks)))

    def _lay_out(self) -> None:
        connection = self._connection
        connection.execute("CREATE OR REPLACE TABLE device (slot INTEGER, name VARCHAR)")
        for slot, name in enumerate(self.devices):
            connection.execute("INSERT INTO device VALUES (?, ?)", (slot, name))
        file = sql_file(self.source.tasks_file)
        names = ", ".join(sql_text(cell.cell_id) for cell in self.day.cells)
        connection.execute(
            "CREATE OR REPLACE VIEW src AS SELECT *, file_row_number AS row, substr(task_id, len(cell_id) + 2) AS key "  # noqa: S608
            f"FROM read_parquet({file}, file_row_number = true) WHERE cell_id IN ({names})"
        )
        own = sql_text(self.record.cell_id)
        if self.has_others:
            self._gather(own)
        ingredients, joins = self._ingredients()
        connection.execute(
            "CREATE OR REPLACE TABLE day AS SELECT src.row, device.slot, "  # noqa: S608
            "coalesce(TRY_CAST(split_part(src.key, '/', -1) AS BIGINT), 0) AS number, src.epoch, src.arrived_s, "
            "src.frames, src.payload_bytes, src.deadline_s, "
            f"{_code('src.requested_site', [site.label for site in Site])} AS site, "
            f"{_code('src.requested_server', self.servers)} AS server, src.requested_channel AS channel, "
            "src.edge_fraction AS fraction, src.decision_s, src.decision_compute_s AS compute_s, "
            f"{_code('src.outcome', [each.value for each in OUTCOMES])} AS outcome, src.latency_s, "
            f"(src.outcome <> 'done' OR {is_timed_sql('src.')}) AS is_timed, "
            f"{ingredients} FROM src JOIN device ON device.name = src.device_id {joins} "
            f"WHERE src.cell_id = {own} AND src.arrived_s IS NOT NULL AND NOT list_contains(src.flags, 'unplanned') "
            "ORDER BY src.epoch, src.arrived_s, device.slot, src.row"
        )

    def _gather(self, own: str) -> None:
        """What each cell of the day recorded of a task at a site; the record's own first, then in the plan's order."""
        order = ", ".join(sql_text(cell.cell_id) for cell in self.day.cells)
        rank = f"CASE WHEN cell_id = {own} THEN 0 ELSE list_position([{order}], cell_id) END"
        best = f"(SELECT *, {rank} AS rank FROM src WHERE outcome = 'done' AND site = "  # noqa: S608  (names, quoted)
        self._connection.execute(
            "CREATE OR REPLACE TABLE here AS SELECT key, arg_min(row, rank) AS row, "  # noqa: S608
            "arg_min(device_compute_s, rank) AS device_compute_s "
            f"FROM {best}'device' AND {timed_sql('device')}) GROUP BY key"
        )
        self._connection.execute(
            "CREATE OR REPLACE TABLE there AS SELECT key, server, arg_min(row, rank) AS row, "  # noqa: S608
            "arg_min(uplink_s, rank) AS uplink_s, arg_min(server_compute_s, rank) AS server_compute_s, "
            "arg_min(downlink_s, rank) AS downlink_s, arg_min(coalesce(link_rate_bps, 0), rank) AS rate_bps "
            f"FROM {best}'edge' AND {timed_sql('edge')}) GROUP BY key, server"
        )

    def _ingredients(self) -> tuple[str, str]:
        """Columns with the ingredients, and the joins that they need."""
        if not self.has_others:
            here = f"src.outcome = 'done' AND src.site = 'device' AND {timed_sql('device', 'src.')}"
            parts = [
                f"CASE WHEN {here} THEN src.device_compute_s END AS device_s, CASE WHEN {here} THEN src.row END dr"
            ]
            for index, name in enumerate(self.servers):
                there = f"src.outcome = 'done' AND src.site = 'edge' AND src.server = {sql_text(name)}"
                there += f" AND {timed_sql('edge', 'src.')}"
                parts += [
                    f"CASE WHEN {there} THEN src.{column} END AS {short}{index}"
                    for column, short in (*_EDGE, ("row", "er"), ("link_rate_bps", "rate"))
                ]
            return ", ".join(parts), ""
        parts, joins = ["here.device_compute_s AS device_s, here.row AS dr"], ["LEFT JOIN here ON here.key = src.key"]
        for index, name in enumerate(self.servers):
            joins.append(
                f"LEFT JOIN there AS there{index} ON there{index}.key = src.key AND there{index}.server = "
                f"{sql_text(name)}"
            )
            columns = (*_EDGE, ("row", "er"), ("rate_bps", "rate"))
            parts += [f"there{index}.{column} AS {short}{index}" for column, short in columns]
        return ", ".join(parts), " ".join(joins)

    def _start_s(self, begin_s: float) -> float:
        """When the cell began: a task's arrival on the run clock, less its planned offset.

        A foreign trace may not be the one that its plan makes; then the begin of the epochs that its tasks have.
        """
        found = self._connection.execute("SELECT slot, number, arrived_s, frames FROM day LIMIT 1").fetchone()
        if found is None:
            return 0.0
        slot, number, arrived_s, frames = found
        planned = self.record.planned_tasks(self.devices[slot])
        if number < len(planned) and planned[number].frames == frames:
            return float(arrived_s - planned[number].offset_s)
        return float(begin_s)

    def batches(self) -> Iterator[Batch]:
        """All of it, in order of time."""
        first = 0
        for epoch in range(0, self.epochs, self._batch_epochs):
            end = min(self.epochs, epoch + self._batch_epochs)
            found = self._connection.execute(
                "SELECT * FROM day WHERE epoch >= ? AND epoch < ? ORDER BY epoch, arrived_s, slot, row", (epoch, end)
            ).fetchnumpy()
            batch = self._batch(first, (epoch, end), found)
            first += len(batch)
            yield batch

    def _batch(self, first: int, epochs: tuple[int, int], found: dict[str, Any]) -> Batch:
        def edge(short: str) -> FloatArray:
            columns = [_numbers(found[f"{short}{index}"]) for index in range(len(self.servers))]
            return np.stack(columns, axis=1) if columns else np.zeros((len(found["row"]), 0))

        payload = _numbers(found["payload_bytes"])
        uplink_s, rate_bps = edge("up"), np.nan_to_num(edge("rate"))
        count = len(payload)
        hold_s = np.minimum(uplink_s, holding_s(payload[:, None], rate_bps, uplink_s))
        if self.record.setting.channels.model != "none":
            # The channel is granted anew: what remains is what an upload took beyond the rate that it was granted.
            uplink_s = np.maximum(0.0, uplink_s - hold_s)
            hold_s = np.where(np.isnan(uplink_s), np.nan, 0.0)
        return Batch(
            first=first,
            epochs=epochs,
            row=_whole(found["row"]),
            slot=_whole(found["slot"]),
            number=_whole(found["number"]),
            epoch=_whole(found["epoch"]),
            arrived_s=_numbers(found["arrived_s"]),
            frames=_whole(found["frames"]),
            payload_bytes=payload,
            deadline_s=_numbers(found["deadline_s"]),
            site=_whole(found["site"]),
            server=_whole(found["server"]),
            channel=_whole(found["channel"], 0),
            fraction=_numbers(found["fraction"]),
            decision_s=_numbers(found["decision_s"]),
            compute_s=_numbers(found["compute_s"]),
            outcome=_whole(found["outcome"]),
            latency_s=_numbers(found["latency_s"]),
            device_s=_numbers(found["device_s"]),
            device_row=_whole(found["dr"]),
            uplink_s=uplink_s,
            hold_s=hold_s,
            server_s=edge("srv"),
            downlink_s=edge("down"),
            edge_row=_whole(edge("er")),
            refusal_s=np.full(count, np.nan),
            is_timed=np.asarray(found["is_timed"], np.bool_),
        )


_EDGE = (("uplink_s", "up"), ("server_compute_s", "srv"), ("downlink_s", "down"))


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
