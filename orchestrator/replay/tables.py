"""The rows of a reevaluated cell: recorded ones as they were, the others with their queues, latency and cost anew."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgebed.errors import BadInput
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.ingredients import DONE, FAILED, NOWHERE, OUTCOMES, REASONS, FloatArray, IndexArray
from edgebed.trace.runs import sql_file, sql_text
from edgebed.trace.schema import STAGES, EpochRecord, columns
from edgebed.types import Site
from orchestrator.backends.simulated_record import EpochRow, Record
from orchestrator.backends.simulated_rows import epoch_table, used_of
from orchestrator.columnar import ColumnWriter, not_nan, part_path, where_known
from orchestrator.replay.ahead import THREADS
from orchestrator.replay.day import RecordedDay
from orchestrator.replay.judged import MODELLED, RECORDED, STATUS, Judged, Lane, QueueError
from orchestrator.replay.known import KnownColumns
from orchestrator.replay.observing import REPLAY
from orchestrator.replay.part_rows import FORMAT, bounds_of, in_rows, joined, part_rows
from orchestrator.replay.row_columns import (
    AS_RECORDED,
    FROM_OTHER,
    FROM_OWN,
    FROM_PROFILE,
    NOT_DONE,
    decided,
    list_sql,
)
from orchestrator.replay.spill import Spill
from orchestrator.row_groups import join_columns, read_footer

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_RESULTS = {
    **dict.fromkeys(("row", "other", "status", "origin", "rsite", "rserver", "rchannel", "xsite", "xserver"), "i8"),
    **dict.fromkeys(("xchannel", "xframes", "version", "outcome", "reason", "met"), "i8"),
    **dict.fromkeys(("decision_s", "latency_s", *STAGES), "f8"),
    **dict.fromkeys(("cpu", "server_cpu", "joules", "server_joules", "error_j", "air_s"), "f8"),
}
"""What a replay comes to, by row of the record. Codes and numbers that are not known are negative and NaN here, and
NULL where tables are written; a list has nothing at the place 0, and so at the code -1."""

_CODES = ("rchannel", "xchannel")


class CellTables:
    """Takes the batches of one cell and writes its tables.

    Args:
        connection: to the day's database.
        day: the recorded one.
        cell: of the replay.
        folder: of the cell's attempt.
        by: who decided, as tables call it.
        scratch: a folder; results wait there, as they come in order of time, and tables are by device.

    Attributes:
        counts: rows of each status.
        queue_error: of the record's lane against the record.
    """

    def __init__(
        self, connection: DuckDBPyConnection, day: RecordedDay, cell: CellSpec, folder: Path, by: str, scratch: Path
    ) -> None:
        self._connection, self._day, self._cell, self._folder, self._by = connection, day, cell, folder, by
        folder.mkdir(parents=True, exist_ok=True)
        self._scratch, self._results = scratch, Spill(_RESULTS, scratch / "results")
        self._part_rows = part_rows(day.last_row - day.first_row + 1)
        self.counts = [0] * len(STATUS)
        self.queue_error = QueueError()
        self._epoch_parts: list[Path] = []

    def add(self, judged: Judged, testbed: Testbed | None, writer: ColumnWriter, rows: list[EpochRow]) -> None:
        """Take a batch that is over.

        Args:
            judged: the batch.
            testbed: the profile's, where something is modelled.
            writer: for the epochs.
            rows: of epochs since the batch before.
        """
        batch, lane, choices = judged.batch, judged.lanes[REPLAY], judged.choices
        status = judged.status()
        for code in range(len(STATUS)):
            self.counts[code] += int((status == code).sum())
        judged.note_queue_error(self.queue_error)
        other = judged.ingredient_row(status)
        other = np.where(other == batch.row, NOWHERE, other)
        asked_edge = choices.site > int(Site.DEVICE)
        values: dict[str, Any] = {
            "row": batch.row, "other": other, "status": status, "origin": _origin(status, other, lane.outcome),
            "rsite": choices.site, "rserver": np.where(asked_edge, choices.server, NOWHERE),
            "rchannel": np.where(asked_edge, choices.channel, NOWHERE), "xsite": lane.site, "xserver": lane.server,
            "xchannel": np.where(lane.site > int(Site.DEVICE), choices.channel, NOWHERE), "xframes": lane.edge_frames,
            "version": judged.version, "outcome": lane.outcome,
            "reason": np.where(lane.reason > 0, lane.reason, NOWHERE),
            "met": _met(lane, batch.deadline_s), "decision_s": lane.decision_s, "latency_s": lane.latency_s,
            **{name: lane.stages[:, index] for index, name in enumerate(STAGES)},
            **_used(judged, status, testbed),
        }  # fmt: skip
        self._results.add(values, (batch.row - self._day.first_row) // self._part_rows)
        self.add_epochs(writer, rows)

    def add_epochs(self, writer: ColumnWriter, rows: list[EpochRow]) -> None:
        """Write some decisions."""
        if rows:
            path = self._folder / f"epochs-{len(self._epoch_parts)}.parquet"
            writer.write(path, EpochRecord, epoch_table(self._cell, rows))
            self._epoch_parts.append(path)

    # -- the end ------------------------------------------------------------------------------------------------------

    def write(self, versions: tuple[str, ...], known: KnownColumns) -> None:
        """Write ``epochs.parquet`` of the cell and its ``tasks.parquet``, that one in parts when it is long.

        Args:
            versions: of the policy.
            known: the columns that are written already.

        Raises:
            BadInput: the recorded table is not the one any more that was replayed.
        """
        expressions = decided(self._cell, self._words(versions))
        chosen = ", ".join(f"CAST({expression} AS {kind}) AS {name}" for name, kind, expression in expressions)
        parts = range(len(bounds_of(self._day.first_row, self._day.last_row)))
        works = [self._write_epochs, *(partial(self._write_part, chosen, known, number) for number in parts)]
        with ThreadPoolExecutor(max_workers=THREADS) as threads:
            for _ in threads.map(lambda work: work(), works):
                pass

    def _write_part(self, chosen: str, known: KnownColumns, number: int) -> None:
        written = self._scratch / f"decided-{number}.parquet"
        self._write_decided(chosen, number, written)
        files = [known.file(number), written]
        join_columns([read_footer(file) for file in files], part_path(self._folder / "tasks.parquet", number))
        for file in files:
            file.unlink()

    def _write_decided(self, chosen: str, number: int, path: Path) -> None:
        results = self._results.part(number)
        count, (first, last) = len(results["row"]), bounds_of(self._day.first_row, self._day.last_row)[number]
        results = in_rows(results, first, last)
        values = {name: not_nan(values) if values.dtype.kind == "f" else values for name, values in results.items()}
        values |= {name: where_known(values[name], values[name] >= 0) for name in _CODES}
        values["place"] = np.arange(len(results["row"]))
        with self._connection.cursor() as connection:
            connection.register("results", values)
            written = connection.execute(
                f"COPY (SELECT {chosen} FROM {joined(results, first)}) TO {sql_text(path)} {FORMAT}"  # noqa: S608
            ).fetchone()
        if written != (count,):
            raise BadInput(f"{self._day.source.tasks_file} was changed while it was replayed; replay it again")

    def _words(self, versions: tuple[str, ...]) -> dict[str, str]:
        return {
            "servers": list_sql(self._cell.servers),
            "sites": list_sql([site.label for site in Site]),
            "outcomes": list_sql([each.value for each in OUTCOMES]),
            "reasons": list_sql(list(REASONS)),
            "versions": list_sql(list(versions)),
            "by": sql_text(self._by),
        }

    def _write_epochs(self) -> None:
        target = sql_text(self._folder / "epochs.parquet")
        if self._epoch_parts:
            parts = ", ".join(sql_file(path) for path in self._epoch_parts)
            source = f"SELECT * FROM read_parquet([{parts}])"  # noqa: S608
        else:
            names = [column.name for column in columns(EpochRecord)]
            new = {"run_id": sql_text(self._cell.run_id), "cell_id": sql_text(self._cell.cell_id)}
            chosen = ", ".join(f"{new.get(name, name)} AS {name}" for name in names)
            source = (
                f"SELECT {chosen} FROM read_parquet({sql_file(self._day.source.epochs_file)}) "  # noqa: S608
                f"WHERE cell_id = {sql_text(self._day.record.cell_id)}"
            )
        with self._connection.cursor() as connection:
            connection.execute(f"COPY ({source}) TO {target} {FORMAT}")
        for path in self._epoch_parts:
            path.unlink()


def _used(judged: Judged, status: Any, testbed: Testbed | None) -> dict[str, Any]:
    """CPU seconds and joules of modelled rows; unknown elsewhere, where they come from a recorded row."""
    count, lane = len(judged.batch), judged.lanes[REPLAY]
    unknown = np.full(count, np.nan)
    names = ("cpu", "server_cpu", "joules", "server_joules", "error_j")
    found: dict[str, Any] = {**dict.fromkeys(names, unknown), "air_s": lane.air_s}
    where = np.flatnonzero(status == MODELLED)
    if testbed is None or not len(where):
        return found
    record = Record.of(len(where))
    record.server, record.air_s = lane.server[where], lane.air_s[where]
    record.device_busy_s, record.server_busy_s = lane.device_busy_s[where], lane.server_busy_s[where]
    record.has_resources = lane.outcome[where] == DONE
    used = used_of(testbed, record, judged.batch.slot[where])
    parts = (used.device_cpu_s, used.server_cpu_s, used.device_energy_j, used.server_energy_j, used.error_j)
    for name, values in zip(names, parts, strict=True):
        column = unknown.copy()
        column[where] = values
        found[name] = column
    return found


def _origin(status: IndexArray, other: IndexArray, outcome: IndexArray) -> IndexArray:
    ingredients = np.where(status == MODELLED, FROM_PROFILE, np.where(other >= 0, FROM_OTHER, FROM_OWN))
    return np.where(status == RECORDED, AS_RECORDED, np.where(outcome == DONE, ingredients, NOT_DONE))


def _met(lane: Lane, deadline_s: FloatArray) -> IndexArray:
    """Was the deadline met: 1, 0, or -1 where nobody knows."""
    is_known = (lane.outcome == DONE) & np.isfinite(deadline_s)
    with np.errstate(invalid="ignore"):
        met = np.where(is_known, lane.latency_s <= deadline_s, NOWHERE)
    return np.where(lane.outcome == FAILED, 0, met)
