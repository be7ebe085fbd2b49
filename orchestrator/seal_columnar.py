"""Sealing of runs whose cells were written as columns: their files, one after another, become the run's four tables.

A cell's tasks lie in their sealed order already, and every planned task has its row, so that tasks only have to be
joined; rewards come from them by the same SQL as in `orchestrator.seal`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgebed.protocol.cells import CellSpec
from edgebed.trace.runs import QUIET, import_duckdb, sql_text
from edgebed.trace.schema import EpochRecord, EventRecord, SampleRecord, TaskRecord, columns
from edgebed.trace.segments import attempt_folder
from orchestrator.columnar import ColumnWriter, Table, parts_of, scan_of
from orchestrator.row_groups import join_row_groups, read_footer
from orchestrator.seal import EPOCHS, SealedCounts, publish, write_table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MEMORY_LIMIT = "1GB"
"""A joint observation of 10,000 devices has 150,000 numbers, and a hundred of them are sorted together."""

_GROUP_ROWS = 20_000
"""Of a row group that stays as it is, in the mean."""


@dataclass(frozen=True, slots=True)
class SealedCell:
    """A cell to be sealed.

    Attributes:
        attempt: number of its newest attempt that was written; 0: it never ran.
    """

    spec: CellSpec
    attempt: int


def seal_columns(run_folder: Path, cells: Sequence[SealedCell], not_run: Callable[[CellSpec], Table]) -> SealedCounts:
    """Write ``tasks``, ``epochs``, ``samples`` and ``events.parquet`` of a run.

    Args:
        run_folder: has ``cells/<cell>/attempt-<n>/tasks.parquet`` and so on; gets the tables.
        cells: every cell of the plan, in its order, which becomes the order of the rows.
        not_run: the rows of a cell that never ran, in their sealed order.

    Raises:
        MissingExtra: DuckDB is not installed.
    """
    folder = run_folder / ".sealing"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        files = _Files(run_folder, folder, cells, not_run)
        with tempfile.TemporaryDirectory(prefix="edgebed-", dir=None if "?" in str(folder) else folder) as scratch:
            counts = _tabulate(files, folder, Path(scratch))
        publish(run_folder, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return counts


class _Files:
    """The files of a run's cells, in the cells' order."""

    def __init__(
        self, run_folder: Path, folder: Path, cells: Sequence[SealedCell], not_run: Callable[[CellSpec], Table]
    ) -> None:
        self.tasks: list[Path] = []
        self.epochs: list[Path] = []
        self.events: list[Path] = []
        self.unreported = 0
        self.order = [(cell.spec.cell_id, position) for position, cell in enumerate(cells)]
        with ColumnWriter(folder) as writer:
            for position, cell in enumerate(cells):
                if cell.attempt:
                    self._add(attempt_folder(run_folder, cell.spec.cell_id, cell.attempt))
                    continue
                table = not_run(cell.spec)
                self.unreported += table.rows
                self.tasks.append(folder / f"not_run-{position}.parquet")
                writer.write(self.tasks[-1], TaskRecord, table)

    def _add(self, attempt: Path) -> None:
        self.tasks += parts_of(attempt / "tasks.parquet")
        self.epochs.append(attempt / "epochs.parquet")
        if (attempt / "events.parquet").exists():  # most cells have nothing to tell
            self.events.append(attempt / "events.parquet")


def _tabulate(files: _Files, folder: Path, scratch: Path) -> SealedCounts:
    # One thread: the order of rows, and of the sums of costs, is then the same every time.
    settings = {"memory_limit": _MEMORY_LIMIT, "threads": 1, "temp_directory": str(scratch / "spill")}
    with import_duckdb("sealing a run").connect(str(scratch / "seal.duckdb"), config=settings) as connection:
        connection.execute(QUIET)
        _join_tasks(connection, files, folder / "tasks")
        tasks = f"read_parquet({sql_text(folder / 'tasks')})"
        _make_tables(connection, files, tasks)
        for table in ("epochs", "samples", "events"):
            write_table(connection, table, folder)
        return _count(connection, tasks, files.unreported)


def _join_tasks(connection: DuckDBPyConnection, files: _Files, target: Path) -> None:
    if len(files.tasks) == 1:  # has these rows in this order already
        shutil.copyfile(files.tasks[0], target)
        return
    footers = [read_footer(path) for path in files.tasks]
    # Row groups much smaller than DuckDB's own make a table slow to read.
    if sum(footer.rows for footer in footers) >= _GROUP_ROWS * sum(len(footer.groups) for footer in footers) > 0:
        join_row_groups(footers, target)
        return
    names = ", ".join(column.name for column in columns(TaskRecord))
    source = scan_of(files.tasks, TaskRecord)
    connection.execute(
        f"COPY (SELECT {names} FROM {source}) TO {sql_text(target)} (FORMAT parquet, COMPRESSION zstd)"  # noqa: S608
    )


def _make_tables(connection: DuckDBPyConnection, files: _Files, tasks: str) -> None:
    connection.execute(f"CREATE VIEW tasks AS SELECT * FROM {tasks}")  # noqa: S608
    connection.execute("CREATE TABLE cell_order (cell_id VARCHAR, _cell INTEGER)")
    connection.executemany("INSERT INTO cell_order VALUES (?, ?)", files.order)
    epochs, events = scan_of(files.epochs, EpochRecord), scan_of(files.events, EventRecord)
    connection.execute(
        "CREATE TABLE raw_epoch AS SELECT given.*, _cell, 0 AS _rank, '' AS _host, row_number() OVER () AS _sequence "  # noqa: S608
        f"FROM {epochs} AS given JOIN cell_order USING (cell_id)"
    )
    connection.execute(EPOCHS)
    connection.execute(
        f"CREATE TABLE events AS SELECT *, '' AS _host, row_number() OVER () AS _sequence FROM {events}"  # noqa: S608
    )
    samples = scan_of([], SampleRecord)
    connection.execute(f"CREATE TABLE samples AS SELECT *, '' AS _host, 0 AS _sequence FROM {samples}")  # noqa: S608


def _count(connection: DuckDBPyConnection, tasks: str, unreported: int) -> SealedCounts:
    rows = connection.execute(f"SELECT outcome, count(*) FROM {tasks} GROUP BY outcome").fetchall()  # noqa: S608
    outcomes: dict[str, int] = dict(rows)
    sizes = {}
    for table in ("epochs", "samples", "events"):
        found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        assert found is not None
        sizes[table] = int(found[0])
    return SealedCounts(
        planned=sum(outcomes.values()),
        **{name: outcomes.get(name, 0) for name in ("done", "failed", "unknown")},
        unreported=unreported,
        unplanned=0,
        **sizes,
        problems=(),
    )
