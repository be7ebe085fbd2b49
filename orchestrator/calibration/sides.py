"""The tasks that count of a run, as `comparison` and `ranking` look at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.calibration.comparison import Tasks
from orchestrator.calibration.ranking import RANKED
from orchestrator.calibration.traces import bounded, read_columns
from orchestrator.measures import BASE_SETTING, seed_measures

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TASKS = """
SELECT policy, setting, seed, epoch, CASE WHEN outcome = 'done' THEN latency_s END AS latency_s,
       CASE WHEN outcome <> 'unknown' THEN CASE WHEN deadline_met THEN 0.0 ELSE 1.0 END END AS missed,
       CASE WHEN outcome = 'done' THEN energy_j END AS energy_j
FROM counted
"""

Group = tuple[str, str]
"""Policy and setting."""


@dataclass(frozen=True, slots=True)
class RunTasks:
    """One run, measured or simulated.

    Attributes:
        tasks: by policy and setting; the unit of a task is its seed, as a number.
        epochs: of the same tasks: their epoch, for runs of one seed.
        by_seed: of each policy and setting, by measure of `ranking.RANKED`, by seed.
    """

    tasks: dict[Group, Tasks]
    epochs: dict[Group, Tasks]
    by_seed: dict[Group, dict[str, dict[int, float | None]]]


def name_of(group: Group) -> str:
    """What a policy is called; with its setting where that is not the only one."""
    policy, setting = group
    return policy if setting == BASE_SETTING else f"{policy} [{setting}]"


def read_tasks(connection: DuckDBPyConnection) -> RunTasks:
    """Read the tasks that count of a run.

    Args:
        connection: with the view ``counted``, see `orchestrator.measures.counted_tasks`.
    """
    condition, _ = bounded(connection, most_rows=5_000_000)
    columns = read_columns(connection, f"{_TASKS} WHERE {condition}")
    groups = sorted(set(zip(columns["policy"], columns["setting"], strict=True)))
    by_seed_tasks, by_epoch_tasks = {}, {}
    for group in groups:
        mine = (columns["policy"] == group[0]) & (columns["setting"] == group[1])
        values = [columns[name][mine].astype(np.float64) for name in ("latency_s", "missed", "energy_j")]
        by_seed_tasks[group] = Tasks(columns["seed"][mine].astype(np.int64), *values)
        by_epoch_tasks[group] = Tasks(columns["epoch"][mine].astype(np.int64), *values)
    return RunTasks(by_seed_tasks, by_epoch_tasks, _by_seed(connection))


def _by_seed(connection: DuckDBPyConnection) -> dict[Group, dict[str, dict[int, float | None]]]:
    found: dict[Group, dict[str, dict[int, float | None]]] = {}
    for each in seed_measures(connection):
        measures = found.setdefault((each.policy, each.setting), {name: {} for name in RANKED})
        for name in RANKED:
            measures[name][each.seed] = each.measures[name]
    return found
