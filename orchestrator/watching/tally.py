"""What the tasks of a cell have come to so far: from its raw segments, or from tables.

Which tasks count, and as what, is as in `orchestrator.measures`: those of warm-up epochs and those that never ran do
not count, a failed task is a missed one, and one of unknown outcome is neither met nor missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgebed.trace.runs import QUIET, import_duckdb, readable_tables
from edgebed.trace.schema import FINAL_ORDER, NEVER_RUN, TaskRecord
from orchestrator.columnar import scan_of
from orchestrator.measures import COUNTED

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Tally:
    """Tasks of a cell.

    Attributes:
        terminal: tasks with an outcome, whether they count or not; not those that never ran.
        done, failed, unknown: how the tasks that count ended. missed: of these, the deadlines that were missed.
        latencies_s: of the done tasks that count.
    """

    terminal: int = 0
    done: int = 0
    failed: int = 0
    unknown: int = 0
    missed: int = 0
    latencies_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


class Told(msgspec.Struct):
    """What is needed of a `edgebed.trace.schema.TaskRecord`, by its names."""

    task_id: str
    epoch: int
    outcome: str
    reason: str | None = None
    latency_s: float | None = None
    deadline_met: bool | None = None


_decode = msgspec.msgpack.Decoder(Told).decode


class Reported:
    """The tasks of an attempt as they are reported, one after the other; the best outcome of each counts.

    Args:
        warm_up_epochs: their tasks do not count.
    """

    def __init__(self, warm_up_epochs: int) -> None:
        self._warm_up_epochs = warm_up_epochs
        self._told: dict[str, Told] = {}

    def add(self, row: bytes) -> None:
        """Take a row; one that is none, or has no outcome, is left to sealing, which says so."""
        try:
            told = _decode(row)
        except msgspec.MsgspecError:
            return
        known = self._told.get(told.task_id)
        rank = FINAL_ORDER.get(told.outcome)
        if rank is not None and (known is None or rank >= FINAL_ORDER[known.outcome]):
            self._told[told.task_id] = told

    def tally(self) -> Tally:
        """How they stand."""
        ran = [told for told in self._told.values() if told.reason not in NEVER_RUN]
        return _tally_of([told for told in ran if told.epoch >= self._warm_up_epochs], len(ran))


def _tally_of(counted: Sequence[Told], terminal: int) -> Tally:
    outcomes = [told.outcome for told in counted]
    return Tally(
        terminal=terminal,
        done=outcomes.count("done"),
        failed=outcomes.count("failed"),
        unknown=outcomes.count("unknown"),
        missed=sum(told.outcome != "unknown" and not told.deadline_met for told in counted),
        latencies_s=np.array(
            [told.latency_s for told in counted if told.outcome == "done" and told.latency_s is not None]
        ),
    )


_TALLIES = f"""
SELECT cell_id, count(*) FILTER (coalesce(reason, '') NOT IN ({", ".join(f"'{each}'" for each in sorted(NEVER_RUN))})),
       count(*) FILTER ({COUNTED} AND outcome = 'done'), count(*) FILTER ({COUNTED} AND outcome = 'failed'),
       count(*) FILTER ({COUNTED} AND outcome = 'unknown'),
       count(*) FILTER ({COUNTED} AND outcome <> 'unknown' AND deadline_met IS NOT TRUE),
       list(latency_s) FILTER ({COUNTED} AND outcome = 'done' AND latency_s IS NOT NULL)
FROM <tasks> GROUP BY cell_id
"""  # noqa: S608  (built of constants)


def tallies_of_tables(paths: Iterable[Path]) -> dict[str, Tally]:
    """The tasks in tables of rows as `edgebed.trace.schema.TaskRecord` has them, by cell.

    Args:
        paths: at least one, all in one folder.

    Raises:
        BadInput: one is damaged.
        MissingExtra: DuckDB is not installed.
    """
    files = list(paths)
    with import_duckdb("watching a run").connect() as connection, readable_tables(files[0].parent):
        connection.execute(QUIET)
        return _tallies(connection, scan_of(files, TaskRecord))


def _tallies(connection: DuckDBPyConnection, source: str) -> dict[str, Tally]:
    rows = connection.execute(_TALLIES.replace("<tasks>", source)).fetchall()
    return {
        cell_id: Tally(terminal, done, failed, unknown, missed, np.array(latencies_s or (), dtype=np.float64))
        for cell_id, terminal, done, failed, unknown, missed, latencies_s in rows
    }
