"""A measure of one complete cell while its run goes on: the number that its sealed tables will give.

The same SQL as in `orchestrator.measures`, over the rows as they will be sealed: planned ones, each with the best
report about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from edgebed.trace.cost import task_cost
from edgebed.trace.runs import QUIET, import_duckdb
from edgebed.trace.schema import FINAL_ORDER, NEVER_RUN, TaskRecord
from edgebed.trace.segments import SUFFIX, attempt_folder, read_segment
from orchestrator.attempts import Attempt
from orchestrator.columnar import not_nan, parts_of, scan_of
from orchestrator.measures import COUNTED, MEASURES
from orchestrator.plan_file import PlannedCell
from orchestrator.unreported import rows_of_cell

_decode = msgspec.msgpack.Decoder(TaskRecord).decode


def measure_of_cell(run_folder: Path, cell: PlannedCell, attempt: Attempt, measure: str) -> float | None:
    """A measure over the tasks of a complete cell that count; None when it is not known.

    Args:
        run_folder: the run's.
        cell: complete.
        attempt: its newest.
        measure: one of `orchestrator.measures.MEASURES`.

    Raises:
        RunConflict: this edgebed plans other tasks than the one that made the plan.
        MissingExtra: DuckDB is not installed.
    """
    folder = attempt_folder(run_folder, cell.cell_id, attempt.attempt)
    tables = folder / "tasks.parquet"
    with import_duckdb("comparing policies while a run goes on").connect() as connection:
        connection.execute(QUIET)
        if tables.is_file():
            source = (
                "(SELECT *, device_cpu_s + server_cpu_s AS cpu_s, device_energy_j + server_energy_j AS energy_j "  # noqa: S608
                f"FROM {scan_of(parts_of(tables), TaskRecord)} WHERE {COUNTED})"
            )
        else:
            connection.register("counted", _columns(_counted(folder, cell, attempt)))
            source = "counted"
        found = connection.execute(f"SELECT {MEASURES[measure]} FROM {source}").fetchone()  # noqa: S608
    return None if found is None or found[0] is None else float(found[0])


def _counted(folder: Path, cell: PlannedCell, attempt: Attempt) -> list[TaskRecord]:
    """The rows of a cell that count, as they will be sealed."""
    best: dict[str, tuple[int, int, TaskRecord]] = {row.task_id: (0, 0, row) for row in rows_of_cell(cell, attempt)}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        for record in read_segment(path):
            row = _task(record.row) if record.kind == "task" else None
            if row is None or row.task_id not in best or row.attempt != attempt.attempt:
                continue
            rank = FINAL_ORDER.get(row.outcome, 0)
            if (rank, record.sequence) > best[row.task_id][:2]:
                best[row.task_id] = rank, record.sequence, row
    spec = cell.spec(attempt.serial, attempt.attempt)
    rows = [
        row
        for _, _, row in best.values()
        if row.epoch >= spec.warm_up_epochs and row.reason not in NEVER_RUN and "unplanned" not in row.flags
    ]
    for row in rows:
        if row.cost is None:
            row.cost = task_cost(row, spec.reward, spec.timeouts.task_s)
    return rows


def _task(data: bytes) -> TaskRecord | None:
    with suppress(msgspec.MsgspecError):  # sealing leaves it out, too, and says so
        return _decode(data)
    return None


def _columns(rows: Sequence[TaskRecord]) -> dict[str, object]:
    """What the measures' SQL looks at, with NULL where nothing is known."""
    site = np.array([row.site or "" for row in rows], dtype=object)
    return {
        "outcome": np.array([row.outcome for row in rows], dtype=object),
        "deadline_met": np.array([bool(row.deadline_met) for row in rows], dtype=bool),
        "site": np.ma.masked_array(site, mask=[row.site is None for row in rows]),
        "latency_s": _numbers([row.latency_s for row in rows]),
        "cpu_s": _numbers([_sum(row.device_cpu_s, row.server_cpu_s) for row in rows]),
        "energy_j": _numbers([_sum(row.device_energy_j, row.server_energy_j) for row in rows]),
        "cost": _numbers([row.cost for row in rows]),
    }


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _numbers(values: Sequence[float | None]) -> object:
    return not_nan(np.array([np.nan if value is None else value for value in values], dtype=np.float64))
