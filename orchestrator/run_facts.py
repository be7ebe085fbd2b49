"""The facts of a sealed run that its verdict rests on, read from its tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from edgebed.trace.runs import Run
from orchestrator.faults.schedule import BEGIN, FAILED
from orchestrator.recognition import Recognition
from orchestrator.stop_rule import read_stop_state
from orchestrator.verdict import SUSPECT_CLOCK_ERROR_S, RunFacts, Standing, Verdict

INCIDENTS = ("policy_failed", "bad_decision", "meter_failed", "meter_lost", "meters_disagree", "stalled")
"""Kinds of events that speak of a fault and not of the network."""

_NAME_OF_RESTARTED = ("member", "peer", "server", "name")

_TASKS = f"""
SELECT count(*) FILTER (NOT list_contains(flags, 'unplanned')) AS rows,
       count(*) FILTER (list_contains(flags, 'unplanned')) AS unplanned,
       count(*) FILTER (outcome = 'done') AS done,
       count(*) FILTER (outcome = 'unknown') AS unknown,
       count(*) FILTER (decided_by IS NOT NULL) AS decided,
       count(*) FILTER (list_contains(flags, 'decision_late')) AS late,
       count(*) FILTER (decided_by = 'fallback') AS fallback,
       count(*) FILTER (clock_error_s IS NOT NULL) AS offloaded,
       count(*) FILTER (clock_error_s > {SUSPECT_CLOCK_ERROR_S}) AS clock_suspect
FROM tasks
"""  # noqa: S608  (a constant)

# The same frames are recognised again under every policy, and always with the same result: they count once.
_RECOGNITION = """
SELECT site, sum(frames)::BIGINT, sum(correct)::BIGINT, count(*), sum(frames * frames)::BIGINT,
       sum(frames * correct)::BIGINT, sum(correct * correct)::BIGINT
FROM (SELECT DISTINCT ON (site, content_id) site, frames, correct FROM tasks
      WHERE outcome = 'done' AND correct IS NOT NULL ORDER BY site, content_id, arrived_s)
GROUP BY site ORDER BY site
"""


# Utilisation while cells ran, and the CPU seconds of the tasks in them.
_WORK = """
WITH cell AS (
    SELECT cell_id, min(arrived_s) AS begin_s, max(arrived_s + coalesce(latency_s, 0)) AS end_s
    FROM tasks WHERE outcome = 'done' GROUP BY cell_id
)
SELECT host, avg(cpu) AS cpu, (SELECT sum(end_s - begin_s) FROM cell) AS duration_s,
       (SELECT coalesce(sum(device_cpu_s + server_cpu_s), 0) FROM tasks) AS all_tasks_s,
       (SELECT coalesce(sum(device_cpu_s), 0) FROM tasks WHERE device_id = host)
       + (SELECT coalesce(sum(server_cpu_s), 0) FROM tasks WHERE server = host) AS own_tasks_s
FROM cell JOIN samples ON t_s BETWEEN begin_s AND end_s
WHERE cpu IS NOT NULL GROUP BY host ORDER BY host
"""


def gather_facts(run: Run, planned: int, problems: Sequence[str] = ()) -> RunFacts:
    """Read the facts of a sealed run.

    Args:
        run: sealed.
        planned: tasks of its plan.
        problems: what sealing reported, see `orchestrator.seal.SealedCounts`.

    Raises:
        BadInput: the run has not been sealed.
        MissingExtra: DuckDB is not installed.
    """
    (numbers,) = run.query(_TASKS).records()
    flags = run.query(
        "SELECT flag, count(*) FROM (SELECT unnest(flags) AS flag FROM tasks) GROUP BY flag ORDER BY flag"
    )
    reasons = run.query("SELECT reason, count(*) FROM tasks WHERE reason IS NOT NULL GROUP BY reason ORDER BY reason")
    events = run.query("SELECT kind, host, detail FROM events").rows
    kinds = [kind for kind, _, _ in events]
    return RunFacts(
        planned=planned,
        reasons=dict(reasons.rows),
        flags=dict(flags.rows),
        recognition=tuple(Recognition(*row) for row in run.query(_RECOGNITION).rows),
        promised_accuracy=run.manifest.model.accuracy,
        other_work=dict(_other_work(run)),
        restarted=tuple(sorted(set(_restarted(events)))),
        faults=Counter(_faults_done(events)),
        faults_missed=kinds.count(FAILED),
        incidents={kind: kinds.count(kind) for kind in INCIDENTS if kind in kinds},
        problems=tuple(problems),
        source=_of_source(run),
        stopped=read_stop_state(run.path).text,
        **numbers,
    )


def _of_source(run: Run) -> Verdict | None:
    """Of a replay: what the run that it replays may be used for."""
    of = run.manifest.replay.get("source", {})
    verdict = of.get("verdict")
    return None if verdict is None else Verdict(Standing(verdict), tuple(of.get("reasons", ())))


def _other_work(run: Run) -> Iterator[tuple[str, float]]:
    """Hosts whose number of processors is known, and the share of their time that went into something else."""
    for host, cpu, duration_s, all_tasks_s, own_tasks_s in run.query(_WORK).rows:
        about = run.manifest.hosts.get(host, {})
        facts = about.get("facts")
        processors = facts.get("cpu_count") if isinstance(facts, dict) else None
        if not isinstance(processors, int) or processors < 1 or not duration_s:
            continue
        # Hosts that are processes of one machine see, in their samples, the work of all of them.
        tasks_s = all_tasks_s if about.get("connection") == "local" else own_tasks_s
        yield host, max(0.0, cpu - tasks_s / (processors * duration_s))


def _faults_done(events: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    """The kind of each fault that was part of the experiment and was done."""
    for kind, _, detail in events:
        if kind == BEGIN:
            yield str(json.loads(detail)["kind"])


def _restarted(events: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    """Names of programs that were restarted: by their own word, or by those who saw them come back."""
    for kind, host, detail in events:
        if kind == "restarted":
            yield host
            continue
        try:
            told = json.loads(detail) if detail else None
        except ValueError:
            continue
        if isinstance(told, dict) and told.get("restarted") is True:
            yield next((str(told[key]) for key in _NAME_OF_RESTARTED if key in told), _named_by(kind, host))


def _named_by(kind: str, host: str) -> str:
    return kind.removesuffix("_up") if kind.endswith("_up") else host
