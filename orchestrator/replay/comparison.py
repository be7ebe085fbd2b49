"""A replay against its source: policy by policy over common seeds, and task by task where decisions were repeated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgebed.trace.runs import Run, sql_file
from orchestrator.measures import SeedMeasures, counted_tasks, seed_measures
from orchestrator.statistics import paired_difference

MEASURES = ("latency_s", "miss_rate", "energy_j", "cost")


def compare(source: Path, replay: Path, *, only_same: bool = False) -> list[dict[str, Any]]:
    """Each policy of a replay minus each of its source, on common seeds of a setting, as plain data for the manifest.

    Args:
        source: the run's folder.
        replay: the replay's folder.
        only_same: only policies of the same name.

    Returns:
        A mapping a pair: ``setting``, ``policy`` (of the replay), ``against`` (of the source), ``seeds``, and by
        measure ``{mean, low, high, relation}``; numbers are None where nothing is known.
    """
    recorded, replayed = _measures(source), _measures(replay)
    found = []
    for (setting, policy), mine in replayed.items():
        for (other_setting, against), theirs in recorded.items():
            if setting != other_setting or (only_same and policy != against):
                continue
            seeds = sorted(mine.keys() & theirs.keys())
            row: dict[str, Any] = {"setting": setting, "policy": policy, "against": against, "seeds": len(seeds)}
            row |= {name: _difference(mine, theirs, name) for name in MEASURES}
            found.append(row)
    return found


def _measures(folder: Path) -> dict[tuple[str, str], dict[int, SeedMeasures]]:
    found: dict[tuple[str, str], dict[int, SeedMeasures]] = {}
    with counted_tasks(Run(folder)) as connection:
        for each in seed_measures(connection):
            found.setdefault((each.setting, each.policy), {})[each.seed] = each
    return found


def _difference(mine: Mapping[int, SeedMeasures], theirs: Mapping[int, SeedMeasures], name: str) -> dict[str, Any]:
    found = paired_difference(_by_seed(mine, name), _by_seed(theirs, name))
    interval = found.interval
    return {
        "mean": None if interval is None else interval.mean,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "relation": str(found.relation),
    }


def _by_seed(measures: Mapping[int, SeedMeasures], name: str) -> dict[int, float | None]:
    return {seed: each.measures[name] for seed, each in measures.items()}


_REPEATED = """
WITH one AS (SELECT *, substr(task_id, len(cell_id) + 2) AS key FROM read_parquet({source})),
     other AS (SELECT *, substr(task_id, len(cell_id) + 2) AS key FROM tasks)
SELECT one.policy, count(*) AS tasks,
       count(*) FILTER (one.requested_site IS NOT DISTINCT FROM other.requested_site
           AND one.requested_server IS NOT DISTINCT FROM other.requested_server
           AND one.requested_channel IS NOT DISTINCT FROM other.requested_channel) AS same_decision,
       count(*) FILTER (one.outcome = other.outcome) AS same_outcome,
       avg(other.latency_s - one.latency_s) FILTER (one.outcome = 'done' AND other.outcome = 'done') AS latency_s,
       avg(abs(other.latency_s - one.latency_s)) FILTER (one.outcome = 'done' AND other.outcome = 'done') AS absolute_s,
       avg(one.latency_s) FILTER (one.outcome = 'done' AND other.outcome = 'done') AS recorded_s
FROM one JOIN other USING (cell_id, key)
WHERE NOT list_has_any(one.flags, ['warm_up', 'unplanned'])
  AND coalesce(one.reason, '') NOT IN ('not_run', 'not_needed')
GROUP BY one.policy ORDER BY one.policy
"""


def repeatability(source: Path, replay: Path) -> list[dict[str, Any]]:
    """Task by task, what the same decisions came to again: the repeatability of the testbed.

    Returns:
        A mapping a policy: ``tasks``, how many were decided the same (``same_decision``) and ended the same, and of
        their latency the mean difference (replay minus source), the mean absolute one, and the recorded mean.
    """
    statement = _REPEATED.format(source=sql_file(source / "tasks.parquet"))
    with counted_tasks(Run(replay)) as connection:
        answer = connection.execute(statement)
        names = [str(column[0]) for column in answer.description or ()]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
