"""The rows of a reevaluated cell: recorded ones as they were, the others with their queues, latency and cost anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.ingredients import DONE, FAILED, NOWHERE, OUTCOMES, REASONS, FloatArray, IndexArray
from edgebed.trace.runs import sql_file, sql_text
from edgebed.trace.schema import STAGES, EpochRecord, columns
from edgebed.types import Site
from orchestrator.backends.simulated_record import EpochRow, Record
from orchestrator.backends.simulated_rows import epoch_table, used_of
from orchestrator.columnar import ColumnWriter, not_nan, part_path, where_known
from orchestrator.replay.day import RecordedDay
from orchestrator.replay.judged import MODELLED, RECORDED, STATUS, Judged, Lane, QueueError
from orchestrator.replay.observing import REPLAY
from orchestrator.replay.row_columns import (
    AS_RECORDED,
    FROM_OTHER,
    FROM_OWN,
    FROM_PROFILE,
    NOT_DONE,
    list_sql,
    selected,
)
from orchestrator.replay.spill import Spill

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PART_ROWS = 122_880
"""Of a file: one row group, as DuckDB has them; joins of more would not stay in memory, and so not in order."""

FROM_OTHERS = (
    *("row", "link_rate_bps", "clock_error_s", "device_cpu_s", "server_cpu_s", "device_energy_j", "server_energy_j"),
    *("energy_source", "energy_error_j", "predicted", "label", "correct", "flags"),
)
"""What a row may take from another one."""

_RESULTS = {
    **dict.fromkeys(("row", "other", "status", "origin", "rsite", "rserver", "rchannel", "xsite", "xserver"), "i8"),
    **dict.fromkeys(("xchannel", "xframes", "version", "outcome", "reason", "met"), "i8"),
    **dict.fromkeys(("decision_s", "latency_s", *STAGES), "f8"),
    **dict.fromkeys(("cpu", "server_cpu", "joules", "server_joules", "error_j", "air_s"), "f8"),
}
"""What a replay comes to, by row of the record. Codes and numbers that are not known are negative and NaN here, and
NULL where tables are written; a list has nothing at the place 0, and so at the code -1."""

_CODES = ("rchannel", "xchannel")

_FORMAT = "(FORMAT parquet, COMPRESSION zstd, DICTIONARY_SIZE_LIMIT 1000)"
"""Columns of so many different values gain nothing by a dictionary, and making one takes time."""


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
        self._results = Spill(_RESULTS, scratch)
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
        self._results.add(values, (batch.row - self._day.first_row) // PART_ROWS)
        self.add_epochs(writer, rows)

    def add_epochs(self, writer: ColumnWriter, rows: list[EpochRow]) -> None:
        """Write some decisions."""
        if rows:
            path = self._folder / f"epochs-{len(self._epoch_parts)}.parquet"
            writer.write(path, EpochRecord, epoch_table(self._cell, rows))
            self._epoch_parts.append(path)

    # -- the end ------------------------------------------------------------------------------------------------------

    def write(self, versions: tuple[str, ...]) -> None:
        """Write ``epochs.parquet`` of the cell and its ``tasks.parquet``, that one in parts when it is long."""
        self._write_epochs()
        expressions = selected(self._cell, self._words(versions))
        chosen = ", ".join(f"CAST({expression} AS {kind}) AS {name}" for name, kind, expression in expressions)
        # Joined as written, what is on the left nearly keeps its order (a row whose hash meets another's comes later),
        # and there is little to sort.
        self._connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
        for number in range(self._parts):
            self._write_part(chosen, number)
        self._connection.execute("RESET disabled_optimizers")

    @property
    def _parts(self) -> int:
        return 1 + (int(self._day.last_row - self._day.first_row) // PART_ROWS)

    def _write_part(self, chosen: str, number: int) -> None:
        path, results = part_path(self._folder / "tasks.parquet", number), self._results.part(number)
        known = {name: not_nan(values) if values.dtype.kind == "f" else values for name, values in results.items()}
        known |= {name: where_known(known[name], known[name] >= 0) for name in _CODES}
        rows = f"SELECT {chosen} FROM {self._joined(results['row'], results['other'][results['other'] >= 0])}"  # noqa: S608
        self._connection.register("results", known)
        self._connection.execute(f"COPY ({rows} ORDER BY b.row) TO {sql_text(path)} {_FORMAT}")
        self._connection.unregister("results")

    def _joined(self, rows: IndexArray, others: IndexArray) -> str:
        """The record ``b`` in its order, the results ``r``, and the other rows ``p`` that some ingredients are from."""
        own = f"cell_id = {sql_text(self._day.record.cell_id)} AND {_within(rows)}"
        # Without another row everything is in the record's own.
        taken = "(FROM src LIMIT 0) AS p ON false"
        if len(others):
            taken = (
                f"(SELECT {', '.join(FROM_OTHERS)} FROM src WHERE {_within(others)} AND row IN "  # noqa: S608  (names)
                "(SELECT other FROM results WHERE other >= 0)) AS p ON p.row = r.other"
            )
        return f"(FROM src WHERE {own}) AS b JOIN results AS r ON r.row = b.row LEFT JOIN {taken}"

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
        self._connection.execute(f"COPY ({source}) TO {target} {_FORMAT}")
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


def _within(rows: IndexArray) -> str:
    """Condition on a row that it is near some of these: what is far from all of them is not read."""
    ordered = np.sort(rows)
    ends = np.flatnonzero(np.diff(ordered) > PART_ROWS)  # another cell's rows lie between
    pairs = zip(ordered[np.r_[0, ends + 1]].tolist(), ordered[np.r_[ends, -1]].tolist(), strict=True)
    return f"({' OR '.join(f'row BETWEEN {first} AND {last}' for first, last in pairs)})" if len(rows) else "false"


def _origin(status: IndexArray, other: IndexArray, outcome: IndexArray) -> IndexArray:
    ingredients = np.where(status == MODELLED, FROM_PROFILE, np.where(other >= 0, FROM_OTHER, FROM_OWN))
    return np.where(status == RECORDED, AS_RECORDED, np.where(outcome == DONE, ingredients, NOT_DONE))


def _met(lane: Lane, deadline_s: FloatArray) -> IndexArray:
    """Was the deadline met: 1, 0, or -1 where nobody knows."""
    is_known = (lane.outcome == DONE) & np.isfinite(deadline_s)
    with np.errstate(invalid="ignore"):
        met = np.where(is_known, lane.latency_s <= deadline_s, NOWHERE)
    return np.where(lane.outcome == FAILED, 0, met)
