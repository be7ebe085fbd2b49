"""The columns of a cell's tasks that no decision changes: they are written while it is being decided."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from edgebed.protocol.cells import CellSpec
from edgebed.trace.runs import sql_text
from orchestrator.replay.day import RecordedDay
from orchestrator.replay.part_rows import FORMAT, bounds_of
from orchestrator.replay.row_columns import known_beforehand

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class KnownColumns:
    """Writes them in a thread of its own, a file a part.

    Deciding is left to the interpreter and this to the database, so that each has a processor to itself where there are
    two. Closed, it has written what it had begun with and leaves the rest.

    Args:
        connection: to the day's database.
        day: the recorded one.
        cell: of the replay.
        folder: for the files.
    """

    def __init__(self, connection: DuckDBPyConnection, day: RecordedDay, cell: CellSpec, folder: Path) -> None:
        self._connection, self._day, self._folder = connection, day, folder
        chosen = ", ".join(f"CAST({sql} AS {kind}) AS {name}" for name, kind, sql in known_beforehand(cell))
        self._thread = ThreadPoolExecutor(max_workers=1)
        bounds = enumerate(bounds_of(day.first_row, day.last_row))
        self._files = [self._thread.submit(self._write, chosen, number, *pair) for number, pair in bounds]

    def file(self, number: int) -> Path:
        """That of a part, as soon as it is written.

        Raises:
            Exception: what writing it raised.
        """
        return self._files[number].result()

    def _write(self, chosen: str, number: int, first: int, last: int) -> Path:
        path = self._folder / f"known-{number}.parquet"
        rows = f"FROM recorded AS b WHERE row BETWEEN {first} AND {last} AND {self._day.is_replayed}"
        with self._connection.cursor() as connection:
            connection.execute(f"COPY (SELECT {chosen} {rows}) TO {sql_text(path)} {FORMAT}")
        return path

    def __enter__(self) -> KnownColumns:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown(cancel_futures=True)
