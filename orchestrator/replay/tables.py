"""The rows of a reevaluated cell: recorded ones as they were, the others with their queues, latency and cost anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.ingredients import DONE, FAILED, NOWHERE, OUTCOMES, REASONS, UNKNOWN, IndexArray
from edgebed.trace.runs import sql_file, sql_text
from edgebed.trace.schema import STAGES, EpochRecord, TaskRecord, columns
from edgebed.types import Site
from orchestrator.backends.simulated_record import EpochRow, Record
from orchestrator.backends.simulated_rows import epoch_table, used_of
from orchestrator.columnar import ColumnWriter, part_path
from orchestrator.replay.day import RecordedDay
from orchestrator.replay.judged import MODELLED, RECOMPUTED, RECORDED, STATUS, Judged, QueueError
from orchestrator.replay.observing import REPLAY
from orchestrator.replay.spill import Spill

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BACKEND = "replayed"
OF_THE_DECISION = ("decision_late", "simulated", "recorded", "recomputed", "modelled", "warm_up", "unplanned")
"""Flags that do not carry over with an ingredient from another row."""

PART_ROWS = 122_880
"""Of a file: one row group, as DuckDB has them; joins of more would not stay in memory, and so not in order."""

FROM_OTHERS = (
    *("row", "link_rate_bps", "clock_error_s", "device_cpu_s", "server_cpu_s", "device_energy_j", "server_energy_j"),
    *("energy_source", "energy_error_j", "predicted", "label", "correct", "flags"),
)
"""What a row may take from another one."""

_RESULTS = {
    **dict.fromkeys(("row", "other", "status", "rsite", "rserver", "rchannel", "xsite", "xserver", "xframes"), "i8"),
    **dict.fromkeys(("version", "outcome", "reason"), "i8"),
    **dict.fromkeys(("decision_s", "latency_s", *STAGES), "f8"),
    **dict.fromkeys(("cpu", "server_cpu", "joules", "server_joules", "error_j", "air_s"), "f8"),
}
"""What a replay comes to, by row of the record."""

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
        values: dict[str, Any] = {
            "row": batch.row, "other": other, "status": status, "rsite": choices.site, "rserver": choices.server,
            "rchannel": choices.channel, "xsite": lane.site, "xserver": lane.server, "xframes": lane.edge_frames,
            "version": judged.version, "outcome": lane.outcome, "reason": lane.reason,
            "decision_s": lane.decision_s, "latency_s": lane.latency_s,
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
        expressions = _selected(self._cell, self._words(versions))
        selected = ", ".join(f"CAST({expression} AS {kind}) AS {name}" for name, kind, expression in expressions)
        # Joined as written, what is on the left keeps its order; the database would turn joins around and sort after.
        self._connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
        for number in range(self._parts):
            self._write_part(part_path(self._folder / "tasks.parquet", number), self._results.part(number), selected)
        self._connection.execute("RESET disabled_optimizers")

    @property
    def _parts(self) -> int:
        return max(1, 1 + (self._day.last_row - self._day.first_row) // PART_ROWS)

    def _write_part(self, path: Path, results: NDArray[Any], selected: str) -> None:
        connection, others = self._connection, results["other"][results["other"] >= 0]
        connection.register("results", {name: np.ascontiguousarray(results[name]) for name in _RESULTS})
        connection.execute(
            f"COPY (SELECT {selected} FROM {self._joined(results['row'], others)} ORDER BY b.row) TO "  # noqa: S608
            f"{sql_text(path)} {_FORMAT}"
        )
        connection.unregister("results")

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
            "servers": _list(self._cell.servers),
            "sites": _list([site.label for site in Site]),
            "outcomes": _list([each.value for each in OUTCOMES]),
            "reasons": _list(list(REASONS)),
            "versions": _list(list(versions)),
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


def _list(names: list[str]) -> str:
    return f"[{', '.join(sql_text(name) for name in names)}]" if names else "['']"


def _selected(cell: CellSpec, words: dict[str, str]) -> list[tuple[str, str, str]]:
    """Columns of ``tasks``: name, type, expression over the record ``b``, the other row ``p``, the results ``r``."""
    anew = _anew(cell, words)
    same = _identity(cell)
    found = []
    for name, kind in columns(TaskRecord):
        if name in same:
            expression = same[name]
        elif name in anew:
            expression = f"CASE WHEN r.status = {RECORDED} THEN b.{name} ELSE {anew[name]} END"
        else:
            expression = f"b.{name}"
        found.append((name, kind, expression))
    return found


def _identity(cell: CellSpec) -> dict[str, str]:
    kept = f"[{', '.join(sql_text(flag) for flag in OF_THE_DECISION)}]"
    status = _list(list(STATUS))
    moved = f"list_filter(coalesce(p.flags, b.flags), lambda flag: NOT list_contains({kept}, flag))"
    emulated = "list_filter(b.flags, lambda flag: flag = 'emulated')"
    measured = f"CASE WHEN r.status = {RECOMPUTED} THEN {moved} ELSE {emulated} END"
    origin = "list_filter(b.flags, lambda flag: flag IN ('warm_up', 'simulated'))"
    return {
        "run_id": sql_text(cell.run_id),
        "cell_id": sql_text(cell.cell_id),
        "policy": sql_text(cell.policy),
        "task_id": f"concat({sql_text(cell.cell_id + '/')}, b.key)",
        "backend": sql_text(BACKEND),
        "attempt": "1",
        "flags": (
            f"list_concat(CASE WHEN r.status = {RECORDED} THEN b.flags ELSE list_concat({origin}, {measured}) END, "
            f"[{status}[r.status + 1]])"
        ),
    }


def _anew(cell: CellSpec, words: dict[str, str]) -> dict[str, str]:
    """Columns of rows that were not recorded as they are; ``x`` stands for the row with the ingredients."""
    is_done, is_edge = f"r.outcome = {DONE}", f"r.xsite > {int(Site.DEVICE)}"
    asked_edge = f"r.rsite > {int(Site.DEVICE)}"

    def where_done(expression: str) -> str:
        return f"CASE WHEN {is_done} THEN {expression} END"

    def ingredient(name: str, modelled: str = "NULL") -> str:
        recorded = f"CASE WHEN r.other >= 0 THEN p.{name} ELSE b.{name} END"
        return where_done(f"CASE WHEN r.status = {RECOMPUTED} THEN {recorded} ELSE {modelled} END")

    energy = {
        "device_energy_j": ingredient("device_energy_j", "r.joules"),
        "server_energy_j": ingredient("server_energy_j", "r.server_joules"),
    }
    deadline_met = f"CASE WHEN {is_done} THEN r.latency_s <= b.deadline_s WHEN r.outcome = {FAILED} THEN false END"
    return {
        "link_rate_bps": f"CASE WHEN {is_edge} AND r.other >= 0 THEN p.link_rate_bps ELSE b.link_rate_bps END",
        "link_rate_measured_bps": where_done(
            f"CASE WHEN {is_edge} AND r.air_s > 0 THEN 8.0 * b.payload_bytes * r.xframes / b.frames / r.air_s END"
        ),
        "requested_site": f"{words['sites']}[r.rsite + 1]",
        "requested_server": f"CASE WHEN {asked_edge} AND r.rserver >= 0 THEN {words['servers']}[r.rserver + 1] END",
        "requested_channel": f"CASE WHEN {asked_edge} THEN r.rchannel END",
        "site": f"CASE WHEN r.xsite >= 0 THEN {words['sites']}[r.xsite + 1] END",
        "server": f"CASE WHEN r.xserver >= 0 THEN {words['servers']}[r.xserver + 1] END",
        "channel": f"CASE WHEN {is_edge} THEN r.rchannel END",
        "edge_fraction": "r.xframes / b.frames",
        "edge_frames": "r.xframes",
        "cpu_fraction": "1.0",
        "power_fraction": "1.0",
        "decision_epoch": "b.epoch",
        "policy_version": f"CASE WHEN r.version >= 0 THEN {words['versions']}[r.version + 1] ELSE b.policy_version END",
        "decided_by": f"CASE WHEN r.version >= 0 THEN {words['by']} ELSE b.decided_by END",
        "decision_s": "r.decision_s",
        "decision_compute_s": "NULL",
        "outcome": f"{words['outcomes']}[r.outcome + 1]",
        "reason": f"nullif({words['reasons']}[r.reason + 1], '')",
        "latency_s": where_done("r.latency_s"),
        **{name: where_done(f"r.{name}") for name in STAGES},
        "clock_error_s": ingredient("clock_error_s"),
        "deadline_met": deadline_met,
        "cost": _cost(cell, energy, deadline_met),
        "device_cpu_s": ingredient("device_cpu_s", "r.cpu"),
        "server_cpu_s": ingredient("server_cpu_s", "r.server_cpu"),
        **energy,
        "energy_source": ingredient("energy_source", "CASE WHEN r.joules IS NOT NULL THEN 'estimated:profile' END"),
        "energy_error_j": ingredient("energy_error_j", "r.error_j"),
        "predicted": ingredient("predicted"),
        "label": "coalesce(b.label, p.label)",
        "correct": ingredient("correct"),
    }


def _cost(cell: CellSpec, energy: dict[str, str], deadline_met: str) -> str:
    """As `edgebed.trace.cost.task_cost` has it."""
    reward = cell.reward
    joules = f"(({energy['device_energy_j']}) + ({energy['server_energy_j']}))"
    used = f" + {reward.energy!r} * {joules}" if reward.energy > 0 else ""
    miss = f" + CASE WHEN ({deadline_met}) THEN 0.0 ELSE {reward.miss_penalty!r} END"
    failed = reward.latency * cell.timeouts.task_s + reward.miss_penalty
    return (
        f"CASE r.outcome WHEN {DONE} THEN {reward.latency!r} * r.latency_s{used}{miss} "
        f"WHEN {FAILED} THEN {failed!r} WHEN {UNKNOWN} THEN NULL END"
    )
