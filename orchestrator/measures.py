"""What a run's tasks say, by policy and seed: the numbers that reports show and statistics compare.

Which tasks count: those of warm-up epochs do not, and neither do those of cells (or ends of cells) that never ran
(``not_run``, ``not_needed``), which say nothing about a policy. Latency, CPU and energy are means over *done* tasks.
The miss rate counts a failed task as missed; tasks with an unknown outcome are not in it and are shown apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgebed.trace.runs import Answer, Run

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BASE_SETTING = "base"

COUNTED = "NOT list_has_any(flags, ['warm_up', 'unplanned']) AND coalesce(reason, '') NOT IN ('not_run', 'not_needed')"
"""Condition of the tasks that count."""

_COUNTED_VIEW = f"""
CREATE VIEW counted AS
SELECT tasks.*, coalesce(setting_of_cell.setting, '{BASE_SETTING}') AS setting,
       device_cpu_s + server_cpu_s AS cpu_s, device_energy_j + server_energy_j AS energy_j
FROM tasks LEFT JOIN setting_of_cell USING (cell_id)
WHERE {COUNTED}
"""  # noqa: S608  (built of constants)

MEASURES = {
    "latency_s": "avg(latency_s) FILTER (outcome = 'done')",
    "miss_rate": "avg(CASE WHEN deadline_met THEN 0.0 ELSE 1.0 END) FILTER (outcome <> 'unknown')",
    "cpu_s": "avg(cpu_s) FILTER (outcome = 'done')",
    "energy_j": "avg(energy_j) FILTER (outcome = 'done')",
    "energy_error_j": "avg(energy_error_j) FILTER (outcome = 'done' AND energy_j IS NOT NULL)",
    "offload_share": "avg(CASE WHEN site <> 'device' THEN 1.0 ELSE 0.0 END) FILTER (site IS NOT NULL)",
    "cost": "avg(cost)",
}
"""Each measure of a (policy, setting, seed), as SQL over ``counted``."""


_SEED_MEASURES = f"""
SELECT policy, setting, seed, count(*) AS tasks,
       count(*) FILTER (outcome = 'done') AS done,
       count(*) FILTER (outcome = 'failed') AS failed,
       count(*) FILTER (outcome = 'unknown') AS unknown,
       {", ".join(f"{sql} AS {name}" for name, sql in MEASURES.items())}
FROM counted GROUP BY policy, setting, seed ORDER BY policy, setting, seed
"""  # noqa: S608  (built of constants)


@dataclass(frozen=True, slots=True)
class SeedMeasures:
    """One policy under one setting and seed.

    Attributes:
        tasks: that count; ``done``, ``failed`` and ``unknown`` add up to it.
        measures: by the names of `MEASURES`; None where nothing is known.
    """

    policy: str
    setting: str
    seed: int
    tasks: int
    done: int
    failed: int
    unknown: int
    measures: dict[str, float | None]


@contextmanager
def counted_tasks(run: Run) -> Iterator[DuckDBPyConnection]:
    """A connection that also has the view ``counted``: the tasks that count, with ``setting``, ``cpu_s``, ``energy_j``.

    Raises:
        BadInput: the run has not been sealed.
        MissingExtra: DuckDB is not installed.
    """
    with run.connect() as connection:
        connection.execute("CREATE TABLE setting_of_cell (cell_id VARCHAR, setting VARCHAR)")
        for cell_id, setting in settings_of_cells(run.plan).items():
            connection.execute("INSERT INTO setting_of_cell VALUES (?, ?)", (cell_id, setting))
        connection.execute(_COUNTED_VIEW)
        yield connection


def settings_of_cells(plan: dict[str, Any]) -> dict[str, str]:
    """Name of the setting of every cell that the plan lists with one."""
    cells = plan.get("cells")
    if not isinstance(cells, list):
        return {}
    return {
        str(cell["id"]): str(cell["setting"])
        for cell in cells
        if isinstance(cell, dict) and {"id", "setting"} <= cell.keys()
    }


def ask(connection: DuckDBPyConnection, sql: str) -> Answer:
    """The answer to a query of this package's own."""
    found = connection.execute(sql)
    return Answer(tuple(str(column[0]) for column in found.description or ()), found.fetchall())


def seed_measures(connection: DuckDBPyConnection) -> list[SeedMeasures]:
    """Every policy, setting and seed with a task that counts, sorted."""
    rows = ask(connection, _SEED_MEASURES).records()
    return [
        SeedMeasures(
            **{name: value for name, value in row.items() if name not in MEASURES},
            measures={name: row[name] for name in MEASURES},
        )
        for row in rows
    ]
