"""Sealing of runs whose cells were written as columns: their files, one after another, become the run's four tables.

A cell's tasks lie in their sealed order already, and every planned task has its row, so that tasks only have to be
joined; rewards come from them by the same SQL as in `orchestrator.seal`. Epochs that lie in their order, too, only get
their rewards on the way; they are wide, and sorting them would take longer than all the rest.
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
from orchestrator.seal import EPOCHS, REWARDS, SealedCounts, publish, write_table

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
        _write_epochs(connection, files, folder)
        for table in ("samples", "events"):
            write_table(connection, table, folder)
        return _count(connection, tasks, folder / "epochs", files.unreported)


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
    connection.execute(REWARDS)
    events = scan_of(files.events, EventRecord)
    connection.execute(
        f"CREATE TABLE events AS SELECT *, '' AS _host, row_number() OVER () AS _sequence FROM {events}"  # noqa: S608
    )
    samples = scan_of([], SampleRecord)
    connection.execute(f"CREATE TABLE samples AS SELECT *, '' AS _host, 0 AS _sequence FROM {samples}")  # noqa: S608


# Rows whose place in the order is not behind that of the row before; of such an epoch the last word would count.
_OUT_OF_ORDER = """
SELECT count(*) FROM (
    SELECT key, lag(key) OVER (ORDER BY _sequence) AS before FROM (
        SELECT row(_cell, device_id, epoch, coalesce(len(action), 0) = 0) AS key, row_number() OVER () AS _sequence
        FROM given JOIN cell_order USING (cell_id)))
WHERE key <= before
"""

_LAST_EPOCHS = """
CREATE TABLE last_epoch AS
SELECT cell_id, device_id, max(epoch) AS last FROM given WHERE len(action) > 0 GROUP BY ALL
"""

# As `orchestrator.seal.EPOCHS` has them; rewards are of rows with an action.
_WITH_REWARD = {
    "reward": "CASE WHEN len(action) > 0 THEN coalesce(total, 0) END",
    "reward_complete": "CASE WHEN len(action) > 0 THEN coalesce(complete, true) END",
    "terminated": "CASE WHEN len(action) > 0 THEN false END",
    "truncated": "CASE WHEN len(action) > 0 THEN given.epoch = last END",
}


def _write_epochs(connection: DuckDBPyConnection, files: _Files, folder: Path) -> None:
    connection.execute(f"CREATE VIEW given AS SELECT * FROM {scan_of(files.epochs, EpochRecord)}")  # noqa: S608
    found = connection.execute(_OUT_OF_ORDER).fetchone()
    assert found is not None
    if found[0]:
        _sort_epochs(connection)
        write_table(connection, "epochs", folder)
        return
    connection.execute(_LAST_EPOCHS)
    selected = ", ".join(f"{_WITH_REWARD.get(name, f'given.{name}')} AS {name}" for name, _ in columns(EpochRecord))
    # Joined as written, what is on the left keeps its order; the database would turn joins around and sort after.
    connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
    connection.execute(
        f"COPY (SELECT {selected} FROM given LEFT JOIN rewards USING (cell_id, device_id, epoch) "  # noqa: S608
        "LEFT JOIN last_epoch USING (cell_id, device_id)) "
        f"TO {sql_text(folder / 'epochs')} (FORMAT parquet, COMPRESSION zstd)"
    )
    connection.execute("RESET disabled_optimizers")


def _sort_epochs(connection: DuckDBPyConnection) -> None:
    connection.execute(
        "CREATE TABLE raw_epoch AS SELECT given.*, _cell, 0 AS _rank, '' AS _host, row_number() OVER () AS _sequence "
        "FROM given JOIN cell_order USING (cell_id)"
    )
    connection.execute(EPOCHS)


def _count(connection: DuckDBPyConnection, tasks: str, epochs: Path, unreported: int) -> SealedCounts:
    rows = connection.execute(f"SELECT outcome, count(*) FROM {tasks} GROUP BY outcome").fetchall()  # noqa: S608
    outcomes: dict[str, int] = dict(rows)
    sizes = {}
    sources = {"epochs": f"read_parquet({sql_text(epochs)})", "samples": "samples", "events": "events"}
    for table, source in sources.items():
        found = connection.execute(f"SELECT count(*) FROM {source}").fetchone()  # noqa: S608
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
