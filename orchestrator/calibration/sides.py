"""The tasks that count of a run, as `comparison` and `ranking` look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgebed.trace.runs import sql_text
from orchestrator.calibration.comparison import Tasks, joined
from orchestrator.calibration.distributions import FloatArray
from orchestrator.calibration.ranking import RANKED
from orchestrator.calibration.traces import bounded, read_columns
from orchestrator.measures import BASE_SETTING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_CELLS = "SELECT DISTINCT cell_id, policy, setting, seed FROM counted ORDER BY ALL"

_TASKS = """
SELECT epoch, CASE WHEN outcome = 'done' THEN latency_s END AS latency_s,
       CASE WHEN outcome <> 'unknown' THEN CASE WHEN deadline_met THEN 0.0 ELSE 1.0 END END AS missed,
       CASE WHEN outcome = 'done' THEN energy_j END AS energy_j, cost
FROM counted
"""

MOST_TASKS = 5_000_000
"""Tasks of a run that are compared; of a longer one, those of its first epochs."""

Group = tuple[str, str]
"""Policy and setting."""


@dataclass(frozen=True, slots=True)
class RunTasks:
    """One run, measured or simulated.

    Attributes:
        cells: names of the cells that have a task that counts.
        tasks: by policy and setting; the unit of a task is its seed, as a number.
        epochs: of the same tasks: their epoch, for runs of one seed.
        by_seed: of each policy and setting, by measure of `ranking.RANKED`, by seed.
    """

    cells: frozenset[str]
    tasks: dict[Group, Tasks]
    epochs: dict[Group, Tasks]
    by_seed: dict[Group, dict[str, dict[int, float | None]]]


def name_of(group: Group) -> str:
    """What a policy is called; with its setting where that is not the only one."""
    policy, setting = group
    return policy if setting == BASE_SETTING else f"{policy} [{setting}]"


@dataclass(frozen=True, slots=True)
class CellColumns:
    """The tasks that count of one cell, ``[n]`` arrays; meanings as in `comparison.Tasks`, NaN where not known."""

    cell_id: str
    group: Group
    seed: int
    epoch: NDArray[np.int64]
    latency_s: FloatArray
    missed: FloatArray
    energy_j: FloatArray
    cost: FloatArray


def run_tasks(cells: Sequence[CellColumns]) -> RunTasks:
    """A run from its cells."""
    found: dict[Group, list[CellColumns]] = {}
    for cell in cells:
        if len(cell.epoch):
            found.setdefault(cell.group, []).append(cell)
    return RunTasks(
        cells=frozenset(cell.cell_id for each in found.values() for cell in each),
        tasks={
            group: joined([_tasks(cell, np.full(len(cell.epoch), cell.seed)) for cell in each])
            for group, each in found.items()
        },
        epochs={group: joined([_tasks(cell, cell.epoch) for cell in each]) for group, each in found.items()},
        by_seed={group: _by_seed(each) for group, each in found.items()},
    )


def _tasks(cell: CellColumns, unit: NDArray[np.int64]) -> Tasks:
    return Tasks(unit.astype(np.int64), cell.latency_s, cell.missed, cell.energy_j)


def _by_seed(cells: Sequence[CellColumns]) -> dict[str, dict[int, float | None]]:
    """Means by seed, as `orchestrator.measures` has them."""
    columns = dict(zip(RANKED, ("latency_s", "missed", "energy_j", "cost"), strict=True))
    return {measure: {cell.seed: _mean(getattr(cell, column)) for cell in cells} for measure, column in columns.items()}


def _mean(values: FloatArray) -> float | None:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else None


def read_tasks(connection: DuckDBPyConnection) -> RunTasks:
    """Read the tasks that count of a run, cell by cell, numbers only.

    Args:
        connection: with the view ``counted``, see `orchestrator.measures.counted_tasks`.
    """
    condition, _ = bounded(connection, MOST_TASKS)
    cells = []
    for cell_id, policy, setting, seed in connection.execute(_CELLS).fetchall():
        columns = read_columns(connection, f"{_TASKS} WHERE cell_id = {sql_text(cell_id)} AND {condition}")
        cells.append(
            CellColumns(
                cell_id,
                (policy, setting),
                int(seed),
                columns["epoch"].astype(np.int64),
                *(columns[name].astype(np.float64) for name in ("latency_s", "missed", "energy_j", "cost")),
            )
        )
    return run_tasks(cells)
