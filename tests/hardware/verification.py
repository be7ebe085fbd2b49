"""Whether a run on a cluster shows what it must, and what it measured."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb

from edgebed.trace.manifest import Manifest, read_manifest
from orchestrator.plan_file import Plan
from tests.acceptance.demo import rows_problems

TABLES = ("tasks", "samples", "events")

_POLICIES = """
SELECT policy, count(*) AS n, count(*) FILTER (outcome = 'done') AS done,
       avg(latency_s) AS mean_s, median(latency_s) AS p50_s, quantile_cont(latency_s, 0.95) AS p95_s,
       avg((deadline_met IS NOT TRUE)::INTEGER) FILTER (outcome <> 'unknown') AS missed_share,
       avg((edge_frames > 0)::INTEGER) FILTER (outcome = 'done') AS offloaded_share,
       sum(correct)::BIGINT AS frames_right, sum(frames) FILTER (correct IS NOT NULL)::BIGINT AS frames,
       avg(device_energy_j) AS device_energy_j,
       list_sort(list_distinct(flatten(list(string_split(energy_source, '+'))))) AS energy_sources
FROM tasks WHERE NOT list_contains(flags, 'warm_up') GROUP BY policy ORDER BY policy
"""


def verify(folder: Path) -> list[str]:
    """What is wrong with a run of all five policies; empty when nothing is."""
    problems = _of_any_run(folder)
    with _tables(folder) as tables, contextlib.redirect_stdout(sys.stderr):
        problems += rows_problems(tables)
        problems += _energy_problems(tables)
    return problems


def verify_faults(folder: Path, killed: str, cells: int) -> list[str]:
    """What is wrong with a run in which a device's program was killed and one stood still, once a cell each."""
    problems = _of_any_run(folder)
    with _tables(folder) as tables:
        begun = [
            (json.loads(detail)["kind"], host, t_s)
            for host, t_s, detail in _rows(tables, "SELECT host, t_s, detail FROM events WHERE kind = 'fault_begin'")
        ]
        done = Counter(kind for kind, _, _ in begun)
        if done != {"kill": cells, "stop": cells}:
            problems.append(f"faults were planned once in each of {cells} cells, done were {dict(done)}")
        for _, host, t_s in (each for each in begun if each[0] == "kill" and each[1] == killed):
            back = _rows(
                tables,
                "SELECT count(*) FROM tasks WHERE device_id = ? AND outcome = 'done' AND arrived_s > ?"
                " AND arrived_s < (SELECT min(arrived_s) + 60 FROM tasks WHERE arrived_s > ?)",
                [host, t_s, t_s],
            )
            if not back[0][0]:
                problems.append(f"{host} did no task any more after its program was killed at {t_s:.1f} s")
    return problems


def policies_of(folder: Path) -> list[dict[str, Any]]:
    """What each policy came to, without warm-up: n tasks, latencies in seconds, joules a task."""
    with _tables(folder) as tables:
        found = tables.execute(_POLICIES)
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _of_any_run(folder: Path) -> list[str]:
    manifest = read_manifest(folder)
    problems = []
    if manifest.state != "complete":
        problems.append(f"the run is {manifest.state}, not complete")
    if manifest.verdict == "invalid":
        problems.append("the run's verdict is invalid")
    if not (folder / "report.html").is_file():
        problems.append("the run has no report")
    with _tables(folder) as tables:
        problems += _identity_problems(folder, tables, manifest)
    return problems


def _identity_problems(folder: Path, tables: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[str]:
    """Exactly one row a planned task, compared by their names, and counted as the manifest says."""
    plan = Plan.from_yaml(folder / "plan.yaml")
    planned = Counter(
        cell.task_id(device.name, task.index)
        for cell in plan.cells
        for device in plan.devices
        for task in cell.planned_tasks(device.name)
    )
    rows = Counter(name for (name,) in _rows(tables, "SELECT task_id FROM tasks"))
    problems = []
    if rows != planned:
        lacking, more = (planned - rows).total(), (rows - planned).total()
        problems.append(f"of {planned.total()} planned tasks {lacking} have no row, and {more} rows are too many")
    outcomes = dict(_rows(tables, "SELECT outcome, count(*) FROM tasks GROUP BY outcome"))
    told = {name: manifest.counts.get(name, 0) for name in ("done", "failed", "unknown")}
    if {name: outcomes.get(name, 0) for name in told} != told or outcomes.keys() - told.keys():
        problems.append(f"the table has {outcomes}, the manifest says {told}")
    return problems


def _energy_problems(tables: duckdb.DuckDBPyConnection) -> list[str]:
    """Every joule says where it comes from, and how wrong it may be."""
    ((silent,),) = _rows(
        tables,
        "SELECT count(*) FROM tasks WHERE outcome = 'done' AND (energy_source IS NULL OR energy_error_j IS NULL"
        " OR NOT regexp_full_match(energy_source, '(measured|estimated):[^+]+([+](measured|estimated):[^+]+)*'))",
    )
    return [f"the energy of {silent} tasks does not say its source or its error"] if silent else []


def _tables(folder: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for table in TABLES:
        path = str(folder / f"{table}.parquet").replace("'", "''")
        connection.execute(f"CREATE VIEW {table} AS FROM read_parquet('{path}')")
    return connection


def _rows(tables: duckdb.DuckDBPyConnection, query: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
    return tables.execute(query, values or []).fetchall()
