"""Does a run of the demo show what it must? ``python -m tests.acceptance.demo RUN``; exit status 1 when it does not.

Reads the sealed tables with DuckDB, as a user would, and none of edgebed's own code except its statistics.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import duckdb

from orchestrator.statistics import paired_difference

POLICIES = ("all_edge", "all_local", "greedy_latency", "queue_threshold", "uniform_random")
FIRST_PROBLEM_STATUS = 1


def main(run: Path) -> int:
    """Check one run; prints each finding."""
    problems: list[str] = []
    manifest = json.loads((run / "manifest.json").read_text())
    if manifest["state"] != "complete":
        problems.append(f"state is {manifest['state']}, not complete")
    print(f"verdict: {manifest['verdict']} {manifest.get('reasons', manifest.get('verdict_reasons', ''))}")
    with duckdb.connect() as database:
        database.execute(f"CREATE VIEW tasks AS SELECT * FROM '{run / 'tasks.parquet'}'")
        database.execute("CREATE VIEW counted AS SELECT * FROM tasks WHERE NOT list_contains(flags, 'warm_up')")
        problems += rows_problems(database)
        problems += order_problems(database)
    report = run / "report.html"
    if not report.exists() or report.stat().st_size < 50_000:
        problems.append("there is no report, or it has no pictures")
    for problem in problems:
        print(f"FAILED: {problem}")
    print(f"{5 - min(5, len(problems))} passed, {len(problems)} failed")
    return FIRST_PROBLEM_STATUS if problems else 0


def rows_problems(database: duckdb.DuckDBPyConnection) -> list[str]:
    """One row a task, stages that add up, both sites recognising."""
    problems = []
    total, distinct, policies = database.execute(
        "SELECT count(*), count(DISTINCT task_id), list_sort(list(DISTINCT policy)) FROM tasks"
    ).fetchone() or (0, 0, [])
    print(f"{total} tasks, {distinct} ids, policies {policies}")
    if not total or total != distinct or tuple(policies) != POLICIES:
        problems.append("rows, ids or policies are not what was planned")
    (worst,) = database.execute(
        "SELECT max(abs(latency_s - decision_s - device_queue_s - device_compute_s - uplink_queue_s - uplink_s"
        " - server_queue_s - server_compute_s - downlink_s)) FROM tasks WHERE outcome = 'done' AND site <> 'split'"
    ).fetchone() or (None,)
    print(f"stages add up to the latency within {worst} s")
    if worst is None or worst > 1e-3:
        problems.append(f"stages and latency differ by {worst} s")
    for site, correct, frames in database.execute(
        "SELECT site, sum(correct), sum(frames) FROM tasks WHERE outcome = 'done' GROUP BY site ORDER BY site"
    ).fetchall():
        print(f"{site}: {correct} of {frames} frames right")
        if correct < 0.95 * frames:
            problems.append(f"recognition at {site} is broken")
    return problems


def order_problems(database: duckdb.DuckDBPyConnection) -> list[str]:
    """Greedy is faster than random on the same seeds, and everything local differs from everything offloaded."""
    latency: dict[str, dict[int, float]] = {}
    for policy, seed, mean_s in database.execute(
        "SELECT policy, seed, avg(latency_s) FROM counted WHERE outcome = 'done' GROUP BY policy, seed"
    ).fetchall():
        latency.setdefault(policy, {})[seed] = mean_s
    greedy = paired_difference(latency["greedy_latency"], latency["uniform_random"])
    local = paired_difference(latency["all_local"], latency["all_edge"])
    print(f"greedy_latency - uniform_random: {greedy}")
    print(f"all_local - all_edge: {local}")
    problems = []
    if greedy.relation != "below":
        problems.append("greedy_latency's mean latency is not below uniform_random's")
    if local.relation not in ("below", "above"):
        problems.append("all_local and all_edge cannot be told apart")
    return problems


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
